//! What the four warps of a warpgroup have in common when they multiply by `wgmma` (PTX ISA sections 9.7.15.1 and
//! 9.7.15.7): the order of their instructions, and what their products read of shared memory.
//!
//! Warps take turns here, so one may be ahead of the others. What it executes is kept until the others have executed
//! the same; and a group of products is complete for nobody before all four warps have committed it. So whoever has
//! waited may have the operands overwritten, also on behalf of the other warps, as on hardware.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::clocks::{Access, Clocks, Knowledge, thread_of};
use crate::fault::Fault;
use crate::shared::SharedMemory;

/// Warps of a warpgroup.
pub(crate) const WARPS: usize = 4;

/// Instructions by which one warp may be ahead of another of its warpgroup. It bounds what is kept of them; a warp that
/// is so far ahead waits.
const MOST_AHEAD: usize = 1 << 12;

/// A `wgmma` instruction that some warps of the warpgroup have executed.
#[derive(Debug)]
struct Event {
    /// Function and step.
    at: (usize, usize),
    /// PTX line.
    line: u32,
    /// The first warp that came.
    warp: usize,
    /// The descriptors of A and B.
    descriptors: [Option<u64>; 2],
    /// The elements of B, as the first warp has unpacked them.
    b: Option<Arc<[f64]>>,
}

/// Bytes of shared memory that products in flight read: where and how many.
pub(crate) type Read = (u64, usize);

/// Bytes that the knowledge of a group's end takes: of one engine, in a list with room for four.
const ENDED_BYTES: usize = 4 * size_of::<(u32, u32)>();

/// A group of products that not all warps have waited for.
#[derive(Debug, Default)]
struct Group {
    /// What its products read.
    reads: Vec<Read>,
    /// The line of one that reads.
    line: u32,
    /// What those know that have waited for it; `None` while it is in flight.
    ended: Option<Knowledge>,
}

/// Four warps.
#[derive(Debug)]
pub(crate) struct Warpgroup {
    /// The actor in whose name products read.
    engine: usize,
    /// Instructions that not all warps have executed, oldest first.
    events: VecDeque<Event>,
    /// Number of the first of them.
    first_event: u64,
    /// Instructions that each warp has executed.
    executed: [u64; WARPS],
    /// Groups that not all warps have waited for, by number, if there is something in them; the last ones are open for
    /// some.
    groups: BTreeMap<u64, Group>,
    /// What they read: pieces, of all groups in flight together.
    reads: usize,
    /// Groups that each warp has committed, and waited for.
    committed: [u64; WARPS],
    waited: [u64; WARPS],
}

impl Warpgroup {
    pub fn new(clocks: &mut Clocks) -> Self {
        Self {
            engine: clocks.new_product_engine(),
            events: VecDeque::new(),
            first_event: 0,
            executed: [0; WARPS],
            groups: BTreeMap::new(),
            reads: 0,
            committed: [0; WARPS],
            waited: [0; WARPS],
        }
    }

    /// A warp of the group, by its number in it, executes its next instruction. Returns its number if it may go on:
    /// `None` if it is too far ahead of others. All warps have to execute the same instructions with the same
    /// descriptors.
    pub fn execute(
        &mut self,
        warp: usize,
        at: (usize, usize),
        line: u32,
        descriptors: [Option<u64>; 2],
    ) -> Result<Option<u64>, Fault> {
        let number = self.executed[warp];
        let index = (number - self.first_event) as usize;
        if index >= MOST_AHEAD {
            return Ok(None);
        }
        match self.events.get(index) {
            None => self.events.push_back(Event { at, line, warp, descriptors, b: None }),
            Some(event) if event.at != at => {
                return Err(Fault::Wgmma(format!(
                    "warp {warp} of the warpgroup executes this as its instruction number {number} of `wgmma`, and warp \
                     {} has executed that of PTX line {}: all four have to execute the same",
                    event.warp, event.line
                )));
            }
            Some(event) => {
                for (matrix, (own, other)) in ["A", "B"].iter().zip(descriptors.iter().zip(&event.descriptors)) {
                    if let (Some(own), Some(other)) = (own, other)
                        && own != other
                    {
                        return Err(Fault::Wgmma(format!(
                            "warp {warp} of the warpgroup has the descriptor {own:#018x} of {matrix}, and warp {} \
                             {other:#018x}: it has to be the same in all four",
                            event.warp
                        )));
                    }
                }
            }
        }
        self.executed[warp] += 1;
        Ok(Some(number))
    }

    /// Forgets the instructions that all warps have executed.
    pub fn forget(&mut self) {
        let done = self.executed.iter().copied().min().unwrap_or(0);
        while self.first_event < done && self.events.pop_front().is_some() {
            self.first_event += 1;
        }
    }

    fn event(&mut self, number: u64) -> Option<&mut Event> {
        self.events.get_mut(number.checked_sub(self.first_event)? as usize)
    }

    /// The elements of B of the instruction of that number, if a warp has unpacked them.
    pub fn elements(&mut self, number: u64) -> Option<Arc<[f64]>> {
        self.event(number)?.b.clone()
    }

    /// Keeps the elements of B for the other warps.
    pub fn keep(&mut self, number: u64, elements: &Arc<[f64]>) {
        if let Some(event) = self.event(number) {
            event.b = Some(Arc::clone(elements));
        }
    }

    /// Products of a warp's open group read these bytes, until the group is complete.
    pub fn read(&mut self, warp: usize, reads: &[Read], line: u32) {
        let group = self.groups.entry(self.committed[warp]).or_default();
        group.reads.extend(reads);
        group.line = line;
        self.reads += reads.len();
    }

    /// A warp commits its open group.
    pub fn commit(&mut self, warp: usize) {
        self.committed[warp] += 1;
    }

    /// Bytes of this computer's memory that groups in flight take.
    pub fn held_bytes(&self) -> usize {
        self.groups.len() * (size_of::<(u64, Group)>() + ENDED_BYTES) + self.reads * size_of::<Read>()
    }

    /// A warp waits until at most `pending` of its groups are in flight. Returns whether it may go on: that the others
    /// have committed the groups that it waits for. `exited` says which warps are gone.
    pub fn wait(
        &mut self,
        warp: usize,
        pending: u64,
        exited: [bool; WARPS],
        shared: &mut SharedMemory,
        clocks: &mut Clocks,
        actor: usize,
    ) -> Result<bool, Fault> {
        let target = self.committed[warp].saturating_sub(pending);
        if let Some(other) = (0..WARPS).find(|&other| self.committed[other] < target) {
            if exited[other] {
                let (has, wants) = (self.committed[other], target);
                return Err(Fault::Wgmma(format!(
                    "warp {warp} of the warpgroup waits for {wants} groups, and warp {other} has exited after {has}: a \
                     group is one of all four warps"
                )));
            }
            return Ok(false);
        }
        for group in self.groups.range_mut(self.waited[warp]..target.max(self.waited[warp])).map(|(_, group)| group) {
            if group.ended.is_none() {
                let thread = thread_of(self.engine);
                let access = Access { thread, line: group.line, strong: false, asynchronous: true };
                self.reads -= group.reads.len();
                for (offset, len) in std::mem::take(&mut group.reads) {
                    shared.finish_reading(clocks, access, offset, len)?;
                }
                let mut ended = Knowledge::default();
                clocks.release(self.engine, &mut ended);
                group.ended = Some(ended);
            }
            if let Some(ended) = &group.ended {
                clocks.acquire(actor, ended);
            }
        }
        self.waited[warp] = self.waited[warp].max(target);
        let done = self.waited.iter().copied().min().unwrap_or(0);
        while let Some(first) = self.groups.first_entry()
            && *first.key() < done
        {
            first.remove();
        }
        Ok(true)
    }
}
