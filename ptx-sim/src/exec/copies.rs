//! Asynchronous copies that a warp's lanes have issued and not yet waited for.

use std::collections::VecDeque;

use super::lanes::LANES;
use crate::clocks::Access;

/// Most bytes of one copy.
pub(crate) const WIDEST_COPY: usize = 16;

/// Copies a warp's lanes have issued and not yet waited for.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    pub lanes: [Pending; LANES],
}

/// One lane's copies.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Issued since the last commit.
    pub open: Vec<Transfer>,
    /// Committed, oldest first.
    pub groups: VecDeque<Vec<Transfer>>,
}

/// A copy in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub access: Access,
    /// The block whose shared memory it writes to, by its rank in the cluster.
    pub rank: usize,
    /// Where in that memory.
    pub offset: u64,
    pub bytes: [u8; WIDEST_COPY],
    pub size: usize,
}

impl Pending {
    /// Makes a group of what has been issued since the last one.
    pub fn commit(&mut self) {
        let group = std::mem::take(&mut self.open);
        self.groups.push_back(group);
    }
}
