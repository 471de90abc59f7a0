//! `schedule`: cuts the tokens that each query token sees into splits.

use std::ops::Range;

/// A split: one block's work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Query token of the batch.
    pub query: usize,
    /// Tokens of its sequence; empty if it sees none.
    pub tokens: Range<usize>,
    /// Which partial result it makes; `None` if it is all of its query token's work.
    pub partial: Option<usize>,
}

/// Cuts every query token's work at the multiples of `split_tokens`. Splits stand in the order of query tokens, and of
/// tokens within one; those of query tokens with more than one split make numbered partials.
///
/// # Panics
/// If `split_tokens` is 0.
#[must_use]
pub fn schedule(seen: &[usize], split_tokens: usize) -> Vec<Split> {
    let mut splits = Vec::new();
    let mut partials = 0..;
    for (query, &tokens) in seen.iter().enumerate() {
        let count = tokens.div_ceil(split_tokens).max(1);
        splits.extend((0..count).map(|i| Split {
            query,
            tokens: i * split_tokens..tokens.min((i + 1) * split_tokens),
            partial: if count > 1 { partials.next() } else { None },
        }));
    }
    splits
}
