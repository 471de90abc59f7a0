//! `head_norm`: norms over whole heads of queries and keys, in front of their rotation (Qwen3).

use half::bf16;

use super::cache::geometry_params;
use super::check;
use crate::device::{Device, Kernel, LaunchConfig, Stream, Tensor, TensorMut, View, ViewMut};
use crate::error::{Error, Result, check_epsilon};
use crate::geometry::Geometry;
use crate::sys;

/// What stays the same from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeadNormConfig {
    /// The layer's sizes.
    pub geometry: Geometry,
}

impl HeadNormConfig {
    /// Normalises a layer's heads.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        Self { geometry }
    }
}

/// RMSNorm over each head's R + Dn dimensions, the rotated ones first. Queries are normalised; of keys, whose unrotated part
/// stands in the latent, the factor is computed, 1 over the root of the mean square, with which
/// [`RopeAppend`](super::RopeAppend) multiplies their rotated part and [`Decode`](super::Decode) the scores of the rest.
///
/// As [`reference::head_norm`](crate::reference::head_norm), to the bit; queries are rounded to bf16.
#[derive(Clone, Debug)]
pub struct HeadNorm {
    kernel: Kernel,
    config: HeadNormConfig,
}

/// Queries to be normalised.
#[derive(Debug)]
pub struct HeadNormQueryArgs<'a> {
    /// `[T, H, R]`, not yet rotated; `None`: it is what `q_rope_out` holds.
    pub q_rope: Option<Tensor<'a, bf16>>,
    /// `[T, H, Dn]`; `None`: it is what `q_nope_out` holds.
    pub q_nope: Option<Tensor<'a, bf16>>,
    /// `[G, R + Dn]`: [`HeadNorms::query`](crate::weights::HeadNorms::query).
    pub gain: View<'a, f32>,
    /// Out: `[T, H, R]`.
    pub q_rope_out: TensorMut<'a, bf16>,
    /// Out: `[T, H, Dn]`.
    pub q_nope_out: TensorMut<'a, bf16>,
}

/// The arguments of [`HeadNorm::run`].
#[derive(Debug)]
pub struct HeadNormArgs<'a> {
    /// Queries; `None`: the caller normalises them itself.
    pub queries: Option<HeadNormQueryArgs<'a>>,
    /// `[T, G, R]`, not yet rotated.
    pub k_rope: Tensor<'a, bf16>,
    /// `[T, G, Dn]`: the key up-projection's output, such as [`ExpandOutput`](super::ExpandOutput) makes of latents.
    pub k_nope: Tensor<'a, bf16>,
    /// Added to the mean square: finite, not negative.
    pub epsilon: f32,
    /// Out: `[T, G]`.
    pub key_factors: ViewMut<'a, f32>,
}

impl HeadNorm {
    /// Loads the kernel.
    ///
    /// # Errors
    /// [`Error::Geometry`]; [`Error::Config`] if the geometry has no normalised keys; as [`Device::kernel`].
    pub fn new(device: &Device, config: HeadNormConfig) -> Result<Self> {
        config.geometry.validate()?.check_key_norm(true)?;
        Ok(Self { kernel: device.kernel("head_norm", "head_norm", 0)?, config })
    }

    /// Normalises the heads of T tokens.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::OtherDevice`], [`Error::Config`] or [`Error::Capacity`] names the argument that does not
    /// fit; as [`Kernel::launch`].
    pub fn run(&self, stream: &Stream, args: HeadNormArgs) -> Result<()> {
        let (device, g) = (self.kernel.device(), &self.config.geometry);
        let tokens = ("tokens", args.k_rope.shape().sizes[0]);
        let (kv_heads, query_heads) = (("kv heads", g.kv_heads), ("query heads", g.query_heads));
        let (rope, nope) = (("rope", g.rope_dim), ("nope", g.nope_dim));
        let k_rope = check::tensor("k_rope", device, &args.k_rope, [tokens, kv_heads, rope])?;
        let k_nope = check::tensor("k_nope", device, &args.k_nope, [tokens, kv_heads, nope])?;
        check::view("factors of keys", device, &args.key_factors.view(), &[tokens, kv_heads])?;
        check_epsilon("head norm", args.epsilon)?;
        let mut params = sys::HeadNormParams {
            geometry: geometry_params(g)?,
            k_rope: args.k_rope.view().address(),
            k_nope: args.k_nope.view().address(),
            key_factors: args.key_factors.view().address(),
            tokens: check::count("tokens", tokens.1)?,
            k_rope_token_stride: k_rope[0],
            k_rope_head_stride: k_rope[1],
            k_nope_token_stride: k_nope[0],
            k_nope_head_stride: k_nope[1],
            epsilon: args.epsilon,
            ..Default::default()
        };
        if let Some(queries) = &args.queries {
            let width = ("rope + nope", g.rope_dim + g.nope_dim);
            check::view("gain of queries", device, &queries.gain, &[kv_heads, width])?;
            let rope_sizes = [tokens, query_heads, rope];
            let nope_sizes = [tokens, query_heads, nope];
            let rope_out = check::tensor_mut("q_rope_out", device, &queries.q_rope_out, rope_sizes)?;
            let nope_out = check::tensor_mut("q_nope_out", device, &queries.q_nope_out, nope_sizes)?;
            let from = |what, tensor: &Option<Tensor<bf16>>, sizes, out: &TensorMut<bf16>, strides| match tensor {
                Some(tensor) => Ok((tensor.view().address(), check::tensor(what, device, tensor, sizes)?)),
                None => Ok::<_, Error>((out.tensor().view().address(), strides)),
            };
            let (q_rope, rope) = from("q_rope", &queries.q_rope, rope_sizes, &queries.q_rope_out, rope_out)?;
            let (q_nope, nope) = from("q_nope", &queries.q_nope, nope_sizes, &queries.q_nope_out, nope_out)?;
            params = sys::HeadNormParams {
                q_rope,
                q_nope,
                q_rope_out: queries.q_rope_out.tensor().view().address(),
                q_nope_out: queries.q_nope_out.tensor().view().address(),
                query_gain: queries.gain.address(),
                q_rope_token_stride: rope[0],
                q_rope_head_stride: rope[1],
                q_nope_token_stride: nope[0],
                q_nope_head_stride: nope[1],
                q_rope_out_token_stride: rope_out[0],
                q_rope_out_head_stride: rope_out[1],
                q_nope_out_token_stride: nope_out[0],
                q_nope_out_head_stride: nope_out[1],
                ..params
            };
        }
        // SAFETY: the tensors are as large as the parameters say and on the kernel's device.
        unsafe { self.launch(stream, &params) }
    }

    /// Launches the kernel with this parameter block; without tokens, nothing.
    ///
    /// # Errors
    /// [`Error::Capacity`] if there are more heads than a launch has room for; as [`Kernel::launch`].
    ///
    /// # Safety
    /// Every address must point to device memory as `csrc/params.h` says, and the geometry must be the
    /// configuration's.
    pub unsafe fn launch(&self, stream: &Stream, params: &sys::HeadNormParams) -> Result<()> {
        let g = &params.geometry;
        let of_token = u64::from(g.kv_heads) + if params.query_gain != 0 { u64::from(g.query_heads) } else { 0 };
        let heads = u64::from(params.tokens) * of_token;
        if heads == 0 {
            return Ok(());
        }
        let blocks = u32::try_from(heads).ok().map(|heads| heads.div_ceil(sys::HEAD_NORM_THREADS / 32));
        let blocks = blocks.ok_or_else(|| Error::Capacity {
            what: format!("head_norm of {} tokens", params.tokens),
            why: format!("{heads} heads in a launch, which has room for less than 2^32"),
        })?;
        let config = LaunchConfig::new([blocks, 1, 1], [sys::HEAD_NORM_THREADS, 1, 1]).with_programmatic();
        // SAFETY: promised by the caller.
        unsafe { self.kernel.launch(stream, &config, params) }
    }
}
