//! Arrivals that follow copies of `cp.async`.

use ptx_sim::fault::Fault;

use crate::kernels::Kernel;
use crate::{deadlock, initialised, kernel, mbarrier};

/// The first warp copies a word for each lane and arrives behind it, by `arrive`; the second one waits and reads.
fn handed_over(count: u32, arrive: &str, wait: &str) -> String {
    initialised(
        count,
        &format!(
            "and.b32 %r2, %r0, 31;
            shl.b32 %r3, %r2, 2;
            mul.wide.u32 %d2, %r2, 4;
            add.s64 %d3, %d0, %d2;
            add.s64 %d4, %d1, %d2;
            setp.ge.u32 %p0, %r0, 32;
            @%p0 bra CONSUME;
            cp.async.ca.shared.global [%r3+64], [%d3], 4;
            {arrive}
            bra END;
            CONSUME: {wait}
            xor.b32 %r3, %r3, 4;
            ld.shared.u32 %r4, [%r3+64]; /* read */
            st.global.u32 [%d4], %r4;
            END:"
        ),
    )
}

const WAIT: &str = "W: mbarrier.try_wait.parity.shared.b64 %p1, [s], 0;\n@!%p1 bra W;";
const POLL: &str = "W: mbarrier.test_wait.parity.shared.b64 %p1, [s], 0;\n@!%p1 bra W;";

#[test]
fn whoever_has_waited_may_read_what_was_copied() {
    let counted = "cp.async.mbarrier.arrive.noinc.shared.b64 [s];";
    let uncounted = "cp.async.mbarrier.arrive.shared::cta.b64 [s];\nmbarrier.arrive.shared.b64 _, [s];";
    let generic = "cvta.shared.u64 %d5, s;\ncp.async.mbarrier.arrive.noinc.b64 [%d5];";
    let in_groups = "cp.async.commit_group;\ncp.async.mbarrier.arrive.noinc.shared.b64 [s];";
    // The copying threads wait for their copies themselves, before others wait for the object.
    let waited = format!("{counted}\ncp.async.wait_all;\nld.shared.u32 %r4, [%r3+64];");
    for arrive in [counted, uncounted, generic, in_groups, &waited] {
        for wait in [WAIT, POLL] {
            let ran = kernel(&handed_over(32, arrive, wait), 64).clean();
            assert_eq!(ran.output[..32], (0..32).map(|i| i ^ 1).collect::<Vec<_>>(), "{arrive}");
        }
    }
}

#[test]
fn nobody_else_may_read_it() {
    let arrive = "cp.async.mbarrier.arrive.noinc.shared.b64 [s];";
    for wait in ["nanosleep.u32 1;", "nanosleep.u32 1;\nmbarrier.test_wait.parity.shared.b64 %p1, [s], 1;"] {
        let fault = kernel(&handed_over(32, arrive, wait), 64).finds(0, 32, "/* read */");
        assert!(matches!(fault, Fault::CopyInFlight { .. }), "{fault}");
    }
    // A third warp, which waits for nothing, when the second one has.
    let body = handed_over(
        32,
        arrive,
        &format!("setp.ge.u32 %p2, %r0, 64;\n@%p2 nanosleep.u32 1;\n@%p2 bra READ;\n{WAIT}\nREAD:"),
    );
    let fault = kernel(&body, 96).finds(0, 64, "/* read */");
    assert!(matches!(fault, Fault::Race { .. } | Fault::CopyInFlight { .. }), "{fault}");
    // Ordinary stores before the arrival are not ordered by it: only `mbarrier.arrive` releases them.
    let stores =
        format!("st.shared.u32 [%r3+64], 1;\n{arrive}").replace("st.shared.u32", "cp.async.wait_all;\nst.shared.u32");
    let fault = kernel(&handed_over(32, &stores, WAIT), 64).finds(0, 32, "/* read */");
    assert!(matches!(fault, Fault::Race { .. }), "{fault}");
}

#[test]
fn copies_behind_the_arrival_are_not_covered_by_it() {
    let late = "cp.async.mbarrier.arrive.noinc.shared.b64 [s];\ncp.async.ca.shared.global [%r3+64], [%d3], 4;";
    let body =
        handed_over(32, late, WAIT).replacen("cp.async.ca.shared.global [%r3+64], [%d3], 4;", "nanosleep.u32 1;", 1);
    let fault = kernel(&body, 64).finds(0, 32, "/* read */");
    assert!(matches!(fault, Fault::CopyInFlight { .. }), "{fault}");
}

#[test]
fn counts_that_do_not_fit_are_found() {
    // Counted by the kernel for 16 threads, but 32 arrive: the 17th begins the next phase, and the object is told.
    let arrive = "cp.async.mbarrier.arrive.noinc.shared.b64 [s]; /* arrive */";
    let why = deadlock(kernel(&handed_over(33, arrive, WAIT), 64));
    assert!(why.contains("1 of 33 arrivals are missing"), "{why}");
    // Without `.noinc` the count is of other arrivals, of which there are none.
    let why = deadlock(kernel(&handed_over(1, "cp.async.mbarrier.arrive.shared.b64 [s];", WAIT), 64));
    assert!(why.contains("1 of 1 arrivals are missing"), "{why}");
    let twice = format!("{arrive}\nmbarrier.arrive.shared.b64 _, [s];");
    let ran = Kernel { ..kernel(&handed_over(32, &twice, WAIT), 64) }.run();
    let report = ran.report();
    // The phase ends by the arrivals, and those behind the copies come in the next one: the bytes are not there.
    assert!(report.findings.iter().any(|found| matches!(found.fault, Fault::CopyInFlight { .. })));
    let none = kernel("cp.async.mbarrier.arrive.noinc.shared.b64 [s]; /* bad */", 1).finds(0, 0, "/* bad */");
    assert!(mbarrier(&none).contains("no object"), "{none}");
    let most = "mbarrier.init.shared.b64 [s], 1048575;\ncp.async.mbarrier.arrive.shared.b64 [s]; /* bad */";
    let most = kernel(most, 1).finds(0, 0, "/* bad */");
    assert!(mbarrier(&most).contains("more than 1048575 pending arrivals"), "{most}");
}
