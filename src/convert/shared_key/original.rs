//! The original layer's attention over calibration text, in f64. Tokens are columns, so that one token's numbers lie
//! side by side.

use faer::{Mat, MatRef};

use super::inputs::LayerInputs;
use crate::convert::linalg::{Eigen, product, symmetric_eigen, widen, widen_vector};
use crate::convert::{check_dense, check_finite};
use crate::error::{Error, Result};
use crate::weights::{DenseAttention, Linear};

/// A dense layer in f64.
pub(super) struct Original {
    pub query_heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub hidden: usize,
    /// Factor on every score.
    pub scale: f64,
    /// Angular frequency of every pair, radians per token.
    pub frequencies: Vec<f64>,
    /// `[H*d, hidden]` and its bias.
    pub query: (Mat<f64>, Vec<f64>),
    /// `[G*d, hidden]` and its bias.
    pub key: (Mat<f64>, Vec<f64>),
    /// `[G*d, hidden]`. The bias is the same for every token, and so for every average of tokens.
    pub value: Mat<f64>,
    /// For each query head the symmetric root of `W_O,h^T W_O,h`, `[d, d]`: the norm of what it makes of a value is that
    /// of the value behind the output projection.
    pub output_roots: Vec<Mat<f64>>,
}

/// One sequence of calibration text, as the layer sees it.
pub(super) struct Sequence {
    /// `[hidden, tokens]`.
    pub inputs: Mat<f64>,
    /// `[G*d, tokens]`, not rotated.
    pub key: Mat<f64>,
}

/// What a sequence's queries read.
pub(super) struct KeysAndValues {
    /// `[G*d, tokens]`, rotated at the tokens' positions.
    pub rotated_key: Mat<f64>,
    /// `[G*d, tokens]`, without the bias.
    pub value: Mat<f64>,
}

impl Sequence {
    pub fn tokens(&self) -> usize {
        self.inputs.ncols()
    }
}

impl Original {
    /// # Errors
    /// As for [`DenseAttention::validate`]; [`Error::NotFinite`] if a weight is not finite, [`Error::Shape`] if there is not
    /// one frequency per pair.
    pub fn new(layer: &DenseAttention, frequencies: &[f32]) -> Result<Self> {
        check_dense(layer)?;
        check_finite("rotation frequencies", frequencies)?;
        let (heads, d) = (layer.query_heads, layer.head_dim);
        if !d.is_multiple_of(2) || frequencies.len() != d / 2 {
            return Err(Error::Shape {
                what: "rotation frequencies",
                expected: format!("{}, one per pair of a head of {d} dimensions", d / 2),
                got: frequencies.len().to_string(),
            });
        }
        let output = widen(&layer.output.weight);
        let root = |head: usize| -> Result<Mat<f64>> {
            let of_head = output.get(.., head * d..(head + 1) * d);
            let Eigen { values, vectors } = symmetric_eigen(product(of_head.transpose(), of_head).as_ref())?;
            let scaled = Mat::from_fn(d, d, |row, col| vectors[(row, col)] * values[col].max(0.0).sqrt());
            Ok(product(scaled.as_ref(), vectors.transpose()))
        };
        Ok(Self {
            query_heads: heads,
            kv_heads: layer.kv_heads,
            head_dim: d,
            hidden: layer.hidden(),
            scale: 1.0 / (d as f64).sqrt(),
            frequencies: frequencies.iter().map(|&f| f64::from(f)).collect(),
            query: widen_linear(&layer.query),
            key: widen_linear(&layer.key),
            value: widen(&layer.value.weight),
            output_roots: (0..heads).map(root).collect::<Result<_>>()?,
        })
    }

    /// The KV head that query head `head` reads.
    pub fn kv_head_of(&self, head: usize) -> usize {
        head / (self.query_heads / self.kv_heads)
    }

    /// Pairs of a head.
    pub fn pairs(&self) -> usize {
        self.head_dim / 2
    }

    /// The rows of head `head` in a matrix of heads of `head_dim` rows.
    pub fn head_rows<'a>(&self, matrix: &'a Mat<f64>, head: usize) -> MatRef<'a, f64> {
        matrix.get(head * self.head_dim..(head + 1) * self.head_dim, ..)
    }

    /// Reads one sequence and makes its keys and values.
    ///
    /// # Errors
    /// [`Error::Shape`] if the inputs do not divide into tokens, [`Error::NotFinite`] if one is not finite; and what
    /// reading them may return.
    pub fn sequence(&self, inputs: &dyn LayerInputs, index: usize) -> Result<Sequence> {
        let read = inputs.sequence(index)?;
        if !read.len().is_multiple_of(self.hidden) {
            return Err(Error::Shape {
                what: "calibration inputs",
                expected: format!("[tokens, hidden {}], a multiple of {} elements", self.hidden, self.hidden),
                got: format!("{} elements in sequence {index}", read.len()),
            });
        }
        check_finite(&format!("calibration inputs of sequence {index}"), &read)?;
        let tokens = read.len() / self.hidden;
        let inputs = Mat::from_fn(self.hidden, tokens, |i, token| f64::from(read[token * self.hidden + i]));
        let key = project(&self.key, inputs.as_ref());
        Ok(Sequence { inputs, key })
    }

    /// What the queries of `sequence` read.
    pub fn keys_and_values(&self, sequence: &Sequence) -> KeysAndValues {
        let positions: Vec<usize> = (0..sequence.tokens()).collect();
        KeysAndValues {
            rotated_key: self.rotated(&sequence.key, &positions),
            value: product(self.value.as_ref(), sequence.inputs.as_ref()),
        }
    }

    /// The queries of the tokens at `positions`, `[H*d, positions]`, not rotated.
    pub fn queries(&self, sequence: &Sequence, positions: &[usize]) -> Mat<f64> {
        let inputs = columns(&sequence.inputs, positions);
        project(&self.query, inputs.as_ref())
    }

    /// `heads` (`[heads * d, tokens]`) with every pair rotated at its token's position.
    pub fn rotated(&self, heads: &Mat<f64>, positions: &[usize]) -> Mat<f64> {
        let (pairs, d) = (self.pairs(), self.head_dim);
        let mut rotated = heads.clone();
        for (token, &position) in positions.iter().enumerate() {
            let mut column = rotated.col_mut(token);
            for (pair, frequency) in self.frequencies.iter().enumerate() {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                for start in (0..heads.nrows()).step_by(d) {
                    let (i, j) = (start + pair, start + pair + pairs);
                    let (a, b) = (column[i], column[j]);
                    (column[i], column[j]) = (a * cos - b * sin, b * cos + a * sin);
                }
            }
        }
        rotated
    }

    /// The attention of one head's queries at `positions` (`rotated`, `[H*d, positions]`): `[tokens, positions]`, each
    /// column a distribution over the tokens up to its position.
    pub fn attention(&self, read: &KeysAndValues, rotated: &Mat<f64>, positions: &[usize], head: usize) -> Mat<f64> {
        let keys = self.head_rows(&read.rotated_key, self.kv_head_of(head));
        let mut weights = product(keys.transpose(), self.head_rows(rotated, head));
        for (query, &position) in positions.iter().enumerate() {
            let mut column = weights.col_mut(query);
            let seen = || 0..=position;
            let largest = seen().map(|token| column[token]).fold(f64::NEG_INFINITY, f64::max);
            let mut sum = 0.0;
            for token in seen() {
                column[token] = (self.scale * (column[token] - largest)).exp();
                sum += column[token];
            }
            for token in 0..column.nrows() {
                column[token] = if token <= position { column[token] / sum } else { 0.0 };
            }
        }
        weights
    }
}

/// `W x + b` for every column of `inputs`.
pub(super) fn project((weight, bias): &(Mat<f64>, Vec<f64>), inputs: MatRef<'_, f64>) -> Mat<f64> {
    let mut outputs = product(weight.as_ref(), inputs);
    for token in 0..outputs.ncols() {
        outputs.col_mut(token).iter_mut().zip(bias).for_each(|(output, bias)| *output += bias);
    }
    outputs
}

/// The weight and the bias in f64, zeros if there is none.
pub(super) fn widen_linear(linear: &Linear) -> (Mat<f64>, Vec<f64>) {
    let bias = linear.bias.as_deref().map_or_else(|| vec![0.0; linear.weight.rows()], widen_vector);
    (widen(&linear.weight), bias)
}

/// Some columns of a matrix.
pub(super) fn columns(matrix: &Mat<f64>, indices: &[usize]) -> Mat<f64> {
    let mut some = Mat::zeros(matrix.nrows(), indices.len());
    for (to, &from) in indices.iter().enumerate() {
        some.col_mut(to).copy_from(matrix.col(from));
    }
    some
}
