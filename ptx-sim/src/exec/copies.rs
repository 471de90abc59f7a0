//! Asynchronous copies of `cp.async` that lanes have issued and not yet waited for, and the arrivals at `mbarrier`s
//! that come when they have completed (PTX ISA section 9.7.13.15.15).
//!
//! They write when somebody waits for them: their own thread for their group, or any thread for the object at which an
//! arrival follows them. Those that such an arrival follows write on behalf of an engine of their warp, so that whoever
//! has waited for the object knows of them, and not of what else the warp did.

use std::collections::{HashMap, VecDeque};

use super::cluster::Cluster;
use super::groups::Groups;
use super::lanes::LANES;
use crate::clocks::{Access, Knowledge, thread_of};
use crate::fault::Fault;

/// Most bytes of one copy.
pub(crate) const WIDEST_COPY: usize = 16;

/// Copies a warp's lanes have issued and not yet waited for.
#[derive(Debug, Default)]
pub(super) struct Copies {
    lanes: [Pending; LANES],
    /// The actor of copies that an arrival follows, if there was one.
    engine: Option<usize>,
}

/// Bytes that a copy in flight and an arrival behind copies take of this computer's memory.
const COPY_BYTES: usize = size_of::<(u64, Transfer)>();
const ARRIVAL_BYTES: usize = size_of::<CopyArrival>();

/// One lane's copies.
#[derive(Debug, Default)]
struct Pending {
    /// In flight.
    groups: Groups<Transfer>,
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

/// Arrivals by the object where they come: rank and offset. In the order in which they were asked for.
pub(super) type CopyArrivals = HashMap<(usize, u64), VecDeque<CopyArrival>>;

/// An arrival that comes when a lane's first copies have completed.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopyArrival {
    actor: usize,
    lane: usize,
    /// How many copies.
    behind: u64,
    /// PTX line.
    line: u32,
}

impl Pending {
    /// The number of the oldest copy in flight, among all that the lane has issued.
    fn oldest(&self) -> u64 {
        self.issued - self.groups.len() as u64
    }

    /// Whether an arrival follows the oldest copy in flight.
    fn is_followed(&self) -> bool {
        self.oldest() < self.followed
    }

    /// Takes the oldest copy out if it is among the lane's first `behind`.
    fn take_before(&mut self, behind: u64) -> Option<Transfer> {
        if self.oldest() < behind { self.groups.pop() } else { None }
    }

    /// Takes the oldest copy out if it is in one of the lane's first `groups` groups, and says whether an arrival
    /// follows it.
    fn take_of(&mut self, groups: u64) -> Option<(Transfer, bool)> {
        let followed = self.is_followed();
        self.groups.pop_within(groups).map(|transfer| (transfer, followed))
    }
}

impl Cluster {
    /// A lane of a warp issues a copy.
    pub fn issue_copy(&mut self, actor: usize, lane: usize, transfer: Transfer) -> Result<(), Fault> {
        self.held.take(COPY_BYTES)?;
        let pending = &mut self.copies[actor].lanes[lane];
        pending.groups.push(transfer);
        pending.issued += 1;
        Ok(())
    }

    /// Makes a group of what a lane has issued since the last one.
    pub fn commit_copies(&mut self, actor: usize, lane: usize) {
        self.copies[actor].lanes[lane].groups.commit();
    }

    /// A lane waits until at most `left` of its groups are in flight.
    pub fn wait_for_copies(&mut self, actor: usize, lane: usize, left: u64) -> Result<(), Fault> {
        let groups = self.copies[actor].lanes[lane].groups.complete(left);
        let mut engine = None;
        while let Some((transfer, followed)) = self.copies[actor].lanes[lane].take_of(groups) {
            if followed && engine.is_none() {
                engine = self.copy_engine(actor)?;
            }
            self.finish_copy(&transfer, engine.filter(|_| followed))?;
        }
        if let Some(engine) = engine {
            let mut own = Knowledge::default();
            self.clocks.release(engine, &mut own);
            self.clocks.acquire(actor, &own);
        }
        Ok(())
    }

    /// When what a lane has copied so far has completed, it arrives at an object.
    pub fn arrive_behind_copies(
        &mut self,
        actor: usize,
        lane: usize,
        place: (usize, u64),
        line: u32,
    ) -> Result<(), Fault> {
        self.held.take(ARRIVAL_BYTES)?;
        let pending = &mut self.copies[actor].lanes[lane];
        pending.followed = pending.issued;
        let behind = pending.issued;
        self.arrivals.entry(place).or_default().push_back(CopyArrival { actor, lane, behind, line });
        Ok(())
    }

    /// Completes copies that arrivals at an object follow, until its phase ends.
    pub(super) fn land_copies_for(&mut self, rank: usize, offset: u64) -> Result<(), Fault> {
        let phase = |cluster: &Self| cluster.blocks[rank].mbarriers.get(&offset).map(|object| object.phase);
        let first = phase(self);
        while phase(self) == first
            && let Some(arrival) = self.next_arrival((rank, offset))
        {
            let engine = self.copy_engine(arrival.actor)?;
            while let Some(transfer) = self.copies[arrival.actor].lanes[arrival.lane].take_before(arrival.behind) {
                self.finish_copy(&transfer, engine)?;
            }
            let (block, clocks) = self.block(rank);
            if let Some(object) = block.mbarriers.get_mut(&offset) {
                if let Some(engine) = engine {
                    object.release(engine, clocks);
                }
                object.arrive(1).map_err(|fault| behind_line(fault, arrival.line))?;
            }
        }
        self.weigh((rank, offset))
    }

    /// Completes the copies of lanes that no arrival follows, and says whether there were any. Hardware does so at any
    /// time.
    pub(super) fn land_copies(&mut self) -> Result<bool, Fault> {
        let mut landed = false;
        for actor in 0..self.copies.len() {
            for lane in 0..LANES {
                if self.copies[actor].lanes[lane].is_followed() {
                    continue;
                }
                while let Some(transfer) = self.copies[actor].lanes[lane].groups.pop() {
                    self.finish_copy(&transfer, None)?;
                    landed = true;
                }
            }
        }
        Ok(landed)
    }

    /// Takes the oldest arrival out that is to come at a place.
    fn next_arrival(&mut self, place: (usize, u64)) -> Option<CopyArrival> {
        let arrivals = self.arrivals.get_mut(&place)?;
        let first = arrivals.pop_front();
        if arrivals.is_empty() {
            self.arrivals.remove(&place);
        }
        self.held.give_back(ARRIVAL_BYTES);
        first
    }

    /// The actor on whose behalf a warp's copies write that an arrival follows, for the checker. It writes through the
    /// generic proxy, as `cp.async` does.
    fn copy_engine(&mut self, actor: usize) -> Result<Option<usize>, Fault> {
        if self.checked && self.copies[actor].engine.is_none() {
            self.copies[actor].engine = Some(self.new_engine()?);
        }
        Ok(self.copies[actor].engine)
    }

    /// A copy writes, on behalf of its thread or of an engine.
    fn finish_copy(&mut self, transfer: &Transfer, engine: Option<usize>) -> Result<(), Fault> {
        self.held.give_back(COPY_BYTES);
        let thread = engine.map_or(transfer.access.thread, thread_of);
        let access = Access { thread, ..transfer.access };
        let (shared, clocks) = self.shared(transfer.rank);
        shared.finish_copy(clocks, access, transfer.offset, &transfer.bytes[..transfer.size])?;
        self.noticed.stirred = true;
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
