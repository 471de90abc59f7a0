//! `schedule`: cuts the tokens that each query token sees into splits.

use std::ops::Range;

use crate::splits::SplitCosts;

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

/// What a batch is predicted to cost in splits of `tiles` tiles of `tile_tokens`, of which `target` run at once: waves of
/// its longest split, and merging. `None` if it must not be cut into as many. `seen[q]` is how many tokens query token `q`
/// sees.
///
/// # Panics
/// If a tile, a split or the target is 0.
#[must_use]
pub fn predicted(seen: &[usize], tile_tokens: usize, tiles: usize, target: usize, costs: &SplitCosts) -> Option<u64> {
    let of_query = |&tokens: &usize| tokens.div_ceil(tiles * tile_tokens).max(1);
    let cost = |cost: u32, times: usize| u64::from(cost) * times as u64;
    let splits: usize = seen.iter().map(of_query).sum();
    let longest = seen.iter().map(|tokens| tokens.div_ceil(tile_tokens)).max().unwrap_or(0).clamp(1, tiles);
    let waves = splits.div_ceil(target);
    let attending = cost(costs.block, waves) + cost(SplitCosts::TILE, waves * longest);
    let cut = || seen.iter().map(of_query).filter(|&splits| splits > 1);
    let Some(most) = cut().max() else { return Some(attending) };
    let merging = cost(costs.merge, 1)
        + cost(costs.merge_partial, cut().sum())
        + cost(costs.merge_batch, most.div_ceil(SplitCosts::BATCH));
    (splits <= SplitCosts::most_splits(seen.len(), target)).then_some(attending + merging)
}

/// The length of splits, in tokens, with which a batch is [predicted] to cost least: a multiple of `tile_tokens`, the
/// smallest of several.
///
/// # Panics
/// As [`predicted`].
#[must_use]
pub fn balanced_split_tokens(seen: &[usize], tile_tokens: usize, target: usize, costs: &SplitCosts) -> usize {
    let longest = seen.iter().map(|tokens| tokens.div_ceil(tile_tokens)).max().unwrap_or(0).max(1);
    let costs = (1..=longest).filter_map(|tiles| Some((predicted(seen, tile_tokens, tiles, target, costs)?, tiles)));
    costs.min().map_or(longest, |(_, tiles)| tiles) * tile_tokens
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
