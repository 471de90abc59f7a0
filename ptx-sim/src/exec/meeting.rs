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
    /// `barrier.cluster.arrive`.
    ClusterArrive,
    /// `barrier.cluster.wait`.
    ClusterWait,
    /// `bar.warp.sync` with this member mask.
    Warp(u32),
}

impl Site {
    /// The barrier as messages name it, if all lanes of a warp have to come there.
    fn name(self) -> Option<String> {
        match self {
            Self::Block(number) => Some(format!("barrier {number}")),
            Self::ClusterArrive => Some("barrier.cluster.arrive".into()),
            Self::ClusterWait => Some("barrier.cluster.wait".into()),
            Self::Warp(_) => None,
        }
    }
}

/// Why lanes of a warp cannot go on, if they wait at a barrier of the block or cluster without the rest of the warp:
/// the fault, the function and step, and one of the lanes. Those of `elsewhere` wait for something else.
pub(crate) fn divergence(meetings: &[Meeting], live: u32, elsewhere: u32) -> Option<(Fault, (usize, usize), usize)> {
    meetings.iter().filter(|meeting| meeting.phase.is_none()).find_map(|meeting| {
        let (here, missing) = (meeting.lanes, live & !meeting.lanes);
        let name = meeting.site.name().filter(|_| missing & !elsewhere != 0)?;
        let why = format!("lanes {here:#010x} are at {name}, lanes {missing:#010x} never come");
        Some((Fault::DivergentBarrier(why), meeting.at, here.trailing_zeros() as usize))
    })
}
