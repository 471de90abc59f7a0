//! What lanes wait for, so that a deadlock can be explained.

use super::warp::Warp;

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

    /// Lanes wait no more.
    pub fn end_wait(&mut self, lanes: u32) {
        self.waits.iter_mut().for_each(|wait| wait.lanes &= !lanes);
        self.waits.retain(|wait| wait.lanes != 0);
    }
}
