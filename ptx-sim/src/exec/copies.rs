//! Asynchronous copies of `cp.async` that lanes have issued and not yet waited for, and the arrivals at `mbarrier`s that
//! come when they have completed (PTX ISA section 9.7.13.15.15).
//!
//! They write when somebody waits for them: their own thread for their group, or any thread for the object at which an
//! arrival follows them. Those that such an arrival follows write on behalf of an engine of their warp, so that whoever
//! has waited for the object knows of them, and not of what else the warp did.

use std::collections::VecDeque;

use super::cluster::Cluster;
use super::lanes::LANES;
use crate::clocks::{Access, Knowledge};
use crate::fault::Fault;

/// Most bytes of one copy.
pub(crate) const WIDEST_COPY: usize = 16;

/// Copies a warp's lanes have issued and not yet waited for.
#[derive(Debug, Default)]
pub(super) struct Copies {
    lanes: [Pending; LANES],
    /// The actor of copies that an arrival follows.
    engine: Option<usize>,
}

/// One lane's copies.
#[derive(Debug, Default)]
struct Pending {
    /// Issued since the last commit.
    open: Vec<Transfer>,
    /// Committed, oldest first.
    groups: VecDeque<Vec<Transfer>>,
    /// Copies issued so far.
    issued: u64,
    /// How many of them an arrival follows.
    followed: u64,
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

/// An arrival that comes when a lane's first copies have completed.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopyArrival {
    actor: usize,
    lane: usize,
    /// How many copies.
    behind: u64,
    /// Where it arrives.
    rank: usize,
    offset: u64,
    /// PTX line.
    line: u32,
}

impl Pending {
    /// Takes the transfers out that are among the lane's first `behind`.
    fn take_first(&mut self, behind: u64) -> Vec<Transfer> {
        let left = self.groups.iter().map(Vec::len).sum::<usize>() + self.open.len();
        let mut due = left.saturating_sub((self.issued - behind) as usize);
        let mut taken = Vec::new();
        for group in self.groups.iter_mut().chain([&mut self.open]) {
            let count = due.min(group.len());
            taken.extend(group.drain(..count));
            due -= count;
        }
        taken
    }
}

impl Cluster {
    /// A lane of a warp issues a copy.
    pub fn issue_copy(&mut self, actor: usize, lane: usize, transfer: Transfer) {
        let pending = &mut self.copies[actor].lanes[lane];
        pending.open.push(transfer);
        pending.issued += 1;
    }

    /// Makes a group of what a lane has issued since the last one.
    pub fn commit_copies(&mut self, actor: usize, lane: usize) {
        let pending = &mut self.copies[actor].lanes[lane];
        let group = std::mem::take(&mut pending.open);
        pending.groups.push_back(group);
    }

    /// A lane waits until at most `left` of its groups are in flight.
    pub fn wait_for_copies(&mut self, actor: usize, lane: usize, left: usize) -> Result<(), Fault> {
        while self.copies[actor].lanes[lane].groups.len() > left {
            let before = self.copies[actor].lanes[lane].issued - self.copies_in_flight(actor, lane);
            let group = self.copies[actor].lanes[lane].groups.pop_front().unwrap_or_default();
            let followed = (self.copies[actor].lanes[lane].followed.saturating_sub(before) as usize).min(group.len());
            let (behind, others) = group.split_at(followed);
            self.finish_copies(others, None)?;
            if !behind.is_empty() {
                let engine = self.copy_engine(actor);
                self.finish_copies(behind, Some(engine))?;
                let mut own = Knowledge::default();
                self.clocks.release(engine, &mut own);
                self.clocks.acquire(actor, &own);
            }
        }
        Ok(())
    }

    /// When what a lane has copied so far has completed, it arrives at an object.
    pub fn arrive_behind_copies(&mut self, actor: usize, lane: usize, (rank, offset): (usize, u64), line: u32) {
        let pending = &mut self.copies[actor].lanes[lane];
        pending.followed = pending.issued;
        let behind = pending.issued;
        self.arrivals.push(CopyArrival { actor, lane, behind, rank, offset, line });
    }

    /// Completes copies that arrivals at an object follow, until its phase ends.
    pub(super) fn land_copies_for(&mut self, rank: usize, offset: u64) -> Result<(), Fault> {
        let phase = |cluster: &Self| cluster.blocks[rank].mbarriers.get(&offset).map(|object| object.phase);
        let first = phase(self);
        while let Some(at) = self.arrivals.iter().position(|arrival| (arrival.rank, arrival.offset) == (rank, offset)) {
            if phase(self) != first {
                break;
            }
            let arrival = self.arrivals.remove(at);
            let transfers = self.copies[arrival.actor].lanes[arrival.lane].take_first(arrival.behind);
            let engine = self.copy_engine(arrival.actor);
            self.finish_copies(&transfers, Some(engine))?;
            let (block, clocks) = self.block(rank);
            if let Some(object) = block.mbarriers.get_mut(&offset) {
                object.release(engine, clocks);
                object.arrive(1).map_err(|fault| behind_line(fault, arrival.line))?;
            }
        }
        Ok(())
    }

    fn copies_in_flight(&self, actor: usize, lane: usize) -> u64 {
        let pending = &self.copies[actor].lanes[lane];
        (pending.groups.iter().map(Vec::len).sum::<usize>() + pending.open.len()) as u64
    }

    /// The actor on whose behalf a warp's copies write that an arrival follows. It writes through the generic proxy, as
    /// `cp.async` does.
    fn copy_engine(&mut self, actor: usize) -> usize {
        match self.copies[actor].engine {
            Some(engine) => engine,
            None => {
                let engine = self.clocks.new_engine();
                self.copies[actor].engine = Some(engine);
                engine
            }
        }
    }

    /// Transfers write, on behalf of their thread or of an engine.
    fn finish_copies(&mut self, transfers: &[Transfer], engine: Option<usize>) -> Result<(), Fault> {
        for transfer in transfers {
            let thread = engine.map_or(transfer.access.thread, |engine| (LANES * engine) as u32);
            let access = Access { thread, ..transfer.access };
            let (shared, clocks) = self.shared(transfer.rank);
            shared.finish_copy(clocks, access, transfer.offset, &transfer.bytes[..transfer.size])?;
            self.stirred = true;
        }
        Ok(())
    }
}

/// What is wrong with an arrival that came later, with the line that has asked for it.
fn behind_line(fault: Fault, line: u32) -> Fault {
    match fault {
        Fault::Mbarrier(why) => Fault::Mbarrier(format!("{why}: the `cp.async.mbarrier.arrive` of PTX line {line}")),
        other => other,
    }
}
