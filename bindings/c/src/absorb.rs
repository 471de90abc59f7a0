//! `absorb_query` and `expand_output`.

use latent_attention::ops::{AbsorbConfig, AbsorbQuery, AbsorbQueryArgs, ExpandOutput, ExpandOutputArgs};

use crate::data::{LaArray, LaGeometry, LaTensor};
use crate::device::{LaDevice, LaStream};
use crate::status::{LaStatus, create, destroy, read, report};

/// Moves the key up-projection from every cached token to the query: `q_latent[t, h] = up_key[g]^T q_nope[t, h]`.
pub struct LaAbsorbQuery(AbsorbQuery);

/// Applies the value up-projection to what was attended to: `out[t, h] = up_value[g] o_latent[t, h] + bias[g]`.
pub struct LaExpandOutput(ExpandOutput);

/// What stays the same from run to run, of either operation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaAbsorbConfig {
    /// The layer's sizes.
    pub geometry: LaGeometry,
    /// 0: what is fastest for each number of query tokens, on which the order of sums depends. Otherwise a query token's
    /// result is the same to the bit whatever other tokens there are: what belongs to `fixed_tokens` of la_decode_create().
    pub batch_invariant: u32,
}

impl LaAbsorbConfig {
    fn read(&self) -> AbsorbConfig {
        let config = AbsorbConfig::new(self.geometry.read());
        if self.batch_invariant == 0 { config } else { config.batch_invariant() }
    }
}

/// The arguments of la_absorb_query_run(), for T query tokens.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaAbsorbQueryArgs {
    /// `[G, Dn, L]`.
    pub up_key: LaTensor,
    /// `[T, H, Dn]`.
    pub q_nope: LaTensor,
    /// Out: `[T, H, L]`.
    pub q_latent: LaTensor,
}

/// The arguments of la_expand_output_run(), for T query tokens.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaExpandOutputArgs {
    /// `[G, Dv, L]`.
    pub up_value: LaTensor,
    /// Left out, or f32 `[G, Dv]`.
    pub value_bias: LaArray,
    /// `[T, H, L]`.
    pub o_latent: LaTensor,
    /// Out: `[T, H, Dv]`.
    pub out: LaTensor,
}

/// Loads the kernels for a layer of these sizes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_absorb_query_create(
    device: *const LaDevice,
    config: *const LaAbsorbConfig,
    out: *mut *mut LaAbsorbQuery,
) -> LaStatus {
    // SAFETY: as the header says.
    unsafe {
        create(out, || {
            let config = read("config", config)?.read();
            Ok(LaAbsorbQuery(AbsorbQuery::new(&read("device", device)?.device, config)?))
        })
    }
}

/// Projects the queries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_absorb_query_run(
    operation: *const LaAbsorbQuery,
    stream: *const LaStream,
    args: *const LaAbsorbQueryArgs,
) -> LaStatus {
    report(|| {
        // SAFETY: as the header says.
        unsafe {
            let (operation, stream) = (&read("operation", operation)?.0, &read("stream", stream)?.0);
            let (device, args) = (stream.device(), read("args", args)?);
            let args = AbsorbQueryArgs {
                up_key: args.up_key.read(device, "key up-projection")?,
                q_nope: args.q_nope.read(device, "q_nope")?,
                q_latent: args.q_latent.write(device, "q_latent")?,
            };
            Ok(operation.run(stream, args)?)
        }
    })
}

/// Ends the operation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_absorb_query_destroy(operation: *mut LaAbsorbQuery) {
    // SAFETY: as the header says.
    unsafe { destroy(operation) };
}

/// Loads the kernels for a layer of these sizes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_expand_output_create(
    device: *const LaDevice,
    config: *const LaAbsorbConfig,
    out: *mut *mut LaExpandOutput,
) -> LaStatus {
    // SAFETY: as the header says.
    unsafe {
        create(out, || {
            let config = read("config", config)?.read();
            Ok(LaExpandOutput(ExpandOutput::new(&read("device", device)?.device, config)?))
        })
    }
}

/// Projects the attended latents.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_expand_output_run(
    operation: *const LaExpandOutput,
    stream: *const LaStream,
    args: *const LaExpandOutputArgs,
) -> LaStatus {
    report(|| {
        // SAFETY: as the header says.
        unsafe {
            let (operation, stream) = (&read("operation", operation)?.0, &read("stream", stream)?.0);
            let (device, args) = (stream.device(), read("args", args)?);
            let args = ExpandOutputArgs {
                up_value: args.up_value.read(device, "value up-projection")?,
                value_bias: args.value_bias.optional(device, "value bias")?,
                o_latent: args.o_latent.read(device, "o_latent")?,
                out: args.out.write(device, "out")?,
            };
            Ok(operation.run(stream, args)?)
        }
    })
}

/// Ends the operation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_expand_output_destroy(operation: *mut LaExpandOutput) {
    // SAFETY: as the header says.
    unsafe { destroy(operation) };
}
