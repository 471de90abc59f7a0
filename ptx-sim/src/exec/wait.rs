//! What lanes wait for, so that a deadlock can be explained.

use super::warp::Warp;
use crate::ast::Space;
use crate::fault::SpaceName;

/// Lanes of a warp that wait at an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// Function and step.
    pub at: (usize, usize),
    pub lanes: u32,
    pub goal: Goal,
}

/// What they wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Goal {
    /// The end of the current phase of the `mbarrier` at an offset in the shared memory of the block of a rank.
    Mbarrier { rank: usize, offset: u64 },
    /// Another value at an address.
    Value { space: SpaceName, address: u64 },
    /// So many registers per thread.
    Registers { count: u64 },
}

impl Warp {
    /// Lanes wait from now on.
    pub fn begin_wait(&mut self, wait: Wait) {
        self.end_wait(wait.lanes);
        match self.waits.iter_mut().find(|other| (other.at, other.goal) == (wait.at, wait.goal)) {
            Some(other) => other.lanes |= wait.lanes,
            None => self.waits.push(wait),
        }
    }

    /// Lanes have looked at memory, while they are watched. What they wait for by an instruction counts more, and
    /// global memory more than shared memory, through which they may only tell each other what they have seen there.
    pub fn note_look(&mut self, at: (usize, usize), lanes: u32, (space, address): (Space, u64)) {
        let less = |goal: &Goal| match goal {
            Goal::Value { space: SpaceName(old), .. } => space == Space::Global || *old != Space::Global,
            _ => false,
        };
        let waits = self.waits.iter().filter(|wait| !less(&wait.goal));
        let lanes = lanes & !waits.fold(0, |lanes, wait| lanes | wait.lanes);
        if lanes != 0 && matches!(space, Space::Shared | Space::Global) {
            self.begin_wait(Wait { at, lanes, goal: Goal::Value { space: SpaceName(space), address } });
        }
    }

    /// Forgets what lanes have looked at.
    pub fn forget_looks(&mut self) {
        self.waits.retain(|wait| !matches!(wait.goal, Goal::Value { .. }));
    }

    /// Lanes wait no more.
    pub fn end_wait(&mut self, lanes: u32) {
        self.waits.iter_mut().for_each(|wait| wait.lanes &= !lanes);
        self.waits.retain(|wait| wait.lanes != 0);
    }
}
