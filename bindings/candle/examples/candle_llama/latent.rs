//! The attention that takes its place: the same interface, a paged latent cache.

use std::rc::Rc;

use candle_core::{Device, Result, Tensor};
use latent_attention::rope::RopeTables;
use latent_attention::weights::LatentAttention;
use latent_attention_candle::Mla;

use crate::llama::{Projection, matrix};
use crate::rope::Rope;

pub struct LatentKv {
    /// Shared by all layers.
    mla: Rc<Mla>,
    query_rope: Projection,
    query_nope: Projection,
    key_rope: Projection,
    down: Projection,
    /// `[G, Dn, L]`.
    up_key: Tensor,
    /// `[G, Dv, L]`.
    up_value: Tensor,
    /// `[G, Dv]`.
    value_bias: Option<Tensor>,
    output: Projection,
    rope: [Rope; 2],
    /// u8 `[pages, page bytes]`.
    cache: Tensor,
}

impl LatentKv {
    /// A converted layer: unlike DeepSeek's, it has neither a norm over the latent nor, in the default basis, a bias.
    pub fn new(mla: &Rc<Mla>, weights: &LatentAttention, tables: &RopeTables, pages: usize) -> Result<Self> {
        let g = &weights.geometry;
        let bias = |bias: &Vec<f32>| Tensor::from_slice(bias, (g.kv_heads, g.value_dim), &Device::Cpu);
        Ok(Self {
            query_rope: Projection::new(&weights.query_rope)?,
            query_nope: Projection::new(&weights.query_nope)?,
            key_rope: Projection::new(&weights.key_rope)?,
            down: Projection::new(&weights.down)?,
            up_key: matrix(&weights.up_key)?.reshape((g.kv_heads, g.nope_dim, g.latent_rank))?,
            up_value: matrix(&weights.up_value)?.reshape((g.kv_heads, g.value_dim, g.latent_rank))?,
            value_bias: weights.value_bias.as_ref().map(bias).transpose()?,
            output: Projection::new(&weights.output)?,
            rope: [
                Rope::new(tables, &weights.frequencies, g.query_heads)?,
                Rope::new(tables, &weights.frequencies, g.rope_heads)?,
            ],
            cache: mla.new_cache(pages)?,
            mla: mla.clone(),
        })
    }

    /// Attention of new tokens `[T, hidden]`, the first of which stands at position `start`, of a sequence that lies in
    /// the cache's pages from the last to the first.
    pub fn forward(&mut self, x: &Tensor, start: usize) -> Result<Tensor> {
        let (mla, tokens) = (&self.mla, x.dim(0)?);
        let (g, page_size) = (&mla.config().geometry, mla.config().layout.page_size());
        let pages = self.cache.dim(0)?;

        // The engine's own: projections, rotation, and where the tokens go.
        let heads = |y: Tensor, heads: usize, dims: usize| y.reshape((tokens, heads, dims));
        let q_pe = self.rope[0].apply(&heads(self.query_rope.apply(x)?, g.query_heads, g.rope_dim)?, start)?;
        let k_pe = self.rope[1].apply(&heads(self.key_rope.apply(x)?, g.rope_heads, g.rope_dim)?, start)?;
        let q_nope = heads(self.query_nope.apply(x)?, g.query_heads, g.nope_dim)?;
        let c_kv = self.down.apply(x)?;
        let slot = |position: usize| ((pages - 1 - position / page_size) * page_size + position % page_size) as i64;
        let slot_mapping = Tensor::from_iter((start..start + tokens).map(slot), &Device::Cpu)?;
        let block_tables = Tensor::from_iter((0..pages as u32).rev(), &Device::Cpu)?.reshape((1, pages))?;
        let context_lens = Tensor::new(&[(start + tokens) as u32], &Device::Cpu)?;

        // The seam.
        mla.concat_and_cache_mla(&c_kv, &k_pe, &self.cache, &slot_mapping)?;
        let q_latent = mla.absorb_query(&q_nope, &self.up_key)?;
        let mut plan = mla.plan(&block_tables, &context_lens, Some(&[tokens]), pages)?;
        let (o_latent, _lse) = mla.attend(&q_latent, &q_pe, &self.cache, &mut plan)?;
        let out = mla.expand_output(&o_latent, &self.up_value, self.value_bias.as_ref())?;

        self.output.apply(&out.flatten_from(1)?)
    }
}
