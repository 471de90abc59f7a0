//! A block: its shared memory and its barriers.

use std::collections::{BTreeMap, HashMap};

use super::exit::Visit;
use super::mbarrier::Mbarrier;
use super::registers::Registers;
use super::warpgroup::Warpgroup;
use crate::clocks::Knowledge;
use crate::shared::SharedMemory;

/// A named barrier of a block (PTX ISA section 9.7.13.1).
#[derive(Debug, Default)]
pub(crate) struct Barrier {
    /// Completed phases.
    pub generation: u64,
    /// Warps that have arrived in the current phase, as often as they did.
    pub arrived: Vec<usize>,
    /// Those of them that wait.
    pub waiting: Vec<usize>,
    /// Warps that complete the phase, as the first arrival says; `None` for the whole block.
    pub expected: Option<usize>,
    /// Where the first warp arrived.
    pub line: u32,
    /// What was known to the warps when they arrived, for the order of memory accesses.
    pub clock: Knowledge,
    /// Reduction in the current phase: popc, and, or.
    pub reduction: (u32, bool, bool),
    /// Reduction of the completed phase.
    pub result: (u32, bool, bool),
}

/// One block of a launch.
#[derive(Debug)]
pub(crate) struct Block {
    /// `%ctaid`.
    pub index: [u32; 3],
    pub shared: SharedMemory,
    /// Bytes of static shared memory.
    pub static_shared: usize,
    pub barriers: HashMap<u32, Barrier>,
    /// Its `mbarrier` objects, by their offset in shared memory.
    pub mbarriers: BTreeMap<u64, Mbarrier>,
    /// Registers of its warps.
    pub registers: Registers,
    /// Its warpgroups that have executed a `wgmma` instruction.
    pub warpgroups: BTreeMap<usize, Warpgroup>,
    /// Lanes that have not exited, of each warp.
    pub live: Vec<u32>,
    /// The last access of others to its shared memory, by actor.
    pub visits: BTreeMap<usize, Visit>,
    /// Bytes that are known to be held by what the checker remembers of asynchronous reads of its memory.
    pub remembered: usize,
    /// How many operations the cluster had issued when the last warp exited.
    pub closed: Option<u64>,
}

impl Block {
    /// Offset of dynamic shared memory for a variable of the given alignment.
    pub fn dynamic_shared(&self, align: usize) -> usize {
        self.static_shared.next_multiple_of(align.max(1))
    }
}
