//! Blocks that exit while others of their cluster still reach for their shared memory.
//!
//! A block's shared memory ends with the block. An access behind its end is a fault. An access before it that nothing
//! orders before it is one in another run of the same kernel, so the checker reports it as well: whatever warp of another
//! block, or whatever asynchronous operation, has last accessed the memory must be known to a warp of the block, by a
//! barrier of the cluster or by an `mbarrier`, when its last warp exits.

use super::cluster::Cluster;
use super::flight::{Flight, Place};
use super::lanes::LANES;
use crate::clocks::Access;
use crate::fault::Fault;

/// The last access of an actor to the shared memory of a block that is not its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    /// The actor's time.
    clock: u32,
    action: &'static str,
    /// Who is to blame, as in [`Access::thread`].
    thread: u32,
    line: u32,
}

/// What a block has left behind: an access of a thread to memory that may be gone by then.
#[derive(Debug)]
pub(super) struct Orphan {
    pub fault: Fault,
    /// Rank and linear index in its block of the thread that has accessed.
    pub rank: usize,
    pub thread: usize,
    /// PTX line of the access.
    pub line: u32,
}

impl Flight {
    /// Whether it reads or writes shared memory of a block.
    fn touches(&self, rank: usize) -> bool {
        let writes = |place: &Place| matches!(place, Place::Shared { rank: of, .. } if *of == rank);
        self.sources.iter().any(|source| source.0 == rank) || self.deliveries.iter().any(|d| writes(&d.place))
    }
}

impl Cluster {
    /// A fault if the block of that rank has exited.
    pub fn only_open(&self, rank: usize, action: &'static str) -> Result<(), Fault> {
        match self.blocks[rank].closed {
            None => Ok(()),
            Some(_) => Err(Fault::Exited { action, rank: rank as u32, why: "which has exited" }),
        }
    }

    /// Remembers that an actor accesses shared memory of the block of that rank, on behalf of `access`'s thread.
    pub fn remember_visit(&mut self, rank: usize, action: &'static str, actor: usize, access: Access) {
        let visit = Visit { clock: self.clocks.now(actor), action, thread: access.thread, line: access.line };
        self.blocks[rank].visits.insert(actor, visit);
    }

    /// Forgets the accesses to the memory of a block that one of its warps knows of: these come before the block's end.
    pub(super) fn forget_known_visits(&mut self, rank: usize) {
        let mut visits = std::mem::take(&mut self.blocks[rank].visits);
        visits.retain(|actor, visit| {
            (0..self.warps).all(|warp| !self.clocks.knows(self.actor(rank, warp), *actor, visit.clock))
        });
        self.blocks[rank].visits = visits;
    }

    /// Closes the block of that rank if its last warp has exited, and returns what it leaves behind.
    pub(super) fn close(&mut self, rank: usize) -> Vec<Orphan> {
        let block = &mut self.blocks[rank];
        if block.closed.is_some() || block.live.iter().any(|&live| live != 0) {
            return Vec::new();
        }
        block.closed = Some(self.departed);
        self.forget_known_visits(rank);
        let unknown = std::mem::take(&mut self.blocks[rank].visits);
        let why = "which exits without waiting for it";
        let mut orphans: Vec<Orphan> =
            unknown.values().map(|visit| self.orphan(rank, visit.action, why, visit.thread, visit.line)).collect();
        orphans.extend(self.in_flight(rank, 0));
        orphans
    }

    /// What was begun behind a block's end, when all have exited.
    pub(super) fn begun_too_late(&self) -> Vec<Orphan> {
        let closed = self.blocks.iter().enumerate().filter_map(|(rank, block)| Some((rank, block.closed?)));
        closed.flat_map(|(rank, departed)| self.in_flight(rank, departed)).collect()
    }

    /// Operations in flight, from that number on, that touch the memory of a block.
    fn in_flight(&self, rank: usize, first: u64) -> impl Iterator<Item = Orphan> {
        let flights = self.flights.range(first..).map(|(_, flight)| flight).filter(move |flight| flight.touches(rank));
        let why = "which exits while it is in flight";
        flights.map(move |f| self.orphan(rank, "asynchronous operation", why, f.access.thread, f.access.line))
    }

    fn orphan(&self, rank: usize, action: &'static str, why: &'static str, thread: u32, line: u32) -> Orphan {
        let fault = Fault::Exited { action, rank: rank as u32, why };
        let threads = self.warps * LANES;
        Orphan { fault, rank: thread as usize / threads, thread: thread as usize % threads, line }
    }
}
