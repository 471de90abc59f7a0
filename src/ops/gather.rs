//! `gather`: cached tokens as the cache decodes them, for prefill.

use half::bf16;

use super::cache::CacheView;
use super::{Batch, check};
use crate::cache::CacheLayout;
use crate::device::{Device, Kernel, LaunchConfig, Stream, TensorMut, View};
use crate::error::{Error, Result};
use crate::sys;

/// What stays the same from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GatherConfig {
    /// The layout of the layer's cache.
    pub layout: CacheLayout,
}

impl GatherConfig {
    /// Tokens of a cache of this layout.
    #[must_use]
    pub fn new(layout: CacheLayout) -> Self {
        Self { layout }
    }
}

/// Latents and rotated keys of cached tokens side by side, dequantised, sequence after sequence: what an engine's own
/// prefill over a cached prefix up-projects and attends to.
///
/// The numbers are those of [`reference::gather`](crate::reference::gather), rounded to f32 and then to bf16, each time
/// to nearest even; those that the cache holds in bf16 are as they are. How many tokens there are, only the device need
/// know: the launch is made for as many as the output has rows, and its surplus ends at once.
#[derive(Clone, Debug)]
pub struct Gather {
    kernel: Kernel,
    config: GatherConfig,
}

/// The arguments of [`Gather::run`]. S is a number of rows, at least that of the tokens that are gathered.
///
/// With chunks of a long prefix, `token_starts` are the prefix sums of how many tokens each sequence has in the chunk,
/// and `first_tokens` says with which token they begin; a sequence that has no token in the chunk has no rows.
#[derive(Debug)]
pub struct GatherArgs<'a> {
    /// The cache.
    pub cache: CacheView<'a>,
    /// Sequences and their pages.
    pub batch: &'a Batch<'a>,
    /// `[sequences + 1]`: rows `token_starts[b]..token_starts[b + 1]` are of sequence `b`; to gather all tokens, the
    /// prefix sums of the lengths. Rows from the last of these numbers on are left alone; rows of no token are zeros.
    /// Tokens beyond row S are not written.
    pub token_starts: View<'a, i32>,
    /// `[sequences]`: the token in row `token_starts[b]`; `None`: every sequence's first.
    pub first_tokens: Option<View<'a, i32>>,
    /// Out: `[S, 1, L + Gr*R]`, the latent, then the rotated keys of all rope heads.
    pub gathered: TensorMut<'a, bf16>,
}

impl Gather {
    /// Loads the kernel.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for normalised keys, whose factors a gathered row has no place for; as [`Device::kernel`].
    pub fn new(device: &Device, config: GatherConfig) -> Result<Self> {
        if config.layout.key_factors() > 0 {
            return Err(Error::Unsupported {
                what: "gather of normalised keys".into(),
                why: "a gathered row has no place for their factors, which up_project applies".into(),
            });
        }
        Ok(Self { kernel: device.kernel("gather", "gather", 0)?, config })
    }

    /// Gathers the tokens.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::OtherDevice`](crate::Error::OtherDevice) or
    /// [`Error::Config`](crate::Error::Config) names the argument that does not fit; as [`Kernel::launch`].
    pub fn run(&self, stream: &Stream, args: GatherArgs) -> Result<()> {
        let (device, layout) = (self.kernel.device(), &self.config.layout);
        let (latent_rank, rope_width) = (layout.latent_rank(), layout.rope_width());
        let cache = args.cache.params(device, layout)?;
        let batch = args.batch.params(device)?;
        args.batch.check_cache(&args.cache)?;
        check::view("token starts", device, &args.token_starts, &[("sequences + 1", args.batch.len() + 1)])?;
        if let Some(first_tokens) = &args.first_tokens {
            check::view("first tokens", device, first_tokens, &[("sequences", args.batch.len())])?;
        }
        let tokens = ("tokens", args.gathered.shape().sizes[0]);
        let row = ("latent + rotated keys", latent_rank + rope_width);
        let gathered = check::tensor_mut("gathered", device, &args.gathered, [tokens, ("one", 1), row])?;
        let params = sys::GatherParams {
            cache,
            batch,
            token_starts: args.token_starts.address(),
            first_tokens: args.first_tokens.as_ref().map_or(0, View::address),
            output: args.gathered.tensor().view().address(),
            output_token_stride: gathered[0],
            latent_rank: check::count("latent rank", latent_rank)?,
            rope_width: check::count("rope width", rope_width)?,
            token_capacity: check::count("tokens", tokens.1)?,
        };
        // SAFETY: the tensors are as large as the parameters say and on the kernel's device. The batch's numbers are
        // those promised or checked when it was made, and no token starts or first tokens lead the kernel past them.
        unsafe { self.launch(stream, &params) }
    }

    /// Launches the kernel with this parameter block; without sequences or rows, nothing.
    ///
    /// # Errors
    /// As [`Kernel::launch`].
    ///
    /// # Safety
    /// Every address must point to device memory as `csrc/params.h` says.
    pub unsafe fn launch(&self, stream: &Stream, params: &sys::GatherParams) -> Result<()> {
        if params.batch.sequences == 0 || params.token_capacity == 0 {
            return Ok(());
        }
        let blocks = params.token_capacity.div_ceil(sys::GATHER_TOKENS);
        let config = LaunchConfig::new([blocks, 1, 1], [sys::GATHER_THREADS, 1, 1]);
        // SAFETY: promised by the caller.
        unsafe { self.kernel.launch(stream, &config, params) }
    }
}
