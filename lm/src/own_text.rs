//! Text that a model writes itself: what it is calibrated and recovered on where no other text is given. It needs no
//! download, is of the model's own vocabulary and kind, and overlaps no text that the model is evaluated on.

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use latent_attention::rope::{Pairing, RopeTables, rotate_head};
use latent_attention::weights::DenseAttention;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

use crate::model::Model;
use crate::tensors::{Projection, to_tensor, to_vec};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Writing {
    /// Number of texts.
    pub sequences: usize,
    /// Tokens of each.
    pub length: usize,
    /// Divides the logits: below 1, likely tokens are drawn more often than the model says. Small models write better text
    /// so.
    pub temperature: f32,
    /// Picks the texts.
    pub seed: u64,
}

/// Writes texts side by side, from what begins a text for the model; every next token is drawn from the model's own
/// distribution. `done` is called after every token of all texts.
///
/// Memory holds the keys and values of all layers, `8 sequences * length * layers * kv_heads * head_dim` bytes.
///
/// # Errors
/// If the model names no token that begins a text, a size is 0, the length exceeds the tables, or layers do not fit.
pub fn write(
    model: &Model,
    layers: &[DenseAttention],
    tables: &RopeTables,
    writing: Writing,
    mut done: impl FnMut(),
) -> Result<Vec<Vec<u32>>> {
    let Writing { sequences, length, temperature, seed } = writing;
    ensure!(temperature.is_finite() && temperature > 0.0, "the temperature must be positive, not {temperature}");
    let begin = model.tokenizer.bos().context("the model names no token that begins a text")?;
    ensure!(sequences > 0 && length > 0, "there is nothing to write");
    ensure!(length <= tables.positions(), "the RoPE tables end at position {}", tables.positions());
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut writers = layers.iter().map(|layer| Writer::new(layer, sequences, length)).collect::<Result<Vec<_>>>()?;
    let mut texts = vec![vec![begin]; sequences];
    for position in 0..length - 1 {
        let last: Vec<u32> = texts.iter().map(|text| text[position]).collect();
        let mut x = model.transformer.embed(&last)?;
        for (index, writer) in writers.iter_mut().enumerate() {
            let attended = writer.step(&model.transformer.attention_input(index, &x)?, position, tables)?;
            x = model.transformer.add_mlp(index, &(x + attended)?)?;
        }
        let logits = model.transformer.logits(&model.transformer.finish(&x)?)?;
        let vocabulary = logits.dim(1)?;
        let draws: Vec<f32> = (0..sequences).map(|_| rng.random()).collect();
        let rows = to_vec(&logits)?;
        let next: Vec<u32> =
            rows.par_chunks(vocabulary).zip(&draws).map(|(row, &draw)| drawn(row, temperature, draw)).collect();
        texts.iter_mut().zip(next).for_each(|(text, token)| text.push(token));
        done();
    }
    Ok(texts)
}

/// The token at `draw` (in 0..1) of the distribution that `logits` describe.
fn drawn(logits: &[f32], temperature: f32, draw: f32) -> u32 {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |most, &logit| most.max(logit));
    let total: f64 = logits.iter().map(|&logit| f64::from(((logit - largest) / temperature).exp())).sum();
    let mut left = f64::from(draw) * total;
    for (token, &logit) in logits.iter().enumerate() {
        left -= f64::from(((logit - largest) / temperature).exp());
        if left < 0.0 {
            return token as u32;
        }
    }
    // Rounding let the sum end before the draw.
    logits.len() as u32 - 1
}

/// One layer's attention for one new token of each text.
struct Writer {
    query_heads: usize,
    kv_heads: usize,
    head_dim: usize,
    length: usize,
    query: Projection,
    key: Projection,
    value: Projection,
    output: Projection,
    frequencies: Vec<u32>,
    /// `[sequences, G, length, d]`.
    keys: Vec<f32>,
    /// `[sequences, G, length, d]`.
    values: Vec<f32>,
}

impl Writer {
    fn new(layer: &DenseAttention, sequences: usize, length: usize) -> Result<Self> {
        layer.validate()?;
        let numbers = sequences * layer.kv_heads * length * layer.head_dim;
        Ok(Self {
            query_heads: layer.query_heads,
            kv_heads: layer.kv_heads,
            head_dim: layer.head_dim,
            length,
            query: Projection::new(layer.query.clone())?,
            key: Projection::new(layer.key.clone())?,
            value: Projection::new(layer.value.clone())?,
            output: Projection::new(layer.output.clone())?,
            frequencies: (0..layer.head_dim as u32 / 2).collect(),
            keys: vec![0.0; numbers],
            values: vec![0.0; numbers],
        })
    }

    /// `[sequences, hidden]` to `[sequences, hidden]`.
    fn step(&mut self, normed: &Tensor, position: usize, tables: &RopeTables) -> Result<Tensor> {
        let (d, length, groups) = (self.head_dim, self.length, self.kv_heads);
        let per_group = self.query_heads / groups;
        let mut queries = to_vec(&self.query.apply(normed)?)?;
        let mut keys = to_vec(&self.key.apply(normed)?)?;
        let values = to_vec(&self.value.apply(normed)?)?;
        for head in queries.chunks_exact_mut(d).chain(keys.chunks_exact_mut(d)) {
            rotate_head(head, &self.frequencies, Pairing::Half, tables, position);
        }
        for (cache, new) in [(&mut self.keys, &keys), (&mut self.values, &values)] {
            for (head, new) in cache.chunks_exact_mut(length * d).zip(new.chunks_exact(d)) {
                head[position * d..][..d].copy_from_slice(new);
            }
        }
        let scale = (d as f32).powf(-0.5);
        let mut outputs = vec![0.0; queries.len()];
        let of_head = |(head, output): (usize, &mut [f32])| {
            let (sequence, query_head) = (head / self.query_heads, head % self.query_heads);
            let start = (sequence * groups + query_head / per_group) * length * d;
            let query = &queries[head * d..][..d];
            let (keys, values) =
                (&self.keys[start..][..(position + 1) * d], &self.values[start..][..(position + 1) * d]);
            let dot = |key: &[f32]| scale * query.iter().zip(key).map(|(q, k)| q * k).sum::<f32>();
            let mut weights: Vec<f32> = keys.chunks_exact(d).map(dot).collect();
            let largest = weights.iter().fold(f32::NEG_INFINITY, |most, &score| most.max(score));
            weights.iter_mut().for_each(|score| *score = (*score - largest).exp());
            let sum: f32 = weights.iter().sum();
            for (weight, value) in weights.iter().zip(values.chunks_exact(d)) {
                output.iter_mut().zip(value).for_each(|(output, value)| *output += weight / sum * value);
            }
        };
        outputs.par_chunks_mut(d).enumerate().for_each(of_head);
        let width = self.query_heads * d;
        self.output.apply(&to_tensor(&outputs, outputs.len() / width, width)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_drawn_as_often_as_the_distribution_says() {
        let logits = [0.5f32.ln(), 0.125f32.ln(), 0.375f32.ln()];
        let draws = |temperature| (0..1000).map(move |i| drawn(&logits, temperature, (i as f32 + 0.5) / 1000.0));
        let count = |temperature, token| draws(temperature).filter(|&drawn| drawn == token).count();
        assert_eq!([count(1.0, 0), count(1.0, 1), count(1.0, 2)], [500, 125, 375]);
        // Half the temperature squares the probabilities: 16, 1 and 9 of 26.
        assert_eq!([count(0.5, 0), count(0.5, 1), count(0.5, 2)], [615, 39, 346]);
        assert_eq!(drawn(&logits, 1.0, 1.0), 2);
    }
}
