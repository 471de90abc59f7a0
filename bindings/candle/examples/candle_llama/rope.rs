//! The rotation of heads that may each turn by frequencies of their own.

use candle_core::{D, Device, Result, Tensor};
use latent_attention::rope::{FrequencyIndex, RopeTables};

/// Cosines and sines `[positions, heads, pairs]`.
pub struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// For `heads` heads, of which equally many follow each rope head of the index.
    pub fn new(tables: &RopeTables, index: &FrequencyIndex, heads: usize) -> Result<Self> {
        let shape = (tables.positions(), heads, index.pairs());
        let gather = |table: &[f32]| {
            let rows = table.chunks_exact(tables.frequencies());
            let numbers = rows.flat_map(|row| {
                (0..heads).flat_map(move |head| {
                    index.head(head / (heads / index.rope_heads())).iter().map(|&frequency| row[frequency as usize])
                })
            });
            Tensor::from_vec(numbers.collect::<Vec<f32>>(), shape, &Device::Cpu)
        };
        Ok(Self { cos: gather(tables.cos())?, sin: gather(tables.sin())? })
    }

    /// Turns `[T, heads, dims]`, the first of which stands at position `start`. Dimension `i` pairs with `i + dims/2`.
    pub fn apply(&self, x: &Tensor, start: usize) -> Result<Tensor> {
        let (tokens, _, dims) = x.dims3()?;
        let [cos, sin] = [&self.cos, &self.sin].map(|table| table.narrow(0, start, tokens));
        let (cos, sin) = (cos?, sin?);
        let (a, b) = (x.narrow(2, 0, dims / 2)?, x.narrow(2, dims / 2, dims / 2)?);
        let turned = [((&a * &cos)? - (&b * &sin)?)?, ((&b * &cos)? + (&a * &sin)?)?];
        Tensor::cat(&turned, D::Minus1)
    }
}
