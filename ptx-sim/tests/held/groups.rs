//! Groups of copies, and arrivals behind them.

use std::time::{Duration, Instant};

use ptx_sim::LaunchError;
use ptx_sim::fault::Fault;

use crate::kernels::Kernel;
use crate::{rounds, run, takes_no_memory, takes_no_memory_in};

#[test]
fn loops_of_groups_take_no_memory() {
    let copy = "cp.async.ca.shared.global [s], [%d0], 4;\n";
    let bulk = "setp.eq.u32 %p0, %r0, 0;\n@%p0 cp.async.bulk.global.shared::cta.bulk_group [%d1], [s], 16;\n";
    let fill = "st.shared.u32 [s], 0;\nst.shared.u32 [s+4], 0;\nst.shared.u32 [s+8], 0;\nst.shared.u32 [s+12], 0;\n\
                fence.proxy.async.shared::cta;\n";
    let bodies = [
        "cp.async.commit_group;".into(),
        "cp.async.bulk.commit_group;".into(),
        // Read, and not waited for otherwise.
        "cp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;".into(),
        // Groups with copies among more that have none.
        format!("{copy}cp.async.commit_group;\ncp.async.commit_group;\ncp.async.wait_group 1;"),
        format!("{bulk}cp.async.bulk.commit_group;\ncp.async.bulk.commit_group;\ncp.async.bulk.wait_group 1;"),
    ];
    for body in bodies {
        let body = format!("{fill}{}", rounds(&body));
        takes_no_memory(&Kernel { body: &body, threads: 1, ..Kernel::default() });
    }
}

/// A warpgroup multiplies what lies in `s` in each round, and then `then`.
fn products(then: &str) -> String {
    let product =
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f0, %f1, %f2, %f3}, %d2, %d3, 1, 1, 1, 0, 0; /* op */";
    format!(
        "mov.u32 %r2, 0;
        shl.b32 %r3, %r0, 2;
        mov.u32 %r4, s;
        add.u32 %r3, %r3, %r4;
        FILL: st.shared.u32 [%r3], %r2;
        add.u32 %r3, %r3, 512;
        add.u32 %r2, %r2, 512;
        setp.lt.u32 %p0, %r2, 4096;
        mov.b32 %r5, 0;
        @%p0 bra FILL;
        mov.f32 %f0, 0f00000000;
        mov.f32 %f1, 0f00000000;
        mov.f32 %f2, 0f00000000;
        mov.f32 %f3, 0f00000000;
        mov.u64 %d2, 0x0000000800100000;
        mov.u64 %d3, 0x0000000800100000;
        fence.proxy.async.shared::cta;
        bar.sync 0;
        wgmma.fence.sync.aligned;
        {}
        wgmma.commit_group.sync.aligned;
        wgmma.wait_group.sync.aligned 0;",
        rounds(&then.replace("PRODUCT", product))
    )
}

#[test]
fn loops_of_groups_of_products_take_no_memory() {
    for (then, rounds) in [
        ("wgmma.commit_group.sync.aligned;", 4000),
        // A group that was not taken back would be 100 bytes at least; and what is held would not fit.
        (
            "PRODUCT\nwgmma.commit_group.sync.aligned;\nwgmma.commit_group.sync.aligned;\n\
             wgmma.wait_group.sync.aligned 1;",
            100,
        ),
    ] {
        for checked in [true, false] {
            let kernel = Kernel { threads: 128, checked, held_bytes: 8192, ..Kernel::default() };
            takes_no_memory_in(&Kernel { body: &products(then), ..kernel }, rounds);
        }
    }
}

#[test]
fn products_that_nobody_waits_for_end_the_launch() {
    for (then, checked) in [
        ("PRODUCT", true),
        ("PRODUCT\nwgmma.commit_group.sync.aligned; /* op */", true),
        ("PRODUCT\nwgmma.commit_group.sync.aligned; /* op */", false),
    ] {
        let body = products(then);
        let kernel = Kernel { body: &body, threads: 128, checked, held_bytes: 1 << 14, ..Kernel::default() };
        let (ran, _) = run(&kernel, 1_000_000);
        let Err(LaunchError::Fault(finding)) = &ran.result else { panic!("{:?}", ran.result) };
        assert!(matches!(finding.fault, Fault::OutOfMemory { .. }), "{finding}");
        assert!(finding.instruction.starts_with("wgmma."), "{finding}");
        assert!(finding.source.is_some(), "{finding}");
    }
}

/// The word at 64 of shared memory, which was 100, when 7 has been copied there in a group of its own, and then it was
/// waited for by `wait` behind `empty` groups.
fn waited(empty: u32, wait: &str) -> u32 {
    let body = format!(
        "st.shared.u32 [s+64], 100;
        cp.async.commit_group;
        cp.async.ca.shared.global [s+64], [%d0+28], 4;
        cp.async.commit_group;
        {}{wait}
        ld.shared.u32 %r2, [s+64];
        st.global.u32 [%d1], %r2;
        cp.async.wait_all;",
        "cp.async.commit_group;\n".repeat(empty as usize)
    );
    Kernel { body: &body, threads: 1, checked: false, ..Kernel::default() }.clean().output[0]
}

#[test]
fn an_empty_group_counts_among_those_that_may_be_in_flight() {
    for empty in [0, 1, 2, 40] {
        assert_eq!(waited(empty, &format!("cp.async.wait_group {empty};")), 7);
        assert_eq!(waited(empty, &format!("cp.async.wait_group {};", empty + 1)), 100);
    }
    assert_eq!(waited(3, "cp.async.wait_group 18446744073709551615;"), 100);
}

#[test]
fn arrivals_behind_copies_take_time_in_proportion_to_their_number() {
    // 480 000 arrivals at each of two objects, in turns. If each took time in proportion to those that are left, as it
    // once did, they would take a quarter of an hour.
    let body = format!(
        "setp.eq.u32 %p0, %r0, 0;
        @%p0 mbarrier.init.shared.b64 [s], 480000;
        @%p0 mbarrier.init.shared.b64 [s+8], 480000;
        bar.sync 0;
        {}
        WAIT: mbarrier.try_wait.parity.shared.b64 %p1, [s], 0;
        @!%p1 bra WAIT;
        NEXT: mbarrier.try_wait.parity.shared.b64 %p1, [s+8], 0;
        @!%p1 bra NEXT;",
        rounds("cp.async.mbarrier.arrive.noinc.shared.b64 [s];\ncp.async.mbarrier.arrive.noinc.shared.b64 [s+8];")
            .replace("ROUNDS", "15000")
    );
    let begun = Instant::now();
    Kernel { body: &body, steps: 10_000_000, ..Kernel::default() }.clean();
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}
