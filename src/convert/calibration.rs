//! What the conversion has to know about a layer's real inputs.

use faer::Mat;

use super::linalg::{add_product, product, widen};
use super::{check_dense, check_finite};
use crate::error::{Error, Result};
use crate::weights::{DenseAttention, Linear};

/// Statistics of one layer's input (its normed hidden states) over sample text, gathered in f64.
///
/// They serve three ends: MHA2MLA's 2-norm choice of rotated pairs (mean norm of every pair's part of each query
/// and key head), the activation-aware factorisation (second moment of the input) and the centred latent basis
/// (mean of the input). The second moment is a `hidden x hidden` matrix of f64.
#[derive(Clone, Debug)]
pub struct Calibration {
    query_heads: usize,
    kv_heads: usize,
    head_dim: usize,
    tokens: usize,
    /// Sum of x, `[hidden]`.
    sum: Vec<f64>,
    /// Sum of x x^T, `[hidden, hidden]`.
    squares: Mat<f64>,
    /// Sum of the pairs' norms, `[query_heads, head_dim/2]`.
    query_norms: Vec<f64>,
    /// Sum of the pairs' norms, `[kv_heads, head_dim/2]`.
    key_norms: Vec<f64>,
}

impl Calibration {
    /// An empty calibration with the sizes of `layer`.
    ///
    /// # Errors
    /// As for [`DenseAttention::validate`]; [`Error::NotFinite`] if a weight is not finite.
    pub fn new(layer: &DenseAttention) -> Result<Self> {
        check_dense(layer)?;
        let (hidden, pairs) = (layer.hidden(), layer.head_dim / 2);
        Ok(Self {
            query_heads: layer.query_heads,
            kv_heads: layer.kv_heads,
            head_dim: layer.head_dim,
            tokens: 0,
            sum: vec![0.0; hidden],
            squares: Mat::zeros(hidden, hidden),
            query_norms: vec![0.0; layer.query_heads * pairs],
            key_norms: vec![0.0; layer.kv_heads * pairs],
        })
    }

    /// Adds the inputs `hidden` (`[tokens, hidden]`, what the query, key and value projections read) of `layer`.
    ///
    /// May be called any number of times; every token counts the same. Memory grows with the tokens of one call.
    ///
    /// # Errors
    /// As for [`Calibration::new`]; [`Error::Config`] if `layer` has other sizes, [`Error::NotFinite`] if an
    /// input is not finite, [`Error::Shape`] if `hidden` does not divide into tokens. Nothing has been added then.
    pub fn observe(&mut self, layer: &DenseAttention, hidden: &[f32]) -> Result<()> {
        check_dense(layer)?;
        self.check_fits(layer)?;
        let width = self.sum.len();
        if !hidden.len().is_multiple_of(width) {
            return Err(Error::Shape {
                what: "calibration inputs",
                expected: format!("[tokens, hidden {width}], a multiple of {width} elements"),
                got: format!("{} elements", hidden.len()),
            });
        }
        check_finite("calibration inputs", hidden)?;

        let tokens = hidden.len() / width;
        let inputs = Mat::from_fn(tokens, width, |token, i| f64::from(hidden[token * width + i]));
        let norms = layer.head_norms.as_ref();
        let (query_norm, key_norm) =
            (norms.map(|norms| (&norms.query, norms.epsilon)), norms.map(|norms| (&norms.key, norms.epsilon)));
        add_pair_norms(&mut self.query_norms, &layer.query, query_norm, &inputs, self.head_dim);
        add_pair_norms(&mut self.key_norms, &layer.key, key_norm, &inputs, self.head_dim);
        add_product(self.squares.as_mut(), inputs.transpose(), inputs.as_ref());
        for (i, sum) in self.sum.iter_mut().enumerate() {
            *sum += inputs.col(i).iter().sum::<f64>();
        }
        self.tokens += tokens;
        Ok(())
    }

    /// Tokens observed.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Mean input, `[hidden]`; zeros before the first token.
    #[must_use]
    pub fn mean(&self) -> Vec<f64> {
        self.sum.iter().map(|sum| sum / self.count()).collect()
    }

    /// MHA2MLA's importance of every pair of each KV head, `[kv_heads, head_dim/2]`: the sum over the group's query
    /// heads of `E||q_pair|| * E||k_pair||`, before rotation (which keeps the norms), with the biases and behind norms over heads.
    /// Zeros before the first token.
    #[must_use]
    pub fn two_norm_scores(&self) -> Vec<f32> {
        let (pairs, group) = (self.head_dim / 2, self.query_heads / self.kv_heads);
        let score = |i: usize| {
            let (kv_head, pair) = (i / pairs, i % pairs);
            let queries: f64 = (0..group).map(|q| self.query_norms[(kv_head * group + q) * pairs + pair]).sum();
            (queries / self.count() * (self.key_norms[i] / self.count())) as f32
        };
        (0..self.key_norms.len()).map(score).collect()
    }

    /// Mean of `x x^T`, not centred.
    pub(super) fn second_moment(&self) -> Mat<f64> {
        let (size, count) = (self.sum.len(), self.count());
        Mat::from_fn(size, size, |row, col| self.squares[(row, col)] / count)
    }

    /// Returns [`Error::Config`] unless the calibration was made for a layer of `layer`'s sizes.
    pub(super) fn check_fits(&self, layer: &DenseAttention) -> Result<()> {
        let own = (self.query_heads, self.kv_heads, self.head_dim, self.sum.len());
        let other = (layer.query_heads, layer.kv_heads, layer.head_dim, layer.hidden());
        if own == other {
            return Ok(());
        }
        let sizes = |(q, kv, d, hidden)| format!("{q} query heads, {kv} KV heads, head_dim {d} and hidden {hidden}");
        Err(Error::Config {
            what: "calibration".into(),
            why: format!("was made for {}, the layer has {}", sizes(own), sizes(other)),
        })
    }

    fn count(&self) -> f64 {
        self.tokens.max(1) as f64
    }
}

/// Adds to `sums` (`[heads, head_dim/2]`) the norm of every pair's two outputs at every token of `inputs`, behind the
/// heads' own norm, of which there are the gain and the epsilon.
fn add_pair_norms(
    sums: &mut [f64],
    projection: &Linear,
    head_norm: Option<(&Vec<f32>, f32)>,
    inputs: &Mat<f64>,
    head_dim: usize,
) {
    let pairs = head_dim / 2;
    let mut outputs = product(inputs.as_ref(), widen(&projection.weight).transpose());
    for (row, &bias) in projection.bias.iter().flatten().enumerate() {
        outputs.col_mut(row).iter_mut().for_each(|x| *x += f64::from(bias));
    }
    if let Some((gain, epsilon)) = head_norm {
        for token in 0..outputs.nrows() {
            for head in 0..outputs.ncols() / head_dim {
                let dims = head * head_dim..(head + 1) * head_dim;
                let mean_square = dims.clone().map(|row| outputs[(token, row)].powi(2)).sum::<f64>() / head_dim as f64;
                let factor = 1.0 / (mean_square + f64::from(epsilon)).sqrt();
                dims.zip(gain).for_each(|(row, &gain)| outputs[(token, row)] *= factor * f64::from(gain));
            }
        }
    }
    for (i, sum) in sums.iter_mut().enumerate() {
        let first = i / pairs * head_dim + i % pairs;
        let (a, b) = (outputs.col(first), outputs.col(first + pairs));
        *sum += a.iter().zip(b.iter()).map(|(a, b)| a.hypot(*b)).sum::<f64>();
    }
}
