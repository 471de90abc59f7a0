//! The same PTX run by ptx-sim and by gpuocelot's emulator, side by side: `cargo bench -p ptx-sim --bench peer`.
//!
//! gpuocelot is looked for in `GPUOCELOT`, the path of a `libgpuocelot.so`; without it ptx-sim's rates alone are
//! printed. Both run on one core. Both have to leave the same bytes. Kernels are those of `kernels.cu` beside this file.

use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::time::{Duration, Instant};

use libloading::Library;
use ptx_sim::{Launch, Limits, Machine, Params};

const PTX: &str = include_str!("kernels.ptx");

const BLOCKS: u32 = 4;
const THREADS: u32 = 256;
const BYTES: usize = (4 * BLOCKS * THREADS) as usize;

/// How long a measurement runs at least.
const LEAST: Duration = Duration::from_millis(1500);

/// A kernel, what it is made of, and rounds that make a launch take a tenth of a second in gpuocelot, of which reading
/// the source takes a hundredth.
const KERNELS: [(&str, &str, i32); 5] = [
    ("alu", "integers and f32", 200),
    ("branches", "branches that diverge", 6),
    ("shared", "shared memory and barriers", 500),
    ("stream", "global memory", 1000),
    ("matmul", "product of tiles, f32", 40),
];

/// What a launch left in memory, and the shortest time that it took, in seconds.
struct Outcome {
    bytes: Vec<u8>,
    seconds: f64,
}

/// Launches again and again, each time on zeros.
fn measure(mut launch: impl FnMut(&mut [u8]) -> f64) -> Outcome {
    let (mut bytes, mut seconds) = (vec![0; BYTES], f64::INFINITY);
    let started = Instant::now();
    while started.elapsed() < LEAST {
        bytes.fill(0);
        seconds = launch(&mut bytes).min(seconds);
    }
    Outcome { bytes, seconds }
}

/// ptx-sim on one core: the outcome, and the warp instructions of one launch.
fn ptx_sim(kernel: &str, rounds: i32, checked: bool) -> (Outcome, u64) {
    let mut limits = Limits::default();
    limits.cores = 1;
    let mut machine = Machine::new(limits);
    let module = machine.load(PTX).unwrap_or_else(|error| panic!("{error}"));
    let out = machine.memory.allocate(BYTES).unwrap_or_else(|fault| panic!("{fault}"));
    let params = Params::new().pointer(out).i32(rounds);
    let launch = Launch::new([BLOCKS, 1, 1], [THREADS, 1, 1]).with_checked(checked);
    let mut instructions = 0;
    let outcome = measure(|bytes| {
        machine.memory.write(out, bytes).unwrap_or_else(|fault| panic!("{fault}"));
        let started = Instant::now();
        let report = machine.launch(&module, kernel, &launch, params.bytes()).unwrap_or_else(|error| panic!("{error}"));
        let seconds = started.elapsed().as_secs_f64();
        assert!(report.findings.is_empty(), "{kernel}: {:?}", report.findings);
        instructions = report.meter.total().warp;
        machine.memory.read(out, bytes).unwrap_or_else(|fault| panic!("{fault}"));
        seconds
    });
    (outcome, instructions)
}

/// gpuocelot's entry point: source, arguments of 8 bytes each, threads, blocks, bytes of dynamic shared memory. It parses
/// the source and runs its first kernel, without a checker.
type Run =
    unsafe extern "C" fn(*const c_char, c_int, *mut *mut c_void, c_int, c_int, c_int, c_int, c_int, c_int, c_int);

/// gpuocelot, whose grammar knows targets up to sm_35 and takes the kernel to run as the only one of its module.
fn gpuocelot(library: &Library, kernel: &str, rounds: i32) -> Outcome {
    let start = PTX.find(&format!(".visible .entry {kernel}(")).unwrap_or_else(|| panic!("no kernel {kernel}"));
    let body = PTX[start..].split("\n}\n").next().unwrap_or_default();
    let source = CString::new(format!(".version 7.5\n.target sm_35\n.address_size 64\n{body}\n}}\n"))
        .unwrap_or_else(|error| panic!("{error}"));
    // SAFETY: the symbol is gpuocelot's, whose declaration this type repeats.
    let run = unsafe { library.get::<Run>("ptx_run") }.unwrap_or_else(|error| panic!("{error}"));
    measure(|bytes| {
        let mut arguments = [bytes.as_mut_ptr().cast::<c_void>(), rounds as usize as *mut c_void];
        let (threads, blocks) = (THREADS as c_int, BLOCKS as c_int);
        let started = Instant::now();
        // SAFETY: source ends in a zero byte; there are as many arguments as said, and the kernel writes one word per
        // thread behind the first, for which `bytes` has room.
        unsafe { run(source.as_ptr(), 2, arguments.as_mut_ptr(), threads, 1, 1, blocks, 1, 1, 0) };
        started.elapsed().as_secs_f64()
    })
}

fn open(path: OsString) -> Library {
    // SAFETY: the user names a library whose initialisers are to be run.
    unsafe { Library::new(&path) }.unwrap_or_else(|error| panic!("{error}"))
}

fn main() {
    let library = std::env::var_os("GPUOCELOT").map(open);
    println!("million warp instructions per second, 1 core");
    println!("{:<28} {:>10} {:>10} {:>10} {:>6}", "kernel", "gpuocelot", "checked", "unchecked", "ratio");
    for (kernel, what, rounds) in KERNELS {
        let peer = library.as_ref().map(|library| gpuocelot(library, kernel, rounds));
        let (checked, instructions) = ptx_sim(kernel, rounds, true);
        let (unchecked, _) = ptx_sim(kernel, rounds, false);
        let rate = |outcome: &Outcome| instructions as f64 / outcome.seconds / 1e6;
        let (other, ratio) = match &peer {
            Some(peer) => {
                assert!(peer.bytes == checked.bytes, "{kernel}: gpuocelot's results differ");
                (format!("{:.2}", rate(peer)), format!("{:.1}", peer.seconds / unchecked.seconds))
            }
            None => ("-".into(), "-".into()),
        };
        println!("{what:<28} {other:>10} {:>10.2} {:>10.2} {ratio:>6}", rate(&checked), rate(&unchecked));
    }
    if library.is_none() {
        println!("GPUOCELOT names no library: nothing to compare with");
    }
}
