//! Programs of random operations: there is a result or a fault that is named, whatever they do.

use ptx_sim::fault::Fault;
use ptx_sim::{Launch, LaunchError, Limits, Machine};

use crate::kernel;

/// Operations, where `A` is an address, `N` a number and `S` a register of 64 bits.
const OPERATIONS: [&str; 26] = [
    "mbarrier.init.shared.b64 [A], N;",
    "mbarrier.init.b64 [%d2+A], N;",
    "mbarrier.inval.shared.b64 [A];",
    "mbarrier.arrive.shared.b64 S, [A];",
    "mbarrier.arrive.shared.b64 S, [A], %r7;",
    "mbarrier.arrive.b64 _, [%d2+A];",
    "mbarrier.arrive.noComplete.shared.b64 S, [A], %r7;",
    "mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [A];",
    "mbarrier.arrive.expect_tx.shared.b64 S, [A], N;",
    "mbarrier.arrive_drop.shared.b64 S, [A];",
    "mbarrier.arrive_drop.expect_tx.shared.b64 S, [A], N;",
    "mbarrier.expect_tx.shared.b64 [A], N;",
    "mbarrier.complete_tx.shared::cluster.b64 [A], N;",
    "mbarrier.pending_count.b64 %r9, S;",
    "mbarrier.test_wait.shared.b64 %p1, [A], S;",
    "mbarrier.try_wait.shared.b64 %p1, [A], S;",
    "mbarrier.test_wait.parity.shared.b64 %p1, [A], %r8;",
    "mbarrier.try_wait.parity.shared.b64 %p1, [A], %r8, N;",
    "cp.async.ca.shared.global [A], [%d0], 8;",
    "cp.async.mbarrier.arrive.shared.b64 [A];",
    "cp.async.mbarrier.arrive.noinc.shared.b64 [A];",
    "cp.async.wait_all;",
    "st.shared.u64 [A], S;",
    "fence.acq_rel.cta;",
    "bar.sync 0;",
    "setmaxnreg.dec.sync.aligned.u32 40;",
];

#[test]
fn whatever_threads_do_to_objects_ends_soon() {
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let (mut passed, mut faults) = (0, 0);
    for _ in 0..400 {
        let mut body = String::from("cvta.shared.u64 %d2, s;\nmov.b64 %d4, 0;\nmov.b64 %d5, 7;\nmov.u32 %r8, 0;\n");
        body += "setp.lt.u32 %p2, %r0, 1;\nsetp.lt.u32 %p3, %r0, 32;\nsetp.lt.u32 %p4, %r0, 65;\n";
        body += "@%p2 mbarrier.init.shared.b64 [0], 96;\n@%p2 mbarrier.init.shared.b64 [8], 1;\nbar.sync 0;\n";
        for at in 0..2 + next(8) {
            // Rarely an address that is none, and mostly the objects that there are.
            let address = [0, 0, 0, 0, 8, 8, 8, 16, 4, 5000][next(10)];
            let number = [0, 1, 1, 1, 2, 32, 96, 1_048_575, u32::MAX][next(9)];
            let guard = ["", "", "@%p2 ", "@%p3 ", "@!%p3 ", "@%p4 "][next(6)];
            let state = ["%d4", "%d5"][next(2)];
            let operation = OPERATIONS[next(OPERATIONS.len())];
            // Counts of arrivals are in a register, since constants that no object holds are refused.
            body += &format!("mov.u32 %r7, {number};\n");
            let operation = operation.replace('A', &address.to_string()).replace('N', &number.to_string());
            // Lanes that the guard leaves out go on: a loop in which they look at nothing would be no deadlock.
            body += &format!("L{at}: setp.eq.u32 %p1, %r0, %r0;\n{guard}{}\n", operation.replace('S', state));
            if next(4) == 0 && operation.contains("_wait") {
                body += &format!("@!%p1 bra L{at};\nxor.b32 %r8, %r8, 1;\n");
            }
        }
        let ptx = kernel(&body, 96).ptx();
        let mut limits = Limits::default();
        (limits.cores, limits.steps) = (1, 200_000);
        for checked in [true, false] {
            let mut machine = Machine::new(limits);
            let module = machine.load(&ptx).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
            let buffer = machine.memory.allocate(4096).unwrap();
            let params: Vec<u8> = [buffer, buffer].iter().flat_map(|pointer| pointer.to_le_bytes()).collect();
            let launch = Launch::new([1; 3], [96, 1, 1]).with_checked(checked);
            match machine.launch(&module, "k", &launch, &params) {
                Ok(_) => passed += 1,
                Err(LaunchError::Fault(finding)) => {
                    assert!(!matches!(finding.fault, Fault::StepLimit(_)), "{finding}\n{ptx}");
                    faults += 1;
                }
                Err(other) => panic!("{other}\n{ptx}"),
            }
        }
    }
    assert!(passed > 20 && faults > 20, "{passed} passed, {faults} faults");
}
