//! `up_project`.

use latent_attention::cache::CacheLayout;
use latent_attention::ops::{CacheView, UpProject, UpProjectArgs, UpProjectConfig};

use crate::data::{LaArray, LaBatch, LaCacheFormat, LaGeometry, LaTensor};
use crate::device::{LaDevice, LaStream};
use crate::status::{LaStatus, create, destroy, read, report};

/// Makes keys and values of all tokens of a batch, for prefill.
pub struct LaUpProject {
    operation: UpProject,
    layout: CacheLayout,
}

/// What stays the same from run to run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaUpProjectConfig {
    /// The layer's sizes.
    pub geometry: LaGeometry,
    /// How the cache's bytes lie.
    pub format: LaCacheFormat,
}

/// The arguments of la_up_project_run(). S is a number of rows, at least that of the batch's tokens.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaUpProjectArgs {
    /// The cache's bytes, whole pages that begin on 16 bytes.
    pub cache: LaArray,
    /// i32 `[sequences + 1]`, prefix sums of the lengths: token s of sequence b becomes row `token_starts[b] + s`. Rows
    /// from the last of these numbers on are left alone.
    pub token_starts: LaArray,
    /// `[G, Dn, L]`.
    pub up_key: LaTensor,
    /// `[G, Dv, L]`.
    pub up_value: LaTensor,
    /// Left out, or f32 `[G, Dv]`.
    pub value_bias: LaArray,
    /// Out: `[S, G, Dn + R]`, the unrotated part, then the rotated key of the head's rope head.
    pub keys: LaTensor,
    /// Out: `[S, G, Dv]`.
    pub values: LaTensor,
}

/// Loads the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_up_project_create(
    device: *const LaDevice,
    config: *const LaUpProjectConfig,
    out: *mut *mut LaUpProject,
) -> LaStatus {
    // SAFETY: as the header says.
    unsafe {
        create(out, || {
            let config = read("config", config)?;
            let layout = config.format.layout(&config.geometry)?;
            let config = UpProjectConfig::new(config.geometry.read(), layout);
            Ok(LaUpProject { operation: UpProject::new(&read("device", device)?.device, config)?, layout })
        })
    }
}

/// Makes keys and values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_up_project_run(
    operation: *const LaUpProject,
    stream: *const LaStream,
    batch: *const LaBatch,
    args: *const LaUpProjectArgs,
) -> LaStatus {
    report(|| {
        // SAFETY: as the header says.
        unsafe {
            let LaUpProject { operation, layout } = read("operation", operation)?;
            let stream = &read("stream", stream)?.0;
            let (device, args) = (stream.device(), read("args", args)?);
            let args = UpProjectArgs {
                cache: CacheView::new(*layout, args.cache.view(device, "cache")?)?,
                batch: &read("batch", batch)?.read(device)?,
                token_starts: args.token_starts.view(device, "token starts")?,
                up_key: args.up_key.read(device, "key up-projection")?,
                up_value: args.up_value.read(device, "value up-projection")?,
                value_bias: args.value_bias.optional(device, "value bias")?,
                keys: args.keys.write(device, "keys")?,
                values: args.values.write(device, "values")?,
            };
            Ok(operation.run(stream, args)?)
        }
    })
}

/// Ends the operation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_up_project_destroy(operation: *mut LaUpProject) {
    // SAFETY: as the header says.
    unsafe { destroy(operation) };
}
