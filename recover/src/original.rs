//! The original model, which the student learns from: dense attention, full rotation, no cache, no gradients.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use latent_attention::rope::{Pairing, RopeTables};
use latent_attention::weights::{DenseAttention, Linear, Matrix};

use crate::frame::{Frame, matrix, vector};
use crate::ops::{Rotation, causal_attention, linear, rotate};

/// One layer's attention.
struct Layer {
    query_heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// Queries over keys over values.
    input: Tensor,
    input_bias: Option<Tensor>,
    output: Tensor,
    output_bias: Option<Tensor>,
    rotation: Rotation,
}

impl Layer {
    fn new(weights: &DenseAttention, tables: &Arc<RopeTables>, device: &Device) -> Result<Self> {
        weights.validate()?;
        ensure!(weights.head_norms.is_none(), "norms over heads (`head_norms`) are not computed here");
        let (query_heads, kv_heads, head_dim) = (weights.query_heads, weights.kv_heads, weights.head_dim);
        let pairs = head_dim / 2;
        ensure!(
            tables.frequencies() == pairs,
            "a head of {head_dim} dimensions needs {pairs} frequencies, the tables have {}",
            tables.frequencies()
        );
        let frequencies: Vec<u32> = (0..pairs as u32).collect();
        let heads = (0..query_heads + kv_heads).map(|head| (head * head_dim, frequencies.as_slice()));
        let parts = [&weights.query, &weights.key, &weights.value];
        let rows = parts.iter().map(|part| part.weight.rows()).sum();
        let data = parts.iter().flat_map(|part| part.weight.data()).copied().collect();
        let vector = |bias| vector(bias, device);
        let Linear { weight: output, bias: output_bias } = weights.output.clone();
        Ok(Self {
            query_heads,
            kv_heads,
            head_dim,
            input: matrix(Matrix::new(rows, weights.hidden(), data)?, device)?,
            input_bias: joint_bias(&parts).map(vector).transpose()?,
            output: matrix(output, device)?,
            output_bias: output_bias.map(vector).transpose()?,
            rotation: Rotation::new(tables.clone(), heads, head_dim, Pairing::Half)?,
        })
    }

    fn forward(&self, x: &Tensor, sequence: usize) -> Result<Tensor> {
        let projected = rotate(&linear(x, &self.input, self.input_bias.as_ref())?, &self.rotation, sequence)?;
        let attended = causal_attention(&projected, self.query_heads, self.kv_heads, self.head_dim, sequence)?;
        Ok(linear(&attended, &self.output, self.output_bias.as_ref())?)
    }
}

/// The biases of several maps one after the other, zeros for those without; `None` if none has one.
fn joint_bias(parts: &[&Linear]) -> Option<Vec<f32>> {
    parts.iter().any(|part| part.bias.is_some()).then(|| {
        let bias = |part: &&Linear| part.bias.clone().unwrap_or_else(|| vec![0.0; part.weight.rows()]);
        parts.iter().flat_map(bias).collect()
    })
}

/// The original model.
pub struct Original {
    frame: Frame,
    layers: Vec<Layer>,
}

impl Original {
    /// A model of a frame and the attention of its layers, on the frame's device; `tables` holds one frequency per pair of a head.
    ///
    /// # Errors
    /// If a layer is inconsistent, or does not fit the frame or the tables.
    pub fn new(frame: Frame, layers: &[DenseAttention], tables: &Arc<RopeTables>) -> Result<Self> {
        ensure!(layers.len() == frame.layers(), "{} attention layers in {} blocks", layers.len(), frame.layers());
        let layer = |(index, weights): (usize, &DenseAttention)| {
            Layer::new(weights, tables, frame.device()).with_context(|| format!("attention of layer {index}"))
        };
        let layers = layers.iter().enumerate().map(layer).collect::<Result<_>>()?;
        Ok(Self { frame, layers })
    }

    /// Everything but attention.
    #[must_use]
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Runs sequences of `sequence` tokens one after the other; returns the hidden states after the last layer, before
    /// the last norm, `[tokens, hidden]`. `observe` is shown, for each layer, what its attention reads and the hidden
    /// states after it.
    ///
    /// # Errors
    /// If a token lies outside of the vocabulary, the tokens are no whole number of sequences, or `observe` fails.
    pub fn forward(
        &self,
        tokens: &[u32],
        sequence: usize,
        mut observe: impl FnMut(usize, &Tensor, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let mut x = self.frame.embed(tokens)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let normed = self.frame.attention_input(index, &x)?;
            let attended = layer.forward(&normed, sequence)?;
            x = self.frame.finish_block(index, &x, &attended)?;
            observe(index, &normed, &x)?;
        }
        Ok(x)
    }
}
