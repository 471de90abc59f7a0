//! `absorb`: the up-projections, moved from every cached token to the query and the output.

use half::bf16;

use super::{SplitPolicy, check};
use crate::device::{Device, Kernel, LaunchConfig, Stream, Tensor, TensorMut, View};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::sys;

/// What stays the same from run to run, of [`AbsorbQuery`] and [`ExpandOutput`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AbsorbConfig {
    /// The layer's sizes.
    pub geometry: Geometry,
    /// Whether a query token's result is the same to the bit whatever other tokens there are.
    pub batch_invariant: bool,
}

impl AbsorbConfig {
    /// Up-projections of a layer of these sizes, by what is fastest on the device for each number of query tokens: the
    /// order of their sums depends on both.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        Self { geometry, batch_invariant: false }
    }

    /// What goes with [`Decode`](super::Decode) under a policy: batch-invariant if that is.
    #[must_use]
    pub fn with_policy(self, policy: SplitPolicy) -> Self {
        Self { batch_invariant: matches!(policy, SplitPolicy::Fixed { .. }), ..self }
    }

    /// This configuration with one order of sums for any number of query tokens.
    #[must_use]
    pub fn batch_invariant(self) -> Self {
        Self { batch_invariant: true, ..self }
    }
}

/// `q_latent[t, h] = W_UK[g]^T q_nope[t, h]`, as [`reference::absorb_query`](crate::reference::absorb_query) says, in
/// bf16: sums in f32, rounded once.
///
/// Any sizes and strides are right. 16 bytes are moved at a time where all sizes and strides are multiples of 8 and all
/// tensors begin on 16 bytes. Few query tokens (times query heads of a KV head) take a kernel that has many small blocks
/// and is memory-bound up to 16 of them; more take one that multiplies in medium tiles, until large ones fill the
/// device. The first sums in another order than the others, unless [`AbsorbConfig::batch_invariant`] asks for one for
/// few tokens that has their order.
///
/// ```
/// # #[cfg(feature = "simulator")] {
/// use half::bf16;
/// use latent_attention::Geometry;
/// use latent_attention::device::{Device, Tensor, TensorMut};
/// use latent_attention::ops::{AbsorbConfig, AbsorbQuery, AbsorbQueryArgs};
///
/// let device = Device::simulated();
/// # if latent_attention::image::images().is_empty() { return Ok(()) } // built without nvcc
/// // One head, two dimensions without rotation, latents of two.
/// let geometry = Geometry::deepseek(1, 2, 0, 2, 2)?;
/// let absorb_query = AbsorbQuery::new(&device, AbsorbConfig::new(geometry))?;
/// let numbers = |values: [f32; 4]| device.upload(&values.map(bf16::from_f32));
/// let (up_key, q_nope) = (numbers([1.0, 2.0, 3.0, 4.0])?, numbers([1.0, 10.0, 0.0, 1.0])?);
/// let mut q_latent = device.zeros::<bf16>(4)?;
/// absorb_query.run(
///     &device.stream()?,
///     AbsorbQueryArgs {
///         up_key: Tensor::dense(up_key.view(), [1, 2, 2])?,
///         q_nope: Tensor::dense(q_nope.view(), [2, 1, 2])?,
///         q_latent: TensorMut::dense(q_latent.view_mut(), [2, 1, 2])?,
///     },
/// )?;
/// assert_eq!(q_latent.to_vec()?, [31.0, 42.0, 3.0, 4.0].map(bf16::from_f32));
/// # }
/// # Ok::<(), latent_attention::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AbsorbQuery(Product);

/// The arguments of [`AbsorbQuery::run`]. T, the number of query tokens, is that of `q_nope`.
#[derive(Debug)]
pub struct AbsorbQueryArgs<'a> {
    /// `[G, Dn, L]`.
    pub up_key: Tensor<'a, bf16>,
    /// `[T, H, Dn]`.
    pub q_nope: Tensor<'a, bf16>,
    /// Out: `[T, H, L]`.
    pub q_latent: TensorMut<'a, bf16>,
}

impl AbsorbQuery {
    /// Loads the kernels.
    ///
    /// # Errors
    /// [`Error::Geometry`] for sizes that do not fit together, [`Error::Unsupported`] for more heads than there can be
    /// blocks; as [`Device::kernel`].
    pub fn new(device: &Device, config: AbsorbConfig) -> Result<Self> {
        let names = ["absorb_query_few", "absorb_query_few_ordered", "absorb_query_medium", "absorb_query_many"];
        Product::new(device, config, names, sys::ABSORB_QUERY_FEW_OUTPUTS).map(Self)
    }

    /// Projects the queries.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::OtherDevice`] or [`Error::Unsupported`] names the argument that does not fit; as
    /// [`Kernel::launch`].
    pub fn run(&self, stream: &Stream, args: AbsorbQueryArgs) -> Result<()> {
        let params = self.params(&args)?;
        // SAFETY: the tensors are as large as the parameters say and on the kernels' device.
        unsafe { self.launch(stream, &params) }
    }

    /// The parameter block of arguments that fit.
    pub(super) fn params(&self, args: &AbsorbQueryArgs) -> Result<sys::AbsorbParams> {
        let g = &self.0.config.geometry;
        let (nope, latent) = (("nope", g.nope_dim), ("latent", g.latent_rank));
        self.0.params(
            ("key up-projection", &args.up_key, [("kv heads", g.kv_heads), nope, latent]),
            ("q_nope", &args.q_nope, nope),
            ("q_latent", &args.q_latent, latent),
        )
    }

    /// The grid of the kernel for few rows, if that suits this parameter block, and a block's dynamic shared memory.
    pub(super) fn few(&self, params: &sys::AbsorbParams) -> Option<([u32; 3], usize)> {
        let (blocks, config) = self.0.blocks(params);
        (params.tokens > 0 && blocks == Blocks::Few).then_some((config.grid, config.shared_bytes))
    }

    /// Launches the kernel that suits this parameter block; without tokens, nothing.
    ///
    /// # Errors
    /// As [`Kernel::launch`].
    ///
    /// # Safety
    /// Every address must point to device memory as `csrc/params.h` says.
    pub unsafe fn launch(&self, stream: &Stream, params: &sys::AbsorbParams) -> Result<()> {
        // SAFETY: promised by the caller.
        unsafe { self.0.launch(stream, params) }
    }
}

/// `out[t, h] = W_UV[g] o_latent[t, h] + bias[g]`, as
/// [`reference::expand_output`](crate::reference::expand_output) says, in bf16: sums in f32, rounded once.
///
/// All that is said of [`AbsorbQuery`] holds here too.
#[derive(Clone, Debug)]
pub struct ExpandOutput(Product);

/// The arguments of [`ExpandOutput::run`]. T, the number of query tokens, is that of `o_latent`.
#[derive(Debug)]
pub struct ExpandOutputArgs<'a> {
    /// `[G, Dv, L]`.
    pub up_value: Tensor<'a, bf16>,
    /// `[G, Dv]`.
    pub value_bias: Option<View<'a, f32>>,
    /// `[T, H, L]`.
    pub o_latent: Tensor<'a, bf16>,
    /// Out: `[T, H, Dv]`.
    pub out: TensorMut<'a, bf16>,
}

impl ExpandOutput {
    /// Loads the kernels.
    ///
    /// # Errors
    /// As [`AbsorbQuery::new`].
    pub fn new(device: &Device, config: AbsorbConfig) -> Result<Self> {
        let names = ["expand_output_few", "expand_output_few_ordered", "expand_output_medium", "expand_output_many"];
        Product::new(device, config, names, sys::EXPAND_OUTPUT_FEW_OUTPUTS).map(Self)
    }

    /// Projects the attended latents.
    ///
    /// # Errors
    /// As [`AbsorbQuery::run`].
    pub fn run(&self, stream: &Stream, args: ExpandOutputArgs) -> Result<()> {
        let g = &self.0.config.geometry;
        let (kv_heads, value, latent) = (("kv heads", g.kv_heads), ("value", g.value_dim), ("latent", g.latent_rank));
        let mut params = self.0.params(
            ("value up-projection", &args.up_value, [kv_heads, value, latent]),
            ("o_latent", &args.o_latent, latent),
            ("out", &args.out, value),
        )?;
        if let Some(bias) = &args.value_bias {
            check::view("value bias", self.0.device(), bias, &[kv_heads, value])?;
            params.bias = bias.address();
        }
        // SAFETY: the tensors are as large as the parameters say and on the kernels' device.
        unsafe { self.launch(stream, &params) }
    }

    /// Launches the kernel that suits this parameter block; without tokens, nothing.
    ///
    /// # Errors
    /// As [`Kernel::launch`].
    ///
    /// # Safety
    /// As [`AbsorbQuery::launch`].
    pub unsafe fn launch(&self, stream: &Stream, params: &sys::AbsorbParams) -> Result<()> {
        // SAFETY: promised by the caller.
        unsafe { self.0.launch(stream, params) }
    }
}

/// What the two operations share: a product for each KV head.
#[derive(Clone, Debug)]
struct Product {
    config: AbsorbConfig,
    /// For few rows: sums in the order of the others if the configuration asks for that, else a k-slice for each warp.
    few: Kernel,
    /// For rows whose large tiles would leave multiprocessors idle.
    medium: Kernel,
    many: Kernel,
    /// Outputs of a block of the `few` that gives each warp a k-slice.
    few_outputs: u32,
}

/// Which of its kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blocks {
    Few,
    Medium,
    Many,
}

/// Largest y and z of a grid.
const MOST_BLOCKS: usize = 65535;

impl Product {
    fn new(
        device: &Device,
        config: AbsorbConfig,
        [few, few_ordered, medium, many]: [&'static str; 4],
        few_outputs: u32,
    ) -> Result<Self> {
        let geometry = config.geometry.validate()?;
        let outputs = geometry.latent_rank.max(geometry.value_dim);
        if geometry.kv_heads > MOST_BLOCKS || geometry.kv_heads * outputs > i32::MAX as usize {
            return Err(Error::Unsupported {
                what: format!("absorb for {} kv heads", geometry.kv_heads),
                why: format!("must be at most {MOST_BLOCKS}, and below 2^31 times the latent rank or value dimension"),
            });
        }
        let kernel = |name, shared_bytes: u32| device.kernel("absorb", name, shared_bytes as usize);
        let few = if config.batch_invariant {
            kernel(few_ordered, sys::ABSORB_ORDERED_SHARED_BYTES)?
        } else {
            kernel(few, 0)?
        };
        let [medium, many] = [medium, many].map(|name| kernel(name, sys::GEMM_SHARED_BYTES));
        Ok(Self { config, few, medium: medium?, many: many?, few_outputs })
    }

    fn device(&self) -> &Device {
        self.many.device()
    }

    /// The parameter block of checked arguments: names, tensors and their inner sizes.
    fn params(
        &self,
        (weights_name, weights, weights_dims): (&'static str, &Tensor<bf16>, [(&str, usize); 3]),
        (input_name, input, contracted): (&'static str, &Tensor<bf16>, (&str, usize)),
        (output_name, output, outputs): (&'static str, &TensorMut<bf16>, (&str, usize)),
    ) -> Result<sys::AbsorbParams> {
        let (device, g) = (self.device(), &self.config.geometry);
        let (tokens, query_heads) = (input.shape().sizes[0], ("query heads", g.query_heads));
        let strides = check::tensor(weights_name, device, weights, weights_dims)?;
        let input_strides = check::tensor(input_name, device, input, [("tokens", tokens), query_heads, contracted])?;
        let output_strides =
            check::tensor_mut(output_name, device, output, [("tokens", tokens), query_heads, outputs])?;
        let most = i32::MAX as usize / (g.query_heads / g.kv_heads);
        if tokens > most {
            return Err(Error::Unsupported {
                what: format!("absorb for {tokens} tokens"),
                why: format!("at most {most}"),
            });
        }
        let count = |n| check::count("absorb", n);
        Ok(sys::AbsorbParams {
            weights: weights.view().address(),
            input: input.view().address(),
            bias: 0,
            output: output.tensor().view().address(),
            tokens: count(tokens)?,
            query_heads: count(g.query_heads)?,
            kv_heads: count(g.kv_heads)?,
            contracted: count(contracted.1)?,
            outputs: count(outputs.1)?,
            weight_head_stride: strides[0],
            weight_row_stride: strides[1],
            input_token_stride: input_strides[0],
            input_head_stride: input_strides[1],
            output_token_stride: output_strides[0],
            output_head_stride: output_strides[1],
            reserved: 0,
        })
    }

    /// # Safety
    /// As [`AbsorbQuery::launch`].
    unsafe fn launch(&self, stream: &Stream, params: &sys::AbsorbParams) -> Result<()> {
        if params.tokens == 0 {
            return Ok(());
        }
        let (blocks, config) = self.blocks(params);
        let kernel = match blocks {
            Blocks::Few => &self.few,
            Blocks::Medium => &self.medium,
            Blocks::Many => &self.many,
        };
        // SAFETY: promised by the caller.
        unsafe { kernel.launch(stream, &config, params) }
    }

    /// The kernel that suits a parameter block, and its launch.
    fn blocks(&self, params: &sys::AbsorbParams) -> (Blocks, LaunchConfig) {
        let rows = params.tokens * (params.query_heads / params.kv_heads);
        let (few, medium) = ([sys::ABSORB_FEW_ROWS, self.few_outputs], [sys::ABSORB_MEDIUM_TILE; 2]);
        let grid = |[tile_rows, tile_columns]: [u32; 2]| {
            [rows.div_ceil(tile_rows), params.outputs.div_ceil(tile_columns), params.kv_heads]
        };
        let most = u64::from(sys::ABSORB_SMALL_BLOCKS) * self.device().limits().multiprocessors as u64;
        let is_small = |tile| grid(tile).iter().map(|&n| u64::from(n)).product::<u64>() <= most;
        let launch = |grid, threads, shared_bytes: u32| {
            LaunchConfig::new(grid, [threads, 1, 1]).with_shared(shared_bytes as usize).with_programmatic()
        };
        if self.config.batch_invariant && rows <= sys::ABSORB_FEW_ROWS {
            let grid = grid([sys::ABSORB_FEW_ROWS, sys::ABSORB_ORDERED_OUTPUTS]);
            (Blocks::Few, launch(grid, sys::ABSORB_FEW_THREADS, sys::ABSORB_ORDERED_SHARED_BYTES))
        } else if !self.config.batch_invariant && (rows <= sys::ABSORB_FEW_ROWS || is_small(few)) {
            let [row_tiles, tiles, kv_heads] = grid(few);
            (Blocks::Few, launch([tiles * kv_heads, row_tiles, 1], sys::ABSORB_FEW_THREADS, 0))
        } else if is_small(medium) {
            (Blocks::Medium, launch(grid(medium), sys::ABSORB_MEDIUM_THREADS, sys::GEMM_SHARED_BYTES))
        } else {
            (Blocks::Many, launch(grid([sys::GEMM_TILE; 2]), sys::GEMM_THREADS, sys::GEMM_SHARED_BYTES))
        }
    }
}
