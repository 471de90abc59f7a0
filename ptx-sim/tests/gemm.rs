//! The suite's warp-specialised product with one part of its synchronisation damaged at a time: the checker says what is
//! wrong, where it is. The suite has that the undamaged kernel's result is right and that nothing is found in it.

use ptx_sim::fault::{Fault, Finding};
use ptx_sim::tensor_map::{DataType, Swizzle, Tiled};
use ptx_sim::{Launch, LaunchError, Machine};

/// Rows of both matrices and of the result, and what they are summed over; threads and shared memory of a block.
const ROWS: u64 = 256;
const DEPTH: u64 = 512;
const THREADS: u32 = 384;
const MEMORY: usize = 160 * 1024 + 64;

fn undamaged() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/suite/ptx/gemm_90.ptx")).unwrap()
}

/// Launches one cluster of the kernel, with matrices of zeros. Returns the fault that ends it or else what is found.
fn launch(ptx: &str) -> Vec<Finding> {
    let mut machine = Machine::default();
    let module = machine.load(ptx).unwrap_or_else(|error| panic!("{error}"));
    let mut tensor = |columns: u64, box_rows: u32| {
        let address = machine.memory.allocate_zeros((2 * ROWS * columns) as usize).unwrap();
        let (dims, strides) = ([columns, ROWS], [2 * columns]);
        let tiled = Tiled::new(DataType::Bf16, address, &dims, &strides, &[64, box_rows]);
        Tiled { swizzle: Swizzle::B128, ..tiled }.encode().unwrap().bytes().to_vec()
    };
    // Two pointers and a number that the kernel does not use, and the maps of A, B and D.
    let mut params = vec![0; 128];
    [tensor(DEPTH, 128), tensor(DEPTH, 64), tensor(ROWS, 64)].iter().for_each(|map| params.extend(map));
    let launch = Launch::new([2, 1, 1], [THREADS, 1, 1]).with_dynamic_shared(MEMORY);
    match machine.launch(&module, "gemm", &launch, &params) {
        Ok(report) => report.findings,
        Err(LaunchError::Fault(finding)) => vec![*finding],
        Err(error) => panic!("{error}"),
    }
}

/// What is found when every `part` of the kernel's text is replaced.
fn damaged(part: &str, by: &str) -> Vec<Finding> {
    let ptx = undamaged();
    assert!(ptx.contains(part), "the kernel has no `{part}`");
    launch(&ptx.replace(part, by))
}

/// Some finding is such a fault at such an instruction.
fn found(findings: &[Finding], instruction: &str, fault: impl Fn(&Fault) -> bool) {
    let such = findings.iter().any(|finding| finding.instruction.starts_with(instruction) && fault(&finding.fault));
    let all: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(such, "{} findings, none at `{instruction}`:\n{}", all.len(), all.join("\n"));
}

#[test]
fn the_kernel_as_it_is_has_nothing_to_be_found() {
    let findings = launch(&undamaged());
    assert!(findings.is_empty(), "{}", findings[0]);
}

#[test]
fn a_result_that_is_copied_without_a_proxy_fence_is_found_at_the_copy() {
    let findings = damaged("fence.proxy.async.shared::cta;", "");
    found(&findings, "cp.async.bulk.tensor.2d.global", |fault| matches!(fault, Fault::NoProxyFence { .. }));
}

#[test]
fn a_stage_that_is_called_empty_while_it_is_read_is_found_at_the_load() {
    // All products of the loop may be in flight when the stage before theirs is given back.
    let findings = damaged("wgmma.wait_group.sync.aligned 1;", "wgmma.wait_group.sync.aligned 8;");
    found(&findings, "cp.async.bulk.tensor.2d.shared::cluster", |fault| {
        matches!(fault, Fault::ReadInFlight { .. } | Fault::Race { other_action: "read", .. })
    });
}

#[test]
fn a_loader_that_announces_too_many_bytes_makes_its_consumers_wait_for_ever() {
    let ptx = undamaged();
    let more = |line: &str| if line.contains("mov.") { line.replace(", 32768;", ", 32784;") } else { line.to_string() };
    let damaged = ptx.lines().map(more).collect::<Vec<_>>().join("\n");
    assert_ne!(damaged, ptx.trim_end());
    let findings = launch(&damaged);
    let named = "of 32784 expected bytes 32768 have come";
    found(&findings, "mbarrier.try_wait", |fault| matches!(fault, Fault::Deadlock(why) if why.contains(named)));
}

#[test]
fn a_loader_that_is_not_told_of_the_other_blocks_consumers_is_found() {
    // Each warp arrives twice at its own block's objects, where it was to arrive once at each block's: the greater one of
    // the address and the rank is the address. So the counts are right, and what the loads overwrite in the other
    // block is not known to have been read.
    let findings = damaged("mapa.shared::cluster.u32 there,", "max.u32 there,");
    found(&findings, "cp.async.bulk.tensor.2d.shared::cluster", |fault| {
        matches!(fault, Fault::ReadInFlight { .. } | Fault::Race { .. } | Fault::CopyInFlight { .. })
    });
}

#[test]
fn a_block_that_exits_without_waiting_for_the_other_one_is_found() {
    let ptx = undamaged();
    let last = ptx.rfind("barrier.cluster.arrive.release.aligned;").unwrap();
    let (before, behind) = ptx.split_at(last);
    let behind = behind.replacen("barrier.cluster.arrive.release.aligned;", "", 1).replacen(
        "barrier.cluster.wait.acquire.aligned;",
        "",
        1,
    );
    let findings = launch(&format!("{before}{behind}"));
    assert!(findings.iter().any(|finding| matches!(finding.fault, Fault::Exited { .. })), "{findings:?}");
}
