//! `rope_append`: rotate, normalise, quantise and store the new tokens of a batch.

use half::bf16;

use super::cache::{CacheViewMut, geometry_params};
use super::check;
use super::rotation::Rotation;
use crate::cache::{CacheLayout, RangeSetting};
use crate::device::{Device, Kernel, LaunchConfig, Stream, Tensor, TensorMut, View, ViewMut};
use crate::error::{Error, Result, check_epsilon};
use crate::geometry::Geometry;
use crate::rope::Pairing;
use crate::sys;

/// What stays the same from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RopeAppendConfig {
    /// The layer's sizes.
    pub geometry: Geometry,
    /// How the cache's bytes lie.
    pub layout: CacheLayout,
    /// Which dimensions of a rope head form a pair.
    pub pairing: Pairing,
}

impl RopeAppendConfig {
    /// Appends a layer's tokens to caches of one layout.
    #[must_use]
    pub fn new(geometry: Geometry, layout: CacheLayout, pairing: Pairing) -> Self {
        Self { geometry, layout, pairing }
    }
}

/// Takes in new tokens in one launch: rotates queries and keys, applies norm and bias to the latents, and
/// writes latents and keys into the cache, the same bytes as [`reference::rope_append`](crate::reference::rope_append)
/// writes of the same bf16 numbers. Rotated queries are the reference's, rounded to bf16.
///
/// Queries can be left out, and the rotation too: keys are then stored as they are, already rotated by an engine that
/// rotates its queries itself.
///
/// ```
/// # #[cfg(feature = "simulator")] {
/// use half::bf16;
/// use latent_attention::Geometry;
/// use latent_attention::cache::{CacheFormat, CacheLayout};
/// use latent_attention::device::{Device, Tensor, TensorMut};
/// use latent_attention::ops::{DeviceCache, RopeAppend, RopeAppendArgs, RopeAppendConfig, RotationBuffers};
/// use latent_attention::rope::{FrequencyIndex, Pairing, RopeTables};
///
/// let device = Device::simulated();
/// # if latent_attention::image::images().is_empty() { return Ok(()) } // built without nvcc
/// let geometry = Geometry::smollm_135m(32)?;
/// let layout = CacheLayout::new(&geometry, CacheFormat::BF16, 16)?;
/// let mut cache = DeviceCache::new(&device, layout, 2)?;
/// let rope_append = RopeAppend::new(&device, RopeAppendConfig::new(geometry, layout, Pairing::Half))?;
/// let tables = RopeTables::from_theta(1e4, 64, 100);
/// let rotation = RotationBuffers::upload(&device, &tables, &FrequencyIndex::all(3, 8))?;
///
/// // One token, the first of its sequence, goes to slot 5.
/// let mut q_rope = device.upload(&[bf16::ONE; 9 * 8])?;
/// let (k_rope, c_kv) = (device.upload(&[bf16::ONE; 3 * 8])?, device.upload(&[bf16::ONE; 96])?);
/// let (positions, slots) = (device.upload(&[0])?, device.upload(&[5])?);
/// rope_append.run(
///     &device.stream()?,
///     RopeAppendArgs {
///         q_rope: None, // in place
///         q_rotated: Some(TensorMut::dense(q_rope.view_mut(), [1, 9, 8])?),
///         k_rope: Tensor::dense(k_rope.view(), [1, 3, 8])?,
///         c_kv: Tensor::dense(c_kv.view(), [1, 1, 96])?,
///         positions: Some(positions.view()),
///         slots: slots.view(),
///         rotation: Some(rotation.rotation()),
///         norm: None,
///         bias: None,
///         cache: cache.view_mut(),
///         counters: None,
///         key_norm: None,
///     },
/// )?;
/// assert_eq!(cache.download()?.latent(5)?, [1.0; 96]);
/// # }
/// # Ok::<(), latent_attention::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RopeAppend {
    kernel: Kernel,
    config: RopeAppendConfig,
}

/// RMSNorm over the latent, its gain in device memory; as [`RmsNorm`](crate::weights::RmsNorm).
#[derive(Clone, Debug)]
pub struct DeviceNorm<'a> {
    /// `[L]`.
    pub gain: View<'a, f32>,
    /// Added to the mean square: finite, not negative.
    pub epsilon: f32,
}

/// What normalises keys head by head, the rotated part here and the rest where scores are computed; as
/// [`reference::KeyNorm`](crate::reference::KeyNorm).
#[derive(Clone, Debug)]
pub struct DeviceKeyNorm<'a> {
    /// `[G, R]`: the gain of the rotated dimensions.
    pub gain: View<'a, f32>,
    /// `[T, G]`: what [`HeadNorm`](super::HeadNorm) makes of the keys.
    pub factors: View<'a, f32>,
}

/// The arguments of [`RopeAppend::run`].
///
/// The host sees neither positions nor slots. A token whose position is outside of the tables, or whose slot is neither
/// -1 nor in the cache, is refused: it is counted, its query is not written, and nothing of it is stored. If two tokens
/// share a slot, it holds a mixture of both.
#[derive(Debug)]
pub struct RopeAppendArgs<'a> {
    /// `[T, H, R]`, not yet rotated; `None`: it is what `q_rotated` holds, and is rotated in place.
    pub q_rope: Option<Tensor<'a, bf16>>,
    /// Out: `[T, H, R]`; `None`: there are no queries, or nothing to do to them. They need a rotation.
    pub q_rotated: Option<TensorMut<'a, bf16>>,
    /// `[T, Gr, R]`, not yet rotated; without a rotation it is stored as it is.
    pub k_rope: Tensor<'a, bf16>,
    /// `[T, 1, L]`: the down-projection's output.
    pub c_kv: Tensor<'a, bf16>,
    /// `[T]`: row of the tables; with a rotation, and only with one.
    pub positions: Option<View<'a, i32>>,
    /// `[T]`: where each token goes in the cache; -1 rotates the query but stores nothing.
    pub slots: View<'a, i64>,
    /// Tables, and which of their columns rotates which pair; `None`: keys are rotated already.
    pub rotation: Option<Rotation<'a>>,
    /// Norm over the latent.
    pub norm: Option<DeviceNorm<'a>>,
    /// `[L]`, added to the latent after the norm.
    pub bias: Option<View<'a, f32>>,
    /// Of normalised keys, and only of these.
    pub key_norm: Option<DeviceKeyNorm<'a>>,
    /// Out: the cache.
    pub cache: CacheViewMut<'a>,
    /// `[2]`: the number of values is added to the first that were not finite or beyond f16's range and had to be moved
    /// into their group's, the number of refused tokens to the second.
    pub counters: Option<ViewMut<'a, u64>>,
}

impl RopeAppend {
    /// Loads the kernel.
    ///
    /// # Errors
    /// [`Error::Geometry`], or [`Error::Shape`] if the layout is another geometry's; [`Error::Unsupported`] if a token has too
    /// many numbers for one launch; as [`Device::kernel`].
    pub fn new(device: &Device, config: RopeAppendConfig) -> Result<Self> {
        config.geometry.validate()?;
        config.layout.check(&config.geometry)?;
        // What the y axis of a grid can hold, whether there are a norm and queries or not.
        const MOST: usize = 65535;
        let runs = runs_of_a_token(&config.geometry, false, true);
        if runs > MOST {
            return Err(Error::Unsupported {
                what: "rope_append".into(),
                why: format!("a token of {runs} runs of {} numbers, more than {MOST}", sys::ROPE_APPEND_RUN),
            });
        }
        let kernel = match config.layout.format().range {
            RangeSetting::MinMax => "rope_append",
            RangeSetting::Mse => "rope_append_mse",
        };
        Ok(Self { kernel: device.kernel("rope_append", kernel, 0)?, config })
    }

    /// Takes in the tokens.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::OtherDevice`] or [`Error::Config`] names the argument that does not fit; as
    /// [`Kernel::launch`].
    pub fn run(&self, stream: &Stream, args: RopeAppendArgs) -> Result<()> {
        let params = self.params(&args)?;
        // SAFETY: the views are as large as the parameters say and on the kernel's device; frequencies are within the
        // tables (`Rotation`), and the kernel checks positions and slots itself.
        unsafe { self.launch(stream, &params) }
    }

    /// The parameter block of arguments that fit.
    pub(super) fn params(&self, args: &RopeAppendArgs) -> Result<sys::RopeAppendParams> {
        let (device, g) = (self.kernel.device(), &self.config.geometry);
        let t = ("tokens", args.slots.len());
        let query = [t, ("query heads", g.query_heads), ("rope", g.rope_dim)];
        args.check_presence()?;
        let q_rotated = args.q_rotated.as_ref().map(TensorMut::tensor);
        let rotated = q_rotated.as_ref().map(|q| check::tensor("q_rotated", device, q, query)).transpose()?;
        let q_rope = args.q_rope.as_ref().map(|q| check::tensor("q_rope", device, q, query)).transpose()?;
        let k_rope =
            check::tensor("k_rope", device, &args.k_rope, [t, ("rope heads", g.rope_heads), ("rope", g.rope_dim)])?;
        let c_kv = check::tensor("c_kv", device, &args.c_kv, [t, ("one", 1), ("latent", g.latent_rank)])?;
        if let Some(positions) = &args.positions {
            check::view("positions", device, positions, &[t])?;
        }
        device.check_same("slots", args.slots.device())?;
        let rotation =
            args.rotation.as_ref().map(|rotation| rotation.params(device, g)).transpose()?.unwrap_or_default();
        let latent = [("latent", g.latent_rank)];
        if let Some(norm) = &args.norm {
            check::view("latent norm", device, &norm.gain, &latent)?;
            check_epsilon("latent norm", norm.epsilon)?;
        }
        if let Some(bias) = &args.bias {
            check::view("latent bias", device, bias, &latent)?;
        }
        if let Some(norm) = &args.key_norm {
            check::view("gain of keys", device, &norm.gain, &[("kv heads", g.kv_heads), ("rope", g.rope_dim)])?;
            check::view("factors of keys", device, &norm.factors, &[t, ("kv heads", g.kv_heads)])?;
        }
        g.check_key_norm(args.key_norm.is_some())?;
        if let Some(counters) = &args.counters {
            check::view("counters", device, &counters.view(), &[("saturated and refused", 2)])?;
        }
        let rotated_address = q_rotated.as_ref().map_or(0, |q| q.view().address());
        let rotated = rotated.unwrap_or_default();
        Ok(sys::RopeAppendParams {
            geometry: geometry_params(g)?,
            cache: args.cache.view().params(device, &self.config.layout)?,
            q_rope: args.q_rope.as_ref().map_or(rotated_address, |q| q.view().address()),
            q_rotated: rotated_address,
            k_rope: args.k_rope.view().address(),
            c_kv: args.c_kv.view().address(),
            positions: args.positions.as_ref().map_or(0, View::address),
            slots: args.slots.address(),
            cos: rotation.cos,
            sin: rotation.sin,
            frequency_index: rotation.index,
            norm_gain: args.norm.as_ref().map_or(0, |norm| norm.gain.address()),
            bias: args.bias.as_ref().map_or(0, View::address),
            counters: args.counters.as_ref().map_or(0, |counters| counters.view().address()),
            key_factors: args.key_norm.as_ref().map_or(0, |norm| norm.factors.address()),
            key_gain: args.key_norm.as_ref().map_or(0, |norm| norm.gain.address()),
            tokens: check::count("tokens", t.1)?,
            table_positions: rotation.positions,
            table_frequencies: rotation.frequencies,
            pairing: match self.config.pairing {
                Pairing::Half => sys::PAIRING_HALF,
                Pairing::Interleaved => sys::PAIRING_INTERLEAVED,
            },
            q_rope_token_stride: q_rope.unwrap_or(rotated)[0],
            q_rope_head_stride: q_rope.unwrap_or(rotated)[1],
            q_rotated_token_stride: rotated[0],
            q_rotated_head_stride: rotated[1],
            k_rope_token_stride: k_rope[0],
            k_rope_head_stride: k_rope[1],
            c_kv_token_stride: c_kv[0],
            norm_epsilon: args.norm.as_ref().map_or(0.0, |norm| norm.epsilon),
        })
    }

    /// Blocks for a parameter block: for its tokens, and for the runs of each.
    pub(super) fn grid(&self, params: &sys::RopeAppendParams) -> Result<[u32; 2]> {
        let runs = runs_of_a_token(&self.config.geometry, params.norm_gain != 0, params.q_rotated != 0);
        Ok([params.tokens.div_ceil(sys::ROPE_APPEND_THREADS / 32), check::count("runs of a token", runs)?])
    }

    /// Launches the kernel with this parameter block; without tokens, nothing.
    ///
    /// # Errors
    /// As [`Kernel::launch`].
    ///
    /// # Safety
    /// Every address must point to device memory as `csrc/params.h` says, and the geometry must be the
    /// configuration's.
    pub unsafe fn launch(&self, stream: &Stream, params: &sys::RopeAppendParams) -> Result<()> {
        if params.tokens == 0 {
            return Ok(());
        }
        let [blocks, runs] = self.grid(params)?;
        let config = LaunchConfig::new([blocks, runs, 1], [sys::ROPE_APPEND_THREADS, 1, 1]).with_programmatic();
        // SAFETY: promised by the caller.
        unsafe { self.kernel.launch(stream, &config, params) }
    }
}

impl RopeAppendArgs<'_> {
    /// Returns [`Error::Config`] if one of the optional arguments is given without another that it needs.
    fn check_presence(&self) -> Result<()> {
        let (rotation, positions) = (self.rotation.is_some(), self.positions.is_some());
        for (what, is_given, needed, is_there) in [
            ("q_rope", self.q_rope.is_some(), "q_rotated, where it is rotated to", self.q_rotated.is_some()),
            ("q_rotated", self.q_rotated.is_some(), "a rotation", rotation),
            ("positions", positions, "a rotation", rotation),
            ("rotation", rotation, "positions", positions),
        ] {
            if is_given && !is_there {
                return Err(Error::Config { what: what.into(), why: format!("is given without {needed}") });
            }
        }
        Ok(())
    }
}

/// Runs of a token, each of which a warp takes. A latent with a norm counts as one, since one warp takes all of it.
fn runs_of_a_token(geometry: &Geometry, has_norm: bool, has_queries: bool) -> usize {
    let runs = |width: usize| width.div_ceil(sys::ROPE_APPEND_RUN as usize);
    let latent = if has_norm { 1 } else { runs(geometry.latent_rank) };
    let queries = if has_queries { runs(geometry.query_heads.saturating_mul(geometry.rope_dim)) } else { 0 };
    latent + runs(geometry.rope_width()) + queries
}
