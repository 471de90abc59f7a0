//! The barrier of a cluster (PTX ISA section 9.7.13.3): every warp arrives, and later waits for the others.

use std::hash::{Hash, Hasher};

use crate::clocks::{Clocks, Knowledge, Scope};
use crate::fault::Fault;

/// An arrival that has not been waited for.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    phase: u64,
    line: u32,
}

/// The barrier that all warps of a cluster share. Warps are numbered through the blocks, as the checker's actors.
#[derive(Debug, Default)]
pub(crate) struct ClusterBarrier {
    /// Completed phases: the number of the current one.
    phase: u64,
    /// By warp.
    arrivals: Vec<Option<Arrival>>,
    /// What those know that have arrived in the current phase.
    joint: Knowledge,
    /// What happened before the last phase's end. Nobody ends the next one before all that have arrived there have
    /// waited for this one.
    done: Knowledge,
}

impl ClusterBarrier {
    /// The barrier of so many warps.
    pub fn new(warps: usize) -> Self {
        Self { arrivals: vec![None; warps], ..Self::default() }
    }

    /// A warp arrives. What it has done before is part of the barrier's order if it `releases`, or as far as it lies
    /// behind a fence.
    pub fn arrive(&mut self, warp: usize, line: u32, releases: bool, clocks: &mut Clocks) -> Result<(), Fault> {
        if let Some(earlier) = self.arrivals[warp] {
            let why = format!("has arrived at PTX line {} and not waited since", earlier.line);
            return Err(Fault::Trap(format!("barrier.cluster.arrive of a warp that {why}")));
        }
        self.arrivals[warp] = Some(Arrival { phase: self.phase, line });
        if releases {
            clocks.release(warp, &mut self.joint);
        } else {
            clocks.release_fenced(warp, Scope::Cluster, &mut self.joint);
        }
        Ok(())
    }

    /// Ends the phase if every warp that `lives` has arrived.
    pub fn complete(&mut self, lives: impl Fn(usize) -> bool) {
        let here = |warp: usize| self.arrivals[warp].is_some_and(|arrival| arrival.phase == self.phase);
        let warps = 0..self.arrivals.len();
        if warps.clone().any(here) && warps.clone().all(|warp| here(warp) || !lives(warp)) {
            self.phase += 1;
            self.done = std::mem::take(&mut self.joint);
        }
    }

    /// Hashes who has arrived, in the current phase or the one before.
    pub fn hash_arrivals(&self, hasher: &mut impl Hasher) {
        for arrival in &self.arrivals {
            arrival.map(|arrival| (arrival.phase == self.phase, arrival.line)).hash(hasher);
        }
    }

    /// Whether the phase that a warp has arrived in has ended; then it knows what the others did before they arrived.
    pub fn wait(&mut self, warp: usize, clocks: &mut Clocks) -> Result<bool, Fault> {
        let Some(arrival) = self.arrivals[warp] else {
            return Err(Fault::Trap("barrier.cluster.wait of a warp that has not arrived".into()));
        };
        if arrival.phase == self.phase {
            return Ok(false);
        }
        self.arrivals[warp] = None;
        clocks.acquire(warp, &self.done);
        Ok(true)
    }

    /// The warps that the current phase waits for, if some have arrived in it.
    pub fn missing(&self, lives: impl Fn(usize) -> bool) -> Vec<usize> {
        let here = |warp: &usize| self.arrivals[*warp].is_some_and(|arrival| arrival.phase == self.phase);
        let warps = 0..self.arrivals.len();
        if !warps.clone().any(|warp| here(&warp)) {
            return Vec::new();
        }
        warps.filter(|warp| lives(*warp) && !here(warp)).collect()
    }
}
