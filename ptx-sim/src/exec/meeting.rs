//! Lanes of a warp that meet at a barrier, one group after the other.

use crate::fault::Fault;

/// Lanes of a warp that have arrived at a barrier and not passed it.
#[derive(Debug)]
pub(crate) struct Meeting {
    pub site: Site,
    pub lanes: u32,
    /// The barrier's phase at which nobody was missing.
    pub phase: Option<u64>,
    /// Function and step of the first arrival.
    pub at: (usize, usize),
    /// PTX line of the first arrival.
    pub line: u32,
    /// Whether an `.aligned` instruction has been found to be reached from elsewhere.
    pub reported: bool,
    /// Lanes whose predicate holds, for reductions.
    pub holds: u32,
}

/// Where lanes meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    Block(u32),
    /// `bar.warp.sync` with this member mask.
    Warp(u32),
}

/// Why lanes of a warp cannot go on, if they wait at a barrier of the block without the rest of the warp: the fault,
/// the function and step, and one of the lanes.
pub(crate) fn divergence(meetings: &[Meeting], live: u32) -> Option<(Fault, (usize, usize), usize)> {
    meetings.iter().find_map(|meeting| match (meeting.site, meeting.phase) {
        (Site::Block(number), None) => {
            let (here, missing) = (meeting.lanes, live & !meeting.lanes);
            let why = format!("lanes {here:#010x} are at barrier {number}, lanes {missing:#010x} never come");
            Some((Fault::DivergentBarrier(why), meeting.at, here.trailing_zeros() as usize))
        }
        _ => None,
    })
}
