//! Bridges between the library's plain `f32` weights and candle's tensors, used by the transformer and by both
//! kinds of attention.

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use latent_attention::weights::{Linear, Matrix, RmsNorm};

/// `rows` x `cols` numbers, row-major, as a tensor.
///
/// # Errors
/// If `data` has another length.
pub fn to_tensor(data: &[f32], rows: usize, cols: usize) -> Result<Tensor> {
    ensure!(data.len() == rows * cols, "{} numbers do not make a [{rows}, {cols}] tensor", data.len());
    Ok(Tensor::from_slice(data, (rows, cols), &Device::Cpu)?)
}

/// All elements of a tensor, row-major.
///
/// # Errors
/// If the tensor does not hold `f32`.
pub fn to_vec(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}

/// A linear map ready to be applied to many tokens or to one.
///
/// The weight stays as stored, one row per output: candle multiplies by the transposed *view* without copying it.
/// Measured on shapes of this model, that runs a single token at memory bandwidth, no slower than a transposed
/// copy, and many tokens at the same rate or faster.
#[derive(Clone, Debug)]
pub struct Projection {
    transposed: Tensor,
    bias: Option<Tensor>,
}

impl Projection {
    /// Takes the weights over, without a copy.
    ///
    /// # Errors
    /// If the bias does not match the weight.
    pub fn new(linear: Linear) -> Result<Self> {
        let bias = linear.bias.map(|bias| to_tensor(&bias, 1, linear.weight.rows()));
        let weight = matrix(linear.weight)?;
        let bias = bias.transpose().context("bias of a linear map")?;
        Ok(Self { transposed: weight.t()?, bias })
    }

    /// Uses a tensor `[outputs, inputs]` without a copy; an output head shares the embedding this way.
    ///
    /// # Errors
    /// If the tensor is not a matrix.
    pub fn sharing(weight: &Tensor) -> Result<Self> {
        Ok(Self { transposed: weight.t()?, bias: None })
    }

    /// `[tokens, inputs]` to `[tokens, outputs]`.
    ///
    /// # Errors
    /// If the input has another width.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.transposed)?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }
}

/// A root-mean-square norm as candle's fused kernel takes it.
#[derive(Clone, Debug)]
pub struct Norm {
    gain: Tensor,
    epsilon: f32,
}

impl Norm {
    /// Takes a copy of the gain.
    ///
    /// # Errors
    /// None that input can cause; candle's constructor is fallible.
    pub fn new(norm: &RmsNorm) -> Result<Self> {
        Ok(Self { gain: Tensor::new(norm.gain.as_slice(), &Device::Cpu)?, epsilon: norm.epsilon })
    }

    /// Normalises each row of `[tokens, width]`.
    ///
    /// # Errors
    /// If the input has another width.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(candle_nn::ops::rms_norm(x, &self.gain, self.epsilon)?)
    }
}

/// `matrix` as a tensor, without a copy.
///
/// # Errors
/// None that input can cause; candle's constructor is fallible.
pub fn matrix(matrix: Matrix) -> Result<Tensor> {
    let shape = (matrix.rows(), matrix.cols());
    Ok(Tensor::from_vec(matrix.into_data(), shape, &Device::Cpu)?)
}
