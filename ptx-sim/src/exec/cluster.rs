//! The blocks of a cluster, which see each other's shared memory; a block without a cluster is alone in one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::block::Block;
use super::cluster_barrier::ClusterBarrier;
use super::copies::{Copies, CopyArrivals};
use super::flight::{Bound, Flight};
use super::held::Held;
use super::program::Effect;
use super::watch::Watch;
use crate::clocks::Clocks;
use crate::fault::Fault;
use crate::shared::SharedMemory;

/// What the instructions of a round did, as others see it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Noticed {
    /// Something has happened that another warp could notice.
    pub stirred: bool,
    /// A store or an atomic was executed.
    pub wrote: bool,
    /// One of them has changed memory; known while the warps are watched.
    pub altered: bool,
    /// A warp was at a barrier.
    pub met: bool,
    /// A warp has looked at what the cluster's warps change.
    pub polled: bool,
    /// A warp has looked at what others change: global memory.
    pub looked: bool,
}

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
    /// What has happened in this round.
    pub noticed: Noticed,
    /// A watch over the warps, now and then.
    pub(super) watch: Option<Box<Watch>>,
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
            noticed: Noticed::default(),
            watch: None,
            impatient: false,
        }
    }

    /// An instruction has been executed that others may notice.
    #[inline]
    pub fn notice(&mut self, effect: Effect) {
        match effect {
            Effect::Private | Effect::Times => {}
            Effect::Polls => self.noticed.polled = true,
            Effect::Looks => self.noticed.looked = true,
            Effect::Writes => self.noticed.wrote = true,
            Effect::Meets => self.noticed.met = true,
            Effect::Stirs => self.noticed.stirred = true,
        }
    }

    /// Whether accesses to memory have to say what they do: [`Cluster::access`].
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    /// While the warps are watched, a lane has looked at global memory or not, and changed memory or not.
    #[inline]
    pub fn access(&mut self, global: bool, changes: bool) {
        self.noticed.looked |= global;
        self.noticed.altered |= changes;
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
