//! Bridges between the library's plain `f32` weights and candle's tensors, used by the transformer and by both
//! kinds of attention.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use latent_attention::load::TensorSource;
use latent_attention::weights::{Linear, Matrix, RmsNorm};

use crate::packed::Packed;

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
/// copy, and many tokens at the same rate or faster. A single token reads codes instead, where there are any: they are a
/// fraction of the bytes.
#[derive(Clone, Debug)]
pub struct Projection {
    transposed: Tensor,
    bias: Option<Tensor>,
    codes: Option<Arc<Packed>>,
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
        Ok(Self { transposed: weight.t()?, bias, codes: None })
    }

    /// Uses a tensor `[outputs, inputs]` without a copy; an output head shares the embedding this way.
    ///
    /// # Errors
    /// If the tensor is not a matrix.
    pub fn sharing(weight: &Tensor) -> Result<Self> {
        Ok(Self { transposed: weight.t()?, bias: None, codes: None })
    }

    /// Takes over weights that single tokens are multiplied by codes of: 8 bits each, 32 to a scale, where they fit that.
    ///
    /// # Errors
    /// As for [`Projection::new`].
    pub fn rounded_for_one(linear: Linear) -> Result<Self> {
        let codes = Packed::rounded(&linear.weight).map(Arc::new);
        Ok(Self { codes, ..Self::new(linear)? })
    }

    /// Reads the codes of which these weights were dequantised, if the file has them in a format with a product.
    ///
    /// # Errors
    /// If the file cannot be read or holds a scale that is not finite.
    pub fn read_codes(&mut self, source: &dyn TensorSource, name: &str) -> Result<()> {
        let (inputs, outputs) = self.transposed.dims2()?;
        if source.shape(name).is_some_and(|shape| shape == [outputs, inputs])
            && let Some(blocks) = source.read_blocks(name, outputs, inputs)?
        {
            let codes = Packed::of_blocks(&blocks).with_context(|| format!("codes of {name}"))?;
            self.codes = codes.map(Arc::new);
        }
        Ok(())
    }

    /// `[tokens, inputs]` to `[tokens, outputs]`.
    ///
    /// # Errors
    /// If the input has another width.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let [y] = Self::apply_each([self], x)?;
        Ok(y)
    }

    /// What several maps make of one input. Of a single token that costs one meeting of the threads for all of them.
    ///
    /// # Errors
    /// If the input has another width.
    pub fn apply_each<const N: usize>(maps: [&Self; N], x: &Tensor) -> Result<[Tensor; N]> {
        let (tokens, width) = x.dims2()?;
        let codes: Vec<&Packed> = maps.iter().filter_map(|map| map.codes.as_deref()).collect();
        let by_codes = tokens == 1 && !codes.is_empty() && codes.iter().all(|codes| codes.shape().1 == width);
        let products = if by_codes { Packed::apply(&codes, &to_vec(x)?) } else { Vec::new() };
        let mut products = products.into_iter();
        let mut outputs = Vec::with_capacity(N);
        for map in maps {
            let product = map.codes.as_ref().and_then(|_| products.next());
            let y = match product {
                Some(product) => Tensor::from_vec(product, (1, map.transposed.dim(1)?), &Device::Cpu)?,
                None => x.matmul(&map.transposed)?,
            };
            outputs.push(match &map.bias {
                Some(bias) => y.broadcast_add(bias)?,
                None => y,
            });
        }
        outputs.try_into().ok().context("one output for each map")
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
