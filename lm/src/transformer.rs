//! The forward pass of Llama- and Qwen2-like models around an exchangeable attention.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use latent_attention::load::{Block, TensorSource};
use latent_attention::weights::{Matrix, RmsNorm};

use crate::loss::loss_of_rows;
use crate::tensors::{Norm, Projection, matrix, to_tensor, to_vec};

/// Logits of this many tokens are held at once: enough to use the weights well, small next to the model itself.
pub(crate) const LOGIT_ROWS: usize = 256;

/// The attention of all layers, with whatever it remembers of earlier tokens.
pub trait AttentionStep {
    /// Runs one layer's attention over new tokens and remembers them.
    ///
    /// `normed` is `[tokens, hidden]`, already normalised; `positions` says where these tokens stand, and begins
    /// where the layer's previous call ended. The result is `[tokens, hidden]`, after the output projection.
    ///
    /// # Errors
    /// If a size does not fit, or there is no room for more tokens.
    fn forward(&mut self, layer: usize, normed: &[f32], positions: Range<usize>) -> Result<Vec<f32>>;

    /// Forgets all tokens; the next call begins at position 0.
    fn reset(&mut self);
}

#[derive(Clone, Debug)]
struct BlockStep {
    attention_norm: Norm,
    mlp_norm: Norm,
    gate: Projection,
    up: Projection,
    down: Projection,
}

impl BlockStep {
    fn new(weights: Block) -> Result<Self> {
        Ok(Self {
            attention_norm: Norm::new(&weights.attention_norm)?,
            mlp_norm: Norm::new(&weights.mlp_norm)?,
            gate: Projection::new(weights.gate)?,
            up: Projection::new(weights.up)?,
            down: Projection::new(weights.down)?,
        })
    }

    fn mlp(&self, x: &Tensor) -> Result<Tensor> {
        let normed = self.mlp_norm.apply(x)?;
        let [gate, up] = Projection::apply_each([&self.gate, &self.up], &normed)?;
        let inner = (gate.silu()? * up)?;
        self.down.apply(&inner)
    }
}

/// A language model without its attention.
#[derive(Clone, Debug)]
pub struct Transformer {
    embedding: Tensor,
    blocks: Vec<BlockStep>,
    final_norm: Norm,
    head: Projection,
    hidden: usize,
}

impl Transformer {
    /// Builds the model from its embedding `[vocabulary, hidden]`, blocks, final norm and output head
    /// `[vocabulary, hidden]`, whose weights it takes over without a copy. Without a head the embedding serves as one.
    ///
    /// # Errors
    /// If a bias does not match its weight.
    pub fn new(
        embedding: Matrix,
        blocks: impl IntoIterator<Item = Result<Block>>,
        final_norm: &RmsNorm,
        head: Option<Matrix>,
    ) -> Result<Self> {
        let hidden = embedding.cols();
        let embedding = matrix(embedding)?;
        let head = match head {
            Some(head) => Projection::sharing(&matrix(head)?)?,
            None => Projection::sharing(&embedding)?,
        };
        let blocks = blocks
            .into_iter()
            .enumerate()
            .map(|(index, block)| block.and_then(BlockStep::new).with_context(|| format!("block {index}")));
        let blocks = blocks.collect::<Result<_>>()?;
        Ok(Self { embedding, blocks, final_norm: Norm::new(final_norm)?, head, hidden })
    }

    /// Reads the codes of which its weights were dequantised, where `source`, from which they came, has any: single tokens
    /// are then multiplied by those. `head` is the name of the output head's weight.
    ///
    /// # Errors
    /// If the file cannot be read or holds a scale that is not finite.
    pub fn read_codes(&mut self, source: &dyn TensorSource, head: &str) -> Result<()> {
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            for (map, name) in [(&mut block.gate, "gate"), (&mut block.up, "up"), (&mut block.down, "down")] {
                map.read_codes(source, &format!("model.layers.{layer}.mlp.{name}_proj.weight"))?;
            }
        }
        self.head.read_codes(source, head)
    }

    /// Number of blocks.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// Runs `tokens`, the first of them at position `start`, through all blocks; returns the final hidden states
    /// `[tokens, hidden]`, normalised, from which [`Self::log_likelihood_loss`] and [`Self::greedy`] read.
    ///
    /// # Errors
    /// If a token lies outside of the vocabulary, or the attention fails; the message names the layer.
    pub fn forward(&self, attention: &mut dyn AttentionStep, tokens: &[u32], start: usize) -> Result<Tensor> {
        let positions = start..start + tokens.len();
        let mut x = self.embed(tokens)?;
        for layer in 0..self.blocks.len() {
            let normed = to_vec(&self.attention_input(layer, &x)?)?;
            let attended = attention
                .forward(layer, &normed, positions.clone())
                .with_context(|| format!("attention of layer {layer} at positions {positions:?}"))?;
            x = (x + to_tensor(&attended, tokens.len(), self.hidden)?)?;
            x = self.add_mlp(layer, &x)?;
        }
        self.finish(&x)
    }

    /// What `tokens` begin with, `[tokens, hidden]`.
    ///
    /// # Errors
    /// If a token lies outside of the vocabulary.
    pub fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        let ids = Tensor::new(tokens, &Device::Cpu)?;
        self.embedding.index_select(&ids, 0).context("looking up tokens in the embedding")
    }

    /// What a layer's attention reads of the residual stream `x` (`[tokens, hidden]`).
    ///
    /// # Errors
    /// If there is no such layer, or `x` has another width.
    pub fn attention_input(&self, layer: usize, x: &Tensor) -> Result<Tensor> {
        self.blocks.get(layer).context("no such layer")?.attention_norm.apply(x)
    }

    /// The residual stream behind a layer's MLP, of `x` (`[tokens, hidden]`) behind its attention.
    ///
    /// # Errors
    /// As for [`Self::attention_input`].
    pub fn add_mlp(&self, layer: usize, x: &Tensor) -> Result<Tensor> {
        Ok((x + self.blocks.get(layer).context("no such layer")?.mlp(x)?)?)
    }

    /// The final hidden states of the residual stream behind the last layer.
    ///
    /// # Errors
    /// If `x` has another width.
    pub fn finish(&self, x: &Tensor) -> Result<Tensor> {
        self.final_norm.apply(x)
    }

    /// Width of the residual stream.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// The summed negative log-likelihood, in nats, of `targets`: `targets[i]` is the token that follows the one
    /// whose final hidden state is row `i`.
    ///
    /// # Errors
    /// If there is not one target per row, or a target lies outside of the vocabulary.
    pub fn log_likelihood_loss(&self, hidden: &Tensor, targets: &[u32]) -> Result<f64> {
        let rows = hidden.dim(0)?;
        ensure!(rows == targets.len(), "{rows} hidden states but {} target tokens", targets.len());
        let mut sum = 0.0;
        for (chunk, targets) in targets.chunks(LOGIT_ROWS).enumerate() {
            let logits = self.head.apply(&hidden.narrow(0, chunk * LOGIT_ROWS, targets.len())?)?;
            let (numbers, vocabulary) = (to_vec(&logits)?, logits.dim(1)?);
            sum += loss_of_rows(&numbers.chunks_exact(vocabulary).collect::<Vec<_>>(), targets)?;
        }
        Ok(sum)
    }

    /// The logits of final hidden states, `[tokens, vocabulary]`.
    ///
    /// # Errors
    /// If `hidden` has another width.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.head.apply(hidden)
    }

    /// The most likely token after the last row of `hidden`.
    ///
    /// # Errors
    /// If `hidden` has no rows.
    pub fn greedy(&self, hidden: &Tensor) -> Result<u32> {
        let rows = hidden.dim(0)?;
        ensure!(rows > 0, "no token to continue from");
        let logits = self.head.apply(&hidden.narrow(0, rows - 1, 1)?)?;
        Ok(logits.argmax(1)?.get(0)?.to_scalar()?)
    }
}

/// An attention whose inputs and outputs are shown to a callback on their way: how calibration captures hidden
/// states, and how a converted layer is compared with the original.
pub struct Observed<'a, F> {
    inner: &'a mut dyn AttentionStep,
    observe: F,
}

impl<'a, F: FnMut(usize, &[f32], &[f32]) -> Result<()>> Observed<'a, F> {
    /// Calls `observe(layer, normed input, output)`, both `[tokens, hidden]`, after every step of `inner`.
    pub fn new(inner: &'a mut dyn AttentionStep, observe: F) -> Self {
        Self { inner, observe }
    }
}

impl<F: FnMut(usize, &[f32], &[f32]) -> Result<()>> AttentionStep for Observed<'_, F> {
    fn forward(&mut self, layer: usize, normed: &[f32], positions: Range<usize>) -> Result<Vec<f32>> {
        let output = self.inner.forward(layer, normed, positions)?;
        (self.observe)(layer, normed, &output)?;
        Ok(output)
    }

    fn reset(&mut self) {
        self.inner.reset();
    }
}

#[cfg(test)]
#[path = "transformer_tests.rs"]
mod tests;
