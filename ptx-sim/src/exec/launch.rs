//! A launch: clusters on all cores, findings and meters collected in the order of blocks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::job::Job;
use super::ledger::{Found, Ledger};
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

/// Runs all blocks. Clusters are spread over the cores; the outcome does not depend on how, as long as the kernel's
/// own result does not.
pub(crate) fn run(job: &Job, cores: usize) -> Ran {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let outcomes = Mutex::new(Vec::new());
    let clusters = job.grid.clusters();
    let work = || {
        let (mut ledger, mut fatal) = (Ledger::new(job.grid.profiled), None);
        let mut pool = lock(job.grid.pools).pop().unwrap_or_default();
        while !stop.load(Relaxed) {
            let cluster = next.fetch_add(1, Relaxed);
            if cluster >= clusters {
                break;
            }
            ledger.begin(cluster);
            fatal = run_cluster(job, cluster, &mut ledger, &mut pool).err().map(|finding| (cluster, *finding));
            ledger.end();
            stop.fetch_or(fatal.is_some(), Relaxed);
            // Clusters begin in order, so the first one that fails has begun, and it ends in any case.
            if fatal.is_some() {
                break;
            }
        }
        lock(job.grid.pools).push(pool);
        lock(&outcomes).push((ledger, fatal));
    };
    match u64::try_from(cores).unwrap_or(u64::MAX).min(clusters) {
        0 | 1 => work(),
        cores => std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work)))),
    }
    collect(job, outcomes.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What nobody leaves half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Joins what the cores did: of each finding the one of the first cluster, whichever core ran it.
fn collect(job: &Job, outcomes: Vec<(Ledger, Option<(u64, Finding)>)>) -> Ran {
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
