//! What can be allocated, what cannot, and what an allocation costs. One test only, so that nothing else in the process
//! changes how much memory it has.

use ptx_sim::fault::Fault;
use ptx_sim::{Launch, Machine, Params};

const GIB: usize = 1 << 30;

/// One thread reads the word at `from` and writes it to `to`.
const COPY: &str = "
.version 9.0
.target sm_80
.address_size 64
.visible .entry copy(.param .u64 from, .param .u64 to) {
    .reg .b32 %r;
    .reg .b64 %d<2>;
    ld.param.u64 %d0, [from];
    ld.param.u64 %d1, [to];
    ld.global.u32 %r, [%d0];
    st.global.u32 [%d1], %r;
    ret;
}";

/// Bytes of memory that this process has in RAM.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

#[cfg(not(target_os = "linux"))]
fn resident() -> usize {
    0
}

#[test]
fn memory_costs_what_is_written_of_it() {
    let mut machine = Machine::default();
    let module = machine.load(COPY).unwrap();
    let before = resident();
    let (unwritten, zeros) = (machine.memory.allocate(GIB).unwrap(), machine.memory.allocate_zeros(GIB).unwrap());
    machine.memory.forget(unwritten, GIB).unwrap();
    let end = |base: u64| base + GIB as u64 - 4;

    // What lies at the ends: zeros that were written, and bytes that were not.
    let launch = Launch::new([1; 3], [1; 3]);
    let copy = |from, to| machine.launch(&module, "copy", &launch, Params::new().pointer(from).pointer(to).bytes());
    machine.memory.write(zeros, &[1, 2, 3, 4]).unwrap();
    assert!(copy(zeros, end(unwritten)).unwrap().findings.is_empty());
    assert!(copy(end(zeros), end(zeros)).unwrap().findings.is_empty());
    assert!(copy(end(unwritten), zeros).unwrap().findings.is_empty());
    let report = copy(unwritten, end(zeros)).unwrap();
    assert!(matches!(report.findings[0].fault, Fault::Uninitialised { .. }), "{:?}", report.findings);
    let mut word = [0; 4];
    machine.memory.read(end(unwritten), &mut word).unwrap();
    assert_eq!(word, [1, 2, 3, 4]);
    machine.memory.read(end(zeros) - 4, &mut word).unwrap();
    assert_eq!(word, [0; 4]);

    // Zeros can be forgotten as what was written can.
    machine.memory.forget(zeros, 4).unwrap();
    assert_eq!(copy(zeros, end(zeros)).unwrap().findings.len(), 1);
    assert!(copy(end(zeros), zeros).unwrap().findings.is_empty());
    assert!(copy(zeros, end(zeros)).unwrap().findings.is_empty());

    let more = resident().saturating_sub(before);
    assert!(more < 64 << 20, "{more} bytes more are resident");

    // A GiB is taken from what is left, and given back.
    let refused = machine.memory.allocate(79 * GIB).unwrap_err();
    let what = format!("cannot allocate {} bytes: {} of {} bytes are in use", 79 * GIB, 2 * GIB, 80 * GIB);
    assert_eq!(refused.to_string(), what);
    assert!(machine.memory.free(zeros));
    machine.memory.allocate(78 * GIB).unwrap_err();
}
