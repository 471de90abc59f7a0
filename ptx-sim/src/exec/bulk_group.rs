//! Bulk async-groups: what the lanes of a warp have put on its way and not yet waited for (PTX ISA section
//! 9.7.9.25.1.1).

use std::collections::{BTreeMap, VecDeque};

/// The bulk groups of a warp's lanes. Operations are named by their number in the cluster.
#[derive(Debug, Default)]
pub(crate) struct BulkGroups {
    /// Of those lanes that have issued something.
    lanes: BTreeMap<usize, Groups>,
}

/// The groups of one lane.
#[derive(Debug, Default)]
struct Groups {
    /// Issued since the last commit.
    open: Vec<u64>,
    /// Committed, oldest first.
    committed: VecDeque<Vec<u64>>,
    /// How many of the oldest have read their sources.
    read: usize,
}

impl BulkGroups {
    /// A lane has issued an operation that completes in a bulk group.
    pub fn issue(&mut self, lane: usize, operation: u64) {
        self.lanes.entry(lane).or_default().open.push(operation);
    }

    /// Makes a group, which may be empty, of what a lane has issued since the last one.
    pub fn commit(&mut self, lane: usize) {
        let groups = self.lanes.entry(lane).or_default();
        let group = std::mem::take(&mut groups.open);
        groups.committed.push_back(group);
    }

    /// The operations of a lane's groups but the `left` most recent ones.
    pub fn before(&self, lane: usize, left: usize) -> Vec<u64> {
        let Some(groups) = self.lanes.get(&lane) else { return Vec::new() };
        let complete = groups.committed.len().saturating_sub(left);
        groups.committed.iter().take(complete).flatten().copied().collect()
    }

    /// The operations of a lane's groups but the `left` most recent ones, without those of groups that it has asked for
    /// before.
    pub fn unread(&mut self, lane: usize, left: usize) -> Vec<u64> {
        let Some(groups) = self.lanes.get_mut(&lane) else { return Vec::new() };
        let complete = groups.committed.len().saturating_sub(left);
        let first = groups.read;
        groups.read = first.max(complete);
        groups.committed.range(first.min(complete)..complete).flatten().copied().collect()
    }

    /// Keeps a lane's `left` most recent groups only: the others have completed.
    pub fn keep(&mut self, lane: usize, left: usize) {
        if let Some(groups) = self.lanes.get_mut(&lane) {
            let complete = groups.committed.len().saturating_sub(left);
            groups.committed.drain(..complete);
            groups.read = groups.read.saturating_sub(complete);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_asked_once_whether_they_have_read() {
        let mut groups = BulkGroups::default();
        for operation in 0..4 {
            groups.issue(3, operation);
            groups.commit(3);
        }
        assert_eq!(groups.unread(3, 2), [0, 1]);
        assert_eq!(groups.unread(3, 3), []);
        assert_eq!(groups.unread(3, 1), [2]);
        assert_eq!(groups.before(3, 0), [0, 1, 2, 3]);
        groups.keep(3, 1);
        assert_eq!((groups.unread(3, 0), groups.unread(3, 0)), (vec![3], vec![]));
    }
}
