//! Continuing a prompt.

use std::io::Write;

use anyhow::Result;

use latent_attention_lm::model::Model;
use latent_attention_lm::transformer::AttentionStep;

/// Writes the prompt and up to `count` greedily chosen tokens to `out` as they come, blank lines at most once in a row:
/// a damaged model may have little else to say.
///
/// # Errors
/// If the attention does not fit the model, or `out` cannot be written.
pub fn continue_text(
    model: &Model,
    attention: &mut dyn AttentionStep,
    prompt: &str,
    count: usize,
    out: &mut impl Write,
) -> Result<()> {
    let mut new = model.begun(&model.tokenizer.encode(prompt)?);
    let mut position = 0;
    let mut decode = model.tokenizer.stream();
    attention.reset();
    write!(out, "{prompt}")?;
    let mut blank = false;
    for _ in 0..count {
        let hidden = model.transformer.forward(attention, &new, position)?;
        position += new.len();
        let next = model.transformer.greedy(&hidden)?;
        if model.tokenizer.is_end(next) {
            break;
        }
        let piece = decode(next)?;
        let repeated = blank && piece.trim().is_empty();
        blank = piece.contains('\n') && piece.trim().is_empty() || repeated;
        if !repeated {
            write!(out, "{piece}")?;
            out.flush()?;
        }
        new = vec![next];
    }
    Ok(writeln!(out)?)
}
