//! `gather`.

use latent_attention::cache::CacheLayout;
use latent_attention::ops::{CacheView, Gather, GatherArgs, GatherConfig};

use crate::data::{LaArray, LaBatch, LaCacheFormat, LaGeometry, LaTensor};
use crate::device::{LaDevice, LaStream};
use crate::status::{LaStatus, create, destroy, read, report};

/// Gathers cached tokens, dequantised, latents and rotated keys side by side: for an engine's own prefill over what is
/// cached already.
pub struct LaGather {
    operation: Gather,
    layout: CacheLayout,
}

/// What stays the same from run to run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaGatherConfig {
    /// The layer's sizes.
    pub geometry: LaGeometry,
    /// How the cache's bytes lie.
    pub format: LaCacheFormat,
}

/// The arguments of la_gather_run(). S is a number of rows, at least that of the tokens that are gathered.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaGatherArgs {
    /// The cache's bytes, whole pages that begin on 16 bytes.
    pub cache: LaArray,
    /// i32 `[sequences + 1]`: rows `token_starts[b] .. token_starts[b + 1] - 1` are of sequence b; to gather all
    /// tokens, the prefix sums of the lengths. Rows from the last of these numbers on are left alone; rows of no token
    /// are zeros.
    pub token_starts: LaArray,
    /// Left out, or i32 `[sequences]`: the token in row `token_starts[b]`, where a chunk of a long prefix is gathered.
    pub first_tokens: LaArray,
    /// Out: `[S, 1, L + Gr*R]`, the latent, then the rotated keys of all rope heads.
    pub gathered: LaTensor,
}

/// Loads the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_gather_create(
    device: *const LaDevice,
    config: *const LaGatherConfig,
    out: *mut *mut LaGather,
) -> LaStatus {
    // SAFETY: as the header says.
    unsafe {
        create(out, || {
            let config = read("config", config)?;
            let layout = config.format.layout(&config.geometry)?;
            let operation = Gather::new(&read("device", device)?.device, GatherConfig::new(layout))?;
            Ok(LaGather { operation, layout })
        })
    }
}

/// Gathers the tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_gather_run(
    operation: *const LaGather,
    stream: *const LaStream,
    batch: *const LaBatch,
    args: *const LaGatherArgs,
) -> LaStatus {
    report(|| {
        // SAFETY: as the header says.
        unsafe {
            let LaGather { operation, layout } = read("operation", operation)?;
            let stream = &read("stream", stream)?.0;
            let (device, args) = (stream.device(), read("args", args)?);
            let args = GatherArgs {
                cache: CacheView::new(*layout, args.cache.view(device, "cache")?)?,
                batch: &read("batch", batch)?.read(device)?,
                token_starts: args.token_starts.view(device, "token starts")?,
                first_tokens: args.first_tokens.optional(device, "first tokens")?,
                gathered: args.gathered.write(device, "gathered")?,
            };
            Ok(operation.run(stream, args)?)
        }
    })
}

/// Ends the operation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_gather_destroy(operation: *mut LaGather) {
    // SAFETY: as the header says.
    unsafe { destroy(operation) };
}
