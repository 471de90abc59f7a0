//! The first pass over the text: second moments of queries, keys and of what heads average.

use faer::Mat;

use super::Sampling;
use super::inputs::{LayerInputs, for_each_sequence};
use super::original::{KeysAndValues, Original, Sequence};
use super::samples::{Samples, draw_positions, stream};
use crate::convert::linalg::{add_product, add_square, mirror, product};
use crate::error::{Error, Result};

/// What the first pass finds out.
pub(super) struct Moments {
    /// The samples of every sequence.
    pub samples: Vec<Samples>,
    /// For every pair, the sum over samples of omega times the products of the KV heads' keys,
    /// `omega Re(k_g conj(k_g'))`, `[G, G]`.
    pub keys: Vec<Mat<f64>>,
    /// Mean of `q q^T` of every query head, `[d, d]`, not rotated.
    pub queries: Vec<Mat<f64>>,
    /// Mean of `x x^T` over what the heads average by their attention, `[hidden, hidden]`.
    pub averages: Mat<f64>,
    /// Tokens in the text.
    pub tokens: usize,
}

impl Moments {
    /// # Errors
    /// As for [`Original::sequence`]; [`Error::Config`] if the text has no tokens.
    pub fn gather(original: &Original, inputs: &dyn LayerInputs, sampling: &Sampling) -> Result<Self> {
        let (groups, d, hidden) = (original.kv_heads, original.head_dim, original.hidden);
        let mut sum = Self {
            samples: Vec::new(),
            keys: vec![Mat::zeros(groups, groups); original.pairs()],
            queries: vec![Mat::zeros(d, d); original.query_heads],
            averages: Mat::zeros(hidden, hidden),
            tokens: 0,
        };
        let mut counts = (0, 0);
        let make = |index| {
            let sequence = original.sequence(inputs, index)?;
            let read = original.keys_and_values(&sequence);
            let samples = Samples::draw(original, &sequence, &read, index, sampling);
            let keys = key_moments(original, &sequence, &samples);
            let mut squares = Mat::zeros(hidden, hidden);
            let mut averaged = 0;
            for attention in averaging(original, &sequence, &read, index, sampling) {
                let averages = product(sequence.inputs.as_ref(), attention.as_ref());
                add_square(squares.as_mut(), averages.as_ref());
                averaged += averages.ncols();
            }
            Ok((sequence.tokens(), samples, keys, squares, averaged))
        };
        for_each_sequence(inputs.sequences(), make, |_, (tokens, samples, keys, squares, averaged)| {
            sum.keys.iter_mut().zip(&keys).for_each(|(sum, keys)| *sum += keys);
            for (head, sum) in sum.queries.iter_mut().enumerate() {
                let queries = original.head_rows(&samples.queries, head);
                add_product(sum.as_mut(), queries, queries.transpose());
            }
            sum.averages += &squares;
            sum.tokens += tokens;
            counts = (counts.0 + samples.positions.len(), counts.1 + averaged);
            sum.samples.push(samples);
        })?;
        if counts.0 == 0 {
            return Err(Error::Config { what: "calibration text".into(), why: "it has no tokens".into() });
        }
        sum.queries.iter_mut().for_each(|head| *head *= faer::Scale(1.0 / counts.0 as f64));
        mirror(&mut sum.averages);
        sum.averages *= faer::Scale(1.0 / counts.1 as f64);
        Ok(sum)
    }

    /// Sampled queries of each head.
    pub fn sampled_queries(&self) -> usize {
        self.samples.iter().map(|samples| samples.positions.len()).sum()
    }
}

/// The attention of each head for some queries of a sequence, `[tokens, queries]`: what values are fitted to is what heads
/// average by it.
pub(super) fn averaging(
    original: &Original,
    sequence: &Sequence,
    read: &KeysAndValues,
    index: usize,
    sampling: &Sampling,
) -> impl Iterator<Item = Mat<f64>> {
    let tokens = sequence.tokens();
    let count = sampling.of_sequence(sampling.averages, tokens);
    let positions = draw_positions(&mut stream(sampling.seed, index, 1), tokens, count);
    let rotated = original.rotated(&original.queries(sequence, &positions), &positions);
    (0..original.query_heads).map(move |head| original.attention(read, &rotated, &positions, head))
}

fn key_moments(original: &Original, sequence: &Sequence, samples: &Samples) -> Vec<Mat<f64>> {
    let (groups, d, pairs) = (original.kv_heads, original.head_dim, original.pairs());
    let counts = weight_of_tokens(original, sequence, samples);
    let mut moments = vec![Mat::zeros(groups, groups); pairs];
    for (token, &weight) in counts.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        let key = sequence.key.col(token);
        for (pair, moments) in moments.iter_mut().enumerate() {
            for g in 0..groups {
                let (a, b) = (weight * key[g * d + pair], weight * key[g * d + pair + pairs]);
                for other in 0..groups {
                    moments[(g, other)] += a * key[other * d + pair] + b * key[other * d + pair + pairs];
                }
            }
        }
    }
    moments
}

/// The weight that each token has as a sampled key, over all heads and queries.
pub(super) fn weight_of_tokens(original: &Original, sequence: &Sequence, samples: &Samples) -> Vec<f64> {
    let mut weights = vec![0.0; sequence.tokens()];
    for head in 0..original.query_heads {
        for query in 0..samples.positions.len() {
            let (weight, keys) = samples.of(head, query);
            keys.iter().for_each(|&key| weights[key as usize] += weight / keys.len() as f64);
        }
    }
    weights
}
