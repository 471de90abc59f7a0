//! `copy_pages`: whole pages of a cache copied to other pages of it.
//!
//! A task has the same bytes of all pages, in the order of the copies, so that no byte is two tasks', whatever the ids are.

use rayon::prelude::*;

use super::memory::{add_to_counters, numbers};
use crate::sys;

/// # Safety
/// As [`cpu`](super).
pub(super) unsafe fn copy_pages(params: &sys::CopyPagesParams) {
    let cache = &params.cache;
    // SAFETY: promised by the caller.
    let copies = unsafe { numbers::<[i32; 2]>(params.copies, params.count as usize) };
    let exists = |copy: &[i32; 2]| copy.iter().all(|&page| (page as u32) < cache.page_count);
    let (bytes, part) = (cache.page_bytes as usize, sys::COPY_PAGES_BYTES as usize);
    (0..bytes.div_ceil(part)).into_par_iter().for_each(|task| {
        let (first, count) = (task * part, part.min(bytes - task * part));
        for copy in copies.iter().filter(|copy| exists(copy)) {
            let [from, to] = copy.map(|page| {
                let address = cache.pages as usize + page as usize * bytes + first;
                std::ptr::with_exposed_provenance_mut::<u8>(address)
            });
            // SAFETY: both pages are in the cache, and their bytes are this task's; they may be the same.
            unsafe { std::ptr::copy(from, to, count) };
        }
    });
    let refused = copies.iter().filter(|copy| !exists(copy)).count() as u64;
    // SAFETY: promised by the caller.
    unsafe { add_to_counters(params.counters, &[refused]) };
}
