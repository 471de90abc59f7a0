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

    /// Keeps a lane's `left` most recent groups only: the others have completed.
    pub fn keep(&mut self, lane: usize, left: usize) {
        if let Some(groups) = self.lanes.get_mut(&lane) {
            let complete = groups.committed.len().saturating_sub(left);
            groups.committed.drain(..complete);
        }
    }
}
