//! What is measured of a model with one kind of attention: perplexity, divergence from the original, and the error of each
//! layer's output.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use candle_core::{D, Tensor};

use crate::progress::bar;
use crate::transformer::{AttentionStep, LOGIT_ROWS, Observed, Transformer};

/// Tokens per forward pass while a text is read: products bring the weights into another order first, every time anew.
const CHUNK: usize = 512;

/// Tokens over which the attention's output is compared.
const COMPARED: usize = 256;

/// What a model says about a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Perplexity of every token but the first, given those before it.
    pub perplexity: f64,
    /// Mean Kullback-Leibler divergence of its predictions from the original's, in nats per token; of the original, and
    /// where there is none, `None`.
    pub divergence: Option<f64>,
}

/// The final hidden states of all of `tokens` but the last, `[tokens - 1, hidden]`, read from an empty cache.
///
/// # Errors
/// If the attention does not fit the model, or there are fewer than two tokens.
fn read(name: &str, transformer: &Transformer, attention: &mut dyn AttentionStep, tokens: &[u32]) -> Result<Tensor> {
    ensure!(tokens.len() >= 2, "at least two tokens are needed to evaluate on, there are {}", tokens.len());
    let progress = bar(&format!("Evaluating: {name}"), tokens.len() - 1, "tokens");
    attention.reset();
    let mut hidden = Vec::new();
    let mut start = 0;
    for chunk in tokens[..tokens.len() - 1].chunks(CHUNK) {
        hidden.push(transformer.forward(attention, chunk, start)?);
        start += chunk.len();
        progress.inc(chunk.len() as u64);
    }
    progress.finish_and_clear();
    Ok(Tensor::cat(&hidden, 0)?)
}

/// Reads `tokens` from an empty cache, and compares with the original if there is one.
///
/// # Errors
/// If the attention does not fit the model, or `tokens` are fewer than two.
pub fn measure(
    name: &str,
    transformer: &Transformer,
    attention: &mut dyn AttentionStep,
    tokens: &[u32],
    original: Option<&Original>,
) -> Result<Measured> {
    let hidden = read(name, transformer, attention, tokens)?;
    measure_range(transformer, &hidden, tokens, original, 0..tokens.len() - 1)
}

/// Reads `tokens` once, as [`measure`] does, and measures the predictions made at each of the `ranges` of positions: how
/// good they are far from the beginning of a text.
///
/// # Errors
/// As for [`measure`], and if a range is empty or ends behind the last prediction, at `tokens.len() - 1`.
pub fn measure_ranges(
    name: &str,
    transformer: &Transformer,
    attention: &mut dyn AttentionStep,
    tokens: &[u32],
    original: Option<&Original>,
    ranges: &[Range<usize>],
) -> Result<Vec<Measured>> {
    let hidden = read(name, transformer, attention, tokens)?;
    ranges.iter().map(|range| measure_range(transformer, &hidden, tokens, original, range.clone())).collect()
}

/// What the final hidden states of a text say about its tokens behind a range of positions.
fn measure_range(
    transformer: &Transformer,
    hidden: &Tensor,
    tokens: &[u32],
    original: Option<&Original>,
    range: Range<usize>,
) -> Result<Measured> {
    let predictions = hidden.dim(0)?;
    ensure!(
        !range.is_empty() && range.end <= predictions,
        "a range of positions must lie in 0..{predictions} and not be empty, unlike {range:?}"
    );
    let part = hidden.narrow(0, range.start, range.len())?;
    let divergence = |original: &Original| -> Result<f64> {
        ensure!(original.hidden.dim(0)? == predictions, "the original has read another text");
        divergence(transformer, &original.hidden.narrow(0, range.start, range.len())?, &part)
    };
    let divergence = original.map(divergence).transpose()?;
    Ok(Measured { perplexity: perplexity(transformer, &part, &tokens[range.start + 1..=range.end])?, divergence })
}

/// Perplexity of `targets`, each from the final hidden state before it.
fn perplexity(transformer: &Transformer, hidden: &Tensor, targets: &[u32]) -> Result<f64> {
    let loss = transformer.log_likelihood_loss(hidden, targets)?;
    Ok((loss / targets.len() as f64).exp())
}

/// Mean over tokens of `sum_v p_v (ln p_v - ln q_v)` for the predictions p of `original` and q of `hidden`.
fn divergence(transformer: &Transformer, original: &Tensor, hidden: &Tensor) -> Result<f64> {
    let tokens = hidden.dim(0)?;
    let mut sum = 0.0;
    for start in (0..tokens).step_by(LOGIT_ROWS) {
        let rows = LOGIT_ROWS.min(tokens - start);
        let log = |states: &Tensor| -> Result<Tensor> {
            let logits = transformer.logits(&states.narrow(0, start, rows)?)?;
            Ok(candle_nn::ops::log_softmax(&logits, D::Minus1)?)
        };
        let (p, q) = (log(original)?, log(hidden)?);
        sum += f64::from((p.exp()? * (p - q)?)?.sum_all()?.to_scalar::<f32>()?);
    }
    Ok(sum / tokens as f64)
}

/// What the original model made of a text: its final hidden states, and what each layer's attention read and wrote.
pub struct Original {
    /// Its own perplexity, as [`measure`] has it of others.
    pub perplexity: f64,
    hidden: Tensor,
    /// Tokens of which the layers are recorded.
    tokens: usize,
    /// For each layer, the normed input and the output, `[tokens, hidden]` each.
    layers: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Original {
    /// Runs the original model over `tokens`.
    ///
    /// # Errors
    /// If the attention does not fit the model, or `tokens` are fewer than two.
    pub fn new(transformer: &Transformer, original: &mut dyn AttentionStep, tokens: &[u32]) -> Result<Self> {
        let hidden = read("original", transformer, original, tokens)?;
        let compared = &tokens[..COMPARED.min(tokens.len())];
        let mut layers = Vec::new();
        original.reset();
        let mut observed = Observed::new(original, |_, normed: &[f32], output: &[f32]| {
            layers.push((normed.to_vec(), output.to_vec()));
            Ok(())
        });
        transformer.forward(&mut observed, compared, 0)?;
        let perplexity = perplexity(transformer, &hidden, &tokens[1..])?;
        Ok(Self { perplexity, hidden, tokens: compared.len(), layers })
    }

    /// Its own perplexity at each of the `ranges` of positions, as [`measure_ranges`] has it of others; `tokens` are those
    /// that it has read.
    ///
    /// # Errors
    /// As for [`measure_ranges`].
    pub fn perplexities(&self, transformer: &Transformer, tokens: &[u32], ranges: &[Range<usize>]) -> Result<Vec<f64>> {
        let of = |range: &Range<usize>| {
            Ok(measure_range(transformer, &self.hidden, tokens, None, range.clone())?.perplexity)
        };
        ranges.iter().map(of).collect()
    }

    /// The relative error (Frobenius) of another attention's outputs on the same inputs, averaged over layers.
    ///
    /// # Errors
    /// If the attention does not fit the recorded layers.
    pub fn error_of(&self, attention: &mut dyn AttentionStep) -> Result<f64> {
        attention.reset();
        let mut sum = 0.0;
        for (layer, (input, expected)) in self.layers.iter().enumerate() {
            let output = attention.forward(layer, input, 0..self.tokens)?;
            sum += relative_error(&output, expected);
        }
        Ok(sum / self.layers.len().max(1) as f64)
    }

    /// What a layer's attention read at the first `tokens` positions, or at as many as there are: `[tokens, hidden]`.
    ///
    /// # Errors
    /// If there is no such layer.
    pub fn inputs(&self, layer: usize, tokens: usize) -> Result<&[f32]> {
        let (input, _) = self.layers.get(layer).context("no such layer")?;
        Ok(&input[..input.len() / self.tokens * tokens.min(self.tokens)])
    }
}

/// `|got - expected| / |expected|` in the Frobenius norm.
fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 = got.iter().zip(expected).map(|(&g, &e)| square(f64::from(g) - f64::from(e))).sum();
    let total: f64 = expected.iter().map(|&e| square(e.into())).sum();
    (difference / total).sqrt()
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
