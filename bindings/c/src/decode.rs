//! `decode`: plans and runs.

use latent_attention::device::Device;
use latent_attention::ops::{Batch, CacheView, Decode, DecodeArgs, DecodeConfig, Pages, Plan, SplitPolicy};

use crate::data::{LaArray, LaBatch, LaCacheFormat, LaGeometry, LaTensor};
use crate::device::{LaDevice, LaStream};
use crate::status::{LaStatus, Outcome, create, destroy, give, read, report};

/// Attention of a batch's query tokens over the cached latents themselves.
pub struct LaDecode(Decode);

/// How a batch is divided among blocks. It lies in the caller's workspace.
pub struct LaPlan(Plan<'static>);

/// What stays the same from run to run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaDecodeConfig {
    /// The layer's sizes.
    pub geometry: LaGeometry,
    /// How the cache's bytes lie.
    pub format: LaCacheFormat,
    /// Factor on every score, finite; 1 / sqrt(R + Dn) in an unscaled model.
    pub scale: f32,
    /// 0: work is balanced over the device. Otherwise sequences are cut at multiples of so many tokens, and a query's
    /// result is the same to the bit whatever else is in the batch.
    pub fixed_tokens: usize,
    /// Most query tokens in a batch.
    pub max_query_tokens: usize,
    /// Most tokens in a sequence; longer ones are cut off.
    pub max_tokens: usize,
}

/// The arguments of la_decode_run(), for the plan's T query tokens.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaDecodeArgs {
    /// `[T, H, L]`: the absorbed query.
    pub q_latent: LaTensor,
    /// `[T, H, R]`: rotated.
    pub q_rope: LaTensor,
    /// The cache's bytes, whole pages that begin on 16 bytes.
    pub cache: LaArray,
    /// Out: bf16 `[T, H, L]`, dense: the softmax-weighted mean of the latents; zeros where a query sees no token.
    pub o_latent: LaArray,
    /// Out: f32 `[T, H]`: natural logarithm of the sum of exp(score); minus infinity where a query sees no token.
    pub lse: LaArray,
}

/// Chooses the kernel and its tiles for the layer and the device, and loads it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_decode_create(
    device: *const LaDevice,
    config: *const LaDecodeConfig,
    out: *mut *mut LaDecode,
) -> LaStatus {
    // SAFETY: as the header says.
    unsafe {
        create(out, || {
            let (device, config) = (&read("device", device)?.device, read("config", config)?);
            let policy = match config.fixed_tokens {
                0 => SplitPolicy::Balanced,
                tokens => SplitPolicy::Fixed { tokens },
            };
            let LaDecodeConfig { geometry, scale, max_query_tokens, max_tokens, .. } = *config;
            let layout = config.format.layout(&geometry)?;
            let config = DecodeConfig::new(geometry.read(), layout, scale, max_query_tokens, max_tokens);
            Ok(LaDecode(Decode::new(device, config.with_policy(policy))?))
        })
    }
}

/// Bytes of workspace that a plan needs. The same memory serves one plan after the other.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_decode_workspace_bytes(operation: *const LaDecode, out: *mut usize) -> LaStatus {
    // SAFETY: as the header says.
    unsafe { give(out, || Ok(read("operation", operation)?.0.workspace_bytes())) }
}

/// Divides a batch of `query_tokens` rows, of which the batch may fill a part; `workspace` is bytes that begin on a
/// multiple of 256. The plan is the handle and what the launch writes to the workspace; it holds for every layer of the
/// same configuration, until the batch's lengths change. A captured graph that holds this launch and those of runs
/// plans anew with every replay; keep the handle until it has been captured.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_decode_plan(
    operation: *const LaDecode,
    stream: *const LaStream,
    batch: *const LaBatch,
    query_tokens: usize,
    workspace: LaArray,
    out: *mut *mut LaPlan,
) -> LaStatus {
    // SAFETY: as the header says.
    unsafe {
        create(out, || {
            let (operation, stream) = (&read("operation", operation)?.0, &read("stream", stream)?.0);
            let batch = read("batch", batch)?.read(stream.device())?;
            let workspace = workspace.view_mut(stream.device(), "workspace")?;
            Ok(LaPlan(operation.plan(stream, &batch, query_tokens, workspace)?))
        })
    }
}

/// Attends, by a plan that this operation or one of the same configuration made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_decode_run(
    operation: *const LaDecode,
    stream: *const LaStream,
    plan: *mut LaPlan,
    args: *const LaDecodeArgs,
) -> LaStatus {
    report(|| {
        // SAFETY: as the header says.
        unsafe {
            let (operation, stream) = (&read("operation", operation)?.0, &read("stream", stream)?.0);
            let (device, args) = (stream.device(), read("args", args)?);
            read("plan", plan)?;
            let args = DecodeArgs {
                q_latent: args.q_latent.read(device, "q_latent")?,
                q_rope: args.q_rope.read(device, "q_rope")?,
                cache: CacheView::new(operation.config().layout, args.cache.view(device, "cache")?)?,
                o_latent: args.o_latent.view_mut(device, "o_latent")?,
                lse: args.lse.view_mut(device, "lse")?,
            };
            Ok(operation.run(stream, &mut (*plan).0, args)?)
        }
    })
}

/// Ends the plan; its workspace can be used again after the runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_plan_destroy(plan: *mut LaPlan) {
    // SAFETY: as the header says.
    unsafe { destroy(plan) };
}

/// Ends the operation; its plans may live on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_decode_destroy(operation: *mut LaDecode) {
    // SAFETY: as the header says.
    unsafe { destroy(operation) };
}

impl LaBatch {
    /// # Safety
    /// The numbers are as the struct says, in memory of the device.
    pub(crate) unsafe fn read(&self, device: &Device) -> Outcome<Batch<'static>> {
        // SAFETY: promised by the caller.
        unsafe {
            let table = self.page_table.view(device, "page table")?;
            let pages = match self.page_starts.optional(device, "page table indptr")? {
                Some(indptr) => Pages::Csr { indptr, indices: table },
                None => Pages::Dense { table, max_pages: self.max_pages },
            };
            let query_starts = self.query_starts.view(device, "query starts")?;
            let seq_lens = self.seq_lens.view(device, "lengths")?;
            Ok(Batch::from_device(query_starts, seq_lens, pages, self.page_count)?)
        }
    }
}
