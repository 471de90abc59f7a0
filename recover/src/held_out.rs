//! How far the student is from the original on text that it has not learnt from.

use anyhow::{Result, ensure};
use candle_core::Tensor;
use latent_attention::cache::CacheFormat;

use crate::ops::{Compared, compare};
use crate::original::Original;
use crate::student::Student;

/// What is measured on held-out text.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Measured {
    /// Of the student, over every token but the first of a window.
    pub perplexity: f64,
    /// Of the original, over the same tokens.
    pub original_perplexity: f64,
    /// The mean divergence of the student's predictions from the original's, in nats per token.
    pub divergence: f64,
    /// Tokens predicted.
    pub tokens: usize,
}

/// Held-out text, and what the original makes of it.
pub struct HeldOut {
    /// Tokens, and the original's last hidden states, normalised, of all but the last of them.
    windows: Vec<(Vec<u32>, Tensor)>,
}

impl HeldOut {
    /// Cuts `tokens` into windows of up to `window` tokens, each of which begins with `begin` if the model has such a
    /// token, and runs the original over them. Each is read from an empty cache.
    ///
    /// # Errors
    /// If there are no tokens to predict, or they do not fit the model.
    pub fn new(original: &Original, tokens: &[u32], begin: Option<u32>, window: usize) -> Result<Self> {
        let own = window.saturating_sub(usize::from(begin.is_some()));
        ensure!(own >= 1 && window >= 2, "an evaluation window must have at least 2 tokens, not {window}");
        let mut windows = Vec::new();
        for chunk in tokens.chunks(own) {
            let tokens: Vec<u32> = begin.into_iter().chain(chunk.iter().copied()).collect();
            if tokens.len() < 2 {
                continue;
            }
            let hidden = original.forward(&tokens, tokens.len(), |_, _, _| Ok(()))?;
            let hidden = original.frame().final_norm(&hidden.narrow(0, 0, tokens.len() - 1)?)?;
            windows.push((tokens, hidden));
        }
        ensure!(!windows.is_empty(), "the evaluation text has {} tokens, too few to predict any", tokens.len());
        Ok(Self { windows })
    }

    /// Compares the student, reading from the given cache, with the original.
    ///
    /// # Errors
    /// If the student does not fit.
    pub fn measure(&self, original: &Original, student: &Student, cache: Option<CacheFormat>) -> Result<Measured> {
        let (mut total, mut count) = (Compared::default(), 0);
        for (tokens, target) in &self.windows {
            let predicted = tokens.len() - 1;
            let hidden = student.forward(tokens, tokens.len(), cache)?;
            let hidden = student.frame().final_norm(&hidden.narrow(0, 0, predicted)?)?.detach();
            let heads = (student.frame().head(), original.frame().head());
            let compared = compare((&hidden, heads.0), (target, heads.1), &tokens[1..])?;
            total.divergence += compared.divergence;
            total.loss += compared.loss;
            total.original_loss += compared.original_loss;
            count += predicted;
        }
        let mean = |sum: f64| sum / count as f64;
        Ok(Measured {
            perplexity: mean(total.loss).exp(),
            original_perplexity: mean(total.original_loss).exp(),
            divergence: mean(total.divergence),
            tokens: count,
        })
    }
}
