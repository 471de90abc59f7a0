//! What is measured of a model with one kind of attention: perplexity, speed, and error against the original.

use std::time::Instant;

use anyhow::{Context, Result};

use latent_attention_lm::progress::bar;
use latent_attention_lm::transformer::{AttentionStep, Observed, Transformer};

/// Tokens per forward pass while a text is read.
const CHUNK: usize = 128;

/// Tokens at the end of the text that are decoded one by one, under the clock.
const DECODED: usize = 32;

/// Tokens over which the attention's output is compared.
const COMPARED: usize = 256;

/// Perplexity and speed of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Of every token but the first, given those before it.
    pub perplexity: f64,
    /// Tokens per second, one at a time, at the end of the text.
    pub tokens_per_second: f64,
}

/// Reads `tokens` from an empty cache: most in chunks, the last of them one by one.
///
/// # Errors
/// If the attention does not fit the model, or `tokens` are fewer than two.
pub fn measure(
    name: &str,
    transformer: &Transformer,
    attention: &mut dyn AttentionStep,
    tokens: &[u32],
) -> Result<Measured> {
    let (_, targets) = tokens.split_first().context("no tokens to evaluate on")?;
    let decoded = DECODED.min(targets.len().div_ceil(2));
    let read = targets.len() - decoded;
    let progress = bar(&format!("Evaluating: {name}"), targets.len(), "tokens");
    attention.reset();
    let mut loss = 0.0;
    let mut step = |start: usize, end: usize| -> Result<()> {
        let hidden = transformer.forward(attention, &tokens[start..end], start)?;
        loss += transformer.log_likelihood_loss(&hidden, &targets[start..end])?;
        progress.inc((end - start) as u64);
        Ok(())
    };
    for start in (0..read).step_by(CHUNK) {
        step(start, (start + CHUNK).min(read))?;
    }
    let clock = Instant::now();
    for position in read..targets.len() {
        step(position, position + 1)?;
    }
    let seconds = clock.elapsed().as_secs_f64();
    progress.finish_and_clear();
    Ok(Measured { perplexity: (loss / targets.len() as f64).exp(), tokens_per_second: decoded as f64 / seconds })
}

/// What each layer's attention read and wrote in the original model.
pub struct Recording {
    /// Tokens recorded.
    tokens: usize,
    /// For each layer, the normed input and the output, `[tokens, hidden]` each.
    layers: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Recording {
    /// Runs the original model over the first of `tokens`.
    ///
    /// # Errors
    /// If the attention does not fit the model.
    pub fn new(transformer: &Transformer, original: &mut dyn AttentionStep, tokens: &[u32]) -> Result<Self> {
        let tokens = &tokens[..COMPARED.min(tokens.len())];
        let mut layers = Vec::new();
        original.reset();
        let mut observed = Observed::new(original, |_, normed: &[f32], output: &[f32]| {
            layers.push((normed.to_vec(), output.to_vec()));
            Ok(())
        });
        transformer.forward(&mut observed, tokens, 0)?;
        Ok(Self { tokens: tokens.len(), layers })
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
}

/// `|got - expected| / |expected|` in the Frobenius norm.
fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 = got.iter().zip(expected).map(|(&g, &e)| square(f64::from(g) - f64::from(e))).sum();
    let total: f64 = expected.iter().map(|&e| square(e.into())).sum();
    (difference / total).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_errors_are_relative() {
        assert_eq!(relative_error(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert_eq!(relative_error(&[0.0, 0.0], &[3.0, 4.0]), 1.0);
        assert_eq!(relative_error(&[3.0, 4.5], &[3.0, 4.0]), 0.1);
    }
}
