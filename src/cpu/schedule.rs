//! `schedule`: cuts a batch's attention into splits for `decode`.

use super::memory::{numbers, numbers_mut, optional_numbers};
use crate::splits::{SplitCosts, balanced_split_tokens};
use crate::sys;

/// # Safety
/// As [`cpu`](super).
pub(super) unsafe fn schedule(params: &sys::ScheduleParams) {
    let queries = params.query_tokens as usize;
    // SAFETY: promised by the caller.
    let found: Vec<Query> = (0..queries).map(|query| unsafe { Query::find(params, query) }).collect();
    let split_tokens = match params.fixed_tokens as usize {
        0 => {
            let seen: Vec<usize> = found.iter().map(|query| query.tokens).collect();
            let sys::SplitCosts { block, merge, merge_partial, merge_batch } = params.costs;
            let costs = SplitCosts { block, merge, merge_partial, merge_batch };
            balanced_split_tokens(&seen, params.tile_tokens as usize, params.target_splits as usize, &costs)
        }
        fixed => fixed,
    };
    let count_of = |query: &Query| query.tokens.div_ceil(split_tokens).max(1);
    let count: usize = found.iter().map(count_of).sum();
    // SAFETY: promised by the caller.
    let (splits, split_starts, merges) = unsafe {
        numbers_mut::<u32>(params.split_count, 1)[0] = count as u32;
        (
            numbers_mut::<sys::DecodeSplit>(params.splits, count),
            numbers_mut::<i32>(params.split_starts, queries + 1),
            numbers_mut::<u64>(params.merges, queries * params.merge_tiles as usize),
        )
    };
    merges.fill(0);
    let (mut splits, mut partials) = (splits.iter_mut(), 0);
    for (index, query) in found.iter().enumerate() {
        split_starts[index] = partials;
        let own = count_of(query);
        for (i, split) in splits.by_ref().take(own).enumerate() {
            let (first, is_partial) = (i * split_tokens, own > 1);
            let end = query.tokens.min(first + split_tokens);
            let partial = if is_partial { partials } else { -1 };
            partials += i32::from(is_partial);
            let [query_token, first, end] = [index, first, end].map(|number| number as u32);
            *split = sys::DecodeSplit { query: query_token, row: query.row, first, end, partial, reserved: [0; 3] };
        }
    }
    split_starts[queries] = partials;
}

/// What a query token sees.
struct Query {
    tokens: usize,
    /// Where its sequence's page ids begin.
    row: u32,
}

impl Query {
    /// # Safety
    /// As [`schedule`].
    unsafe fn find(params: &sys::ScheduleParams, query: usize) -> Self {
        let (batch, sequences) = (&params.batch, params.batch.sequences as usize);
        // SAFETY: promised by the caller.
        let (starts, lens, page_starts) = unsafe {
            (
                numbers::<i32>(batch.query_starts, sequences + 1),
                numbers::<i32>(batch.seq_lens, sequences),
                optional_numbers::<i32>(batch.page_starts, sequences + 1),
            )
        };
        let query = query as i64;
        if query >= i64::from(starts[sequences]) {
            return Self { tokens: 0, row: 0 };
        }
        // The last sequence that starts at or before the query token: empty ones stand before it.
        let sequence = starts[..sequences].partition_point(|&start| i64::from(start) <= query) - 1;
        let length = i64::from(lens[sequence]);
        let visible = (length - i64::from(starts[sequence + 1]) + query + 1).clamp(0, length.max(0));
        let (row, pages) = match page_starts {
            Some(starts) => (starts[sequence] as u32, (starts[sequence + 1] - starts[sequence]) as usize),
            None => ((sequence as u32).wrapping_mul(batch.max_pages), batch.max_pages as usize),
        };
        // Never past the page table, nor past what the workspace has room for.
        let most = (params.max_tokens as usize).min(pages * params.page_size as usize);
        Self { tokens: (visible as usize).min(most), row }
    }
}
