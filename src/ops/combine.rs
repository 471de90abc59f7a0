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
}

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
        let kernel = device.kernel("combine", "combine", config.max_splits * size_of::<f32>())?;
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
        unsafe { self.launch(stream, &params) }
    }

    /// Launches the kernel with this parameter block, `rows` blocks of it; without rows, nothing.
    ///
    /// # Errors
    /// As [`Kernel::launch`].
    ///
    /// # Safety
    /// Every address must point to device memory as `csrc/params.h` says, and `splits` must not exceed the
    /// configuration's.
    pub unsafe fn launch(&self, stream: &Stream, params: &sys::CombineParams) -> Result<()> {
        if params.rows == 0 {
            return Ok(());
        }
        // One thread for four latents; at most COMBINE_MAX_THREADS, which then have several of them each.
        let threads = params.latent_rank.div_ceil(4).next_multiple_of(32).min(sys::COMBINE_MAX_THREADS);
        let config = LaunchConfig::new([params.rows, 1, 1], [threads, 1, 1])
            .with_shared(params.splits as usize * size_of::<f32>());
        // SAFETY: promised by the caller.
        unsafe { self.kernel.launch(stream, &config, params) }
    }
}
