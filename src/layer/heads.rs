//! Norms over heads in a layer's step: what becomes of queries and keys in front of `prepare`.

use half::bf16;

use crate::device::{Buffer, Device, Shape, Stream, Tensor, TensorMut};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::ops::check;
use crate::ops::{
    AbsorbConfig, DeviceKeyNorm, ExpandOutput, ExpandOutputArgs, HeadNorm, HeadNormArgs, HeadNormConfig,
    HeadNormQueryArgs,
};
use crate::weights::{HeadNorms, LatentAttention, Linear};

/// A layer's norms on the device.
#[derive(Debug)]
pub(super) struct Heads {
    norm: HeadNorm,
    /// Of latents the unrotated part of keys; none if there is none.
    up: Option<ExpandOutput>,
    /// `[G, Dn]`: the up-projection of the latent's bias, which the cached latents contain.
    up_bias: Option<Buffer<f32>>,
    query_gain: Buffer<f32>,
    key_gain: Buffer<f32>,
    epsilon: f32,
}

/// What the norms make of the new tokens of a step.
#[derive(Debug)]
pub(super) struct HeadsWorkspace {
    q_nope: Buffer<bf16>,
    k_nope: Buffer<bf16>,
    key_factors: Buffer<f32>,
}

/// The new tokens, as the engine's projections made them.
pub(super) struct NewTokens<'a> {
    /// `[T, H, R]`.
    pub q_rope: Option<Tensor<'a, bf16>>,
    /// `[T, H, Dn]`.
    pub q_nope: Tensor<'a, bf16>,
    /// `[T, G, R]`.
    pub k_rope: Tensor<'a, bf16>,
    /// `[T, 1, L]`.
    pub c_kv: Tensor<'a, bf16>,
}

impl Heads {
    pub fn new(device: &Device, weights: &LatentAttention, norms: &HeadNorms, absorb: AbsorbConfig) -> Result<Self> {
        let g = &weights.geometry;
        if weights.latent_norm.is_some() {
            return Err(Error::Unsupported {
                what: "norms over heads beside one over the latent".into(),
                why: "the step would need the latent's norm in front of rope_append".into(),
            });
        }
        let keys = Geometry::unchecked(g.kv_heads, g.kv_heads, g.latent_rank, 1, g.rope_dim, g.nope_dim, g.nope_dim);
        let up = (g.nope_dim > 0).then(|| ExpandOutput::new(device, AbsorbConfig { geometry: keys, ..absorb }));
        let up_bias = |bias: &Vec<f32>| device.upload(&Linear::new(weights.up_key.clone()).apply(bias)?);
        Ok(Self {
            norm: HeadNorm::new(device, HeadNormConfig::new(*g))?,
            up: up.transpose()?,
            up_bias: weights.latent_bias.as_ref().map(up_bias).transpose()?,
            query_gain: device.upload(&norms.query)?,
            key_gain: device.upload(&norms.key)?,
            epsilon: norms.epsilon,
        })
    }

    /// Normalises queries, to `q_rope_out` and to the workspace, and leaves the keys' factors there.
    pub fn normalise(
        &self,
        stream: &Stream,
        g: &Geometry,
        tokens: NewTokens,
        up_key: Tensor<bf16>,
        workspace: &mut HeadsWorkspace,
        q_rope_out: TensorMut<bf16>,
    ) -> Result<()> {
        let count = tokens.q_nope.shape().sizes[0];
        let k_nope_shape = [count, g.kv_heads, g.nope_dim];
        if let Some(up) = &self.up {
            let latent = [("tokens", count), ("one", 1), ("latent", g.latent_rank)];
            check::tensor("c_kv", stream.device(), &tokens.c_kv, latent)?;
            // All KV heads read the same latent.
            let of_token = tokens.c_kv.shape().strides[0];
            let shape = Shape { sizes: [count, g.kv_heads, g.latent_rank], strides: [of_token, 0] };
            let k_nope = workspace.k_nope.view_mut().slice(..count * g.kv_heads * g.nope_dim)?;
            up.run(
                stream,
                ExpandOutputArgs {
                    up_value: up_key,
                    value_bias: self.up_bias.as_ref().map(Buffer::view),
                    o_latent: Tensor::new(tokens.c_kv.view().clone(), shape)?,
                    out: TensorMut::dense(k_nope, k_nope_shape)?,
                },
            )?;
        }
        self.norm.run(
            stream,
            HeadNormArgs {
                queries: Some(HeadNormQueryArgs {
                    q_rope: tokens.q_rope,
                    q_nope: Some(tokens.q_nope),
                    gain: self.query_gain.view(),
                    q_rope_out,
                    q_nope_out: TensorMut::dense(workspace.q_nope.view_mut(), [count, g.query_heads, g.nope_dim])?,
                }),
                k_rope: tokens.k_rope,
                k_nope: Tensor::dense(workspace.k_nope.view(), k_nope_shape)?,
                epsilon: self.epsilon,
                key_factors: workspace.key_factors.view_mut().slice(..count * g.kv_heads)?,
            },
        )
    }

    /// What `rope_append` needs of them.
    pub fn key_norm<'a>(
        &'a self,
        g: &Geometry,
        workspace: &'a HeadsWorkspace,
        tokens: usize,
    ) -> Result<DeviceKeyNorm<'a>> {
        let factors = workspace.key_factors.view().slice(..tokens * g.kv_heads)?;
        Ok(DeviceKeyNorm { gain: self.key_gain.view(), factors })
    }
}

impl HeadsWorkspace {
    pub fn new(device: &Device, g: &Geometry, tokens: usize) -> Result<Self> {
        Ok(Self {
            q_nope: device.allocate(tokens * g.query_heads * g.nope_dim)?,
            k_nope: device.allocate(tokens * g.kv_heads * g.nope_dim)?,
            key_factors: device.allocate(tokens * g.kv_heads)?,
        })
    }

    /// The normalised queries' unrotated part, `[T, H, Dn]`.
    pub fn q_nope(&self, g: &Geometry, tokens: usize) -> Result<Tensor<'_, bf16>> {
        Tensor::dense(self.q_nope.view(), [tokens, g.query_heads, g.nope_dim])
    }
}
