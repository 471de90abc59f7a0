//! Who changes global memory, and who waits for a change.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Counts of changes, and of launches and sleepers that are there.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    changes: AtomicU64,
    sleepers: AtomicU64,
    launches: AtomicU64,
}

/// Somebody who is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Presence<'a>(&'a AtomicU64);

impl<'a> Presence<'a> {
    fn of(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Traffic {
    pub fn change(&self) -> bool {
        self.changes.fetch_add(1, SeqCst);
        self.sleepers.load(SeqCst) > 0
    }

    pub fn changes(&self) -> u64 {
        self.changes.load(SeqCst)
    }

    pub fn sleeper(&self) -> Presence<'_> {
        Presence::of(&self.sleepers)
    }

    pub fn launch(&self) -> Presence<'_> {
        Presence::of(&self.launches)
    }

    pub fn launches(&self) -> u64 {
        self.launches.load(SeqCst)
    }
}
