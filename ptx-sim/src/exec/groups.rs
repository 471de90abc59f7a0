//! Asynchronous operations of one lane, in the groups that it commits: of `cp.async`, and of bulk copies.

use std::collections::VecDeque;
use std::ops::Range;

use super::held::shrink;

/// Operations that the lane has not waited for. An empty group is nothing but a number that no operation has, so that a
/// loop which commits groups takes no memory.
#[derive(Debug)]
pub(super) struct Groups<T> {
    /// Oldest first, each with the number of its group.
    operations: VecDeque<(u64, T)>,
    /// Groups committed so far: the number of the open one.
    committed: u64,
}

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Self { operations: VecDeque::new(), committed: 0 }
    }
}

impl<T> Groups<T> {
    /// Puts an operation into the open group.
    pub fn push(&mut self, operation: T) {
        self.operations.push_back((self.committed, operation));
    }

    /// Makes a group, which may be empty, of what was put there since the last one.
    pub fn commit(&mut self) {
        self.committed += 1;
    }

    /// How many groups are complete when `left` are not.
    pub fn complete(&self, left: u64) -> u64 {
        self.committed.saturating_sub(left)
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Takes the oldest operation out.
    pub fn pop(&mut self) -> Option<T> {
        let first = self.operations.pop_front();
        shrink(&mut self.operations);
        first.map(|(_, operation)| operation)
    }

    /// Takes the oldest operation out if it is in one of the first `groups` groups.
    pub fn pop_within(&mut self, groups: u64) -> Option<T> {
        self.operations.front().filter(|(group, _)| *group < groups)?;
        self.pop()
    }

    /// The operations of some groups.
    pub fn of(&self, groups: Range<u64>) -> impl Iterator<Item = &T> {
        let before = |end: u64| self.operations.partition_point(|(group, _)| *group < end);
        self.operations.range(before(groups.start)..before(groups.end)).map(|(_, operation)| operation)
    }
}
