//! `combine`.

use latent_attention::ops::{Combine, CombineArgs, CombineConfig};

use crate::data::LaArray;
use crate::device::{LaDevice, LaStream};
use crate::status::{LaStatus, create, destroy, read, report};

/// Merges attention over disjoint sets of tokens: a shared prefix, other ranks.
pub struct LaCombine(Combine);

/// What stays the same from run to run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaCombineConfig {
    /// L: numbers in a latent.
    pub latent_rank: usize,
    /// Most parts that are merged, at most 8192.
    pub max_splits: usize,
}

/// The arguments of la_combine_run(). A row is one head of one query token.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaCombineArgs {
    /// Query tokens times heads.
    pub rows: usize,
    /// Parts to merge.
    pub splits: usize,
    /// f32 `[splits, rows, L]`: each part's weighted mean; not read where its lse is infinite.
    pub o_partial: LaArray,
    /// f32 `[splits, rows]`: natural logarithm of each part's sum of exp(score). Minus infinity, or plus infinity as
    /// FlashAttention 2 writes it, if it saw nothing; NaN makes the row NaN, lse and latents.
    pub lse_partial: LaArray,
    /// Out: bf16 `[rows, L]`; zeros where no part saw anything.
    pub o_latent: LaArray,
    /// Out: f32 `[rows]`; minus infinity where no part saw anything.
    pub lse: LaArray,
}

/// Loads the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_combine_create(
    device: *const LaDevice,
    config: *const LaCombineConfig,
    out: *mut *mut LaCombine,
) -> LaStatus {
    // SAFETY: as the header says.
    unsafe {
        create(out, || {
            let LaCombineConfig { latent_rank, max_splits } = *read("config", config)?;
            let config = CombineConfig::new(latent_rank, max_splits);
            Ok(LaCombine(Combine::new(&read("device", device)?.device, config)?))
        })
    }
}

/// Merges the parts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_combine_run(
    operation: *const LaCombine,
    stream: *const LaStream,
    args: *const LaCombineArgs,
) -> LaStatus {
    report(|| {
        // SAFETY: as the header says.
        unsafe {
            let (operation, stream) = (&read("operation", operation)?.0, &read("stream", stream)?.0);
            let (device, args) = (stream.device(), read("args", args)?);
            let args = CombineArgs {
                rows: args.rows,
                splits: args.splits,
                o_partial: args.o_partial.view(device, "o_partial")?,
                lse_partial: args.lse_partial.view(device, "lse_partial")?,
                o_latent: args.o_latent.view_mut(device, "o_latent")?,
                lse: args.lse.view_mut(device, "lse")?,
            };
            Ok(operation.run(stream, args)?)
        }
    })
}

/// Ends the operation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_combine_destroy(operation: *mut LaCombine) {
    // SAFETY: as the header says.
    unsafe { destroy(operation) };
}
