//! What makes strong accesses of more than a word whole.
//!
//! Memory lies in words of 4 bytes. Strong accesses of 8 and 16 bytes, and atomics of them, are single-copy atomic
//! (PTX ISA section 8.10.3): whoever makes one holds the guard of the 16 bytes around it for as long. Weak accesses
//! hold none, so that they cost nothing; they may tear, as the ISA lets them.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that have a guard together: the widest access that is whole.
pub(crate) const WHOLE: usize = 16;

/// Guards, which places that lie `GUARDS * WHOLE` bytes apart share.
const GUARDS: usize = 256;

/// A guard on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Guard(Mutex<()>);

/// The guards of a memory.
#[derive(Debug)]
pub(super) struct Guards(Box<[Guard]>);

impl Default for Guards {
    fn default() -> Self {
        Self((0..GUARDS).map(|_| Guard::default()).collect())
    }
}

impl Guards {
    /// Keeps strong accesses of more than a word to the 16 bytes around `address` apart from each other. Nobody may
    /// hold two at a time.
    pub fn hold(&self, address: u64) -> MutexGuard<'_, ()> {
        let Guard(guard) = &self.0[address as usize / WHOLE % GUARDS];
        guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pieces of `len` bytes at `address` that have a guard each: where each begins and ends.
pub(super) fn pieces(address: u64, len: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let first = WHOLE - address as usize % WHOLE;
    let begins = std::iter::once(0).chain((first..len).step_by(WHOLE));
    begins
        .map(move |from| from..len.min(if from == 0 { first } else { from + WHOLE }))
        .filter(|piece| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_where_guards_do() {
        let all = |address, len| pieces(address, len).map(|piece| (piece.start, piece.end)).collect::<Vec<_>>();
        assert_eq!(all(0x100, 8), [(0, 8)]);
        assert_eq!(all(0x108, 8), [(0, 8)]);
        assert_eq!(all(0x100, 32), [(0, 16), (16, 32)]);
        assert_eq!(all(0x108, 40), [(0, 8), (8, 24), (24, 40)]);
        assert!(all(0x108, 0).is_empty());
    }
}
