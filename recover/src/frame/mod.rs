//! Everything of a model but its attention: embedding, norms, MLPs and output head.

mod parts;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor, Var};
use latent_attention::load::{Block, Checkpoint};
use latent_attention::weights::{Linear, Matrix, RmsNorm};

use crate::ops::{linear, rms_norm, swiglu};

/// A norm's gain, `[width]`, and its epsilon.
#[derive(Clone)]
struct Norm {
    gain: Tensor,
    epsilon: f64,
}

impl Norm {
    fn new(norm: RmsNorm) -> Result<Self> {
        Ok(Self { gain: vector(norm.gain, &Device::Cpu)?, epsilon: norm.epsilon.into() })
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(rms_norm(x, &self.gain, self.epsilon)?)
    }
}

/// A weight, `[outputs, inputs]`, and a bias.
#[derive(Clone)]
struct Projection {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Projection {
    fn new(linear: Linear) -> Result<Self> {
        let bias = linear.bias.map(|bias| vector(bias, &Device::Cpu)).transpose()?;
        Ok(Self { weight: matrix(linear.weight, &Device::Cpu)?, bias })
    }

    /// Two maps of the same input as one.
    fn joint(first: Linear, second: Linear) -> Result<Self> {
        let (rows, cols) = (first.weight.rows() + second.weight.rows(), first.weight.cols());
        ensure!(second.weight.cols() == cols, "gate and up-projection of an MLP differ in their inputs");
        let bias = (first.bias.is_some() || second.bias.is_some()).then(|| {
            let or_zeros = |linear: &Linear| linear.bias.clone().unwrap_or_else(|| vec![0.0; linear.weight.rows()]);
            [or_zeros(&first), or_zeros(&second)].concat()
        });
        let data = [first.weight.into_data(), second.weight.into_data()].concat();
        Self::new(Linear { weight: Matrix::new(rows, cols, data)?, bias })
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(linear(x, &self.weight, self.bias.as_ref())?)
    }
}

/// What a block has besides attention.
#[derive(Clone)]
struct FrameBlock {
    attention_norm: Norm,
    mlp_norm: Norm,
    /// Gate over up-projection.
    gate_up: Projection,
    down: Projection,
}

/// A model without its attention. Clones share their numbers.
#[derive(Clone)]
pub struct Frame {
    embedding: Tensor,
    blocks: Vec<FrameBlock>,
    final_norm: Norm,
    /// `None`: the embedding.
    head: Option<Tensor>,
}

impl Frame {
    /// A model of embedding `[vocabulary, hidden]`, blocks, last norm and output head; without a head the embedding
    /// serves as one.
    ///
    /// # Errors
    /// If sizes do not fit each other.
    pub fn new(
        embedding: Matrix,
        blocks: impl IntoIterator<Item = Result<Block>>,
        final_norm: RmsNorm,
        head: Option<Matrix>,
    ) -> Result<Self> {
        let block = |block: Block| {
            anyhow::Ok(FrameBlock {
                attention_norm: Norm::new(block.attention_norm)?,
                mlp_norm: Norm::new(block.mlp_norm)?,
                gate_up: Projection::joint(block.gate, block.up)?,
                down: Projection::new(block.down)?,
            })
        };
        let blocks = blocks
            .into_iter()
            .enumerate()
            .map(|(index, weights)| weights.and_then(block).with_context(|| format!("block {index}")));
        Ok(Self {
            embedding: matrix(embedding, &Device::Cpu)?,
            blocks: blocks.collect::<Result<_>>()?,
            final_norm: Norm::new(final_norm)?,
            head: head.map(|head| matrix(head, &Device::Cpu)).transpose()?,
        })
    }

    /// Reads a model from disk.
    ///
    /// # Errors
    /// If a tensor is missing or malformed.
    pub fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let blocks = (0..checkpoint.config().layers).map(|layer| Ok(checkpoint.block(layer)?));
        Self::new(checkpoint.embedding()?, blocks, checkpoint.final_norm()?, checkpoint.lm_head()?)
    }

    /// The same with numbers of its own, all of them variables.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn trainable(&self) -> Result<Self> {
        let mut trainable = self.clone();
        trainable.visit_mut(&mut |_, tensor| {
            *tensor = variable(tensor)?;
            Ok(())
        })?;
        Ok(trainable)
    }

    /// The same on a device, where variables become constants: [`Frame::trainable`] makes others of them.
    ///
    /// # Errors
    /// If the device has not enough memory.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let mut moved = self.clone();
        moved.visit_mut(&mut |_, tensor| {
            *tensor = tensor.detach().to_device(device)?;
            Ok(())
        })?;
        Ok(moved)
    }

    /// Where the numbers are.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// Number of blocks.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// Width of the residual stream.
    ///
    /// # Errors
    /// None that input can cause; candle's accessor is fallible.
    pub fn hidden(&self) -> Result<usize> {
        Ok(self.embedding.dim(1)?)
    }

    /// Size of the vocabulary.
    ///
    /// # Errors
    /// None that input can cause; candle's accessor is fallible.
    pub fn vocabulary(&self) -> Result<usize> {
        Ok(self.embedding.dim(0)?)
    }

    /// The output head, `[vocabulary, hidden]`.
    #[must_use]
    pub fn head(&self) -> &Tensor {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The first hidden states, `[tokens, hidden]`.
    ///
    /// # Errors
    /// If a token lies outside of the vocabulary.
    pub fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        // On a GPU, a look-up outside of the table is no error but the end of the context.
        let vocabulary = self.vocabulary()?;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            bail!("token {token} of a vocabulary of {vocabulary}");
        }
        let ids = Tensor::new(tokens, self.device())?;
        self.embedding.index_select(&ids, 0).context("looking up tokens in the embedding")
    }

    /// What the attention of a layer reads of the hidden states.
    ///
    /// # Errors
    /// If there is no such layer, or the width is another.
    pub fn attention_input(&self, layer: usize, x: &Tensor) -> Result<Tensor> {
        self.block(layer)?.attention_norm.apply(x)
    }

    /// The hidden states after a layer, from those before it and the output of its attention.
    ///
    /// # Errors
    /// If there is no such layer, or a width is another.
    pub fn finish_block(&self, layer: usize, x: &Tensor, attended: &Tensor) -> Result<Tensor> {
        let block = self.block(layer)?;
        let x = (x + attended)?;
        let inner = swiglu(&block.gate_up.apply(&block.mlp_norm.apply(&x)?)?)?;
        Ok((&x + block.down.apply(&inner)?)?)
    }

    /// What the output head reads.
    ///
    /// # Errors
    /// If the width is another.
    pub fn final_norm(&self, x: &Tensor) -> Result<Tensor> {
        self.final_norm.apply(x)
    }

    /// All tensors by name, in a fixed order.
    pub fn visit(&self, f: &mut dyn FnMut(&str, &Tensor)) {
        f("embedding", &self.embedding);
        for (layer, block) in self.blocks.iter().enumerate() {
            let name = |part: &str| format!("layers.{layer}.{part}");
            f(&name("attention_norm"), &block.attention_norm.gain);
            f(&name("mlp_norm"), &block.mlp_norm.gain);
            for (part, projection) in [("gate_up", &block.gate_up), ("down", &block.down)] {
                f(&name(&format!("mlp.{part}.weight")), &projection.weight);
                if let Some(bias) = &projection.bias {
                    f(&name(&format!("mlp.{part}.bias")), bias);
                }
            }
        }
        f("final_norm", &self.final_norm.gain);
        if let Some(head) = &self.head {
            f("head", head);
        }
    }

    fn visit_mut(&mut self, f: &mut dyn FnMut(&str, &mut Tensor) -> Result<()>) -> Result<()> {
        f("embedding", &mut self.embedding)?;
        for block in &mut self.blocks {
            f("norm", &mut block.attention_norm.gain)?;
            f("norm", &mut block.mlp_norm.gain)?;
            for projection in [&mut block.gate_up, &mut block.down] {
                f("weight", &mut projection.weight)?;
                if let Some(bias) = &mut projection.bias {
                    f("bias", bias)?;
                }
            }
        }
        f("final_norm", &mut self.final_norm.gain)?;
        self.head.as_mut().map_or(Ok(()), |head| f("head", head))
    }

    fn block(&self, layer: usize) -> Result<&FrameBlock> {
        self.blocks.get(layer).with_context(|| format!("layer {layer} of {}", self.blocks.len()))
    }
}

/// A matrix as a tensor, in host memory without a copy.
pub(crate) fn matrix(matrix: Matrix, device: &Device) -> Result<Tensor> {
    let shape = (matrix.rows(), matrix.cols());
    Ok(Tensor::from_vec(matrix.into_data(), shape, device)?)
}

/// A vector as a tensor, in host memory without a copy.
pub(crate) fn vector(data: Vec<f32>, device: &Device) -> Result<Tensor> {
    let length = data.len();
    Ok(Tensor::from_vec(data, length, device)?)
}

/// A copy of a tensor that is a variable.
pub(crate) fn variable(tensor: &Tensor) -> Result<Tensor> {
    Ok(Var::from_tensor(&tensor.detach())?.into_inner())
}
