//! What it costs to cut a query token's attention into splits, and the balanced splits that are chosen by it.

use crate::sys;

/// What splits cost beside their tiles, in units of which a tile on a full device takes [`TILE`](Self::TILE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SplitCosts {
    /// A split beside its tiles: the query in, the results out.
    pub block: u32,
    /// Merging, if anything is cut.
    pub merge: u32,
    /// And for each partial of the batch.
    pub merge_partial: u32,
    /// And for each [`BATCH`](Self::BATCH) partials of the query token that has most.
    pub merge_batch: u32,
}

impl SplitCosts {
    /// What a tile costs.
    pub const TILE: u32 = sys::SCHEDULE_TILE;

    /// Partials of a query token that are merged at a time.
    pub const BATCH: usize = sys::COMBINE_BATCH as usize;

    /// Most splits into which a batch of `query_tokens` is cut, if `target` of them run at once: as many, and where a split
    /// each fills more than half a device, several times as many, of which the last ones leave less of it empty. Fewer
    /// query tokens fill it anyway, and need not launch as many blocks.
    #[must_use]
    pub fn most_splits(query_tokens: usize, target: usize) -> usize {
        let waves = if query_tokens > target / 2 { sys::SCHEDULE_WAVES as usize } else { 1 };
        target.saturating_mul(waves)
    }

    /// Of times in any unit: of a tile, and of what the fields name, in their order.
    #[must_use]
    pub fn new(tile: f64, beside: [f64; 4]) -> Self {
        // `as` keeps to the ends of the range.
        let [block, merge, merge_partial, merge_batch] =
            beside.map(|time| (time / tile * f64::from(Self::TILE)).round() as u32);
        Self { block, merge, merge_partial, merge_batch }
    }
}

/// About those of a layer with 32 heads and latents of 512 numbers.
impl Default for SplitCosts {
    fn default() -> Self {
        Self::new(1.0, [2.0, 0.2, 0.005, 0.05])
    }
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
