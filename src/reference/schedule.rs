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

/// The length of splits, in tokens, with which a batch has at most `target` of them: the smallest multiple of `tile` tokens,
/// not above `max_tokens` rounded up to one, that does it, or that largest multiple if none does. `seen[q]` is how many
/// tokens query token `q` sees.
///
/// # Panics
/// If `tile` is 0.
#[must_use]
pub fn balanced_split_tokens(seen: &[usize], tile: usize, target: usize, max_tokens: usize) -> usize {
    let largest = max_tokens.div_ceil(tile).max(1);
    let splits = |tiles: usize| seen.iter().map(|tokens| tokens.div_ceil(tiles * tile).max(1)).sum::<usize>();
    (1..largest).find(|&tiles| splits(tiles) <= target).unwrap_or(largest) * tile
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
