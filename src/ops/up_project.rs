//! `up_project`: keys and values of cached tokens, for prefill.

use half::bf16;

use super::cache::{CacheView, geometry_params};
use super::{Batch, KernelFamily, check};
use crate::cache::CacheLayout;
use crate::device::{Device, Kernel, LaunchConfig, Stream, Tensor, TensorMut, View};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::sys;

/// What stays the same from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpProjectConfig {
    /// The layer's sizes.
    pub geometry: Geometry,
    /// The layout of the layer's cache.
    pub layout: CacheLayout,
    /// Which kernel to launch: that of `csrc/up_project.cu`, which every GPU from Ampere on runs and whose times have been
    /// measured, or with [`KernelFamily::Sm90`] that of `csrc/up_project_sm90.cu`, with Hopper's own instructions, which no
    /// GPU has timed yet. That one takes tensors that are 16-byte aligned, and sizes and strides that are multiples of 8:
    /// others are left to the first.
    pub kernels: KernelFamily,
}

impl UpProjectConfig {
    /// Keys and values of a layer of these sizes, from a cache of this layout.
    #[must_use]
    pub fn new(geometry: Geometry, layout: CacheLayout) -> Self {
        Self { geometry, layout, kernels: KernelFamily::Measured }
    }

    /// The same with other kernels.
    #[must_use]
    pub fn with_kernels(self, kernels: KernelFamily) -> Self {
        Self { kernels, ..self }
    }
}

/// Keys and values of all tokens of a batch, as [`reference::up_project`](crate::reference::up_project) says, in bf16.
///
/// Latents are dequantised in f32 and rounded to bf16 (those that the cache holds in bf16 are as they are); sums are
/// f32, rounded once. How many tokens there are, only the device need know: the launch is made for as many as the
/// outputs have rows, and its surplus ends at once.
#[derive(Clone, Debug)]
pub struct UpProject {
    portable: Kernel,
    sm90: Option<Kernel>,
    config: UpProjectConfig,
}

/// Blocks for each multiprocessor that `up_project_sm90` divides its work among, if there are as many tiles: so that its last
/// wave is a small part of the whole. Fewer have more columns each, for which they load latents once.
const SM90_WAVES: usize = 4;

/// The arguments of [`UpProject::run`]. S is a number of rows, at least that of the batch's tokens.
#[derive(Debug)]
pub struct UpProjectArgs<'a> {
    /// The cache.
    pub cache: CacheView<'a>,
    /// Sequences and their pages.
    pub batch: &'a Batch<'a>,
    /// `[sequences + 1]`: token `s` of sequence `b` becomes row `token_starts[b] + s`; the prefix sums of the lengths.
    /// Rows from the last of these numbers on are left alone; rows of no token are those of a latent and rotated key of
    /// zeros. Tokens beyond row S are not written.
    pub token_starts: View<'a, i32>,
    /// `[G, Dn, L]`.
    pub up_key: Tensor<'a, bf16>,
    /// `[G, Dv, L]`.
    pub up_value: Tensor<'a, bf16>,
    /// `[G, Dv]`.
    pub value_bias: Option<View<'a, f32>>,
    /// Out: `[S, G, Dn + R]`, the unrotated part, then the rotated key of the head's rope head.
    pub keys: TensorMut<'a, bf16>,
    /// Out: `[S, G, Dv]`.
    pub values: TensorMut<'a, bf16>,
}

impl UpProject {
    /// Loads the kernels.
    ///
    /// # Errors
    /// [`Error::Geometry`] for sizes that do not fit together, [`Error::Shape`] if the layout is another geometry's,
    /// [`Error::Unsupported`] for more columns than there can be blocks; as [`Device::kernel`], for kernels that the device
    /// has no code for, too.
    pub fn new(device: &Device, config: UpProjectConfig) -> Result<Self> {
        let geometry = config.geometry.validate()?;
        config.layout.check(&geometry)?;
        let widest = geometry.kv_heads * geometry.nope_dim.max(geometry.value_dim).max(geometry.rope_dim);
        // A third of the 65535 blocks that a grid is high, for each of the three kinds of columns.
        let most = 21845 * sys::GEMM_TILE as usize;
        if widest > most {
            return Err(Error::Unsupported {
                what: format!("up_project to {widest} columns"),
                why: format!("kv heads times dimensions must be at most {most}"),
            });
        }
        if geometry.key_norm && config.kernels == KernelFamily::Sm90 {
            return Err(Error::Unsupported {
                what: "up_project_sm90 of normalised keys".into(),
                why: "the portable kernel alone applies their factors".into(),
            });
        }
        let portable = device.kernel("up_project", "up_project", sys::GEMM_SHARED_BYTES as usize)?;
        let sm90 = || device.kernel("up_project_sm90", "up_project_sm90", sys::UP_PROJECT_SM90_SHARED_BYTES as usize);
        let sm90 = if config.kernels == KernelFamily::Sm90 { Some(sm90()?) } else { None };
        Ok(Self { portable, sm90, config })
    }

    /// Makes keys and values.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::OtherDevice`] or [`Error::Config`] names the argument that does not fit; as
    /// [`Kernel::launch`].
    pub fn run(&self, stream: &Stream, args: UpProjectArgs) -> Result<()> {
        let (device, g) = (self.portable.device(), &self.config.geometry);
        let (tokens, kv_heads) = (("tokens", args.keys.shape().sizes[0]), ("kv heads", g.kv_heads));
        let (nope, value, latent) = (("nope", g.nope_dim), ("value", g.value_dim), ("latent", g.latent_rank));
        let cache = args.cache.params(device, &self.config.layout)?;
        let batch = args.batch.params(device)?;
        args.batch.check_cache(&args.cache)?;
        check::view("token starts", device, &args.token_starts, &[("sequences + 1", args.batch.len() + 1)])?;
        let up_key = check::tensor("key up-projection", device, &args.up_key, [kv_heads, nope, latent])?;
        let up_value = check::tensor("value up-projection", device, &args.up_value, [kv_heads, value, latent])?;
        if let Some(bias) = &args.value_bias {
            check::view("value bias", device, bias, &[kv_heads, value])?;
        }
        let head = ("nope + rope", g.nope_dim + g.rope_dim);
        let keys = check::tensor_mut("keys", device, &args.keys, [tokens, kv_heads, head])?;
        let values = check::tensor_mut("values", device, &args.values, [tokens, kv_heads, value])?;
        let params = sys::UpProjectParams {
            geometry: geometry_params(g)?,
            cache,
            batch,
            token_starts: args.token_starts.address(),
            up_key: args.up_key.view().address(),
            up_value: args.up_value.view().address(),
            value_bias: args.value_bias.as_ref().map_or(0, View::address),
            keys: args.keys.tensor().view().address(),
            values: args.values.tensor().view().address(),
            up_key_head_stride: up_key[0],
            up_key_row_stride: up_key[1],
            up_value_head_stride: up_value[0],
            up_value_row_stride: up_value[1],
            key_token_stride: keys[0],
            key_head_stride: keys[1],
            value_token_stride: values[0],
            value_head_stride: values[1],
            token_capacity: check::count("tokens", tokens.1)?,
            reserved: 0,
        };
        // SAFETY: the tensors are as large as the parameters say and on the kernel's device. The batch's numbers are
        // those promised or checked when it was made, and no token starts lead the kernel past them.
        unsafe { self.launch(stream, &params) }
    }

    /// Launches the kernel with this parameter block; without sequences or rows, nothing.
    ///
    /// # Errors
    /// As [`Kernel::launch`].
    ///
    /// # Safety
    /// Every address must point to device memory as `csrc/params.h` says.
    pub unsafe fn launch(&self, stream: &Stream, params: &sys::UpProjectParams) -> Result<()> {
        if params.batch.sequences == 0 || params.token_capacity == 0 {
            return Ok(());
        }
        let (kernel, config) = match &self.sm90 {
            Some(sm90) if is_aligned(params) => (sm90, sm90_launch(params, sm90.device().limits().multiprocessors)),
            _ => (&self.portable, portable_launch(params)),
        };
        // SAFETY: promised by the caller.
        unsafe { kernel.launch(stream, &config, params) }
    }
}

/// Tiles of so many columns of a kind that all heads have together.
fn column_tiles(params: &sys::UpProjectParams, width: u32, tile: u32) -> u32 {
    (params.geometry.kv_heads * width).div_ceil(tile)
}

fn portable_launch(params: &sys::UpProjectParams) -> LaunchConfig {
    let g = &params.geometry;
    let columns = [g.nope_dim, g.value_dim, g.rope_dim].map(|width| column_tiles(params, width, sys::GEMM_TILE));
    let grid = [params.token_capacity.div_ceil(sys::GEMM_TILE), columns.iter().sum(), 1];
    LaunchConfig::new(grid, [sys::GEMM_THREADS, 1, 1]).with_shared(sys::GEMM_SHARED_BYTES as usize)
}

/// Blocks of equally many tiles of columns, [`SM90_WAVES`] for each multiprocessor if there are so many tiles.
fn sm90_launch(params: &sys::UpProjectParams, multiprocessors: usize) -> LaunchConfig {
    let g = &params.geometry;
    let token_tiles = params.token_capacity.div_ceil(sys::GEMM_TILE);
    let columns = [g.nope_dim, g.value_dim].map(|width| column_tiles(params, width, sys::UP_PROJECT_SM90_COLUMNS));
    let columns = columns.iter().sum::<u32>().max(1);
    let tiles_of_block = token_tiles as usize * columns as usize / (SM90_WAVES * multiprocessors);
    let blocks = columns.div_ceil(tiles_of_block.clamp(1, columns as usize) as u32);
    LaunchConfig::new([token_tiles, blocks, 1], [sys::UP_PROJECT_SM90_THREADS, 1, 1])
        .with_shared(sys::UP_PROJECT_SM90_SHARED_BYTES as usize)
}

/// Whether `up_project_sm90` takes the parameter block: all accesses can be 16 bytes wide.
fn is_aligned(params: &sys::UpProjectParams) -> bool {
    let g = &params.geometry;
    let addresses = [params.up_key, params.up_value, params.value_bias, params.keys, params.values];
    let sizes = [
        [g.latent_rank, g.nope_dim, g.value_dim, g.rope_dim],
        [params.up_key_head_stride, params.up_key_row_stride, params.up_value_head_stride, params.up_value_row_stride],
        [params.key_token_stride, params.key_head_stride, params.value_token_stride, params.value_head_stride],
    ];
    addresses.iter().all(|address| address % 16 == 0) && sizes.as_flattened().iter().all(|size| size % 8 == 0)
}
