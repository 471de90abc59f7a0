//! The blocks of a cluster, which see each other's shared memory; a block without a cluster is alone in one.

use std::collections::{BTreeMap, BTreeSet};

use super::block::Block;
use super::cluster_barrier::ClusterBarrier;
use super::flight::Flight;
use crate::clocks::Clocks;
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
    pub barrier: ClusterBarrier,
    /// Asynchronous operations in flight, by number: in the order in which they were issued.
    pub(super) flights: BTreeMap<u64, Flight>,
    /// Operations issued so far.
    pub(super) departed: u64,
}

impl Cluster {
    /// Blocks of `warps` warps each.
    pub fn new(blocks: Vec<Block>, warps: usize) -> Self {
        let clocks = Clocks::new(blocks.len(), warps);
        let barrier = ClusterBarrier::new(blocks.len() * warps);
        Self { blocks, clocks, warps, barrier, flights: BTreeMap::new(), departed: 0 }
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

    /// A block and the clocks.
    pub fn block(&mut self, rank: usize) -> (&mut Block, &mut Clocks) {
        (&mut self.blocks[rank], &mut self.clocks)
    }
}
