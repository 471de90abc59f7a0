//! A watch over a cluster's warps: whether they will go round in circles for ever.
//!
//! While they are watched, each group of lanes has one round of its loop in a turn, and every instruction that it
//! executes is written down. As long as memory stays as it is, what the warps do depends on where their lanes are, and
//! on the registers that the instructions of their loops look at ([`Relevant`]). If these come back to what they were,
//! and no instruction has changed memory, the warps will execute the same again and again.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::cluster::{Cluster, Noticed};
use super::flow::Relevant;
use super::job::Job;
use super::meeting::Site;
use super::warp::Warp;

/// Rounds that a watch lasts at least.
const LEAST: u64 = 4;

/// What a watch says at the end of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Nothing yet.
    Unclear,
    /// It has lasted long enough.
    Over,
    /// All warps have come back to what they were, and will for ever as long as nobody else changes memory; with the
    /// count of changes of global memory since then, if they look there.
    Circles(Option<u64>),
}

/// What was seen so far.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Functions and steps of the instructions that the warps came to, and whether any lane executed them.
    seen: HashMap<(usize, usize), bool>,
    /// Whether some of them were new in this round.
    grown: bool,
    relevant: Relevant,
    /// The warp that has done most before: only if it comes back the others are looked at.
    leader: usize,
    /// States to come back to: that of the leader, or of all warps and what they meet at.
    reference: Vec<u64>,
    /// Whether each of them has come back.
    returned: Vec<bool>,
    /// Whether the leader has come back.
    closer: bool,
    /// Rounds since the reference, and how many there are to be at most.
    since: u64,
    span: u64,
    /// The count of changes of global memory at the reference.
    changes: u64,
    rounds: u64,
    /// What the watch costs, in instructions, and what it may cost.
    cost: u64,
    budget: u64,
    /// Whether warps have looked at global memory, met at a barrier, or looked at or written anything at all.
    looked: bool,
    met: bool,
    polled: bool,
}

impl Watch {
    /// A watch that is to cost about as much as `budget` instructions, and looks at the warp `leader` first.
    pub fn new(budget: u64, leader: usize) -> Self {
        Self {
            seen: HashMap::new(),
            grown: true,
            relevant: Relevant::default(),
            leader,
            reference: Vec::new(),
            returned: Vec::new(),
            closer: false,
            since: 0,
            span: 1,
            changes: 0,
            rounds: 0,
            cost: 0,
            budget,
            looked: false,
            met: false,
            polled: false,
        }
    }

    /// A warp comes to the instruction at function and step `at`, which some lanes execute or none.
    pub fn note(&mut self, at: (usize, usize), executed: bool) {
        match self.seen.get_mut(&at) {
            Some(known) if *known || !executed => {}
            Some(known) => (*known, self.grown) = (true, true),
            None => {
                self.seen.insert(at, executed);
                self.grown = true;
            }
        }
    }

    /// Looks anew: something has changed that does not end the watch.
    pub fn restart(&mut self) {
        self.reference.clear();
        (self.closer, self.rounds, self.cost) = (false, 0, 0);
    }

    /// A round has passed in which no memory has changed. `fair` says whether every group of lanes has had its share,
    /// and `issued` how many instructions the warps have issued.
    pub fn round(
        &mut self,
        job: &Job,
        cluster: &Cluster,
        warps: &[(usize, Warp)],
        noticed: Noticed,
        (fair, issued): (bool, u64),
    ) -> Sight {
        self.rounds += 1;
        self.cost += 2 * issued;
        self.looked |= noticed.looked;
        self.met |= noticed.met;
        self.polled |= noticed.polled || noticed.looked || noticed.met || noticed.wrote;
        let over = self.rounds >= LEAST && self.cost >= self.budget * if self.closer { 8 } else { 1 };
        if over {
            return Sight::Over;
        }
        if std::mem::take(&mut self.grown) {
            self.relevant = Relevant::of(job.program, &self.seen);
            self.reference.clear();
            self.cost += self.seen.len() as u64;
            return Sight::Unclear;
        }
        if !fair {
            self.reference.clear();
            return Sight::Unclear;
        }
        if self.relevant.timed || !self.polled {
            return Sight::Unclear;
        }
        let changes = job.grid.memory.changes();
        if self.reference.is_empty() || self.looked && self.changes != changes {
            self.span = 1;
            self.refer(cluster, warps, changes);
            return Sight::Unclear;
        }
        self.since += 1;
        if self.closer {
            let states = self.states(cluster, warps);
            let same = states.iter().zip(&self.reference).map(|(state, reference)| state == reference);
            if self.met {
                // Where they wait for each other, all have to come back together.
                let all = same.min().unwrap_or(true);
                self.returned.fill(all);
            } else {
                self.returned.iter_mut().zip(same).for_each(|(returned, same)| *returned |= same);
            }
            if self.returned.iter().all(|returned| *returned) {
                return Sight::Circles(self.looked.then_some(self.changes));
            }
        } else {
            let (rank, warp) = &warps[self.leader];
            let state = self.state(warp, cluster, *rank);
            if self.reference == [state] {
                (self.closer, self.span) = (true, 1);
                self.refer(cluster, warps, changes);
                return Sight::Unclear;
            }
        }
        // The distance to the state that others are compared with doubles, so that it gets longer than any loop.
        if self.since >= self.span {
            self.span *= 2;
            self.refer(cluster, warps, changes);
        }
        Sight::Unclear
    }

    /// Remembers the present states.
    fn refer(&mut self, cluster: &Cluster, warps: &[(usize, Warp)], changes: u64) {
        (self.since, self.changes) = (0, changes);
        self.reference = if self.closer {
            self.states(cluster, warps)
        } else {
            let (rank, warp) = &warps[self.leader];
            vec![self.state(warp, cluster, *rank)]
        };
        self.returned = vec![false; self.reference.len()];
    }

    /// The states of all warps, and that of the barriers.
    fn states(&mut self, cluster: &Cluster, warps: &[(usize, Warp)]) -> Vec<u64> {
        let mut states: Vec<u64> = Vec::with_capacity(warps.len() + 1);
        for (rank, warp) in warps {
            let state = self.state(warp, cluster, *rank);
            states.push(state);
        }
        states.push(cluster.barriers());
        states
    }

    /// A hash of everything that decides what a warp does next, as long as what it reads from memory stays the same.
    fn state(&mut self, warp: &Warp, cluster: &Cluster, rank: usize) -> u64 {
        let mut hasher = DefaultHasher::new();
        warp.live.hash(&mut hasher);
        if warp.live == 0 {
            return hasher.finish();
        }
        for frame in &warp.frames {
            self.relevant.hash(frame, &mut hasher);
            self.cost += 4 * self.relevant.len() as u64;
        }
        warp.carry.hash(&mut hasher);
        for group in &warp.groups {
            (group.mask, &group.callers, group.function, group.step).hash(&mut hasher);
        }
        for meeting in &warp.meetings {
            let passed = meeting.phase.map(|phase| cluster.has_passed(rank, meeting.site, phase));
            (meeting.lanes, meeting.holds, passed, meeting.at).hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl Cluster {
    /// Whether a barrier of the block of a rank has gone on from the phase in which somebody arrived.
    pub(super) fn has_passed(&self, rank: usize, site: Site, phase: u64) -> bool {
        match site {
            Site::Block(number) => {
                self.blocks[rank].barriers.get(&number).is_some_and(|barrier| barrier.generation > phase)
            }
            _ => true,
        }
    }

    /// A hash of who has arrived at barriers, whatever their phase.
    fn barriers(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for block in &self.blocks {
            let mut barriers: Vec<_> = block.barriers.iter().collect();
            barriers.sort_unstable_by_key(|(number, _)| **number);
            for (number, barrier) in barriers {
                (number, &barrier.arrived, &barrier.waiting, barrier.expected).hash(&mut hasher);
                (barrier.reduction, barrier.result).hash(&mut hasher);
            }
        }
        self.barrier.hash_arrivals(&mut hasher);
        hasher.finish()
    }
}
