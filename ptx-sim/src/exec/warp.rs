//! A warp: lanes that diverge and meet again.
//!
//! Lanes at the same instruction form a group. The group that is deepest in calls, and there the one at the lowest
//! instruction, runs first: lanes that jumped ahead wait, so that groups meet at the end of a branch, as they do on
//! hardware that reconverges at the immediate post-dominator.

use super::bulk_group::BulkGroups;
use super::frame::{Frame, FrameSize, Slot};
use super::lanes::{LANES, Lanes};
use super::ledger::Ledger;
use super::meeting::Meeting;
use super::products::Products;
use super::program::Guard;
use super::wait::Wait;
use crate::fault::Fault;

/// Where a lane goes on: the calls it is in, and the function and step of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub mask: u32,
    /// Callers' positions, outermost first: the step after the call.
    pub callers: Vec<(usize, usize)>,
    pub function: usize,
    pub step: usize,
    /// It has had its turn: the instruction was executed and could not complete, or the lanes yield to others.
    pub waiting: bool,
    /// It yields: the instruction before this one was executed.
    pub yields: bool,
}

/// The warp's state.
#[derive(Debug)]
pub(crate) struct Warp {
    /// `%warpid`.
    pub index: usize,
    pub frames: Vec<Frame>,
    /// Instructions issued so far.
    pub steps: u64,
    /// Lanes that have not exited.
    pub live: u32,
    /// Lanes that have arrived at barriers and have not passed them.
    pub meetings: Vec<Meeting>,
    /// What lanes wait for, where the instruction itself does not say it.
    pub waits: Vec<Wait>,
    /// Bulk copies and reductions of its lanes that nobody has waited for.
    pub bulk: BulkGroups,
    /// Products of `wgmma`.
    pub products: Products,
    /// The carry flag, one bit per lane.
    pub carry: u32,
    pub(super) groups: Vec<Group>,
}

impl Warp {
    /// A warp whose lanes are about to execute the first step of a function, in an empty frame.
    pub fn new(index: usize, live: u32, function: usize, outermost: Frame) -> Self {
        let group = Group { mask: live, callers: Vec::new(), function, step: 0, waiting: false, yields: false };
        Self {
            index,
            frames: vec![outermost],
            steps: 0,
            live,
            meetings: Vec::new(),
            waits: Vec::new(),
            bulk: BulkGroups::default(),
            products: Products::default(),
            carry: 0,
            groups: vec![group],
        }
    }

    /// Makes room for a call at `depth`, above the frames below it.
    pub fn enter(&mut self, depth: usize, size: &FrameSize, ledger: &mut Ledger) -> Result<(), Fault> {
        if self.frames.len() <= depth {
            self.frames.push(Frame::new(depth));
        }
        self.frames[depth].reserve(size, ledger)
    }

    /// The lanes whose guard lets an instruction at a depth of calls be executed.
    #[inline]
    pub(super) fn holds(&self, depth: usize, guard: Guard) -> u32 {
        self.frames[depth].predicates[guard.predicate] ^ if guard.negated { u32::MAX } else { 0 }
    }

    /// The group to run next; groups at the same place become one.
    pub(super) fn next_group(&mut self) -> Option<usize> {
        if let [group] = self.groups.as_slice() {
            return (!group.waiting).then_some(0);
        }
        self.merge();
        let ready = self.groups.iter().enumerate().filter(|(_, group)| !group.waiting);
        let first = ready.min_by_key(|(_, group)| (usize::MAX - group.callers.len(), group.function, group.step));
        first.map(|(index, _)| index)
    }

    fn merge(&mut self) {
        let mut index = 0;
        while index < self.groups.len() {
            let same = |other: &Group, this: &Group| {
                (other.function, other.step, &other.callers) == (this.function, this.step, &this.callers)
            };
            let twin = (index + 1..self.groups.len()).find(|&other| same(&self.groups[other], &self.groups[index]));
            match twin {
                Some(other) => {
                    let merged = self.groups.swap_remove(other);
                    self.groups[index].mask |= merged.mask;
                    self.groups[index].waiting &= merged.waiting;
                }
                None => index += 1,
            }
        }
    }

    /// Takes `mask` out of a group as a group of its own, and returns its index. The rest goes on behind the
    /// instruction.
    pub(super) fn split(&mut self, index: usize, mask: u32) -> usize {
        if self.groups[index].mask == mask {
            return index;
        }
        let mut taken = self.groups[index].clone();
        taken.mask = mask;
        self.groups[index].mask &= !mask;
        self.groups[index].step += 1;
        self.groups.push(taken);
        self.groups.len() - 1
    }

    /// Takes `mask` out of a group as a group that comes to the same instruction again.
    pub(super) fn set_aside(&mut self, index: usize, mask: u32) {
        if mask != 0 {
            let group = Group { mask, ..self.groups[index].clone() };
            self.groups[index].mask &= !mask;
            self.groups.push(group);
        }
    }

    /// The lanes of `mask` go on at step `target`, as the group whose index is returned.
    pub(super) fn jump(&mut self, index: usize, mask: u32, target: usize) -> usize {
        let taken = self.split(index, mask);
        self.groups[taken].step = target;
        taken
    }

    /// Each lane of `mask` goes on at the target that its index names.
    pub(super) fn jump_indexed(&mut self, index: usize, mask: u32, indices: &Lanes, targets: &[usize]) {
        let mut left = mask;
        let mut group = self.split(index, mask);
        while left != 0 {
            let choice = indices[left.trailing_zeros() as usize];
            let same = (0..LANES).filter(|&l| left >> l & 1 == 1 && indices[l] == choice).fold(0, |m, l| m | 1 << l);
            left &= !same;
            self.groups[group].mask = same;
            self.groups[group].step = targets[choice as usize];
            if left != 0 {
                self.groups.push(Group { mask: left, ..self.groups[group].clone() });
                group = self.groups.len() - 1;
            }
        }
    }

    /// Copies call parameters between two levels, in the order of the lists.
    pub(super) fn copy_params(&mut self, from: usize, to: usize, mask: u32, sources: &[Slot], targets: &[Slot]) {
        for lane in (0..LANES).filter(|lane| mask >> lane & 1 == 1) {
            for (source, target) in sources.iter().zip(targets) {
                let size = source.size.min(target.size);
                let bytes = self.frames[from].params[lane][source.offset..source.offset + size].to_vec();
                self.frames[to].params[lane][target.offset..target.offset + size].copy_from_slice(&bytes);
            }
        }
    }

    /// The lanes of `mask` are done.
    pub(super) fn exit(&mut self, index: usize, mask: u32) {
        let group = self.split(index, mask);
        self.groups.swap_remove(group);
        self.live &= !mask;
    }
}
