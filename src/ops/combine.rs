//! `combine`: merges attention over splits of a sequence.

use half::bf16;

use super::check;
use crate::device::{Device, Kernel, LaunchConfig, Stream, View, ViewMut};
use crate::error::{Error, Result};
use crate::sys;

/// What stays the same from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CombineConfig {
    /// Numbers in a latent, L.
    pub latent_rank: usize,
    /// Most partials that are merged, at most 8192.
    pub max_splits: usize,
}

impl CombineConfig {
    /// Merges up to `max_splits` partials of latents of `latent_rank` numbers.
    #[must_use]
    pub fn new(latent_rank: usize, max_splits: usize) -> Self {
        Self { latent_rank, max_splits }
    }

    /// The blocks that merge `rows` rows on a device of so many multiprocessors, most of which have about `expected`
    /// partials.
    #[must_use]
    pub fn tiles(&self, expected: usize, rows: usize, multiprocessors: usize) -> CombineTiles {
        const WARP: usize = 32;
        let chunks = self.latent_rank.div_ceil(sys::COMBINE_CHUNK as usize).max(1);
        let (few, most) = (sys::COMBINE_FEW as usize, sys::COMBINE_THREADS as usize);
        if expected > few && rows.saturating_mul(chunks) <= CHUNK_BLOCKS * multiprocessors {
            return CombineTiles { blocks: chunks, threads: most, shares_chunks: true };
        }
        let warps = chunks.min(most / WARP / 2);
        CombineTiles { blocks: chunks.div_ceil(warps), threads: warps * WARP, shares_chunks: false }
    }
}

/// How rows are divided among blocks. It decides how long merging takes, and nothing of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CombineTiles {
    /// Blocks of a row.
    pub blocks: usize,
    /// Threads of a block.
    pub threads: usize,
    /// Whether the warps of a block are for one chunk of latents, of many partials, or for a chunk each.
    pub shares_chunks: bool,
}

/// Blocks for chunks of latents, for each multiprocessor, up to which they are the faster ones where partials are many: more
/// rows than that keep a device busy with fewer warps each.
const CHUNK_BLOCKS: usize = 8;

/// Merges attention over disjoint sets of tokens (splits of one cache, a shared prefix, other ranks), as
/// [`reference::combine`](crate::reference::combine) says, also of partials that saw nothing (an lse of minus or plus
/// infinity) and of an lse that is NaN, which makes its row NaN: sums in f32, rounded to bf16 once.
///
/// ```
/// # #[cfg(feature = "simulator")] {
/// use half::bf16;
/// use latent_attention::device::Device;
/// use latent_attention::ops::{Combine, CombineArgs, CombineConfig};
///
/// let device = Device::simulated();
/// # if latent_attention::image::images().is_empty() { return Ok(()) } // built without nvcc
/// let combine = Combine::new(&device, CombineConfig::new(2, 2))?;
/// // Two partials of one row; both saw as much, so the result is their mean.
/// let o_partial = device.upload(&[1.0f32, 2.0, 3.0, 4.0])?;
/// let lse_partial = device.upload(&[0.0f32, 0.0])?;
/// let (mut o_latent, mut lse) = (device.zeros::<bf16>(2)?, device.zeros::<f32>(1)?);
/// combine.run(
///     &device.stream()?,
///     CombineArgs {
///         rows: 1,
///         splits: 2,
///         o_partial: o_partial.view(),
///         lse_partial: lse_partial.view(),
///         o_latent: o_latent.view_mut(),
///         lse: lse.view_mut(),
///     },
/// )?;
/// assert_eq!(o_latent.to_vec()?, [2.0, 3.0].map(bf16::from_f32));
/// # }
/// # Ok::<(), latent_attention::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Combine {
    kernel: Kernel,
    config: CombineConfig,
}

/// The arguments of [`Combine::run`]. A row is one head of one query token.
#[derive(Debug)]
pub struct CombineArgs<'a> {
    /// Query tokens times heads.
    pub rows: usize,
    /// Partials to merge.
    pub splits: usize,
    /// `[splits, rows, L]`: each partial's weighted mean; not read where its lse is infinite.
    pub o_partial: View<'a, f32>,
    /// `[splits, rows]`: natural logarithm of each partial's sum of `exp(score)`; infinite if it saw nothing. NaN makes
    /// the row NaN.
    pub lse_partial: View<'a, f32>,
    /// Out: `[rows, L]`; zeros where no partial saw anything.
    pub o_latent: ViewMut<'a, bf16>,
    /// Out: `[rows]`; minus infinity where no partial saw anything.
    pub lse: ViewMut<'a, f32>,
}

impl Combine {
    /// Loads the kernel.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for more partials than the kernel merges; as [`Device::kernel`].
    pub fn new(device: &Device, config: CombineConfig) -> Result<Self> {
        let most = sys::COMBINE_MAX_SPLITS as usize;
        if config.max_splits == 0 || config.max_splits > most {
            return Err(Error::Unsupported {
                what: format!("combine of {} partials", config.max_splits),
                why: format!("must be 1..={most}"),
            });
        }
        let kernel = device.kernel("combine", "combine", weight_bytes(config.max_splits))?;
        Ok(Self { kernel, config })
    }

    /// Merges the partials.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::OtherDevice`] or [`Error::Capacity`] names the argument that does not fit; as
    /// [`Kernel::launch`].
    pub fn run(&self, stream: &Stream, args: CombineArgs) -> Result<()> {
        let (device, rank) = (self.kernel.device(), self.config.latent_rank);
        if args.splits == 0 || args.splits > self.config.max_splits {
            return Err(Error::Capacity {
                what: format!("combine of {} partials", args.splits),
                why: format!("this operation was made for 1..={}", self.config.max_splits),
            });
        }
        let (splits, rows, latent) = (("splits", args.splits), ("rows", args.rows), ("latent", rank));
        check::view("o_partial", device, &args.o_partial, &[splits, rows, latent])?;
        check::view("lse_partial", device, &args.lse_partial, &[splits, rows])?;
        check::view("o_latent", device, &args.o_latent.view(), &[rows, latent])?;
        check::view("lse", device, &args.lse.view(), &[rows])?;
        let params = sys::CombineParams {
            o_partial: args.o_partial.address(),
            lse_partial: args.lse_partial.address(),
            o_latent: args.o_latent.view().address(),
            lse: args.lse.view().address(),
            rows: check::count("rows", args.rows)?,
            splits: check::count("splits", args.splits)?,
            latent_rank: check::count("latent rank", rank)?,
            ..Default::default()
        };
        // SAFETY: the views are as large as the parameters say and on the kernel's device.
        unsafe { self.launch(stream, args.splits, &params) }
    }

    /// Launches the kernel with this parameter block; without rows, nothing. Most rows are expected to have about
    /// `expected` partials, which decides how a block's warps divide them: the results are the same to the bit.
    ///
    /// # Errors
    /// As [`Kernel::launch`].
    ///
    /// # Safety
    /// Every address must point to device memory as `csrc/params.h` says, and `splits` must not exceed the
    /// configuration's.
    pub unsafe fn launch(&self, stream: &Stream, expected: usize, params: &sys::CombineParams) -> Result<()> {
        if params.rows == 0 {
            return Ok(());
        }
        let multiprocessors = self.kernel.device().limits().multiprocessors;
        let tiles = self.config.tiles(expected, params.rows as usize, multiprocessors);
        let blocks = check::count("blocks of a row", tiles.blocks)?;
        let config = LaunchConfig::new([params.rows, blocks, 1], [tiles.threads as u32, 1, 1])
            .with_shared(weight_bytes(params.splits as usize))
            .with_programmatic();
        // SAFETY: promised by the caller.
        unsafe { self.kernel.launch(stream, &config, params) }
    }
}

/// Bytes of the weights of up to so many partials.
pub(super) fn weight_bytes(splits: usize) -> usize {
    splits.next_multiple_of(sys::COMBINE_BATCH as usize) * size_of::<f32>()
}
