//! `rope_append`.

use latent_attention::cache::CacheLayout;
use latent_attention::device::Device;
use latent_attention::error::Error;
use latent_attention::ops::{CacheViewMut, DeviceNorm, RopeAppend, RopeAppendArgs, RopeAppendConfig, Rotation};
use latent_attention::rope::Pairing;

use crate::data::{LaArray, LaCacheFormat, LaGeometry, LaTensor};
use crate::device::{LaDevice, LaStream};
use crate::status::{LaStatus, Outcome, create, destroy, read, report};

/// Pair j of a rope head is its dimensions (j, j + R/2): Hugging Face's Llama and Qwen, MHA2MLA.
pub const LA_PAIRING_HALF: u32 = 0;
/// Pair j of a rope head is its dimensions (2 j, 2 j + 1): DeepSeek's checkpoints, GGUF files of Llama models.
pub const LA_PAIRING_INTERLEAVED: u32 = 1;

/// Takes in a step's new tokens: rotates queries and keys, applies norm and bias to the latents, quantises, and stores
/// latents and keys in their pages.
pub struct LaRopeAppend {
    operation: RopeAppend,
    layout: CacheLayout,
}

/// What stays the same from run to run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaRopeAppendConfig {
    /// The layer's sizes.
    pub geometry: LaGeometry,
    /// How the cache's bytes lie.
    pub format: LaCacheFormat,
    /// LA_PAIRING_HALF or LA_PAIRING_INTERLEAVED.
    pub pairing: u32,
}

/// The arguments of la_rope_append_run(), for T tokens. Arrays and tensors are left out by zeros: without `q_rotated`,
/// there are no queries; without positions, tables and index, which go together, keys are stored as they are, rotated
/// already, and queries must be left out as well. A token whose position is outside of the tables, or whose slot is
/// neither -1 nor in the cache, is counted, and nothing of it is written.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaRopeAppendArgs {
    /// Left out, or `[T, H, R]`, not yet rotated. Left out, it is what `q_rotated` holds.
    pub q_rope: LaTensor,
    /// Left out, or out: `[T, H, R]`.
    pub q_rotated: LaTensor,
    /// `[T, Gr, R]`, not yet rotated, or rotated already.
    pub k_rope: LaTensor,
    /// `[T, 1, L]`: the down-projection's output.
    pub c_kv: LaTensor,
    /// Left out, or i32 `[T]`: row of the tables.
    pub positions: LaArray,
    /// i64 `[T]`: where each token goes, page * page_size + offset; -1 stores nothing.
    pub slots: LaArray,
    /// Left out, or f32 `[positions, frequencies]`.
    pub cos: LaArray,
    /// Left out, or f32 `[positions, frequencies]`.
    pub sin: LaArray,
    /// Columns of the tables.
    pub frequencies: usize,
    /// Left out, or u32 `[Gr, R/2]`: the column that turns each pair. Each must be less than `frequencies` when the
    /// kernel runs.
    pub frequency_index: LaArray,
    /// Left out, or f32 `[L]`: gain of an RMSNorm over the latent.
    pub norm_gain: LaArray,
    /// Added to the mean square under the norm's root: finite, not negative.
    pub norm_epsilon: f32,
    /// Left out, or f32 `[L]`: added to the latent after the norm.
    pub bias: LaArray,
    /// Out: the cache's bytes, whole pages that begin on 16 bytes.
    pub cache: LaArray,
    /// Left out, or u64 `[2]`, to which are added: values that were not finite or beyond f16's range, and had to be
    /// moved into their group's; refused tokens.
    pub counters: LaArray,
}

/// Loads the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_rope_append_create(
    device: *const LaDevice,
    config: *const LaRopeAppendConfig,
    out: *mut *mut LaRopeAppend,
) -> LaStatus {
    // SAFETY: as the header says.
    unsafe {
        create(out, || {
            let (device, config) = (&read("device", device)?.device, read("config", config)?);
            let layout = config.format.layout(&config.geometry)?;
            let pairing = match config.pairing {
                LA_PAIRING_HALF => Pairing::Half,
                LA_PAIRING_INTERLEAVED => Pairing::Interleaved,
                unknown => {
                    let why = "must be LA_PAIRING_HALF or LA_PAIRING_INTERLEAVED".into();
                    return Err(Error::Config { what: format!("pairing {unknown}"), why }.into());
                }
            };
            let config = RopeAppendConfig::new(config.geometry.read(), layout, pairing);
            Ok(LaRopeAppend { operation: RopeAppend::new(device, config)?, layout })
        })
    }
}

/// Takes in the tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_rope_append_run(
    operation: *const LaRopeAppend,
    stream: *const LaStream,
    args: *const LaRopeAppendArgs,
) -> LaStatus {
    report(|| {
        // SAFETY: as the header says.
        unsafe {
            let LaRopeAppend { operation, layout } = read("operation", operation)?;
            let (stream, args) = (&read("stream", stream)?.0, read("args", args)?);
            let device = stream.device();
            let q_rope = args.q_rope.memory.is_given().then(|| args.q_rope.read(device, "q_rope")).transpose()?;
            let q_rotated = &args.q_rotated;
            let q_rotated = q_rotated.memory.is_given().then(|| q_rotated.write(device, "q_rotated")).transpose()?;
            let gain = args.norm_gain.optional(device, "latent norm")?;
            let counters = args.counters.is_given().then(|| args.counters.view_mut(device, "counters")).transpose()?;
            let has_rotation = [args.cos, args.sin, args.frequency_index].into_iter().any(LaArray::is_given);
            let rotation = has_rotation.then(|| args.rotation(device)).transpose()?;
            let args = RopeAppendArgs {
                q_rope,
                q_rotated,
                k_rope: args.k_rope.read(device, "k_rope")?,
                c_kv: args.c_kv.read(device, "c_kv")?,
                positions: args.positions.optional(device, "positions")?,
                slots: args.slots.view(device, "slots")?,
                rotation,
                norm: gain.map(|gain| DeviceNorm { gain, epsilon: args.norm_epsilon }),
                bias: args.bias.optional(device, "latent bias")?,
                cache: CacheViewMut::new(*layout, args.cache.view_mut(device, "cache")?)?,
                counters,
                key_norm: None,
            };
            Ok(operation.run(stream, args)?)
        }
    })
}

impl LaRopeAppendArgs {
    /// What rotates.
    ///
    /// # Safety
    /// As [`LaArray::view`]; moreover every element of the index must be less than `frequencies`.
    unsafe fn rotation(&self, device: &Device) -> Outcome<Rotation<'static>> {
        // SAFETY: promised by the caller.
        unsafe {
            let (cos, sin) = (self.cos.view(device, "cosines")?, self.sin.view(device, "sines")?);
            let index = self.frequency_index.view(device, "frequency index")?;
            Ok(Rotation::from_device(cos, sin, self.frequencies, index)?)
        }
    }
}

/// Ends the operation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_rope_append_destroy(operation: *mut LaRopeAppend) {
    // SAFETY: as the header says.
    unsafe { destroy(operation) };
}
