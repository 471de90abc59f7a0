//! The explanation of a deadlock: who waits where, and for what.

use std::collections::BTreeMap;

use super::cluster::Cluster;
use super::job::Job;
use super::lanes::LANES;
use super::meeting::{Site, divergence};
use super::wait::Goal;
use super::warp::{Group, Warp};
use crate::fault::{Fault, Finding};

/// Most places that a message names.
const MOST: usize = 12;

/// Lanes of a block's warps that wait at one instruction for one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    rank: usize,
    /// Function and step.
    at: (usize, usize),
    goal: Option<Goal>,
    /// The named barrier.
    barrier: Option<u32>,
}

/// Who is at a place: warps, and the first of them with one of its lanes.
#[derive(Clone, Copy, Debug)]
struct Crowd {
    warps: usize,
    warp: usize,
    lane: usize,
}

/// Every warp that is left waits, and none of them can go on. `others` says what of the other clusters of the grid, if
/// it matters.
pub(super) fn deadlock(job: &Job, cluster: &Cluster, warps: &[(usize, Warp)], others: &str) -> Finding {
    let waiting = || warps.iter().filter(|(_, warp)| warp.live != 0);
    let report = |rank: usize, thread: usize, fault: Fault, at: (usize, usize)| {
        job.finding(fault, cluster.blocks[rank].index, thread, at, 1)
    };
    for (rank, warp) in waiting() {
        // Lanes that wait elsewhere, or look at memory, may be meant to come.
        let elsewhere = warp.waits.iter().fold(0, |lanes, wait| lanes | wait.lanes);
        if let Some((fault, at, lane)) = divergence(&warp.meetings, warp.live, elsewhere) {
            return report(*rank, warp.index * LANES + lane, fault, at);
        }
    }
    let mut places: BTreeMap<Place, Crowd> = BTreeMap::new();
    let mut first = None;
    for (rank, warp) in waiting() {
        for (place, lanes) in places_of(cluster, *rank, warp) {
            let lane = lanes.trailing_zeros() as usize;
            places.entry(place).or_insert(Crowd { warps: 0, warp: warp.index, lane }).warps += 1;
            first = first.or(Some(place));
        }
    }
    let count = waiting().count();
    let mut why = format!("{count} of {} warps wait", warps.len());
    for (place, crowd) in places.iter().take(MOST) {
        why += "; ";
        why += &describe(job, cluster, place, crowd);
    }
    if places.len() > MOST {
        why += &format!("; {} more places", places.len() - MOST);
    }
    why += &format!("; {} have exited", warps.len() - count);
    let missing = cluster.missing_at_barrier();
    if !missing.is_empty() {
        why += &format!("; the cluster's barrier waits for its blocks {missing:?}");
    }
    why += others;
    match first.and_then(|place| Some((place, places.get(&place)?))) {
        Some((place, crowd)) => report(place.rank, crowd.warp * LANES + crowd.lane, Fault::Deadlock(why), place.at),
        None => job.finding(Fault::Deadlock(why), [0; 3], 0, (job.kernel, 0), 1),
    }
}

/// Where the lanes of a warp are. Lanes that poll are where they last found that they had to wait.
fn places_of(cluster: &Cluster, rank: usize, warp: &Warp) -> Vec<(Place, u32)> {
    let mut places = Vec::new();
    for Group { mask, function, step, waiting, yields, .. } in &warp.groups {
        // Who is about to leave a barrier does not wait there.
        let leaves = warp.meetings.iter().any(|meeting| {
            meeting.lanes & mask != 0
                && meeting.phase.is_some_and(|phase| cluster.has_passed(rank, meeting.site, phase))
        });
        let blocked = *waiting && !yields && !leaves;
        let here = (*function, *step);
        let mut left = *mask;
        for wait in warp.waits.iter().filter(|wait| !blocked || wait.at == here) {
            let lanes = wait.lanes & left;
            if lanes != 0 {
                places.push((Place { rank, at: wait.at, goal: Some(wait.goal), barrier: None }, lanes));
                left &= !lanes;
            }
        }
        if left != 0 {
            let meeting = warp.meetings.iter().find(|meeting| meeting.lanes & left != 0);
            let barrier = meeting.and_then(|meeting| match meeting.site {
                Site::Block(number) => Some(number),
                _ => None,
            });
            places.push((Place { rank, at: here, goal: None, barrier }, left));
        }
    }
    places
}

/// `2 warps of block (0,0,0) at ... of PTX line 7 (kernel.cu:12), for ...`
fn describe(job: &Job, cluster: &Cluster, place: &Place, crowd: &Crowd) -> String {
    let step = &job.program.functions[place.at.0].steps[place.at.1];
    let [x, y, z] = cluster.blocks[place.rank].index;
    let plural = if crowd.warps == 1 { "" } else { "s" };
    let mut text =
        format!("{} warp{plural} of block ({x},{y},{z}) at `{}` of PTX line {}", crowd.warps, step.text, step.line);
    if let Some((file, line)) = step.location.and_then(|at| Some((job.program.files.get(&at.file)?, at.line))) {
        text += &format!(" ({file}:{line})");
    }
    if let Some(goal) = &place.goal {
        text += &format!(", for {}", describe_goal(cluster, place.rank, crowd, goal));
    }
    if let Some((number, barrier)) =
        place.barrier.and_then(|number| Some((number, cluster.blocks[place.rank].barriers.get(&number)?)))
    {
        let (arrived, expected) = (barrier.arrived.len(), barrier.expected.unwrap_or(cluster.warps));
        text += &format!(", for barrier {number}, where {arrived} of {expected} warps have arrived");
    }
    text
}

fn describe_goal(cluster: &Cluster, own: usize, crowd: &Crowd, goal: &Goal) -> String {
    match *goal {
        Goal::Mbarrier { rank, offset } => {
            let of = if rank == own { String::new() } else { format!(" of the cluster's block {rank}") };
            let Some(object) = cluster.blocks[rank].mbarriers.get(&offset) else {
                return format!("the mbarrier at {offset:#x}{of}, which is no more");
            };
            let (phase, parity, line) = (object.phase, object.phase & 1, object.line);
            let mut text = format!(
                "phase {phase} (parity {parity}) of the mbarrier at {offset:#x}{of}, initialised at PTX line {line}, where \
                 {object}"
            );
            let thread = crowd.warp * LANES + crowd.lane;
            let unseen = object.unseen((cluster.actor(own, 0) * LANES + thread) as u32);
            if unseen > 1 {
                text += &format!("; thread {thread} has not seen the end of the {unseen} phases before");
            }
            text
        }
        Goal::Value { space, address } => format!("another value of {space} memory at {address:#x}"),
        Goal::Registers { count } => {
            let registers = &cluster.blocks[own].registers;
            let owned = registers.owned(crowd.warp);
            format!("{count} registers per thread: it has {owned}, and the block's pool {}", registers.pool)
        }
    }
}
