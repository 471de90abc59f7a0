//! `copy_pages`: whole pages of a cache copied to other pages of it.

use crate::cache::PagedCache;
use crate::error::{Error, Result};

/// Copies pages, each `[source, destination]`, byte for byte, all at the same time.
///
/// # Errors
/// [`Error::Index`] for a page that does not exist, [`Error::Config`] if a page is the destination of two copies, or of
/// one while it is another's source. Nothing is written then.
pub fn copy_pages(copies: &[[i32; 2]], cache: &mut PagedCache) -> Result<()> {
    let pages = cache.pages();
    for (i, copy) in copies.iter().enumerate() {
        for (page, what) in copy.iter().zip(["source", "destination"]) {
            if usize::try_from(*page).map_or(true, |page| page >= pages) {
                let what = format!("{what} of copy [{i}]");
                return Err(Error::Index { what, got: (*page).into(), bound: format!("0..{pages} pages") });
            }
        }
    }
    for (i, [_, destination]) in copies.iter().enumerate() {
        let others = copies.iter().enumerate().filter(|(j, _)| *j != i);
        if others.into_iter().any(|(_, other)| other.contains(destination)) {
            let why = "is the destination of one copy and a page of another".into();
            return Err(Error::Config { what: format!("page {destination}"), why });
        }
    }
    let page_bytes = cache.layout().page_bytes();
    for &[source, destination] in copies {
        let start = source as usize * page_bytes;
        cache.bytes_mut().copy_within(start..start + page_bytes, destination as usize * page_bytes);
    }
    Ok(())
}
