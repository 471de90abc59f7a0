//! What an instruction sees.

use std::mem::MaybeUninit;

use super::block::Block;
use super::cluster::Cluster;
use super::grid::Grid;
use super::lanes::{LANES, Lanes, Words};
use super::ledger::Ledger;
use super::register_file::{Word, Write};
use super::source::{Source, Special};
use super::vectors;
use super::warp::Warp;
use crate::clocks::Access;
use crate::fault::Fault;

/// How an instruction went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done; go on.
    Next,
    /// It cannot complete yet: execute it again after other warps have run.
    Wait,
    /// The lanes of this mask are done; the others are to execute it again after other warps have run.
    Part(u32),
    /// Done, and other warps may run first: a hint for loops that poll.
    Yield,
}

/// Everything an instruction can read and change.
pub(crate) struct Context<'a> {
    /// The launch.
    pub grid: &'a Grid<'a>,
    /// The cluster; of one block if the launch has none.
    pub cluster: &'a mut Cluster,
    /// This block's index in the cluster.
    pub rank: usize,
    pub warp: &'a mut Warp,
    /// Lanes that execute the instruction, guard included.
    pub mask: u32,
    /// The lane at work, which a fault is blamed on.
    pub lane: usize,
    /// Depth of the call that executes it.
    pub depth: usize,
    /// Line in the PTX.
    pub line: u32,
    /// Meter and findings.
    pub ledger: &'a mut Ledger,
    /// Index of the instruction's function and step, for findings.
    pub at: (usize, usize),
}

impl Context<'_> {
    /// This block.
    pub fn block(&mut self) -> &mut Block {
        &mut self.cluster.blocks[self.rank]
    }

    /// The values of an operand, for all lanes.
    pub fn read(&self, source: Source) -> Lanes {
        match source {
            Source::Register(index) => self.warp.frames[self.depth].registers.lanes(index),
            Source::Immediate(value) => [value; LANES],
            Source::Predicate { index, negated } => {
                let bits = self.warp.frames[self.depth].predicates[index] ^ if negated { u32::MAX } else { 0 };
                std::array::from_fn(|lane| u64::from(bits >> lane & 1))
            }
            Source::Special(special) => std::array::from_fn(|lane| self.special(special, lane)),
            Source::DynamicShared { align } => [self.cluster.blocks[self.rank].dynamic_shared(align) as u64; LANES],
            Source::FrameLocal(offset) => [self.warp.frames[self.depth].local_base.wrapping_add(offset) as u64; LANES],
            Source::FrameParam(offset) => [self.warp.frames[self.depth].param_base.wrapping_add(offset) as u64; LANES],
        }
    }

    /// The values of an operand in words of one width, where they are: registers of that width are not copied, other
    /// operands are made in `room`. Not inlined: every instruction calls it, for each of its operands.
    #[inline(never)]
    pub fn view<'a, W: Word>(&'a self, source: Source, room: &'a mut MaybeUninit<[W; LANES]>) -> &'a [W; LANES] {
        match source {
            Source::Register(index) => W::view(&self.warp.frames[self.depth].registers, index, room),
            Source::Immediate(value) => room.write([W::cut(value); LANES]),
            other => room.write(self.read(other).map(W::cut)),
        }
    }

    /// The same of up to `N` operands. The views after the last operand's are of zeros.
    #[inline]
    pub fn views<'a, W: Word, const N: usize>(
        &'a self,
        sources: &[Source],
        rooms: &'a mut [MaybeUninit<[W; LANES]>; N],
    ) -> [&'a [W; LANES]; N] {
        let mut sources = sources.iter();
        rooms.each_mut().map(|room| match sources.next() {
            Some(source) => self.view(*source, room),
            None => room.write([W::default(); LANES]),
        })
    }

    /// The low 32 bits of an operand's values.
    #[inline]
    pub fn words(&self, source: Source) -> Words {
        *self.view(source, &mut MaybeUninit::uninit())
    }

    /// Writes a register of the active lanes.
    #[inline]
    pub fn write(&mut self, register: usize, values: &Lanes) {
        self.write_typed(register, values);
    }

    /// Writes a register of the active lanes, in words of either width.
    #[inline(never)]
    pub fn write_typed<W: Word>(&mut self, register: usize, values: &[W; LANES]) {
        let (registers, mask) = (&mut self.warp.frames[self.depth].registers, self.mask);
        vectors::run(Write { registers, register, mask, values });
    }

    /// A predicate as one bit per lane.
    pub fn predicate(&self, index: usize, negated: bool) -> u32 {
        self.warp.frames[self.depth].predicates[index] ^ if negated { u32::MAX } else { 0 }
    }

    /// Writes a predicate of the active lanes.
    pub fn write_predicate(&mut self, index: usize, bits: u32) {
        let target = &mut self.warp.frames[self.depth].predicates[index];
        *target = *target & !self.mask | bits & self.mask;
    }

    /// The active lanes, ascending.
    pub fn lanes(&self) -> impl Iterator<Item = usize> + use<> {
        let mask = self.mask;
        (0..LANES).filter(move |lane| mask >> lane & 1 == 1)
    }

    /// Notes a fault that the kernel survives, once for each instruction and kind.
    pub fn find(&mut self, fault: Fault, lane: usize) {
        let thread = self.warp.index * LANES + lane;
        self.ledger.find(fault, self.cluster.blocks[self.rank].index, thread, self.at);
    }

    /// Tells the checker of registers that `wgmma` uses, too, and that this instruction touches.
    pub fn touch(&mut self, registers: &[u32]) {
        if self.grid.checked
            && let Some(fault) = self.warp.products.touch(registers, self.depth, self.line)
        {
            self.find(fault, self.lane);
        }
    }

    /// An ordinary access of a lane, for the checker.
    pub fn access(&self, lane: usize, strong: bool) -> Access {
        let thread = (self.actor() * LANES + lane) as u32;
        Access { thread, line: self.line, strong, asynchronous: false }
    }

    /// The actor that this warp is for the checker.
    pub fn actor(&self) -> usize {
        self.cluster.actor(self.rank, self.warp.index)
    }

    /// Linear index of a lane's thread in its block.
    pub fn thread(&self, lane: usize) -> usize {
        self.warp.index * LANES + lane
    }

    fn special(&self, special: Special, lane: usize) -> u64 {
        let (grid, block) = (self.grid, &self.cluster.blocks[self.rank]);
        let dims = grid.block;
        let thread = self.thread(lane);
        let of = |index: [u32; 3], axis: usize| u64::from(index[axis]);
        let cluster_of = |axis: usize| block.index[axis] / grid.cluster[axis];
        let in_cluster = |axis: usize| block.index[axis] % grid.cluster[axis];
        match special {
            Special::Tid(axis) => of(grid.thread_index(thread), axis),
            Special::Ntid(axis) => of(dims, axis),
            Special::Ctaid(axis) => of(block.index, axis),
            Special::Nctaid(axis) => of(grid.grid, axis),
            Special::Clusterid(axis) => cluster_of(axis).into(),
            Special::Nclusterid(axis) => (grid.grid[axis] / grid.cluster[axis]).into(),
            Special::ClusterCtaid(axis) => in_cluster(axis).into(),
            Special::ClusterNctaid(axis) => of(grid.cluster, axis),
            Special::ClusterCtarank => self.rank as u64,
            Special::ClusterNctarank => self.cluster.blocks.len() as u64,
            Special::IsExplicitCluster => u64::from(grid.explicit_cluster),
            Special::Laneid => lane as u64,
            Special::Warpid => self.warp.index as u64,
            Special::Nwarpid => grid.threads().div_ceil(LANES) as u64,
            Special::Smid => grid.linear_block(block.index) % u64::from(grid.multiprocessors),
            Special::Nsmid => grid.multiprocessors.into(),
            Special::Gridid => 1,
            Special::LanemaskEq => 1 << lane,
            Special::LanemaskLe => (2u64 << lane) - 1,
            Special::LanemaskLt => (1u64 << lane) - 1,
            Special::LanemaskGe => u64::from(u32::MAX) & !((1u64 << lane) - 1),
            Special::LanemaskGt => u64::from(u32::MAX) & !((2u64 << lane) - 1),
            // Time is the number of instructions the warp has issued: it moves on, and it is reproducible.
            Special::Clock | Special::GlobaltimerLo => self.warp.steps & u64::from(u32::MAX),
            Special::Clock64 | Special::Globaltimer => self.warp.steps,
            Special::GlobaltimerHi => self.warp.steps >> 32,
            Special::DynamicSmemSize => grid.dynamic_shared as u64,
            Special::TotalSmemSize => block.shared.len() as u64,
        }
    }
}
