//! Operations in flight: what they take is given back when they are waited for, and bounded where nobody waits.

use ptx_sim::LaunchError;
use ptx_sim::fault::{Fault, Finding};

use crate::kernels::{Kernel, Ran};
use crate::{rounds, run, takes_no_memory};

/// A kernel of one thread in each of two blocks of a cluster. `s` begins with 4 KiB of zeros; the object at `s+4096`
/// takes one arrival, `%r5` is the address of its place in the other block, and `%r4` that of `s+256` there.
fn kernel(body: &str) -> Kernel<'_> {
    Kernel { body, threads: 1, blocks: 2, cluster: 2, shared: 8192, input: vec![7; 4096], ..Kernel::default() }
}

const BEGIN: &str = "mov.u32 %r2, s;
    mov.u32 %r3, 0;
    ZERO: st.shared.u32 [%r2], %r3;
    add.u32 %r2, %r2, 4;
    setp.lt.u32 %p0, %r2, 4096;
    @%p0 bra ZERO;
    fence.proxy.async.shared::cta;
    mbarrier.init.shared.b64 [s+4096], 1;
    fence.mbarrier_init.release.cluster;
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    xor.b32 %r3, %r1, 1;
    mapa.shared::cluster.u32 %r4, s+256, %r3;
    mapa.shared::cluster.u32 %r5, s+4096, %r3;
    mapa.shared::cluster.u32 %r6, s+256, %r1;
    mapa.shared::cluster.u32 %r7, s+4096, %r1;\n";

/// What a round waits for, if it has announced 16 bytes.
const WAIT: &str = "mbarrier.arrive.expect_tx.shared.b64 _, [s+4096], 16;
    and.b32 %r8, %r31, 1;
    WAIT: mbarrier.try_wait.parity.shared.b64 %p1, [s+4096], %r8;
    @!%p1 bra WAIT;";

const ARRIVED: &str = "and.b32 %r8, %r31, 1;
    WAIT: mbarrier.try_wait.parity.shared.b64 %p1, [s+4096], %r8;
    @!%p1 bra WAIT;";

const LOAD: &str =
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [s+256], [%d0], 16, [s+4096]; /* op */";
const STORE: &str = "cp.async.bulk.global.shared::cta.bulk_group [%d1], [s], 16; /* op */";
const REDUCE: &str = "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%d0], [s], 16; /* op */";
const COMMIT: &str = "cp.async.bulk.commit_group;";
const STORE_ASYNC: &str =
    "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.u32 [%r6], {%r3, %r3, %r3, %r3}, [%r7]; /* op */";
const REDUCE_ASYNC: &str =
    "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%r4], %r3, [%r5]; /* op */";
const COPY: &str = "cp.async.ca.shared.global [s+256], [%d0], 16; /* op */";
const ARRIVE: &str = "cp.async.mbarrier.arrive.noinc.shared.b64 [s+4096]; /* op */";

#[test]
fn operations_that_are_waited_for_give_back_what_they_have_taken() {
    let cases = [
        (LOAD, WAIT),
        (STORE, "cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;"),
        (REDUCE, "cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;"),
        (STORE_ASYNC, WAIT),
        (COPY, "cp.async.wait_all;"),
        (COPY, "cp.async.mbarrier.arrive.noinc.shared.b64 [s+4096];\nWAITcp.async.wait_all;"),
    ];
    for (operation, wait) in cases {
        let wait = wait.replace("WAITcp", &format!("{ARRIVED}\ncp"));
        let body = format!("{BEGIN}{}", rounds(&format!("{operation}\n{wait}")));
        // A round holds far less than 4 KiB.
        takes_no_memory(&Kernel { held_bytes: 4096, ..kernel(&body) });
    }
}

/// The fault that ends a launch in which operations are never waited for: it must be at one that is marked, of either
/// block.
fn ending(ran: &Ran) -> &Finding {
    match &ran.result {
        Err(LaunchError::Fault(finding)) => {
            ran.check_place(finding, finding.block[0], 0, "/* op */");
            finding
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn operations_that_nobody_waits_for_end_the_launch() {
    let cases = [
        (LOAD, ""),
        (STORE, ""),
        (STORE, COMMIT),
        // Read, and not performed.
        (STORE, "cp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;"),
        // All but the most recent ones, which are many.
        (STORE, "cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 1000000;"),
        (REDUCE, COMMIT),
        (STORE_ASYNC, ""),
        (REDUCE_ASYNC, ""),
        (COPY, ""),
        (COPY, "cp.async.commit_group;"),
        (ARRIVE, ""),
    ];
    for (operation, behind) in cases {
        let body = format!("{BEGIN}{}", rounds(&format!("{operation}\n{behind}")));
        // Unchecked, so that what the checker has to say takes no memory.
        let [(_, least), (ran, most)] = [(1 << 10), (1 << 20)]
            .map(|held_bytes| run(&Kernel { held_bytes, checked: false, ..kernel(&body) }, 1_000_000));
        let finding = ending(&ran);
        assert!(matches!(finding.fault, Fault::OutOfMemory { .. }), "{finding}");
        assert!(finding.to_string().contains("`Limits::held_bytes`"), "{finding}");
        // What is counted is what is taken, up to the room that lists have left.
        let taken = most - least;
        assert!((1 << 18..3 << 20).contains(&taken), "{taken} bytes: {operation}");
    }
}

#[test]
fn bytes_that_an_mbarrier_cannot_count_are_found_where_they_are_issued() {
    // Its count is -(2^20 - 1) at least: 31 loads of 32 KiB and 32 752 bytes are one byte less than 2^20 with 15 more.
    let load = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [s], [%d0], SIZE, [s+49152];";
    let body = |sizes: &[u32], announced: &str| {
        let loads: String = sizes.iter().map(|size| load.replace("SIZE", &size.to_string()) + "\n").collect();
        format!("mbarrier.init.shared.b64 [s+49152], 1;\n{announced}{loads}")
    };
    let kernel = |body: &str| {
        let (input, shared) = (vec![1; 8192], 65536);
        Kernel { body, threads: 1, input, shared, checked: false, ..Kernel::default() }.run()
    };
    let full: Vec<u32> = [32_768; 31].into_iter().chain([32_752]).collect();
    assert!(kernel(&body(&full, "")).result.is_ok());
    let finding_of = |body: &str| match kernel(body).result {
        Err(LaunchError::Fault(finding)) => *finding,
        other => panic!("{other:?}"),
    };
    let more = [&full[..], &[16]].concat();
    let finding = finding_of(&body(&more, ""));
    let words = "1048576 bytes are on their way to an object that waits for 0: when they have come, its tx-count is \
                 -1048576, and it must not be less than -1048575";
    assert!(matches!(&finding.fault, Fault::Mbarrier(why) if why == words), "{finding}");
    assert_eq!(finding.ptx_line, 20 + 2 * 33, "{finding}");
    // As many more as are announced, and not one more.
    let expect = "mbarrier.expect_tx.shared.b64 [s+49152], 16;\n";
    assert!(kernel(&body(&more, expect)).result.is_ok());
    let finding = finding_of(&body(&[&more[..], &[16]].concat(), expect));
    assert!(finding.to_string().contains("waits for 16: when they have come, its tx-count is -1048576"), "{finding}");
    // What has come is counted once: a wait lets the first half land.
    let waited = body(&full[..16], "mbarrier.arrive.expect_tx.shared.b64 _, [s+49152], 524288;\n")
        + "WAIT: mbarrier.try_wait.parity.shared.b64 %p0, [s+49152], 0;\n@!%p0 bra WAIT;\n"
        + &body(&full, "")["mbarrier.init.shared.b64 [s+49152], 1;\n".len()..];
    assert!(kernel(&waited).result.is_ok());
}
