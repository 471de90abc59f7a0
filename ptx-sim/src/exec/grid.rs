//! A launch: blocks on all cores, findings and meters collected in the order of blocks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::block::Block;
use super::context::LANES;
use super::warp::{Failure, Stop, Warp};
use crate::families::barrier::divergence;
use crate::fault::{Fault, Finding};
use crate::memory::Memory;
use crate::meter::{Meter, Tally};
use crate::program::Program;
use crate::shared::SharedMemory;

/// Instructions a warp may issue before the next one has its turn. Small enough that a warp polling another makes
/// progress, large enough that turns cost nothing.
const TURN: u64 = 4096;

/// Everything that is the same for all blocks of a launch.
pub(crate) struct Grid<'a> {
    pub program: &'a Program,
    /// Index of the kernel.
    pub kernel: usize,
    pub memory: &'a Memory,
    /// The parameter block.
    pub params: &'a [u8],
    /// `%nctaid`.
    pub grid: [u32; 3],
    /// `%ntid`.
    pub block: [u32; 3],
    /// Blocks per cluster.
    pub cluster: [u32; 3],
    /// Whether the launch or the kernel says how many they are.
    pub explicit_cluster: bool,
    pub dynamic_shared: usize,
    pub step_limit: u64,
    pub checked: bool,
    pub multiprocessors: u32,
    /// Serialises atomics wider than a word.
    pub wide_atomics: &'a Mutex<()>,
}

/// Most bytes that registers, local memory and call parameters of a cluster may take: far more than kernels need, and
/// little enough that an endless recursion ends before this computer's memory does.
const FRAME_BYTES: usize = 2 << 30;

/// What the clusters of one core did.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub meter: Tally,
    found: HashMap<(usize, usize, &'static str), Found>,
    /// What `printf` printed in this cluster.
    pub printed: String,
    /// The cluster at work.
    cluster: u64,
    /// What earlier clusters printed.
    pages: Vec<(u64, String)>,
    frame_bytes: usize,
}

#[derive(Debug)]
struct Found {
    fault: Fault,
    cluster: u64,
    block: [u32; 3],
    thread: usize,
    count: u64,
}

impl Ledger {
    /// Notes a fault; the first of a kind at an instruction is kept, the others are counted.
    pub fn find(&mut self, fault: Fault, block: [u32; 3], thread: usize, at: (usize, usize)) {
        let kind = match fault {
            Fault::Uninitialised { .. } => "uninitialised",
            Fault::Race { .. } => "race",
            Fault::CopyInFlight { .. } => "copy",
            Fault::DivergentBarrier(_) => "barrier",
            _ => "other",
        };
        let found = Found { fault, cluster: self.cluster, block, thread, count: 0 };
        self.found.entry((at.0, at.1, kind)).or_insert(found).count += 1;
    }

    /// Accounts for memory of the cluster's calls.
    pub fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        self.frame_bytes += bytes;
        match self.frame_bytes <= FRAME_BYTES {
            true => Ok(()),
            false => Err(Fault::Trap(format!("registers and local memory of the calls exceed {FRAME_BYTES} bytes"))),
        }
    }

    fn begin(&mut self, cluster: u64) {
        (self.cluster, self.frame_bytes) = (cluster, 0);
    }

    fn end(&mut self) {
        if !self.printed.is_empty() {
            self.pages.push((self.cluster, std::mem::take(&mut self.printed)));
        }
    }
}

/// What a whole launch did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub meter: Meter,
    pub findings: Vec<Finding>,
    /// The fault that ended the launch.
    pub fatal: Option<Finding>,
    /// What `printf` printed, block after block.
    pub printed: String,
}

impl Grid<'_> {
    /// Threads per block.
    pub fn threads(&self) -> usize {
        self.block.iter().fold(1, |product: usize, &n| product.saturating_mul(n as usize))
    }

    /// `%tid` of a thread.
    pub fn thread_index(&self, thread: usize) -> [u32; 3] {
        let [x, y, _] = self.block.map(|n| n as usize);
        [thread % x, thread / x % y, thread / (x * y)].map(|i| i as u32)
    }

    /// Index of a block in the order x, y, z.
    pub fn linear_block(&self, [x, y, z]: [u32; 3]) -> u64 {
        let [gx, gy, _] = self.grid.map(u64::from);
        u64::from(x) + gx * (u64::from(y) + gy * u64::from(z))
    }

    fn clusters(&self) -> u64 {
        (0..3).map(|axis| u64::from(self.grid[axis] / self.cluster[axis])).product()
    }

    /// `%ctaid` of the blocks of a cluster, by rank.
    fn blocks_of(&self, cluster: u64) -> Vec<[u32; 3]> {
        let per_axis: [u64; 3] = std::array::from_fn(|axis| u64::from(self.grid[axis] / self.cluster[axis]));
        let origin =
            [cluster % per_axis[0], cluster / per_axis[0] % per_axis[1], cluster / (per_axis[0] * per_axis[1])];
        let origin: [u32; 3] = std::array::from_fn(|axis| origin[axis] as u32 * self.cluster[axis]);
        let [cx, cy, cz] = self.cluster;
        let all = (0..cz).flat_map(|z| (0..cy).flat_map(move |y| (0..cx).map(move |x| [x, y, z])));
        all.map(|[x, y, z]| [origin[0] + x, origin[1] + y, origin[2] + z]).collect()
    }

    fn finding(&self, fault: Fault, block: [u32; 3], thread: usize, at: (usize, usize), count: u64) -> Finding {
        let code = &self.program.functions[at.0];
        let step = &code.steps[at.1];
        let source = step.location.and_then(|place| Some((self.program.files.get(&place.file)?.clone(), place.line)));
        Finding {
            fault,
            kernel: self.program.functions[self.kernel].name.clone(),
            block,
            thread: self.thread_index(thread),
            ptx_line: step.line,
            instruction: step.text.clone(),
            source,
            count,
        }
    }
}

/// Runs all blocks. Clusters are spread over the cores; the outcome does not depend on how, as long as the kernel's
/// own result does not.
pub(crate) fn run(grid: &Grid, cores: usize) -> Ran {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let outcomes = Mutex::new(Vec::new());
    let clusters = grid.clusters();
    let work = || {
        let (mut ledger, mut fatal) = (Ledger::default(), None);
        while !stop.load(Relaxed) {
            let cluster = next.fetch_add(1, Relaxed);
            if cluster >= clusters {
                break;
            }
            ledger.begin(cluster);
            fatal = run_cluster(grid, cluster, &mut ledger).err().map(|finding| (cluster, *finding));
            ledger.end();
            stop.fetch_or(fatal.is_some(), Relaxed);
            // Clusters begin in order, so the first one that fails has begun, and it ends in any case.
            if fatal.is_some() {
                break;
            }
        }
        outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((ledger, fatal));
    };
    match u64::try_from(cores).unwrap_or(u64::MAX).min(clusters) {
        0 | 1 => work(),
        cores => std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work)))),
    }
    collect(grid, outcomes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Joins what the cores did: of each finding the one of the first cluster, whichever core ran it.
fn collect(grid: &Grid, outcomes: Vec<(Ledger, Option<(u64, Finding)>)>) -> Ran {
    let mut meter = Meter::default();
    let mut found: BTreeMap<_, Found> = BTreeMap::new();
    let (mut pages, mut fatal) = (Vec::new(), None);
    for (ledger, failed) in outcomes {
        meter.add(&ledger.meter.meter());
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
        .map(|((function, step, _), f)| grid.finding(f.fault, f.block, f.thread, (function, step), f.count));
    Ran {
        meter,
        findings: findings.collect(),
        fatal: fatal.map(|(_, finding)| finding),
        printed: pages.into_iter().map(|(_, text)| text).collect(),
    }
}

/// The lanes that a warp of a block of `threads` begins with.
pub(crate) fn lanes_of(threads: usize, warp: usize) -> u32 {
    match (threads - warp * LANES).min(LANES) {
        LANES => u32::MAX,
        lanes => (1 << lanes) - 1,
    }
}

fn run_cluster(grid: &Grid, cluster: u64, ledger: &mut Ledger) -> Result<(), Box<Finding>> {
    let code = &grid.program.functions[grid.kernel];
    let (threads, warps) = (grid.threads(), grid.threads().div_ceil(LANES));
    let refuse = |fault, block, thread| Box::new(grid.finding(fault, block, thread, (grid.kernel, 0), 1));
    let make = |index| {
        let shared = SharedMemory::new(code.shared_bytes + grid.dynamic_shared, warps, grid.checked);
        Ok(Block {
            index,
            shared: shared.map_err(|fault| refuse(fault, index, 0))?,
            static_shared: code.shared_bytes,
            barriers: HashMap::new(),
            live: (0..warps).map(|warp| lanes_of(threads, warp)).collect(),
        })
    };
    let mut blocks = grid.blocks_of(cluster).into_iter().map(make).collect::<Result<Vec<Block>, Box<Finding>>>()?;
    let mut all: Vec<(usize, Warp)> = Vec::new();
    for (rank, block) in blocks.iter().enumerate() {
        for index in 0..warps {
            let mut warp = Warp::new(index, lanes_of(threads, index), grid.kernel);
            let entered = warp.enter(grid.program, 0, grid.kernel, ledger);
            entered.map_err(|fault| refuse(fault, block.index, index * LANES))?;
            all.push((rank, warp));
        }
    }
    let mut idle_rounds = 0;
    loop {
        let mut progress = false;
        let mut running = false;
        for (rank, warp) in &mut all {
            if warp.live == 0 {
                continue;
            }
            let before = warp.steps;
            let stop = warp.run(grid, &mut blocks, *rank, ledger, TURN);
            let stop = stop.map_err(|Failure { fault, lane, at }| {
                Box::new(grid.finding(fault, blocks[*rank].index, warp.index * LANES + lane, at, 1))
            })?;
            blocks[*rank].live[warp.index] = warp.live;
            running |= warp.live != 0;
            progress |= stop != Stop::Waiting || warp.steps > before;
        }
        if !running {
            return Ok(());
        }
        // The first arrivals of a round change what others wait for, so one round without progress proves nothing.
        idle_rounds = if progress { 0 } else { idle_rounds + 1 };
        if idle_rounds == 2 {
            return Err(Box::new(deadlock(grid, &blocks, &all)));
        }
    }
}

/// Every warp that is left waits, and none of them can go on.
fn deadlock(grid: &Grid, blocks: &[Block], warps: &[(usize, Warp)]) -> Finding {
    let waiting: Vec<_> = warps.iter().filter(|(_, warp)| warp.live != 0).collect();
    let report = |(rank, warp): &(usize, Warp), fault: Fault, at: (usize, usize), lane: usize| {
        grid.finding(fault, blocks[*rank].index, warp.index * LANES + lane, at, 1)
    };
    for entry in &waiting {
        if let Some((fault, at, lane)) = divergence(&entry.1.meetings, entry.1.live) {
            return report(entry, fault, at, lane);
        }
    }
    let places: BTreeSet<_> = waiting.iter().map(|(_, warp)| warp.position().0).collect();
    let places = places.iter().map(|(function, step)| {
        let step = &grid.program.functions[*function].steps[*step];
        format!("`{}` of PTX line {}", step.text, step.line)
    });
    let places = places.collect::<Vec<_>>().join(", ");
    let done = warps.len() - waiting.len();
    let why = format!("{} of {} warps wait at {places}; {done} have exited", waiting.len(), warps.len());
    match waiting.first() {
        Some(entry) => {
            let (at, lane) = entry.1.position();
            report(entry, Fault::Deadlock(why), at, lane)
        }
        None => grid.finding(Fault::Deadlock(why), [0; 3], 0, (grid.kernel, 0), 1),
    }
}
