//! The attention that is swapped out: one layer with a full KV cache, in candle.

use candle_core::{D, Device, Result, Tensor};
use latent_attention::rope::{FrequencyIndex, RopeTables};
use latent_attention::weights::DenseAttention;

use crate::llama::Projection;
use crate::rope::Rope;

pub struct FullKv {
    query_heads: usize,
    kv_heads: usize,
    head_dim: usize,
    query: Projection,
    key: Projection,
    value: Projection,
    output: Projection,
    query_rope: Rope,
    key_rope: Rope,
    /// Keys and values of all tokens so far, `[kv heads, tokens, head_dim]`.
    cache: Option<(Tensor, Tensor)>,
}

impl FullKv {
    pub fn new(weights: &DenseAttention, tables: &RopeTables) -> Result<Self> {
        let (query_heads, kv_heads, head_dim) = (weights.query_heads, weights.kv_heads, weights.head_dim);
        let all = FrequencyIndex::all(1, head_dim);
        Ok(Self {
            query: Projection::new(&weights.query)?,
            key: Projection::new(&weights.key)?,
            value: Projection::new(&weights.value)?,
            output: Projection::new(&weights.output)?,
            query_rope: Rope::new(tables, &all, query_heads)?,
            key_rope: Rope::new(tables, &all, kv_heads)?,
            cache: None,
            query_heads,
            kv_heads,
            head_dim,
        })
    }

    /// Attention of new tokens `[T, hidden]`, the first of which stands at position `start`.
    pub fn forward(&mut self, x: &Tensor, start: usize) -> Result<Tensor> {
        let (tokens, per_kv_head) = (x.dim(0)?, self.query_heads / self.kv_heads);
        let heads = |y: Tensor, heads| y.reshape((tokens, heads, self.head_dim));
        let query = self.query_rope.apply(&heads(self.query.apply(x)?, self.query_heads)?, start)?;
        let key = self.key_rope.apply(&heads(self.key.apply(x)?, self.kv_heads)?, start)?;
        let value = heads(self.value.apply(x)?, self.kv_heads)?;
        let (key, value) = (key.transpose(0, 1)?, value.transpose(0, 1)?);
        let (keys, values) = match self.cache.take() {
            None => (key.contiguous()?, value.contiguous()?),
            Some((keys, values)) => (Tensor::cat(&[&keys, &key], 1)?, Tensor::cat(&[&values, &value], 1)?),
        };
        // The query heads of a KV head read the same keys: rows of one product.
        let query =
            query.transpose(0, 1)?.contiguous()?.reshape((self.kv_heads, per_kv_head * tokens, self.head_dim))?;
        let scores = (query.matmul(&keys.t()?)? * (self.head_dim as f64).powf(-0.5))?;
        let all = start + tokens;
        let scores = scores.reshape((self.query_heads, tokens, all))?.broadcast_add(&causal_mask(start, tokens)?)?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let attended = weights.reshape((self.kv_heads, per_kv_head * tokens, all))?.matmul(&values)?;
        let attended = attended.reshape((self.query_heads, tokens, self.head_dim))?.transpose(0, 1)?.contiguous()?;
        self.cache = Some((keys, values));
        self.output.apply(&attended.flatten_from(1)?)
    }
}

/// `[T, start + T]`: minus infinity where a token would look ahead.
fn causal_mask(start: usize, tokens: usize) -> Result<Tensor> {
    let all = start + tokens;
    let ahead = |i: usize| if i % all > start + i / all { f32::NEG_INFINITY } else { 0.0 };
    Tensor::from_vec((0..tokens * all).map(ahead).collect::<Vec<_>>(), (tokens, all), &Device::Cpu)
}
