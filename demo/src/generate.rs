//! Continuing a prompt.

use std::io::Write;

use anyhow::Result;

use crate::model::Model;
use crate::transformer::AttentionStep;

/// Writes the prompt and up to `count` greedily chosen tokens to `out` as they come.
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
    for _ in 0..count {
        let hidden = model.transformer.forward(attention, &new, position)?;
        position += new.len();
        let next = model.transformer.greedy(&hidden)?;
        if model.tokenizer.is_end(next) {
            break;
        }
        write!(out, "{}", decode(next)?)?;
        out.flush()?;
        new = vec![next];
    }
    Ok(writeln!(out)?)
}
