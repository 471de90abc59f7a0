//! A launch: clusters on all cores, findings and meters collected in the order of blocks.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};

use super::job::Job;
use super::ledger::{Found, Ledger};
use super::peers::{Peers, Seat};
use super::rounds::run_cluster;
use crate::fault::Finding;
use crate::meter::Meter;
use crate::profile::{Executed, Profile};

/// What a whole launch did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub meter: Meter,
    pub findings: Vec<Finding>,
    /// The fault that ended the launch.
    pub fatal: Option<Finding>,
    /// What `printf` printed, block after block.
    pub printed: String,
    /// How often each instruction was issued; empty if the launch does not ask for it.
    pub profile: Vec<Executed>,
}

/// What a thread has written down, and the cluster that failed there with what was found.
type Outcome = (Ledger, Option<(u64, Finding)>);

/// What the threads of a launch share.
struct Work<'a> {
    job: &'a Job<'a>,
    peers: Peers,
    /// How many they are, as long as no cluster sleeps.
    threads: u64,
    outcomes: Mutex<Vec<Outcome>>,
}

/// Runs all blocks. Clusters are spread over the cores; the outcome does not depend on how, as long as the kernel's
/// own result does not.
pub(crate) fn run(job: &Job, cores: usize) -> Ran {
    let _launch = job.grid.memory.launch();
    let threads = u64::try_from(cores).unwrap_or(u64::MAX).min(job.grid.clusters()).max(1);
    let shared = job.code().shared_bytes + job.grid.dynamic_shared;
    let work = Work { job, peers: Peers::new(job.grid, shared, threads), threads, outcomes: Mutex::new(Vec::new()) };
    work.peers.enter(threads);
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(|| work.run(scope))));
        work.run(scope);
    });
    collect(job, work.outcomes.into_inner().unwrap_or_else(PoisonError::into_inner))
}

impl Work<'_> {
    /// Runs clusters, one after the other, as long as there are any and none has failed.
    fn run<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let _leave = Leave(&self.peers);
        let job = self.job;
        let begin = || Builder::new().spawn_scoped(scope, || self.run(scope)).is_ok();
        let seat = Seat { peers: &self.peers, begin: &begin };
        let (mut ledger, mut fatal) = (Ledger::new(job.grid.profiled), None);
        let mut pool = lock(job.grid.pools).pop().unwrap_or_default();
        // Clusters begin in order, so the first one that fails has begun, and it ends in any case.
        while fatal.is_none()
            && let Some(cluster) = self.peers.take()
        {
            ledger.begin(cluster);
            fatal = run_cluster(job, cluster, &mut ledger, &mut pool, &seat).err().map(|finding| (cluster, *finding));
            ledger.end();
            if fatal.is_some() {
                self.peers.fail();
            }
        }
        // Those of clusters beside the cores would only take room.
        let mut pools = lock(job.grid.pools);
        if (pools.len() as u64) < self.threads {
            pools.push(pool);
        }
        drop(pools);
        lock(&self.outcomes).push((ledger, fatal));
    }
}

/// A thread that leaves its peers, however it ends.
struct Leave<'a>(&'a Peers);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// What nobody leaves half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Joins what the cores did: of each finding the one of the first cluster, whichever core ran it.
fn collect(job: &Job, outcomes: Vec<Outcome>) -> Ran {
    let mut meter = Meter::default();
    let mut found: BTreeMap<_, Found> = BTreeMap::new();
    let (mut pages, mut fatal, mut profile) = (Vec::new(), None, Profile::default());
    for (ledger, failed) in outcomes {
        meter.add(&ledger.meter.meter());
        ledger.profile.iter().for_each(|counted| profile.add(counted));
        pages.extend(ledger.pages);
        fatal = [fatal, failed].into_iter().flatten().min_by_key(|(cluster, _)| *cluster);
        for (key, mut new) in ledger.found {
            if let Some(known) = found.remove(&key) {
                let count = known.count + new.count;
                new = if known.cluster < new.cluster { known } else { new };
                new.count = count;
            }
            found.insert(key, new);
        }
    }
    pages.sort_by_key(|(cluster, _)| *cluster);
    let findings = found
        .into_iter()
        .map(|((function, step, _), f)| job.finding(f.fault, f.block, f.thread, (function, step), f.count));
    Ran {
        meter,
        findings: findings.collect(),
        fatal: fatal.map(|(_, finding)| finding),
        printed: pages.into_iter().map(|(_, text)| text).collect(),
        profile: profile.into_counts().map(|(at, issued)| job.executed(at, issued)).collect(),
    }
}
