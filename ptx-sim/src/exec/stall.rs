//! Finds out that a cluster's warps poll for what will never come.
//!
//! A warp that waits by an instruction says so. One that polls, by loads of shared memory or by `mbarrier.test_wait`, is
//! busy. It will be for ever if it comes back to the state it was in - registers, local memory, where each lane is -
//! while nothing has happened that it could notice: what it does next depends on its state and on what it reads, and
//! both are as before. If that is so of every warp that runs, nothing will ever happen.
//!
//! A loop that also reads the time never comes back to a state. Where all warps do nothing else but wait or poll and give
//! up their turns, and some of them read the time, nothing is expected any more after a great many rounds.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::warp::Warp;

/// Rounds without an event before states are compared: comparing costs about as much as a few hundred instructions.
const PATIENCE: u64 = 4;

/// Rounds of waiting with an eye on the time that are taken for the rest of eternity. They take a small kernel about a
/// second, and are more instructions than any pause or time limit of a kernel that goes on by itself.
const ETERNITY: u64 = 1 << 19;

/// How long nothing has happened, and which warps have been where they are since.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// Rounds without an event or a look at the time.
    rounds: u64,
    /// Rounds without an event in which all warps wait.
    waiting: u64,
    /// A hash of each warp's state at some round since, and whether it has come back to it.
    reference: Vec<(u64, bool)>,
}

impl Stall {
    /// Something has happened.
    pub fn end(&mut self) {
        (self.rounds, self.waiting) = (0, 0);
    }

    /// A round has passed without an event, in which the time may have been looked at, and a warp been busy to the end of
    /// its turn. The result is whether no warp will ever do anything else.
    pub fn is_final<'a>(&mut self, warps: impl Iterator<Item = &'a Warp> + Clone, timed: bool, busy: bool) -> bool {
        self.waiting = if busy { 0 } else { self.waiting + 1 };
        if timed {
            self.rounds = 0;
            return self.waiting >= ETERNITY;
        }
        self.rounds += 1;
        if self.rounds < PATIENCE {
            return false;
        }
        // The distance to the state that others are compared with doubles, so that it gets longer than any loop.
        if self.rounds.is_power_of_two() {
            self.reference = warps.map(|warp| (state(warp), warp.live == 0)).collect();
            return false;
        }
        for (warp, (reference, returned)) in warps.zip(&mut self.reference) {
            *returned = *returned || state(warp) == *reference;
        }
        self.reference.iter().all(|(_, returned)| *returned)
    }
}

/// A hash of everything that decides what a warp does next, as long as what it reads stays the same.
fn state(warp: &Warp) -> u64 {
    let mut hasher = DefaultHasher::new();
    for frame in &warp.frames {
        (&frame.registers, &frame.predicates, &frame.params, &frame.local).hash(&mut hasher);
    }
    (warp.carry, warp.live).hash(&mut hasher);
    for group in &warp.groups {
        (group.mask, &group.callers, group.function, group.step).hash(&mut hasher);
    }
    for meeting in &warp.meetings {
        (meeting.lanes, meeting.phase, meeting.at).hash(&mut hasher);
    }
    hasher.finish()
}
