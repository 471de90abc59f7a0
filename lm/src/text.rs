//! The text that calibrates, trains and evaluates.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use latent_attention::weights::DenseAttention;

use crate::model::Model;
use crate::own_text::{self, Writing};
use crate::progress::bar;

/// Three essays, written for this project.
const BUILT_IN: &str = include_str!("../assets/text.txt");

/// Tokens of a short sequence of given text: conversions look at no shorter ones unless they are asked to.
pub const SEQUENCE: usize = 512;

/// What a model writes for its own calibration and training: texts of 256 tokens. It is a makeshift: a novel calibrates
/// better.
pub const WRITING: Writing = Writing { sequences: 80, length: 256, temperature: 0.8, seed: 0 };

/// Share of a calibration text that the model writes itself even where enough is given: it keeps what the given text says
/// nothing of. `cargo xtask quality texts` measures what it is worth.
pub const OWN_SHARE: f64 = 0.4;

/// The built-in text: the part that calibrates and the part that evaluates.
#[must_use]
pub fn built_in() -> (&'static str, &'static str) {
    cut(BUILT_IN)
}

/// Tokens of the two parts of a text.
pub struct Text {
    /// What the conversion may look at.
    pub calibration: Vec<u32>,
    /// What it is judged by, the beginning-of-text token included.
    pub evaluation: Vec<u32>,
}

impl Text {
    /// Reads and cuts a file, or the built-in text. What `more` holds is added to the first part; of the second at most
    /// `evaluation` tokens count.
    ///
    /// # Errors
    /// If a file cannot be read or is no UTF-8, or the text is too short for two parts.
    pub fn prepare(given: Option<&Path>, more: Option<&Path>, model: &Model, evaluation: usize) -> Result<Self> {
        let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let given = given.map(read).transpose()?;
        let (first, last) = cut(given.as_deref().unwrap_or(BUILT_IN));
        let mut calibration = model.tokenizer.encode(first)?;
        if let Some(path) = more {
            calibration.extend(model.tokenizer.encode(&read(path)?)?);
        }
        let most = evaluation.min(model.checkpoint.config().max_positions);
        let mut evaluation = model.begun(&model.tokenizer.encode(last)?);
        evaluation.truncate(most);
        ensure!(!calibration.is_empty() && evaluation.len() >= 2, "the text is too short to be cut in two");
        Ok(Self { calibration, evaluation })
    }
}

/// `tokens` in all to calibrate on, in sequences that begin as texts do for the model: those that were given, in sequences of
/// `length`, but for the share `own` (0 to 1), which the model writes itself, as it does what is missing of them. Its own
/// texts have the length of [`WRITING`], or of the model's positions if those are fewer. A model that names no token that
/// begins texts cannot write any.
///
/// # Errors
/// As for [`own_text::write`] and [`begun_pieces`]; and if `own` is no share.
pub fn sequences(
    model: &Model,
    layers: &[DenseAttention],
    given: &[u32],
    tokens: usize,
    length: usize,
    own: f64,
) -> Result<Vec<Vec<u32>>> {
    ensure!((0.0..=1.0).contains(&own), "the share of the model's own text must be 0 to 1, not {own}");
    let can_write = model.tokenizer.bos().is_some();
    let wanted = if can_write { (tokens as f64 * own) as usize } else { 0 };
    let given = &given[..given.len().min(tokens.saturating_sub(wanted))];
    let mut sequences = begun_pieces(model, given, length)?;
    let missing = tokens - given.len();
    if missing > 0 && can_write {
        let length = WRITING.length.min(model.checkpoint.config().max_positions);
        let writing = Writing { sequences: missing.div_ceil(length), length, ..WRITING };
        let progress = bar("The model writes text for itself", length - 1, "tokens of each sequence");
        sequences.extend(own_text::write(model, layers, &model.rope_tables(length), writing, || progress.inc(1))?);
        progress.finish_and_clear();
    }
    Ok(sequences)
}

/// A text in pieces of `length` tokens, each with the token that begins texts for the model, if it has one.
///
/// # Errors
/// If a piece would have no token of its own.
pub fn begun_pieces(model: &Model, tokens: &[u32], length: usize) -> Result<Vec<Vec<u32>>> {
    let own = length.saturating_sub(usize::from(model.tokenizer.bos().is_some()));
    ensure!(own > 0, "sequences of {length} tokens say nothing");
    Ok(tokens.chunks(own).map(|piece| model.begun(piece)).collect())
}

/// The tokens of texts one after the other, without `begin` if each begins with it.
#[must_use]
pub fn without_beginnings(sequences: &[Vec<u32>], begin: Option<u32>) -> Vec<u32> {
    let skipped = usize::from(begin.is_some());
    sequences.iter().flat_map(|sequence| sequence.iter().skip(skipped)).copied().collect()
}

/// What to tell a user whose text is longer than what the conversion of a model looked at, if it is.
#[must_use]
pub fn length_warning(tokens: usize, calibrated: Option<usize>) -> Option<String> {
    let calibrated = calibrated.filter(|&calibrated| tokens > calibrated)?;
    Some(format!(
        "warning: the conversion has looked at texts of {calibrated} tokens, and now the model reads {tokens}: rotations that \
         only matter over longer distances may be gone. A conversion that is calibrated on longer sequences keeps them."
    ))
}

/// The text before and after the beginning of the paragraph that is nearest to two thirds; a text of one paragraph
/// is cut at a blank.
#[must_use]
pub fn cut(text: &str) -> (&str, &str) {
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
    fn texts_longer_than_the_calibration_are_warned_of() {
        assert_eq!(length_warning(768, None), None);
        assert_eq!(length_warning(768, Some(768)), None);
        let warning = length_warning(769, Some(768)).unwrap();
        assert!(warning.contains("of 768 tokens") && warning.contains("reads 769"), "{warning}");
    }

    #[test]
    fn texts_are_joined_without_what_begins_them() {
        let sequences = [vec![7, 1, 2], vec![7, 3], vec![7]];
        assert_eq!(without_beginnings(&sequences, Some(7)), [1, 2, 3]);
        assert_eq!(without_beginnings(&sequences, None), [7, 1, 2, 7, 3, 7]);
    }

    #[test]
    fn the_built_in_text_is_plain_and_its_last_essay_evaluates() {
        assert!(BUILT_IN.is_ascii());
        assert!(cut(BUILT_IN).1.starts_with("The railway to the upper valley"));
    }
}
