//! The text that calibrates and evaluates.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::args::Arguments;
use latent_attention_lm::model::Model;

/// Three essays, written for this project.
const BUILT_IN: &str = include_str!("../assets/text.txt");

/// The built-in text: the part that calibrates and the part that evaluates.
#[must_use]
pub fn built_in() -> (&'static str, &'static str) {
    cut(BUILT_IN)
}

/// Tokens of the two parts of a text.
pub struct Text {
    /// What the conversion may look at, as far as the text goes.
    pub calibration: Vec<u32>,
    /// What it is judged by, the beginning-of-text token included.
    pub evaluation: Vec<u32>,
}

impl Text {
    /// Reads and cuts the text that the arguments name, or the built-in one.
    ///
    /// # Errors
    /// If the file cannot be read, or is too short for two parts.
    pub fn prepare(arguments: &Arguments, model: &Model) -> Result<Self> {
        let given = match &arguments.text {
            Some(path) => Some(fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?),
            None => None,
        };
        let (first, last) = cut(given.as_deref().unwrap_or(BUILT_IN));
        let mut calibration = model.tokenizer.encode(first)?;
        calibration.truncate(arguments.calibration_tokens);
        let mut evaluation = model.begun(&model.tokenizer.encode(last)?);
        evaluation.truncate(arguments.tokens.min(model.checkpoint.config().max_positions));
        ensure!(!calibration.is_empty() && evaluation.len() >= 2, "the text is too short to be cut in two");
        Ok(Self { calibration, evaluation })
    }
}

/// The text before and after the beginning of the paragraph that is nearest to two thirds; a text of one paragraph
/// is cut at a blank.
fn cut(text: &str) -> (&str, &str) {
    let goal = text.len() / 3 * 2;
    let nearest = |pattern: &str| {
        let starts = text.match_indices(pattern).map(|(index, found)| index + found.len());
        starts.filter(|&start| start < text.len()).min_by_key(|start| start.abs_diff(goal))
    };
    let start = nearest("\n\n").or_else(|| nearest(" ")).unwrap_or(text.len());
    text.split_at(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_where_a_paragraph_begins() {
        assert_eq!(cut("a few words\n\nsome more\n\nthe rest\n\n").1, "the rest\n\n");
        assert_eq!(cut("one two three four"), ("one two three ", "four"));
        assert_eq!(cut("indivisible"), ("indivisible", ""));
        assert_eq!(cut(""), ("", ""));
    }

    #[test]
    fn the_built_in_text_is_plain_and_its_last_essay_evaluates() {
        assert!(BUILT_IN.is_ascii());
        assert!(cut(BUILT_IN).1.starts_with("The railway to the upper valley"));
    }
}
