//! Finds out that a cluster's warps poll for what will never come.
//!
//! A warp that waits by an instruction says so. One that polls, by loads or atomics that change nothing or by
//! `mbarrier.test_wait`, is busy. It will be for ever if it comes back to the state it was in while nothing has
//! happened that it could notice. Whether that is so of all warps that run is found out by a [`Watch`], now and then:
//! after rounds without an event, and whenever as many instructions again have been issued as until the last time.
//!
//! A loop that also looks at the time, or counts towards a limit, never comes back to a state. Where all warps do
//! nothing else but wait or poll and give up their turns, nothing is expected any more after a great many rounds.

use super::cluster::{Cluster, Noticed};
use super::job::Job;
use super::warp::Warp;
use super::watch::{Sight, Watch};

/// Rounds without an event before the warps are watched.
const PATIENCE: u64 = 4;

/// Instructions of all warps before they are watched though they write or meet at barriers. Most kernels then change
/// memory in the first round of the watch, which ends it.
const BUSY: u64 = 1 << 15;

/// The part of the instructions until then that a watch may cost.
const SHARE: u64 = 64;

/// Rounds of nothing but waiting that are taken for the rest of eternity. They take a small kernel about a second, and
/// are more instructions than any pause, time limit or bounded number of looks of a kernel that goes on by itself.
const ETERNITY: u64 = 1 << 19;

/// Rounds between two looks at most, if they belong together: warps that only pause wait for nobody.
const PAUSES: u64 = 64;

/// What the warps of a cluster have done in a round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub noticed: Noticed,
    /// Whether something has happened that other warps could notice.
    pub stirred: bool,
    /// Whether a warp was busy to the end of its turn.
    pub busy: bool,
    /// Whether lanes wait for others.
    pub waits: bool,
    /// Instructions that they have issued, and the warp that issued most.
    pub issued: u64,
    pub busiest: usize,
}

/// What is to become of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prospect {
    /// It goes on.
    Open,
    /// No warp will ever do anything else, unless somebody changes global memory, whose changes were counted so far.
    Circles(Option<u64>),
    /// Nothing is expected any more.
    Eternity,
}

/// How long nothing has happened.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// Rounds without an event.
    quiet: u64,
    /// Rounds without an event in which all warps wait or pause and none looks at global memory.
    waiting: u64,
    /// Rounds since one of them looked: between two looks there may be a pause.
    pauses: u64,
    /// Instructions issued so far, and how many there are to be before the next watch.
    issued: u64,
    next: u64,
}

impl Stall {
    /// A round has passed.
    pub fn round(&mut self, job: &Job, cluster: &mut Cluster, warps: &mut [(usize, Warp)], round: Round) -> Prospect {
        let Round { noticed, stirred, busy, waits, issued, busiest } = round;
        self.issued += issued;
        if let Some(mut watch) = cluster.watch.take() {
            if stirred {
                (self.quiet, self.waiting) = (0, 0);
                forget(warps);
                return Prospect::Open;
            }
            // Whoever waits looks whether others have come.
            let noticed = Noticed { polled: noticed.polled || waits, ..noticed };
            let sight = watch.round(job, cluster, warps, noticed, (!busy, issued));
            match sight {
                Sight::Over => forget(warps),
                Sight::Unclear | Sight::Circles(_) => cluster.watch = Some(watch),
            }
            return if let Sight::Circles(changes) = sight { Prospect::Circles(changes) } else { Prospect::Open };
        }
        let polled = noticed.polled || noticed.looked || waits;
        self.quiet = if stirred || !polled { 0 } else { self.quiet + 1 };
        self.pauses = if noticed.polled { 0 } else { self.pauses + 1 };
        let ends = stirred || busy || self.pauses > PAUSES || noticed.looked;
        self.waiting = if ends { 0 } else { self.waiting + 1 };
        if self.waiting >= ETERNITY {
            return Prospect::Eternity;
        }
        let due = self.quiet >= PATIENCE && self.quiet.is_power_of_two();
        if due || self.issued >= self.next.max(BUSY) && !noticed.stirred {
            self.next = self.next.max(2 * self.issued);
            cluster.watch = Some(Box::new(Watch::new(self.issued / SHARE, busiest)));
        }
        Prospect::Open
    }

    /// The watch goes on from here: something has changed that does not end it.
    pub fn restart(&mut self, cluster: &mut Cluster) {
        if let Some(watch) = &mut cluster.watch {
            watch.restart();
        }
    }

    /// The watch ends: it was in vain.
    pub fn give_up(&mut self, cluster: &mut Cluster, warps: &mut [(usize, Warp)]) {
        (self.quiet, self.waiting, cluster.watch) = (0, 0, None);
        forget(warps);
    }
}

/// Forgets what lanes have looked at, which only a deadlock tells of.
fn forget(warps: &mut [(usize, Warp)]) {
    warps.iter_mut().for_each(|(_, warp)| warp.forget_looks());
}
