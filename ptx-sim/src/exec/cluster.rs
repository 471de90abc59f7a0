//! The blocks of a cluster, which see each other's shared memory; a block without a cluster is alone in one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::block::Block;
use super::cluster_barrier::ClusterBarrier;
use super::copies::{Copies, CopyArrivals};
use super::flight::{Bound, Flight};
use super::held::Held;
use super::program::Effect;
use crate::clocks::Clocks;
use crate::fault::Fault;
use crate::shared::SharedMemory;

/// Blocks that run together.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// By rank.
    pub blocks: Vec<Block>,
    /// Who knows of whose accesses to shared memory.
    pub clocks: Clocks,
    /// Warps of a block.
    pub warps: usize,
    /// Whether the checker is on.
    pub(super) checked: bool,
    pub barrier: ClusterBarrier,
    /// Asynchronous operations in flight, by number: in the order in which they were issued.
    pub(super) flights: BTreeMap<u64, Flight>,
    /// Those of them that an `mbarrier` is told of, by its rank and offset.
    pub(super) bound: HashMap<(usize, u64), Bound>,
    /// Operations issued so far.
    pub(super) departed: u64,
    /// Copies of `cp.async`, by actor.
    pub(super) copies: Vec<Copies>,
    /// Arrivals that follow some of them.
    pub(super) arrivals: CopyArrivals,
    /// What all of this takes of this computer's memory.
    pub(super) held: Held,
    /// Whether anything has happened in this round that another warp could notice.
    pub stirred: bool,
    /// Whether a warp has looked in this round at what the cluster's warps change.
    pub polled: bool,
    /// Whether a warp has looked in this round at the time.
    pub timed: bool,
    /// Whether a warp has looked in this round at what others change: global memory.
    pub looked: bool,
    /// Whether waits with a time limit, `mbarrier.try_wait`, reach it: nobody can go on otherwise.
    pub impatient: bool,
}

impl Cluster {
    /// Blocks of `warps` warps each, which hold at most `held_bytes` for what is in flight.
    pub fn new(blocks: Vec<Block>, warps: usize, checked: bool, held_bytes: u64) -> Self {
        let clocks = Clocks::new(blocks.len(), warps);
        let barrier = ClusterBarrier::new(blocks.len() * warps);
        let copies = (0..blocks.len() * warps).map(|_| Copies::default()).collect();
        Self {
            blocks,
            clocks,
            warps,
            checked,
            barrier,
            flights: BTreeMap::new(),
            bound: HashMap::new(),
            departed: 0,
            copies,
            arrivals: CopyArrivals::new(),
            held: Held::new(held_bytes),
            stirred: false,
            polled: false,
            timed: false,
            looked: false,
            impatient: false,
        }
    }

    /// An instruction has been executed that others may notice.
    #[inline]
    pub fn notice(&mut self, effect: Effect) {
        match effect {
            Effect::Private => {}
            Effect::Polls => self.polled = true,
            Effect::Times => self.timed = true,
            Effect::Looks => self.looked = true,
            Effect::Stirs => self.stirred = true,
        }
    }

    /// The actor that a warp is for the checker.
    pub fn actor(&self, rank: usize, warp: usize) -> usize {
        rank * self.warps + warp
    }

    /// The memory of the block at `rank`, and the clocks.
    pub fn shared(&mut self, rank: usize) -> (&mut SharedMemory, &mut Clocks) {
        (&mut self.blocks[rank].shared, &mut self.clocks)
    }

    /// Whether a warp of the cluster has lanes that have not exited.
    fn lives(blocks: &[Block], warps: usize, actor: usize) -> bool {
        blocks[actor / warps].live[actor % warps] != 0
    }

    /// Ends the phase of the cluster's barrier if nobody is missing.
    pub fn complete_barrier(&mut self) {
        let (blocks, warps) = (&self.blocks, self.warps);
        self.barrier.complete(|actor| Self::lives(blocks, warps, actor));
    }

    /// The ranks of the blocks whose warps the cluster's barrier waits for.
    pub fn missing_at_barrier(&self) -> BTreeSet<usize> {
        let missing = self.barrier.missing(|actor| Self::lives(&self.blocks, self.warps, actor));
        missing.into_iter().map(|actor| actor / self.warps).collect()
    }

    /// Something that is in flight took `before` bytes of this computer's memory, and takes `after` now.
    ///
    /// # Errors
    /// If it is too much.
    pub fn hold(&mut self, before: usize, after: usize) -> Result<(), Fault> {
        self.held.change(before, after)
    }

    /// A block and the clocks.
    pub fn block(&mut self, rank: usize) -> (&mut Block, &mut Clocks) {
        (&mut self.blocks[rank], &mut self.clocks)
    }
}
