//! In which pages the tokens of a batch lie.

use super::cache::Place;
use super::memory::{numbers, optional_numbers};
use crate::sys;

/// The place of token `token`, whose sequence's page ids begin at `row` of a page table.
///
/// # Safety
/// The table has an id for the token, of a page of the cache.
#[inline(always)]
pub(super) unsafe fn place_in_table(cache: &sys::CacheParams, table: u64, row: usize, token: usize) -> Place {
    let page_size = cache.page_size as usize;
    let id = table + ((row + token / page_size) * size_of::<i32>()) as u64;
    // SAFETY: promised by the caller.
    let page = unsafe { numbers::<i32>(id, 1) }[0];
    Place { page: page as usize, offset: token % page_size }
}

/// A batch, and the rows of an output in which the tokens of sequence b begin in row `starts[b]`.
pub(super) struct TokenRows<'a> {
    cache: &'a sys::CacheParams,
    batch: &'a sys::BatchParams,
    starts: &'a [i32],
    /// The token that stands in row `starts[b]`; none: every sequence's first.
    first_tokens: Option<&'a [i32]>,
    lens: &'a [i32],
    /// Where the page ids of each sequence begin; none: the table is dense.
    page_starts: Option<&'a [i32]>,
}

impl<'a> TokenRows<'a> {
    /// # Safety
    /// Addresses must be as `csrc/params.h` says: of `token_starts` and of `first_tokens`, which may be 0.
    pub unsafe fn new(
        cache: &'a sys::CacheParams,
        batch: &'a sys::BatchParams,
        token_starts: u64,
        first_tokens: u64,
    ) -> Self {
        let sequences = batch.sequences as usize;
        // SAFETY: promised by the caller.
        unsafe {
            Self {
                cache,
                batch,
                starts: numbers(token_starts, sequences + 1),
                first_tokens: optional_numbers(first_tokens, sequences),
                lens: numbers(batch.seq_lens, sequences),
                page_starts: optional_numbers(batch.page_starts, sequences + 1),
            }
        }
    }

    /// Rows that are written, of an output of `capacity` rows.
    pub fn len(&self, capacity: u32) -> usize {
        (self.starts[self.lens.len()] as u32).min(capacity) as usize
    }

    /// The token that stands in a row. Whatever the starts are, it is a token that the batch has, or none.
    ///
    /// # Safety
    /// The batch must keep its promises.
    pub unsafe fn place(&self, row: usize) -> Option<Place> {
        let row = row as u32;
        // The last sequence that begins at or before the row; empty ones before it begin there too.
        let begun = self.starts[..self.lens.len()].partition_point(|&start| start as u32 <= row);
        let sequence = begun.saturating_sub(1);
        let first = self.first_tokens.map_or(0, |first| first[sequence] as u32);
        let token = row.wrapping_sub(self.starts[sequence] as u32).wrapping_add(first);
        if token >= self.lens[sequence] as u32 {
            return None;
        }
        let dense = || sequence * self.batch.max_pages as usize;
        let table_row = self.page_starts.map_or_else(dense, |starts| starts[sequence] as usize);
        // SAFETY: promised by the caller, of tokens below the sequence's length.
        Some(unsafe { place_in_table(self.cache, self.batch.page_table, table_row, token as usize) })
    }
}
