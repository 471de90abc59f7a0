//! What the least-squares fits of keys have in common: weighted products of features and relatively rotated keys.

use faer::reborrow::ReborrowMut;
use faer::{Mat, MatRef};

use super::original::{Original, Sequence};
use super::samples::Samples;
use crate::convert::linalg::{add_square, product};

/// Sines and cosines of every frequency at every distance between two tokens, `[distance][pair]`.
pub(super) struct Turns(Vec<Vec<(f64, f64)>>);

impl Turns {
    pub fn new(frequencies: &[f64], tokens: usize) -> Self {
        Self(
            (0..tokens).map(|distance| frequencies.iter().map(|f| (distance as f64 * f).sin_cos()).collect()).collect(),
        )
    }

    /// `(a, b)` turned back by a distance.
    pub fn back(&self, (a, b): (f64, f64), distance: usize, pair: usize) -> (f64, f64) {
        let (sin, cos) = self.0[distance][pair];
        (a * cos + b * sin, b * cos - a * sin)
    }
}

/// Features that predict the keys of one head as its queries see them.
pub(super) struct Features<'a> {
    /// Keys that keep their rotation, not yet rotated: `[R, tokens]`, the pairs' first numbers and then their second ones.
    pub rotated: MatRef<'a, f64>,
    /// The frequency of each of those pairs.
    pub pairs: &'a [usize],
    /// Features that are not rotated, `[features, tokens]`.
    pub plain: MatRef<'a, f64>,
}

impl Features<'_> {
    /// Number of features.
    pub fn len(&self) -> usize {
        self.rotated.nrows() + self.plain.nrows()
    }

    /// `(Z Z^T, Z Y^T)` of features Z and targets Y over one sequence's samples for one head. Targets are the keys of the
    /// head's KV head turned back by their distance from the query, as the query's own rotation leaves them; rotated
    /// features are turned alike. All are centred over the keys of each query, since softmax ignores constants.
    pub fn products(
        &self,
        original: &Original,
        sequence: &Sequence,
        samples: &Samples,
        head: usize,
        turns: &Turns,
    ) -> (Mat<f64>, Mat<f64>) {
        let (d, kept) = (original.head_dim, self.pairs.len());
        let key = original.head_rows(&sequence.key, original.kv_head_of(head));
        let per_query = samples.of(head, 0).1.len();
        let columns = samples.positions.len() * per_query;
        let (mut features, mut targets) = (Mat::zeros(self.len(), columns), Mat::zeros(d, columns));
        for (query, &position) in samples.positions.iter().enumerate() {
            let (weight, keys) = samples.of(head, query);
            let of_query = query * per_query..(query + 1) * per_query;
            for (column, &token) in of_query.clone().zip(keys) {
                let token = token as usize;
                let distance = position - token;
                let (mut feature, from) = (features.col_mut(column), self.rotated.col(token));
                for (j, &pair) in self.pairs.iter().enumerate() {
                    (feature[j], feature[j + kept]) = turns.back((from[j], from[j + kept]), distance, pair);
                }
                feature.subrows_mut(2 * kept, self.plain.nrows()).copy_from(self.plain.col(token));
                let (mut target, from) = (targets.col_mut(column), key.col(token));
                for pair in 0..d / 2 {
                    (target[pair], target[pair + d / 2]) = turns.back((from[pair], from[pair + d / 2]), distance, pair);
                }
            }
            let factor = (weight / per_query as f64).sqrt();
            centre(&mut features, of_query.clone(), factor);
            centre(&mut targets, of_query, factor);
        }
        let gram = product(features.as_ref(), features.transpose());
        let cross = product(features.as_ref(), targets.transpose());
        (gram, cross)
    }
}

/// Subtracts the mean of some columns from each of them, and scales them.
fn centre(matrix: &mut Mat<f64>, columns: std::ops::Range<usize>, factor: f64) {
    let count = columns.len() as f64;
    for row in 0..matrix.nrows() {
        let mean = columns.clone().map(|column| matrix[(row, column)]).sum::<f64>() / count;
        for column in columns.clone() {
            matrix[(row, column)] = factor * (matrix[(row, column)] - mean);
        }
    }
}

/// The weighted covariance of the inputs over the sampled keys of each query, all heads together and not normalised:
/// what an error of a key that is linear in the input costs. The lower triangle, [`mirror`](crate::convert::linalg::mirror)
/// it.
pub(super) fn centred_inputs(original: &Original, sequence: &Sequence, samples: &Samples) -> Mat<f64> {
    let hidden = original.hidden;
    let weights = super::moments::weight_of_tokens(original, sequence, samples);
    let scaled = Mat::from_fn(hidden, weights.len(), |i, token| weights[token].sqrt() * sequence.inputs[(i, token)]);
    let mut covariance = Mat::zeros(hidden, hidden);
    add_square(covariance.as_mut(), scaled.as_ref());
    let mut means = Mat::<f64>::zeros(hidden, original.query_heads * samples.positions.len());
    for head in 0..original.query_heads {
        for query in 0..samples.positions.len() {
            let (weight, keys) = samples.of(head, query);
            let mut mean = means.col_mut(head * samples.positions.len() + query);
            let factor = weight.sqrt() / keys.len() as f64;
            for &token in keys {
                let input = sequence.inputs.col(token as usize);
                mean.rb_mut().iter_mut().zip(input.iter()).for_each(|(mean, input)| *mean += factor * input);
            }
        }
    }
    let mut outer = Mat::zeros(hidden, hidden);
    add_square(outer.as_mut(), means.as_ref());
    covariance -= &outer;
    covariance
}
