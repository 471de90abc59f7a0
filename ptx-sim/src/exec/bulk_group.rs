//! Bulk async-groups: what the lanes of a warp have put on its way and not yet waited for (PTX ISA section
//! 9.7.9.25.1.1).

use std::collections::BTreeMap;

use super::groups::Groups;

/// The bulk groups of a warp's lanes. Operations are named by their number in the cluster.
#[derive(Debug, Default)]
pub(crate) struct BulkGroups {
    /// Of those lanes that have issued something.
    lanes: BTreeMap<usize, Lane>,
}

/// The groups of one lane.
#[derive(Debug, Default)]
struct Lane {
    groups: Groups<u64>,
    /// How many of the oldest have read their sources.
    read: u64,
}

impl BulkGroups {
    /// A lane has issued an operation that completes in a bulk group.
    pub fn issue(&mut self, lane: usize, operation: u64) {
        self.lanes.entry(lane).or_default().groups.push(operation);
    }

    /// Makes a group, which may be empty, of what a lane has issued since the last one.
    pub fn commit(&mut self, lane: usize) {
        self.lanes.entry(lane).or_default().groups.commit();
    }

    /// The operations of a lane's groups but the `left` most recent ones, which have not completed: the others are
    /// forgotten.
    pub fn take_complete(&mut self, lane: usize, left: u64) -> Vec<u64> {
        let Some(Lane { groups, .. }) = self.lanes.get_mut(&lane) else { return Vec::new() };
        let complete = groups.complete(left);
        std::iter::from_fn(|| groups.pop_within(complete)).collect()
    }

    /// The operations of a lane's groups but the `left` most recent ones, without those of groups that it has asked for
    /// before.
    pub fn unread(&mut self, lane: usize, left: u64) -> Vec<u64> {
        let Some(Lane { groups, read }) = self.lanes.get_mut(&lane) else { return Vec::new() };
        let first = *read;
        *read = groups.complete(left).max(first);
        groups.of(first..*read).copied().collect()
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
        assert_eq!(groups.take_complete(3, 1), [0, 1, 2]);
        assert_eq!((groups.unread(3, 0), groups.unread(3, 0)), (vec![3], vec![]));
        assert_eq!(groups.take_complete(3, 0), [3]);
    }

    #[test]
    fn empty_groups_count_and_take_no_room() {
        let mut groups = BulkGroups::default();
        groups.issue(0, 7);
        (0..1000).for_each(|_| groups.commit(0));
        groups.issue(0, 8);
        (0..1000).for_each(|_| groups.commit(0));
        assert_eq!(groups.take_complete(0, 2000), []);
        assert_eq!(groups.unread(0, 1999), [7]);
        assert_eq!(groups.take_complete(0, 1999), [7]);
        assert_eq!((groups.unread(0, 1000), groups.take_complete(0, 1000)), (vec![], vec![]));
        assert_eq!(groups.lanes[&0].groups.len(), 1);
        assert_eq!(groups.take_complete(0, 999), [8]);
    }
}
