//! A Llama in candle, all but its attention.

use candle_core::{Device, Result, Tensor};
use latent_attention::load::Block;
use latent_attention::weights::{DenseAttention, Linear, Matrix, RmsNorm};

/// What a model is made of.
pub struct Weights {
    /// `[vocabulary, hidden]`.
    pub embedding: Matrix,
    pub attention: Vec<DenseAttention>,
    pub blocks: Vec<Block>,
    pub final_norm: RmsNorm,
    /// `[vocabulary, hidden]`; `None`: the embedding.
    pub head: Option<Matrix>,
    /// Angular frequencies of the rotation, one for each pair of a head.
    pub frequencies: Vec<f32>,
}

/// A model without its attention.
pub struct Llama {
    embedding: Tensor,
    blocks: Vec<Mlp>,
    final_norm: Norm,
    head: Tensor,
}

struct Mlp {
    attention_norm: Norm,
    norm: Norm,
    gate: Projection,
    up: Projection,
    down: Projection,
}

impl Llama {
    pub fn new(weights: &Weights) -> Result<Self> {
        let embedding = matrix(&weights.embedding)?;
        let mlp = |block: &Block| -> Result<Mlp> {
            Ok(Mlp {
                attention_norm: Norm::new(&block.attention_norm)?,
                norm: Norm::new(&block.mlp_norm)?,
                gate: Projection::new(&block.gate)?,
                up: Projection::new(&block.up)?,
                down: Projection::new(&block.down)?,
            })
        };
        Ok(Self {
            blocks: weights.blocks.iter().map(mlp).collect::<Result<_>>()?,
            final_norm: Norm::new(&weights.final_norm)?,
            head: weights.head.as_ref().map_or_else(|| Ok(embedding.clone()), matrix)?,
            embedding,
        })
    }

    /// Logits `[T, vocabulary]` after each of the tokens. `attention` takes a layer's number and its input `[T, hidden]`,
    /// and returns the output.
    pub fn forward(
        &self,
        tokens: &[u32],
        mut attention: impl FnMut(usize, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut x = self.embedding.index_select(&Tensor::new(tokens, &Device::Cpu)?, 0)?;
        for (layer, mlp) in self.blocks.iter().enumerate() {
            x = (&x + attention(layer, &mlp.attention_norm.apply(&x)?)?)?;
            let normed = mlp.norm.apply(&x)?;
            let inner = (mlp.gate.apply(&normed)?.silu()? * mlp.up.apply(&normed)?)?;
            x = (&x + mlp.down.apply(&inner)?)?;
        }
        self.final_norm.apply(&x)?.matmul(&self.head.t()?)
    }
}

/// A linear map.
pub struct Projection {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Projection {
    pub fn new(linear: &Linear) -> Result<Self> {
        let bias = linear.bias.as_ref().map(|bias| Tensor::new(bias.as_slice(), &Device::Cpu)).transpose()?;
        Ok(Self { weight: matrix(&linear.weight)?, bias })
    }

    /// `[T, inputs]` to `[T, outputs]`, of which there may be none.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        if self.weight.dim(0)? == 0 {
            return Tensor::zeros((x.dim(0)?, 0), x.dtype(), x.device());
        }
        let y = x.matmul(&self.weight.t()?)?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }
}

struct Norm {
    gain: Tensor,
    epsilon: f32,
}

impl Norm {
    fn new(norm: &RmsNorm) -> Result<Self> {
        Ok(Self { gain: Tensor::new(norm.gain.as_slice(), &Device::Cpu)?, epsilon: norm.epsilon })
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::rms_norm(x, &self.gain, self.epsilon)
    }
}

pub fn matrix(matrix: &Matrix) -> Result<Tensor> {
    Tensor::from_slice(matrix.data(), (matrix.rows(), matrix.cols()), &Device::Cpu)
}
