//! Latent attention by matrix products over the cache's numbers: what the kernels compute, rounded where the cache rounds
//! and nowhere else, for texts that are read as a whole.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, PagedCache};
use latent_attention::reference::{HeadNormInputs, head_norm};
use latent_attention::rope::{Pairing, RopeTables, rotate_head};
use latent_attention::weights::{HeadNorms, LatentAttention};

use crate::dense::heads_first;
use crate::tensors::{Norm, Projection, matrix, to_tensor, to_vec};
use crate::transformer::AttentionStep;

/// Tokens of a page of the cache that rounds.
const PAGE_SIZE: usize = 64;

/// Latent attention of all layers.
pub struct LatentProducts<'a> {
    layers: Vec<LatentLayer>,
    tables: &'a RopeTables,
}

impl<'a> LatentProducts<'a> {
    /// Prepares the given layers. `format` says how the cache rounds; without one it does not.
    ///
    /// # Errors
    /// If a layer is inconsistent or reads frequencies that `tables` does not have.
    pub fn new(layers: &[LatentAttention], tables: &'a RopeTables, format: Option<CacheFormat>) -> Result<Self> {
        let layers = layers.iter().enumerate().map(|(index, weights)| {
            LatentLayer::new(weights, tables, format).with_context(|| format!("latent attention of layer {index}"))
        });
        Ok(Self { layers: layers.collect::<Result<_>>()?, tables })
    }
}

impl AttentionStep for LatentProducts<'_> {
    fn forward(&mut self, layer: usize, normed: &[f32], positions: Range<usize>) -> Result<Vec<f32>> {
        let layer = self.layers.get_mut(layer).context("no such layer")?;
        let heads = layer.heads(normed, positions, self.tables)?;
        layer.project(&heads)
    }

    fn reset(&mut self) {
        self.layers.iter_mut().for_each(LatentLayer::reset);
    }
}

/// Latent attention of one layer, with what it remembers of one sequence.
pub struct LatentLayer {
    weights: LatentAttention,
    query_down: Option<(Projection, Norm)>,
    query_rope: Projection,
    query_nope: Projection,
    key_rope: Projection,
    down: Projection,
    latent_norm: Option<Norm>,
    /// `[G, Dn, L]`.
    up_key: Tensor,
    /// `[G, L, Dv]`.
    up_value: Tensor,
    value_bias: Option<Tensor>,
    output: Projection,
    layout: Option<CacheLayout>,
    /// `[tokens, L]`, as the cache gives it back.
    latents: Vec<f32>,
    /// `[tokens, Gr*R]`, likewise.
    keys: Vec<f32>,
    /// `[tokens, G]`, likewise: the factors of normalised keys.
    factors: Vec<f32>,
    /// `[H, R + Dn]`: the gain of queries with norms over heads.
    query_gain: Option<Tensor>,
}

impl LatentLayer {
    /// Prepares one layer; see [`LatentProducts::new`].
    ///
    /// # Errors
    /// If the layer is inconsistent or reads frequencies that `tables` does not have.
    pub fn new(weights: &LatentAttention, tables: &RopeTables, format: Option<CacheFormat>) -> Result<Self> {
        weights.validate()?;
        let g = weights.geometry;
        if let Some(&frequency) = weights.frequencies.as_slice().iter().find(|&&f| f as usize >= tables.frequencies()) {
            bail!("the layer reads frequency {frequency}, the tables have {}", tables.frequencies());
        }
        if weights.query_down.as_ref().is_some_and(|stage| stage.with_unnormed) {
            bail!("queries that read their latent without its norm too (`with_unnormed`) are not computed here");
        }
        let value_bias = |bias: &Vec<f32>| Tensor::from_slice(bias, (g.kv_heads, 1, g.value_dim), &Device::Cpu);
        Ok(Self {
            query_down: match &weights.query_down {
                Some(stage) => Some((Projection::new(stage.down.clone())?, Norm::new(&stage.norm)?)),
                None => None,
            },
            query_rope: Projection::new(weights.query_rope.clone())?,
            query_nope: Projection::new(weights.query_nope.clone())?,
            key_rope: Projection::new(weights.key_rope.clone())?,
            down: Projection::new(weights.down.clone())?,
            latent_norm: weights.latent_norm.as_ref().map(Norm::new).transpose()?,
            up_key: matrix(weights.up_key.clone())?.reshape((g.kv_heads, g.nope_dim, g.latent_rank))?,
            up_value: matrix(weights.up_value.clone())?
                .reshape((g.kv_heads, g.value_dim, g.latent_rank))?
                .transpose(1, 2)?
                .contiguous()?,
            value_bias: weights.value_bias.as_ref().map(value_bias).transpose()?,
            output: Projection::new(weights.output.clone())?,
            layout: format.map(|format| CacheLayout::new(&g, format, PAGE_SIZE)).transpose()?,
            weights: weights.clone(),
            latents: Vec::new(),
            keys: Vec::new(),
            factors: Vec::new(),
            query_gain: weights.head_norms.as_ref().map(|norms| query_gain(&g, norms)).transpose()?,
        })
    }

    /// Forgets all tokens.
    pub fn reset(&mut self) {
        self.latents.clear();
        self.keys.clear();
        self.factors.clear();
    }

    /// The heads' outputs, `[tokens, H*Dv]`, for new tokens (`[tokens, hidden]`, normalised), which are remembered.
    ///
    /// # Errors
    /// If a size does not fit, positions do not go on where the last ended, or a cached number is out of range.
    pub fn heads(&mut self, normed: &[f32], positions: Range<usize>, tables: &RopeTables) -> Result<Vec<f32>> {
        let g = self.weights.geometry;
        let tokens = positions.len();
        let known = self.latents.len() / g.latent_rank;
        ensure!(known == positions.start, "{known} tokens are cached, the next is said to be {}", positions.start);
        ensure!(positions.end <= tables.positions(), "the RoPE tables end at position {}", tables.positions());
        let x = to_tensor(normed, tokens, self.weights.hidden())?;
        self.remember(&x, &positions, tables)?;
        let query_input = match &self.query_down {
            Some((down, norm)) => norm.apply(&down.apply(&x)?)?,
            None => x,
        };

        // Query heads of a group share their matrices, so they are rows of one product.
        let (groups, per_group) = (g.kv_heads, g.query_heads / g.kv_heads);
        let (rope, nope) = self.queries(&query_input)?;
        let absorbed = by_group(&nope, groups, per_group, g.nope_dim)?.matmul(&self.up_key)?;
        let latents = to_tensor(&self.latents, positions.end, g.latent_rank)?;
        let rows = g.query_heads * tokens;
        let mut scores = absorbed.reshape((rows, g.latent_rank))?.matmul(&latents.t()?)?;
        if g.key_norm {
            let factors = to_tensor(&self.factors, positions.end, groups)?.t()?.reshape((groups, 1, positions.end))?;
            let by_head = scores.reshape((groups, per_group * tokens, positions.end))?.broadcast_mul(&factors)?;
            scores = by_head.reshape((rows, positions.end))?;
        }
        if let Some(rope) = rope {
            let rope = self.rotated(&rope, g.query_heads, &positions, tables)?;
            let per_rope_head = g.query_heads / g.rope_heads;
            let rope = by_group(&rope, g.rope_heads, per_rope_head, g.rope_dim)?;
            let keys = to_tensor(&self.keys, positions.end, g.rope_width())?;
            let keys = keys.reshape((positions.end, g.rope_heads, g.rope_dim))?.permute((1, 2, 0))?.contiguous()?;
            scores = (scores + rope.matmul(&keys)?.reshape((rows, positions.end))?)?;
        }
        let weights = causal_softmax(scores, self.weights.scale as f32, &positions)?;
        let attended = weights.matmul(&latents)?.reshape((groups, per_group * tokens, g.latent_rank))?;
        let mut values = attended.matmul(&self.up_value)?;
        if let Some(bias) = &self.value_bias {
            values = values.broadcast_add(bias)?;
        }
        let values = values.reshape((g.query_heads, tokens, g.value_dim))?.transpose(0, 1)?;
        to_vec(&values.contiguous()?)
    }

    /// What the output projection makes of the heads' outputs (`[tokens, H*Dv]`).
    ///
    /// # Errors
    /// If the width does not fit.
    pub fn project(&self, heads: &[f32]) -> Result<Vec<f32>> {
        let width = self.weights.geometry.query_heads * self.weights.geometry.value_dim;
        to_vec(&self.output.apply(&to_tensor(heads, heads.len() / width.max(1), width)?)?)
    }

    /// Appends what the cache holds of new tokens.
    fn remember(&mut self, x: &Tensor, positions: &Range<usize>, tables: &RopeTables) -> Result<()> {
        let g = self.weights.geometry;
        let mut latent = self.down.apply(x)?;
        if let Some(norm) = &self.latent_norm {
            latent = norm.apply(&latent)?;
        }
        let mut latents = to_vec(&latent)?;
        if let Some(bias) = &self.weights.latent_bias {
            latents.chunks_exact_mut(bias.len()).for_each(|row| row.iter_mut().zip(bias).for_each(|(x, b)| *x += b));
        }
        let mut factors = Vec::new();
        let mut keys = match g.rope_dim {
            0 => None,
            _ => Some(self.key_rope.apply(x)?),
        };
        if let Some(norms) = &self.weights.head_norms {
            let raw = keys.as_ref().map(to_vec).transpose()?.unwrap_or_default();
            factors = self.key_factors(&latents, &raw, norms.epsilon)?;
            let gains = factors.iter().enumerate().flat_map(|(i, factor)| {
                norms.key[i % g.kv_heads * g.rope_dim..][..g.rope_dim].iter().map(move |gain| factor * gain)
            });
            let normalised: Vec<f32> = raw.iter().zip(gains).map(|(x, gain)| x * gain).collect();
            keys = keys.map(|keys| to_tensor(&normalised, keys.dim(0)?, keys.dim(1)?)).transpose()?;
        }
        let rotated = |keys| to_vec(&self.rotated(&keys, g.rope_heads, positions, tables)?);
        let mut keys = keys.map(rotated).transpose()?.unwrap_or_default();
        if let Some(layout) = &self.layout {
            let mut cache = PagedCache::new(*layout, positions.len().div_ceil(PAGE_SIZE))?;
            for slot in 0..positions.len() {
                let latent = &mut latents[slot * g.latent_rank..][..g.latent_rank];
                let key = &mut keys[slot * g.rope_width()..][..g.rope_width()];
                let factors = &mut factors[slot * g.key_factors()..][..g.key_factors()];
                let saturated = cache.write_normalised(slot, latent, key, factors)?;
                ensure!(saturated == 0, "{saturated} cached values of a token were out of range");
                latent.iter_mut().zip(cache.latent(slot)?).for_each(|(to, from)| *to = from as f32);
                key.iter_mut().zip(cache.rope(slot)?).for_each(|(to, from)| *to = from as f32);
                factors.iter_mut().zip(cache.factors(slot)?).for_each(|(to, from)| *to = from as f32);
            }
        }
        self.latents.extend(latents);
        self.keys.extend(keys);
        self.factors.extend(factors);
        Ok(())
    }

    /// The rotated part, if there is one, and the other of new tokens' queries, behind norms over heads.
    fn queries(&self, input: &Tensor) -> Result<(Option<Tensor>, Tensor)> {
        let g = self.weights.geometry;
        let nope = self.query_nope.apply(input)?;
        let rope = if g.rope_dim > 0 { Some(self.query_rope.apply(input)?) } else { None };
        let Some((gain, norms)) = self.query_gain.as_ref().zip(self.weights.head_norms.as_ref()) else {
            return Ok((rope, nope));
        };
        let tokens = nope.dim(0)?;
        let by_head = |x: Tensor, width| x.reshape((tokens, g.query_heads, width));
        let mut parts = rope.map(|rope| by_head(rope, g.rope_dim)).transpose()?.into_iter().collect::<Vec<_>>();
        if g.nope_dim > 0 {
            parts.push(by_head(nope, g.nope_dim)?);
        }
        let heads = Tensor::cat(&parts, 2)?;
        let mean_square = heads.sqr()?.mean_keepdim(2)?;
        let normed = heads.broadcast_div(&(mean_square + f64::from(norms.epsilon))?.sqrt()?)?.broadcast_mul(gain)?;
        let part = |first, width| normed.narrow(2, first, width)?.reshape((tokens, g.query_heads * width));
        let rope = if g.rope_dim > 0 { Some(part(0, g.rope_dim)?) } else { None };
        Ok((rope, part(g.rope_dim, g.nope_dim)?))
    }

    /// What normalises new tokens' keys: `[tokens, G]`. `rope` are their parts before rotation.
    fn key_factors(&self, latents: &[f32], rope: &[f32], epsilon: f32) -> Result<Vec<f32>> {
        let g = self.weights.geometry;
        let tokens = latents.len() / g.latent_rank;
        let up_key = self.up_key.reshape((g.kv_heads * g.nope_dim, g.latent_rank))?;
        let nope = to_vec(&to_tensor(latents, tokens, g.latent_rank)?.matmul(&up_key.t()?)?)?;
        let inputs = HeadNormInputs { queries: None, k_rope: rope, k_nope: &nope, epsilon };
        Ok(head_norm(&g, &inputs)?.key_factors)
    }

    /// `[tokens, heads * R]` with every head rotated at its token's position.
    fn rotated(&self, x: &Tensor, heads: usize, positions: &Range<usize>, tables: &RopeTables) -> Result<Tensor> {
        let g = self.weights.geometry;
        let (tokens, width) = x.dims2()?;
        let mut data = to_vec(x)?;
        let pairing: Pairing = self.weights.pairing;
        for (row, position) in data.chunks_exact_mut(width).zip(positions.clone()) {
            for (head, numbers) in row.chunks_exact_mut(g.rope_dim).enumerate() {
                let rope_head = head / (heads / g.rope_heads);
                rotate_head(numbers, self.weights.frequencies.head(rope_head), pairing, tables, position);
            }
        }
        to_tensor(&data, tokens, width)
    }
}

/// `[H, R + Dn]`: the gain of each query head, which is that of its KV head.
fn query_gain(g: &Geometry, norms: &HeadNorms) -> Result<Tensor> {
    let width = g.rope_dim + g.nope_dim;
    let of_head = |head| norms.query[g.kv_head_of(head) * width..][..width].iter().copied();
    Ok(Tensor::from_vec((0..g.query_heads).flat_map(of_head).collect(), (g.query_heads, width), &Device::Cpu)?)
}

/// `[tokens, groups * per_group * dim]` to `[groups, per_group * tokens, dim]`.
fn by_group(x: &Tensor, groups: usize, per_group: usize, dim: usize) -> Result<Tensor> {
    let tokens = x.dim(0)?;
    Ok(heads_first(x, groups * per_group, dim)?.reshape((groups, per_group * tokens, dim))?)
}

/// Softmax of the scaled scores `[heads * tokens, end]` over the tokens up to each query's own.
fn causal_softmax(scores: Tensor, scale: f32, positions: &Range<usize>) -> Result<Tensor> {
    let shape = scores.dims2()?;
    let mut rows = to_vec(&scores)?;
    for (index, row) in rows.chunks_exact_mut(shape.1).enumerate() {
        let (seen, hidden) = row.split_at_mut(positions.start + index % positions.len() + 1);
        let largest = seen.iter().fold(f32::NEG_INFINITY, |most, &score| most.max(score));
        let mut sum = 0.0;
        for score in seen.iter_mut() {
            *score = (scale * (*score - largest)).exp();
            sum += *score;
        }
        seen.iter_mut().for_each(|score| *score /= sum);
        hidden.fill(0.0);
    }
    to_tensor(&rows, shape.0, shape.1)
}
