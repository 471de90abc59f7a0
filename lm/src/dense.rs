//! The original attention of the model: full RoPE, and a cache of K and V in bf16.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use candle_nn::kv_cache::KvCache;
use half::bf16;
use latent_attention::load::TensorSource;
use latent_attention::rope::{Pairing, RopeTables, rotate_head};
use latent_attention::weights::{DenseAttention, HeadNorms, RmsNorm};

use crate::tensors::{Norm, Projection, to_tensor, to_vec};
use crate::transformer::AttentionStep;

/// Room of a layer's cache at first, in tokens; it grows by as much when full.
const CACHE_TOKENS: usize = 1024;

/// How a cache rounds: makes of a head's key (rotated) or value of one token, `[head_dim]`, what is read back.
pub type Rounding = fn(&mut [f32]);

/// Dense attention for all layers of a model.
pub struct DenseSteps<'a> {
    layers: Vec<Layer>,
    tables: &'a RopeTables,
    rounding: Rounding,
}

impl<'a> DenseSteps<'a> {
    /// Prepares the given layers; `tables` holds the model's own frequencies, one per pair of a head.
    ///
    /// # Errors
    /// If a layer is inconsistent, or its heads do not fit the tables.
    pub fn new(layers: &[DenseAttention], tables: &'a RopeTables) -> Result<Self> {
        Self::with_rounding(layers, tables, through_bf16)
    }

    /// The same with a cache of another number format than bf16.
    ///
    /// # Errors
    /// As for [`DenseSteps::new`].
    pub fn with_rounding(layers: &[DenseAttention], tables: &'a RopeTables, rounding: Rounding) -> Result<Self> {
        let layers = layers
            .iter()
            .enumerate()
            .map(|(index, weights)| Layer::new(weights, tables).with_context(|| format!("attention of layer {index}")));
        Ok(Self { layers: layers.collect::<Result<_>>()?, tables, rounding })
    }

    /// Reads the codes of which the weights were dequantised, where `source`, from which they came, has any: single tokens
    /// are then multiplied by those.
    ///
    /// # Errors
    /// If the file cannot be read or holds a scale that is not finite.
    pub fn read_codes(&mut self, source: &dyn TensorSource) -> Result<()> {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let maps =
                [(&mut layer.query, "q"), (&mut layer.key, "k"), (&mut layer.value, "v"), (&mut layer.output, "o")];
            for (map, name) in maps {
                map.read_codes(source, &format!("model.layers.{index}.self_attn.{name}_proj.weight"))?;
            }
        }
        Ok(())
    }
}

impl AttentionStep for DenseSteps<'_> {
    fn forward(&mut self, layer: usize, normed: &[f32], positions: Range<usize>) -> Result<Vec<f32>> {
        ensure!(
            positions.end <= self.tables.positions(),
            "the RoPE tables end at position {}",
            self.tables.positions()
        );
        let layer = self.layers.get_mut(layer).context("no such layer")?;
        layer.forward(normed, positions, self.tables, self.rounding)
    }

    fn reset(&mut self) {
        for layer in &mut self.layers {
            layer.cache.reset();
        }
    }
}

struct Layer {
    query_heads: usize,
    kv_heads: usize,
    head_dim: usize,
    hidden: usize,
    query: Projection,
    key: Projection,
    value: Projection,
    output: Projection,
    /// Norms over heads of queries and of keys.
    norms: Option<[Norm; 2]>,
    frequencies: Vec<u32>,
    cache: KvCache,
}

impl Layer {
    fn new(weights: &DenseAttention, tables: &RopeTables) -> Result<Self> {
        weights.validate()?;
        let pairs = weights.head_dim / 2;
        ensure!(
            tables.frequencies() == pairs,
            "a head of {} dimensions needs {pairs} frequencies, the tables have {}",
            weights.head_dim,
            tables.frequencies()
        );
        Ok(Self {
            query_heads: weights.query_heads,
            kv_heads: weights.kv_heads,
            head_dim: weights.head_dim,
            hidden: weights.hidden(),
            query: Projection::new(weights.query.clone())?,
            key: Projection::new(weights.key.clone())?,
            value: Projection::new(weights.value.clone())?,
            output: Projection::new(weights.output.clone())?,
            norms: weights.head_norms.as_ref().map(head_norms).transpose()?,
            frequencies: (0..pairs as u32).collect(),
            cache: KvCache::new(1, CACHE_TOKENS),
        })
    }

    fn forward(
        &mut self,
        normed: &[f32],
        positions: Range<usize>,
        tables: &RopeTables,
        rounding: Rounding,
    ) -> Result<Vec<f32>> {
        let (tokens, groups, d) = (positions.len(), self.kv_heads, self.head_dim);
        let per_group = self.query_heads / groups;
        let known = self.cache.k_cache().current_seq_len();
        ensure!(known == positions.start, "{known} tokens are cached, the next is said to be {}", positions.start);

        let x = to_tensor(normed, tokens, self.hidden)?;
        let [query, key, value] = Projection::apply_each([&self.query, &self.key, &self.value], &x)?;
        let [query_norm, key_norm] = self.norms.as_ref().map_or([None, None], |[query, key]| [Some(query), Some(key)]);
        let query = self.rotated(&query, query_norm, self.query_heads, positions.start, tables)?;
        let key = self.rotated(&key, key_norm, groups, positions.start, tables)?;
        let value = heads_first(&value, groups, d)?;
        let (keys, values) = self.cache.append(&rounded(&key, rounding)?, &rounded(&value, rounding)?)?;

        // The query heads of a group read the same keys, so they are rows of one product per group.
        let query = (query * (d as f64).powf(-0.5))?.reshape((groups, per_group * tokens, d))?;
        let mut scores = query.matmul(&keys.t()?)?;
        if tokens > 1 {
            let shape = (groups, per_group, tokens, positions.end);
            scores = scores.reshape(shape)?.broadcast_add(&causal_mask(&positions)?)?.reshape(scores.shape())?;
        }
        let attended = candle_nn::ops::softmax_last_dim(&scores)?.matmul(&values)?;
        let attended = attended.reshape((self.query_heads, tokens, d))?.transpose(0, 1)?;
        to_vec(&self.output.apply(&attended.reshape((tokens, self.query_heads * d))?)?)
    }

    /// `[tokens, heads * d]` to `[heads, tokens, d]`, each head normalised, if there is a norm, and rotated at its token's
    /// position.
    fn rotated(
        &self,
        x: &Tensor,
        norm: Option<&Norm>,
        heads: usize,
        start: usize,
        tables: &RopeTables,
    ) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let mut data = match norm {
            Some(norm) => to_vec(&norm.apply(&x.reshape((tokens * heads, self.head_dim))?)?)?,
            None => to_vec(x)?,
        };
        for (token, row) in data.chunks_exact_mut(width).enumerate() {
            for head in row.chunks_exact_mut(self.head_dim) {
                rotate_head(head, &self.frequencies, Pairing::Half, tables, start + token);
            }
        }
        heads_first(&to_tensor(&data, tokens, width)?, heads, self.head_dim)
    }
}

/// The norms of queries and of keys.
fn head_norms(norms: &HeadNorms) -> Result<[Norm; 2]> {
    let norm = |gain: &Vec<f32>| Norm::new(&RmsNorm { gain: gain.clone(), epsilon: norms.epsilon });
    Ok([norm(&norms.query)?, norm(&norms.key)?])
}

/// `[tokens, heads * d]` to `[heads, tokens, d]`.
pub(crate) fn heads_first(x: &Tensor, heads: usize, head_dim: usize) -> Result<Tensor> {
    Ok(x.reshape((x.dim(0)?, heads, head_dim))?.transpose(0, 1)?.contiguous()?)
}

/// Rounds every head of every token, `[heads, tokens, d]`. The numbers stay in f32 because candle has no bf16 product on the
/// CPU that would be faster than widening them each time.
fn rounded(x: &Tensor, rounding: Rounding) -> Result<Tensor> {
    let (shape, mut numbers) = (x.dims3()?, to_vec(x)?);
    numbers.chunks_exact_mut(shape.2).for_each(rounding);
    Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?)
}

/// Rounds to bf16, as a bf16 cache would.
fn through_bf16(head: &mut [f32]) {
    head.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
}

/// `[tokens, end]`: 0 where a token may look, minus infinity at tokens after it.
fn causal_mask(positions: &Range<usize>) -> Result<Tensor> {
    let row =
        |position: usize| (0..positions.end).map(move |other| if other > position { f32::NEG_INFINITY } else { 0.0 });
    let mask: Vec<f32> = positions.clone().flat_map(row).collect();
    Ok(Tensor::from_vec(mask, (positions.len(), positions.end), &Device::Cpu)?)
}

#[cfg(test)]
#[path = "dense_tests.rs"]
mod tests;
