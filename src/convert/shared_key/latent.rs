//! Step 4: the latent, in which what is left of the keys and all of the values meet.

use faer::Mat;

use super::components::{Component, Components};
use super::inputs::{LayerInputs, for_each_sequence};
use super::moments::Moments;
use super::original::{Original, project};
use super::regression::{Features, Turns, centred_inputs};
use super::{Sampling, Step};
use crate::convert::linalg::{cholesky, mirror, product, regress, solve_transposed, symmetric_eigen, symmetric_power};
use crate::error::Result;

/// Steps 1 to 4 of one layer.
pub(super) struct Fitted {
    /// The frequency of every pair of the shared rotated key.
    pub pairs: Vec<usize>,
    /// The shared rotated key, `[R, hidden]` and its bias: the pairs' first numbers, then their second ones.
    pub key_rope: (Mat<f64>, Vec<f64>),
    /// The latent's down-projection, `[L, hidden]`.
    pub down: Mat<f64>,
    /// For each row of `down`, its mean square over the sampled keys' inputs, weighted by what an error costs.
    pub key_reads: Vec<f64>,
    /// For each query head, its key of `[rotated key, latent]`, `[R + L, d]`, as far as it follows from the projections:
    /// what least squares start from.
    pub keys: Vec<Mat<f64>>,
    /// For each KV head its values of the latent, `[L, d]`, likewise.
    pub values: Vec<Mat<f64>>,
}

impl Fitted {
    /// # Errors
    /// As for [`Original::sequence`]; [`Error::Numeric`](crate::Error::Numeric) if a factorisation fails.
    pub fn new(
        original: &Original,
        components: &Components,
        kept: &[Component],
        moments: &Moments,
        inputs: &dyn LayerInputs,
        rank: usize,
        sampling: &Sampling,
    ) -> Result<Self> {
        let d = original.head_dim;
        let (key_rope, scales) = key_rope(original, components, kept);
        let pairs: Vec<usize> = kept.iter().map(|kept| kept.pair).collect();
        let rope_dim = 2 * kept.len();

        // What each head's key is of the rotated keys and its KV head's own key, not rotated.
        let mut products: Vec<_> = (0..original.query_heads)
            .map(|_| (Mat::zeros(rope_dim + d, rope_dim + d), Mat::zeros(rope_dim + d, d)))
            .collect();
        let mut key_inputs = Mat::zeros(original.hidden, original.hidden);
        let make = |index| {
            let (sequence, samples) = (original.sequence(inputs, index)?, &moments.samples[index]);
            let rotated = project(&key_rope, sequence.inputs.as_ref());
            let turns = Turns::new(&original.frequencies, sequence.tokens());
            let of_head = |head: usize| {
                let plain = original.head_rows(&sequence.key, original.kv_head_of(head));
                let features = Features { rotated: rotated.as_ref(), pairs: &pairs, plain };
                features.products(original, &sequence, samples, head, &turns)
            };
            let heads: Vec<_> = (0..original.query_heads).map(of_head).collect();
            Ok((heads, centred_inputs(original, &sequence, samples)))
        };
        for_each_sequence(inputs.sequences(), make, |_, (heads, covariance)| {
            for ((gram, cross), (more_gram, more_cross)) in products.iter_mut().zip(&heads) {
                *gram += more_gram;
                *cross += more_cross;
            }
            key_inputs += &covariance;
        })?;
        mirror(&mut key_inputs);
        key_inputs *= faer::Scale(1.0 / (moments.sampled_queries() * original.query_heads) as f64);
        let own: Vec<Mat<f64>> = products
            .into_iter()
            .enumerate()
            .map(|(head, (gram, cross))| {
                let group = original.kv_head_of(head);
                let mut prior = Mat::zeros(rope_dim + d, d);
                decode_rotated(&mut prior, components, kept, &scales, group);
                regress(gram, cross, sampling.ridge, &prior)
            })
            .collect::<Result<_>>()?;

        let needs = Needs { original, own: &own, rope_dim, moments };
        let (down, inverse) = needs.down(&key_inputs, rank, sampling)?;
        let key_reads = row_squares(&down, &key_inputs);
        let keys = (0..original.query_heads)
            .map(|head| {
                let mut keys = Mat::zeros(rope_dim + rank, d);
                keys.get_mut(..rope_dim, ..).copy_from(own[head].get(..rope_dim, ..));
                let key = original.head_rows(&original.key.0, original.kv_head_of(head));
                let of_latent = product(inverse.transpose(), key.transpose());
                keys.get_mut(rope_dim.., ..).copy_from(product(of_latent.as_ref(), own[head].get(rope_dim.., ..)));
                keys
            })
            .collect();
        let values = (0..original.kv_heads)
            .map(|group| product(inverse.transpose(), original.head_rows(&original.value, group).transpose()))
            .collect();
        Ok(Self { pairs, key_rope, down, key_reads, keys, values })
    }

    /// For each row of `down`, the mean square of the output that is lost without it and the others kept: what the heads
    /// make of it as keys and as values, times its own mean square.
    pub fn worths(&self, original: &Original, moments: &Moments) -> Vec<f64> {
        let rope_dim = 2 * self.pairs.len();
        let (mut of_keys, mut of_values) = (vec![0.0; self.down.nrows()], vec![0.0; self.down.nrows()]);
        let add = |sum: &mut Vec<f64>, squares: Vec<f64>| sum.iter_mut().zip(squares).for_each(|(sum, x)| *sum += x);
        for head in 0..original.query_heads {
            let key = self.keys[head].get(rope_dim.., ..).to_owned();
            add(&mut of_keys, row_squares(&key, &moments.queries[head]));
            let root = &original.output_roots[head];
            let output = product(root.transpose(), root.as_ref());
            add(&mut of_values, row_squares(&self.values[original.kv_head_of(head)], &output));
        }
        let value_reads = row_squares(&self.down, &moments.averages);
        let scale = original.scale * original.scale;
        let worth = |row: usize| scale * of_keys[row] * self.key_reads[row] + of_values[row] * value_reads[row];
        (0..self.down.nrows()).map(worth).collect()
    }
}

/// `x^T matrix x` for every row x.
fn row_squares(rows: &Mat<f64>, matrix: &Mat<f64>) -> Vec<f64> {
    let products = product(rows.as_ref(), matrix.as_ref());
    (0..rows.nrows()).map(|row| products.row(row) * rows.row(row).transpose()).collect()
}

/// The projection to the kept components, each pair scaled to a unit row, and those scales.
fn key_rope(original: &Original, components: &Components, kept: &[Component]) -> ((Mat<f64>, Vec<f64>), Vec<f64>) {
    let (d, half, count) = (original.head_dim, original.pairs(), kept.len());
    let (weight, bias) = &original.key;
    let mut rows = Mat::<f64>::zeros(2 * count, original.hidden);
    let mut biases = vec![0.0; 2 * count];
    let mut scales = Vec::with_capacity(count);
    for (j, &kept) in kept.iter().enumerate() {
        for (part, row) in [(0, j), (1, j + count)] {
            for group in 0..original.kv_heads {
                let (factor, from) = (components.encode(kept, group), group * d + kept.pair + part * half);
                for i in 0..original.hidden {
                    rows[(row, i)] += factor * weight[(from, i)];
                }
                biases[row] += factor * bias[from];
            }
        }
        let square: f64 = [j, j + count].into_iter().flat_map(|row| rows.row(row).iter()).map(|x| x * x).sum();
        let scale = if square > 0.0 { square.sqrt() } else { 1.0 };
        for row in [j, j + count] {
            rows.row_mut(row).iter_mut().for_each(|x| *x /= scale);
            biases[row] /= scale;
        }
        scales.push(scale);
    }
    ((rows, biases), scales)
}

/// Writes a KV head's key as far as the kept components say into the first rows of `keys`.
fn decode_rotated(keys: &mut Mat<f64>, components: &Components, kept: &[Component], scales: &[f64], group: usize) {
    let (count, half) = (kept.len(), keys.ncols() / 2);
    for (j, (&kept, scale)) in kept.iter().zip(scales).enumerate() {
        let factor = components.decode(kept, group) * scale;
        keys[(j, kept.pair)] = factor;
        keys[(j + count, kept.pair + half)] = factor;
    }
}

/// What the heads need of the latent.
struct Needs<'a> {
    original: &'a Original,
    /// For each query head its key of the rotated keys and the own key, `[R + d, d]`.
    own: &'a [Mat<f64>],
    rope_dim: usize,
    moments: &'a Moments,
}

impl Needs<'_> {
    /// The down-projection A, `[rank, hidden]`, and `C A^T`, `[hidden, rank]`, which is its inverse on the inputs: A C A^T
    /// is the identity for the second moment C of the inputs, half of it the keys' and half the values'.
    fn down(&self, key_inputs: &Mat<f64>, rank: usize, sampling: &Sampling) -> Result<(Mat<f64>, Mat<f64>)> {
        let (original, value_inputs) = (self.original, &self.moments.averages);
        let hidden = original.hidden;
        let trace = |matrix: &Mat<f64>| (0..hidden).map(|i| matrix[(i, i)]).sum::<f64>();
        let (key_trace, value_trace) = (trace(key_inputs), trace(value_inputs));
        let share = |matrix: &Mat<f64>, trace: f64, at| if trace > 0.0 { 0.5 * matrix[at] / trace } else { 0.0 };
        let mut moment = Mat::from_fn(hidden, hidden, |row, col| {
            share(key_inputs, key_trace, (row, col)) + share(value_inputs, value_trace, (row, col))
        });
        let mean = trace(&moment) / hidden as f64;
        for i in 0..hidden {
            moment[(i, i)] += sampling.ridge * mean.max(f64::MIN_POSITIVE);
        }

        let even = sampling.without == Some(Step::Sensitivity);
        let mut squares = Mat::<f64>::zeros(hidden, hidden);
        for head in 0..original.query_heads {
            let group = original.kv_head_of(head);
            let root = if even {
                even_root(&self.moments.queries[head])
            } else {
                symmetric_power(self.moments.queries[head].as_ref(), 0.5, 0.0)?
            };
            let key = product(
                self.own[head].get(self.rope_dim.., ..).transpose(),
                original.head_rows(&original.key.0, group),
            );
            let key = product(root.as_ref(), key.as_ref());
            let weight = original.scale * original.scale * key_trace;
            squares += product(key.transpose(), key.as_ref()) * faer::Scale(weight);
            let output = &original.output_roots[head];
            let output = if even { even_root(&product(output.as_ref(), output.as_ref())) } else { output.clone() };
            let value = product(output.as_ref(), original.head_rows(&original.value, group));
            squares += product(value.transpose(), value.as_ref()) * faer::Scale(value_trace);
        }
        let root = cholesky(moment.clone())?;
        let whitened = product(root.transpose(), product(squares.as_ref(), root.as_ref()).as_ref());
        let directions = symmetric_eigen(whitened.as_ref())?.vectors.get(.., ..rank).to_owned();
        let down = solve_transposed(root.as_ref(), directions).transpose().to_owned();
        let inverse = product(moment.as_ref(), down.transpose());
        Ok((down, inverse))
    }
}

/// A root of `square`, `[d, d]`, that is as large and the same in every direction.
fn even_root(square: &Mat<f64>) -> Mat<f64> {
    let d = square.nrows();
    let mean = (0..d).map(|i| square[(i, i)]).sum::<f64>() / d as f64;
    Mat::from_fn(d, d, |row, col| if row == col { mean.sqrt() } else { 0.0 })
}
