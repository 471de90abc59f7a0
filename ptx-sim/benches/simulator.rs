//! How fast kernels run: `cargo bench -p ptx-sim`. The kernels are `kernels.cu`, compiled by `nvcc -ptx -lineinfo
//! -arch=compute_80`.

use std::time::{Duration, Instant};

use ptx_sim::{Launch, Limits, Machine, Params, Report};

const PTX: &str = include_str!("kernels.ptx");

/// Threads of a block, and how long a measurement runs at least.
const THREADS: u32 = 256;
const LEAST: Duration = Duration::from_secs(1);

/// Runs `blocks` blocks of a kernel again and again, and returns the report of a launch and its best time in seconds.
fn measure(kernel: &str, blocks: u32, rounds: i32, cores: usize, checked: bool) -> (Report, f64) {
    let mut limits = Limits::default();
    limits.cores = cores;
    let mut machine = Machine::new(limits);
    let module = machine.load(PTX).unwrap_or_else(|error| panic!("{error}"));
    let out = machine.memory.allocate((4 * THREADS * blocks) as usize).unwrap_or_else(|fault| panic!("{fault}"));
    let params = Params::new().pointer(out).i32(rounds);
    let launch = Launch::new([blocks, 1, 1], [THREADS, 1, 1]).with_checked(checked);
    let run = || {
        let started = Instant::now();
        let report = machine.launch(&module, kernel, &launch, params.bytes()).unwrap_or_else(|error| panic!("{error}"));
        (started.elapsed().as_secs_f64(), report)
    };
    let (mut best, report) = run();
    let started = Instant::now();
    while started.elapsed() < LEAST {
        best = run().0.min(best);
    }
    assert!(report.findings.is_empty());
    (report, best)
}

/// Whether a row is to be measured: `cargo bench -p ptx-sim --bench simulator -- mma` measures those that name it.
fn is_wanted(what: &str) -> bool {
    let mut filters = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    filters.peek().is_none() || filters.any(|filter| what.contains(&filter))
}

fn lanes(kernel: &str, what: &str, cores: usize, checked: bool) {
    if !is_wanted(what) {
        return;
    }
    let (report, seconds) = measure(kernel, 2 * cores as u32, 1000, cores, checked);
    let rate = report.meter.total().lane as f64 / seconds / 1e6;
    println!("{what:<40} {rate:>9.1} million lane-instructions/s");
}

/// Runs a kernel of `mma.sync` m16n8k16 on two blocks.
fn products(kernel: &str, what: &str, rounds: i32, checked: bool) {
    if !is_wanted(what) {
        return;
    }
    let (report, seconds) = measure(kernel, 2, rounds, 1, checked);
    let products: u64 = report.meter.mma.values().sum();
    let rate = (products * 2 * 16 * 8 * 16) as f64 / seconds / 1e9;
    println!("{what:<40} {rate:>9.2} GFLOP/s");
}

fn main() {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    lanes("alu", "arithmetic, 1 core", 1, true);
    products("tensor", "mma.sync bf16, 1 core", 1000, true);
    products("tiles", "tiles of bf16, 1 core, checked", 20, true);
    products("tiles", "tiles of bf16, 1 core, unchecked", 20, false);
    lanes("shared", "shared memory, 1 core, checked", 1, true);
    lanes("shared", "shared memory, 1 core, unchecked", 1, false);
    let short = "short blocks, 1 core, checked";
    if is_wanted(short) {
        let (_, seconds) = measure("blocks", 100, 1, 1, true);
        println!("{short:<40} {:>9.1} thousand blocks/s", 0.1 / seconds);
    }
    for cores in (1..=all.ilog2()).map(|power| 1 << power) {
        lanes("alu", &format!("arithmetic, {cores} cores"), cores, true);
        lanes("shared", &format!("shared memory, {cores} cores, checked"), cores, true);
    }
}
