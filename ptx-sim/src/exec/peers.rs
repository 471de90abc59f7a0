//! The clusters of a launch that run at the same time, on a thread each: who takes the next one, and who waits for
//! whom.
//!
//! A cluster whose warps only look at global memory, and will for ever unless another one changes it, sleeps until that
//! happens. If all that run sleep, another one begins on a thread of its own, as long as they may be resident together
//! on the machine: a kernel whose blocks wait for each other finishes on few cores, too. If none is left to begin, they
//! wait for ever.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::grid::Grid;
use crate::memory::Memory;

/// How long nobody may change global memory before all that wait for it wait for ever: the host may write while a
/// kernel runs.
const GRACE: Duration = Duration::from_millis(250);

/// How often those who sleep look up, for what the host writes.
const NAP: Duration = Duration::from_millis(5);

/// Most clusters at a time, for the sake of this computer.
const MOST: u64 = 256;

/// Threads and shared memory in bytes of a multiprocessor, shared memory that every block takes beside its own, and
/// most blocks there (CUDA C++ Programming Guide, technical specifications of compute capability 9.0).
const THREADS: u64 = 2048;
const SHARED: u64 = 228 << 10;
const RESERVED: u64 = 1 << 10;
const BLOCKS: u64 = 32;

/// What has become of a cluster's sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// Global memory has changed.
    Changed,
    /// Nobody is left to change it. So many clusters have not begun, because no more fit on the machine.
    Never { unbegun: u64 },
    /// Another cluster has failed.
    Abandoned,
    /// It cannot be told: more clusters may be resident than this computer runs at a time, or another launch is under
    /// way.
    Unclear,
}

/// The clusters of a launch.
#[derive(Debug)]
pub(super) struct Peers {
    clusters: u64,
    /// The next one to begin.
    next: AtomicU64,
    /// Whether one has failed.
    failed: AtomicBool,
    /// Most clusters at a time, and whether no more fit on the machine.
    most: u64,
    full: bool,
    board: Mutex<Board>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Board {
    /// Threads that run clusters.
    running: u64,
    /// Of each that sleeps the count of changes that it has seen.
    asleep: Vec<u64>,
    /// None of those who sleep will be woken.
    over: bool,
    /// That cannot be told.
    unclear: bool,
}

/// What a cluster needs to sleep.
pub(super) struct Seat<'a> {
    pub peers: &'a Peers,
    /// Begins another cluster on a thread of its own, and says whether that was possible.
    pub begin: &'a (dyn Fn() -> bool + 'a),
}

/// How many clusters may be resident on the machine at a time, as far as threads and shared memory decide it.
fn resident(grid: &Grid, shared: usize) -> u64 {
    let threads = (grid.threads() as u64).next_multiple_of(32).max(1);
    let blocks = (THREADS / threads).min(SHARED / (shared as u64 + RESERVED)).clamp(1, BLOCKS);
    let cluster: u64 = grid.cluster.iter().map(|&n| u64::from(n)).product();
    (u64::from(grid.multiprocessors).saturating_mul(blocks) / cluster.max(1)).max(1)
}

impl Peers {
    /// Those of a launch whose blocks have so many bytes of shared memory, on so many cores.
    pub fn new(grid: &Grid, shared: usize, cores: u64) -> Self {
        let resident = resident(grid, shared).max(cores);
        Self {
            clusters: grid.clusters(),
            next: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            most: resident.min(MOST.max(cores)),
            full: resident <= MOST.max(cores),
            board: Mutex::default(),
            bell: Condvar::new(),
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next cluster, unless one has failed. They begin in order.
    pub fn take(&self) -> Option<u64> {
        if self.failed.load(SeqCst) {
            return None;
        }
        Some(self.next.fetch_add(1, SeqCst)).filter(|cluster| *cluster < self.clusters)
    }

    /// A cluster has failed.
    pub fn fail(&self) {
        self.failed.store(true, SeqCst);
        self.bell.notify_all();
    }

    /// So many threads more are to run clusters.
    pub fn enter(&self, threads: u64) {
        self.board().running += threads;
    }

    /// A thread runs no more of them.
    pub fn leave(&self) {
        self.board().running -= 1;
        self.bell.notify_all();
    }

    /// A cluster has changed global memory.
    pub fn change(&self, memory: &Memory) {
        if memory.change() {
            self.bell.notify_all();
        }
    }
}

impl Seat<'_> {
    /// A cluster sleeps that has seen so many changes of global memory and waits for another one.
    pub fn sleep(&self, memory: &Memory, changes: u64) -> Woken {
        let peers = self.peers;
        let mut board = peers.board();
        let mut since = None;
        board.asleep.push(changes);
        let _sleeper = memory.sleeper();
        let woken = loop {
            if memory.changes() != changes {
                break Woken::Changed;
            }
            let unbegun = peers.clusters.saturating_sub(peers.next.load(SeqCst));
            // All that sleep say so, and the first one is heard.
            if board.over {
                break Woken::Never { unbegun };
            }
            if peers.failed.load(SeqCst) {
                break Woken::Abandoned;
            }
            if board.unclear {
                break Woken::Unclear;
            }
            // Whoever has seen less than this one is about to wake.
            if board.asleep.iter().filter(|seen| **seen == changes).count() as u64 != board.running {
                since = None;
            } else if unbegun > 0 && board.running < peers.most {
                board.running += 1;
                if !(self.begin)() {
                    board.running -= 1;
                    board.unclear = true;
                }
                continue;
            } else if unbegun > 0 && !peers.full || memory.launches() > 1 {
                board.unclear = true;
                continue;
            } else if since.get_or_insert_with(Instant::now).elapsed() >= GRACE {
                board.over = true;
                peers.bell.notify_all();
                continue;
            }
            board = peers.bell.wait_timeout(board, NAP).unwrap_or_else(PoisonError::into_inner).0;
        };
        if let Some(index) = board.asleep.iter().position(|seen| *seen == changes) {
            board.asleep.swap_remove(index);
        }
        woken
    }
}
