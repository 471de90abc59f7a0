//! Step 7: the coordinates in which the cached numbers lose least to four bits.
//!
//! One scale serves all numbers of a latent, so their errors are alike in every direction. A direction in which the heads
//! are sensitive should therefore be long and one in which they are not short: with C the latent's second moment and G the
//! heads' sensitivity, `S = M^1/2` with `M = C^-1/2 (C^1/2 G C^1/2)^1/2 C^-1/2` makes the cached length `tr S C S` times
//! the error that comes out of it, `tr S^-1 G S^-1`, smallest. A random rotation behind it spreads the rest evenly.

use faer::Mat;

use super::decoders::Decoders;
use super::inputs::{LayerInputs, for_each_sequence};
use super::latent::Fitted;
use super::moments::Moments;
use super::original::{Original, project};
use super::{Sampling, Step};
use crate::convert::basis::random_orthogonal;
use crate::convert::linalg::{product, symmetric_power};
use crate::error::Result;

/// Eigenvalues below this share of the largest count as so much.
const FLOOR: f64 = 1e-10;

/// How much attention weights spread: an error of one key's score moves the output by its weight, an error of all keys'
/// scores by more. The mean over heads of real models; it matters little.
const SCORE_SHARE: f64 = 0.3;

/// The cached numbers in other coordinates: factors for the rotated pairs, and a matrix for the latent with its inverse.
pub(super) struct Balance {
    /// One factor for each pair of the rotated key.
    pub pairs: Vec<f64>,
    /// S, `[L, L]`.
    pub latent: Mat<f64>,
    /// The inverse of S.
    pub inverse: Mat<f64>,
}

impl Balance {
    /// # Errors
    /// As for [`Original::sequence`]; [`Error::Numeric`](crate::Error::Numeric) if a factorisation fails.
    pub fn new(
        original: &Original,
        fitted: &Fitted,
        decoders: &Decoders,
        moments: &Moments,
        inputs: &dyn LayerInputs,
        sampling: &Sampling,
    ) -> Result<Self> {
        let (rank, count) = (fitted.down.nrows(), fitted.pairs.len());
        let rotation = random_orthogonal(rank, sampling.seed);
        if sampling.without == Some(Step::Balance) {
            let inverse = rotation.transpose().to_owned();
            return Ok(Self { pairs: vec![1.0; count], latent: rotation, inverse });
        }
        let mut latents = Mat::<f64>::zeros(rank, rank);
        let mut key_squares = vec![0.0; count];
        let mut value_squares = Mat::<f64>::zeros(original.value.nrows(), original.value.nrows());
        let make = |index| {
            let sequence = original.sequence(inputs, index)?;
            let latent = product(fitted.down.as_ref(), sequence.inputs.as_ref());
            let rotated = project(&fitted.key_rope, sequence.inputs.as_ref());
            let square = |row: usize| rotated.row(row).iter().map(|x| x * x).sum::<f64>();
            let squares: Vec<f64> = (0..count).map(|j| square(j) + square(j + count)).collect();
            let values = product(original.value.as_ref(), sequence.inputs.as_ref());
            let values = product(values.as_ref(), values.transpose());
            Ok((product(latent.as_ref(), latent.transpose()), squares, values))
        };
        for_each_sequence(inputs.sequences(), make, |_, (latent, squares, values)| {
            latents += &latent;
            value_squares += &values;
            key_squares.iter_mut().zip(&squares).for_each(|(sum, square)| *sum += square);
        })?;
        let tokens = faer::Scale(1.0 / moments.tokens as f64);
        latents *= tokens;
        value_squares *= tokens;
        let sensitivity = sensitivity(original, fitted, decoders, moments, &value_squares);

        let root = symmetric_power(latents.as_ref(), 0.5, FLOOR)?;
        let inverse_root = symmetric_power(latents.as_ref(), -0.5, FLOOR)?;
        let seen = product(root.as_ref(), product(sensitivity.as_ref(), root.as_ref()).as_ref());
        let middle = symmetric_power(seen.as_ref(), 0.5, FLOOR)?;
        let square = product(inverse_root.as_ref(), product(middle.as_ref(), inverse_root.as_ref()).as_ref());
        let latent = product(rotation.as_ref(), symmetric_power(square.as_ref(), 0.5, FLOOR)?.as_ref());
        let inverse = product(symmetric_power(square.as_ref(), -0.5, FLOOR)?.as_ref(), rotation.transpose());

        let pairs = pair_factors(original, fitted, decoders, moments, &key_squares);
        Ok(Self { pairs, latent, inverse })
    }
}

/// What an error of the latent costs the heads' outputs, `[L, L]`; `value_squares` is the mean of `v v^T`, `[G*d, G*d]`.
pub(super) fn sensitivity(
    original: &Original,
    fitted: &Fitted,
    decoders: &Decoders,
    moments: &Moments,
    value_squares: &Mat<f64>,
) -> Mat<f64> {
    let (rank, d, rope_dim) = (fitted.down.nrows(), original.head_dim, fitted.key_rope.0.nrows());
    let mut sensitivity = Mat::<f64>::zeros(rank, rank);
    for head in 0..original.query_heads {
        let start = original.kv_head_of(head) * d;
        let output = &original.output_roots[head];
        let output_squares = product(output.as_ref(), output.as_ref());
        let own = value_squares.get(start..start + d, start..start + d);
        let value: f64 = (0..d).map(|i| (0..d).map(|j| output_squares[(i, j)] * own[(j, i)]).sum::<f64>()).sum();
        let key = decoders.keys[head].get(rope_dim.., ..);
        let of_key = product(key, product(moments.queries[head].as_ref(), key.transpose()).as_ref());
        let weight = original.scale * original.scale * SCORE_SHARE * value;
        sensitivity += of_key * faer::Scale(weight);
        let value = &decoders.values[head];
        sensitivity += product(value.as_ref(), product(output_squares.as_ref(), value.transpose()).as_ref());
    }
    sensitivity
}

/// Makes every pair's key as large as the queries that read it: the root of the ratio of the two, relative to the mean.
fn pair_factors(
    original: &Original,
    fitted: &Fitted,
    decoders: &Decoders,
    moments: &Moments,
    key_squares: &[f64],
) -> Vec<f64> {
    let count = fitted.pairs.len();
    let query_square = |j: usize| -> f64 {
        let of_row = |head: usize, row: usize| {
            let coefficients = decoders.keys[head].get(row..row + 1, ..);
            product(coefficients, product(moments.queries[head].as_ref(), coefficients.transpose()).as_ref())[(0, 0)]
        };
        (0..original.query_heads).map(|head| of_row(head, j) + of_row(head, j + count)).sum()
    };
    let mut factors: Vec<f64> = (0..count)
        .map(|j| {
            let (query, key) = (query_square(j), key_squares[j] / moments.tokens as f64);
            if query > 0.0 && key > 0.0 { (query / key).powf(0.25) } else { 1.0 }
        })
        .collect();
    let mean = factors.iter().sum::<f64>() / count.max(1) as f64;
    factors.iter_mut().for_each(|factor| *factor /= mean);
    factors
}
