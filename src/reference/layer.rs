//! `layer`: one attention layer's step, from projected tokens to the input of the output projection.

use super::{
    DecodeInputs, HeadNormInputs, HeadNormQueries, HeadNormed, KeyNorm, RopeAppendInputs, RopeAppendParams,
    RopeAppendRotation, absorb_query, decode, expand_output, head_norm, rms_norm, rope_append,
};
use crate::cache::{CacheFormat, CacheLayout, PagedCache, Sequences};
use crate::error::{Result, check_len};
use crate::geometry::Geometry;
use crate::rope::RopeTables;
use crate::weights::{LatentAttention, Linear};

/// What the engine's own projections made of the new tokens of a batch, T in all.
#[derive(Clone, Copy, Debug)]
pub struct ReferenceInputs<'a> {
    /// `[T, H, R]`, not yet rotated.
    pub q_rope: &'a [f32],
    /// `[T, H, Dn]`.
    pub q_nope: &'a [f32],
    /// `[T, Gr, R]`, not yet rotated.
    pub k_rope: &'a [f32],
    /// `[T, L]`: the down-projection's output, before norm and latent bias.
    pub c_kv: &'a [f32],
    /// `[T]`: row of the cosine and sine tables.
    pub positions: &'a [i32],
    /// `[T]`: where each token goes in the cache; -1 stores nothing.
    pub slots: &'a [i64],
}

/// The outcome of [`ReferenceLayer::step`].
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceOutput {
    /// `[T, H, Dv]`: the output projection's input.
    pub out: Vec<f32>,
    /// How many cached values were not finite or beyond f16's range.
    pub saturated: usize,
}

/// One latent-attention layer over a paged cache in host memory: what
/// [`LatentAttentionLayer`](crate::layer::LatentAttentionLayer) computes, by this module's functions.
#[derive(Clone, Debug)]
pub struct ReferenceLayer {
    weights: LatentAttention,
}

impl ReferenceLayer {
    /// A layer with the given weights.
    ///
    /// # Errors
    /// As [`LatentAttention::validate`].
    pub fn new(weights: LatentAttention) -> Result<Self> {
        weights.validate()?;
        Ok(Self { weights })
    }

    /// The layer's weights.
    #[must_use]
    pub fn weights(&self) -> &LatentAttention {
        &self.weights
    }

    /// An empty cache for this layer: `pages` pages of `page_size` tokens.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the page size is not one of
    /// [`PAGE_SIZES`](crate::cache::PAGE_SIZES), or there is not enough memory.
    pub fn new_cache(&self, format: CacheFormat, page_size: usize, pages: usize) -> Result<PagedCache> {
        PagedCache::new(CacheLayout::new(&self.weights.geometry, format, page_size)?, pages)
    }

    /// One step of a batch: rotates and appends the new tokens, then lets them attend to their sequences through the
    /// cache, themselves included, all in the latent space.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::Index`](crate::Error::Index) or
    /// [`Error::Config`](crate::Error::Config) says which argument does not fit; the cache is untouched then.
    pub fn step(
        &self,
        inputs: &ReferenceInputs,
        sequences: &Sequences,
        tables: &RopeTables,
        cache: &mut PagedCache,
    ) -> Result<ReferenceOutput> {
        let weights = &self.weights;
        let geometry: &Geometry = &weights.geometry;
        let tokens = inputs.slots.len();
        // What decoding needs is checked before the cache is written.
        check_len("query tokens of the batch", sequences.query_tokens(), &[("slots", tokens)])?;
        sequences.resolve(cache)?;
        let heads = self.normalise_heads(inputs)?;
        let (q_rope, q_nope) = heads.as_ref().map_or((inputs.q_rope, inputs.q_nope), |h| (&h.q_rope, &h.q_nope));
        let q_nope: Vec<f64> = q_nope.iter().map(|&q| f64::from(q)).collect();
        let q_latent = absorb_query(geometry, weights.up_key.data(), &q_nope, tokens)?;

        let rotation = RopeAppendRotation { pairing: weights.pairing, tables, frequencies: &weights.frequencies };
        let params = RopeAppendParams {
            geometry,
            rotation: Some(rotation),
            norm: weights.latent_norm.as_ref(),
            bias: weights.latent_bias.as_deref(),
        };
        let new_tokens = RopeAppendInputs {
            q_rope: Some(q_rope),
            k_rope: inputs.k_rope,
            c_kv: inputs.c_kv,
            positions: Some(inputs.positions),
            key_norm: heads
                .as_ref()
                .zip(weights.head_norms.as_ref())
                .map(|(heads, norms)| KeyNorm { gain: &norms.key, factors: &heads.key_factors }),
            slots: inputs.slots,
        };
        let appended = rope_append(&params, &new_tokens, cache)?;

        let q_rope: Vec<f64> = appended.q_rope.iter().map(|&q| f64::from(q)).collect();
        let inputs = DecodeInputs {
            geometry,
            q_latent: &q_latent,
            q_rope: &q_rope,
            scale: weights.scale,
            sequences: *sequences,
        };
        let attended = decode(&inputs, cache)?;
        let (up_value, value_bias) = (weights.up_value.data(), weights.value_bias.as_deref());
        let out = expand_output(geometry, up_value, value_bias, &attended.o_latent, tokens)?;
        Ok(ReferenceOutput { out: out.into_iter().map(|v| v as f32).collect(), saturated: appended.saturated })
    }

    /// What norms over heads make of queries and keys, whose unrotated part is the up-projection of the latent that will be
    /// cached, before it is quantised.
    fn normalise_heads(&self, inputs: &ReferenceInputs) -> Result<Option<HeadNormed>> {
        let weights = &self.weights;
        let Some(norms) = &weights.head_norms else { return Ok(None) };
        let (g, tokens) = (&weights.geometry, ("tokens", inputs.slots.len()));
        check_len("c_kv", inputs.c_kv.len(), &[tokens, ("latent", g.latent_rank)])?;
        check_len("k_rope", inputs.k_rope.len(), &[tokens, ("rope heads", g.rope_heads), ("rope", g.rope_dim)])?;
        let up = Linear::new(weights.up_key.clone());
        let mut latents = inputs.c_kv.to_vec();
        for latent in latents.chunks_exact_mut(g.latent_rank) {
            if let Some(norm) = &weights.latent_norm {
                rms_norm(latent, norm);
            }
            latent.iter_mut().zip(weights.latent_bias.iter().flatten()).for_each(|(value, bias)| *value += bias);
        }
        let k_nope = up.apply(&latents)?;
        let queries = HeadNormQueries { q_rope: inputs.q_rope, q_nope: inputs.q_nope, gain: &norms.query };
        let inputs =
            HeadNormInputs { queries: Some(queries), k_rope: inputs.k_rope, k_nope: &k_nope, epsilon: norms.epsilon };
        head_norm(g, &inputs).map(Some)
    }
}
