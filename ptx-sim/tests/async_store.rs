//! `st.async` and `red.async`: bytes that complete on an `mbarrier` of another block, and what goes wrong with them.

mod kernels;

use kernels::Kernel;
use ptx_sim::fault::{Fault, Other};
use ptx_sim::meter::{Class, Path};

const BARRIER: &str = "barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;";
const STORE: &str = "st.async.shared::cluster.mbarrier::complete_tx::bytes";

/// One cluster of so many blocks of a warp each. `%r2` is the address of the thread's word in the own block, `%r3` in
/// the block before it, the last one for the first; `%r12` is the address of that block's object, which takes one
/// arrival, at 2048. `%p1` holds in block 1, `%p2` in first lanes, `%p3` in block 1's first lane; `%d2` is the thread's
/// word of the output.
fn cluster(blocks: u32, body: &str) -> String {
    let body = body.replace("BARRIER", BARRIER).replace("STORE", STORE);
    let body = body.replace("WAIT", "LOOP: mbarrier.try_wait.parity.shared.b64 %p7, [s+2048], 0;\n@!%p7 bra LOOP;");
    format!(
        "shl.b32 %r2, %r0, 2;
        add.u32 %r4, %r1, {};
        rem.u32 %r4, %r4, {blocks};
        mapa.shared::cluster.u32 %r3, %r2, %r4;
        mapa.shared::cluster.u32 %r12, s+2048, %r4;
        setp.eq.u32 %p1, %r1, 1;
        setp.eq.u32 %p2, %r0, 0;
        and.pred %p3, %p1, %p2;
        mad.lo.u32 %r5, %r1, 32, %r0;
        mul.wide.u32 %d2, %r5, 4;
        add.s64 %d2, %d1, %d2;
        @%p2 mbarrier.init.shared.b64 [s+2048], 1;
        @%p2 fence.mbarrier_init.release.cluster;
        {BARRIER}
        {body}",
        blocks - 1,
    )
}

fn kernel(blocks: u32, body: &str) -> Kernel<'_> {
    Kernel { body, blocks, cluster: blocks, output: 1024, ..Kernel::default() }
}

fn finds(blocks: u32, body: &str, block: u32, thread: u32, marker: &str) -> Fault {
    kernel(blocks, &cluster(blocks, body)).finds(block, thread, marker)
}

fn clean(blocks: u32, body: &str) -> Vec<u32> {
    kernel(blocks, &cluster(blocks, body)).clean().output
}

#[test]
fn bytes_come_before_the_phase_ends_in_which_they_are_counted() {
    let body = "@%p2 mbarrier.arrive.expect_tx.shared.b64 _, [s+2048], 128;
        mad.lo.u32 %r6, %r1, 1000, %r0;
        STORE.u32 [%r3], %r6, [%r12];
        WAIT
        ld.shared.u32 %r7, [%r2];
        st.global.u32 [%d2], %r7;";
    for blocks in [2, 3, 8] {
        let output = clean(blocks, body);
        let from = |block: u32| 1000 * ((block + 1) % blocks);
        let wanted: Vec<u32> = (0..blocks).flat_map(|block| (0..32).map(move |lane| from(block) + lane)).collect();
        assert_eq!(output[..wanted.len()], wanted, "{blocks} blocks");
    }
}

/// Every type and vector, with `.shared::cluster` and generic addresses, with all spellings of weak.
#[test]
fn stores_have_every_type_and_vector() {
    let types = ["b32", "u32", "s32", "f32", "b64", "u64", "s64", "f64"].map(|ty| (1, ty));
    let vectors = ["b32", "u32", "s32", "f32"].into_iter().flat_map(|ty| [(2, ty), (4, ty)]);
    let vectors = vectors.chain(["b64", "u64", "s64", "f64"].map(|ty| (2, ty)));
    for (count, ty) in types.into_iter().chain(vectors) {
        let wide = ty.ends_with("64");
        let bytes = count * if wide { 8 } else { 4 };
        let registers: Vec<String> =
            (0..count).map(|i| if wide { format!("%d{}", 6 + i) } else { format!("%r{}", 16 + i) }).collect();
        let value = match count {
            1 => registers[0].clone(),
            _ => format!("{{{}}}", registers.join(", ")),
        };
        let vector = if count == 1 { String::new() } else { format!(".v{count}") };
        for (opcode, at, object) in [
            ("st.async.shared::cluster.mbarrier::complete_tx::bytes", "%r13", "%r12"),
            ("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes", "%r13", "%r12"),
            ("st.async.cluster.mbarrier::complete_tx::bytes", "%d8", "%d9"),
        ] {
            let body = format!(
                "@%p2 mbarrier.arrive.expect_tx.shared.b64 _, [s+2048], {};
                mul.lo.u32 %r13, %r0, 16;
                mapa.shared::cluster.u32 %r13, %r13, %r4;
                cvt.u64.u32 %d8, %r13;
                cvta.shared::cluster.u64 %d8, %d8;
                cvt.u64.u32 %d9, %r12;
                cvta.shared::cluster.u64 %d9, %d9;
                mad.lo.u32 %r16, %r5, 16, 1;
                add.u32 %r17, %r16, 1;
                add.u32 %r18, %r16, 2;
                add.u32 %r19, %r16, 3;
                mov.b64 %d6, {{%r16, %r17}};
                mov.b64 %d7, {{%r18, %r19}};
                {opcode}{vector}.{ty} [{at}], {value}, [{object}];
                WAIT
                mul.lo.u32 %r13, %r0, 16;
                ld.shared.u32 %r14, [%r13];
                st.global.u32 [%d2], %r14;
                ld.shared.u32 %r14, [%r13+{}];
                st.global.u32 [%d2+2048], %r14;",
                32 * bytes,
                bytes - 4,
            );
            let output = clean(2, &body);
            for thread in 0..64 {
                let first = 16 * (thread ^ 32) + 1;
                let last = first + bytes / 4 - 1;
                assert_eq!((output[thread as usize], output[512 + thread as usize]), (first, last), "{vector}.{ty}");
            }
        }
    }
}

/// An operation, what the word begins with, and what becomes of it and one operand.
type Reduction = (&'static str, u64, fn(u64, u64) -> u64);

/// What the ISA's reductions make of one word, of which 96 threads of three other blocks change one after the other.
#[test]
fn reductions_of_all_blocks_meet_in_one() {
    let cases: [Reduction; 13] = [
        ("add.u32", 5, |sum, x| (sum as u32).wrapping_add(x as u32).into()),
        ("add.s32", u32::MAX as u64 - 3, |sum, x| (sum as u32).wrapping_add(x as u32).into()),
        ("add.u64", u64::MAX - 7, u64::wrapping_add),
        ("add.s64", 7, u64::wrapping_add),
        ("min.u32", 50, |a, b| (a as u32).min(b as u32).into()),
        ("min.s32", 50, |a, b| (a as i32).min(b as i32) as u32 as u64),
        ("max.u32", 50, |a, b| (a as u32).max(b as u32).into()),
        ("max.s32", -50i32 as u32 as u64, |a, b| (a as i32).max(b as i32) as u32 as u64),
        ("and.b32", 0xFFFF_FFFF, |a, b| a & b),
        ("or.b32", 0x100, |a, b| a | b),
        ("xor.b32", 0x8000_0001, |a, b| a ^ b),
        ("inc.u32", 3, |a, b| if a >= b { 0 } else { a + 1 }),
        ("dec.u32", 3, |a, b| if a == 0 || a > b { b } else { a - 1 }),
    ];
    for (operation, start, f) in cases {
        let (wide, bytes) = if operation.ends_with("64") { (true, 8) } else { (false, 4) };
        // Of `inc` and `dec` the result depends on the order, unless all have the same bound.
        let bounded = operation.starts_with("inc") || operation.starts_with("dec");
        let value = if bounded {
            "40"
        } else if wide {
            "%d6"
        } else {
            "%r6"
        };
        let body = format!(
            "setp.eq.u32 %p3, %r1, 0;
            mov.u64 %d7, {start};
            @%p3 st.shared.u64 [s+1024], %d7;
            BARRIER
            mapa.shared::cluster.u32 %r8, s+1024, 0;
            mapa.shared::cluster.u32 %r9, s+2048, 0;
            sub.u32 %r6, 70, %r5;
            cvt.s64.s32 %d6, %r6;
            @!%p3 red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.{operation} [%r8], {value}, [%r9];
            and.pred %p4, %p2, %p3;
            @%p4 mbarrier.arrive.expect_tx.shared.b64 _, [s+2048], {};
            @!%p3 bra DONE;
            WAIT
            ld.shared.u64 %d7, [s+1024];
            @%p2 st.global.u64 [%d1], %d7;
            DONE: BARRIER",
            96 * bytes,
        );
        let output = clean(4, &body);
        let found = u64::from(output[0]) | u64::from(output[1]) << 32;
        let operand = |thread: i64| match (bounded, wide) {
            (true, _) => 40,
            (false, true) => (70 - thread) as u64,
            (false, false) => u64::from((70 - thread) as u32),
        };
        let wanted = (32..128).map(operand).fold(start, f);
        assert_eq!(found, wanted, "{operation}");
    }
}

#[test]
fn bytes_in_flight_are_nobodys() {
    // Block 1 lets block 0 go first, so that the bytes are on their way when it looks.
    let body = "@%p3 mbarrier.arrive.expect_tx.shared.b64 _, [s+2048], 128;
        @!%p1 STORE.u32 [%r3], %r0, [%r12];
        @%p1 nanosleep.u32 1;
        @%p1 ACCESS
        @!%p1 bra DONE;
        WAIT
        //later
        DONE: BARRIER";
    for access in ["ld.shared.u32 %r6, [%r2];", "st.shared.u32 [%r2], 1;", "atom.shared.add.u32 %r6, [%r2], 1;"] {
        match finds(2, &body.replace("ACCESS", access), 1, 0, access) {
            Fault::CopyInFlight { address: 0, .. } => {}
            other => panic!("{other}"),
        }
        clean(2, &body.replace("@%p1 ACCESS", "").replace("//later", access));
    }
}

#[test]
fn a_thread_that_has_not_waited_does_not_know_of_the_bytes() {
    // Of block 1 the first warp waits, and the second one reads the bytes.
    let body = cluster(
        2,
        "setp.ge.u32 %p3, %r0, 32;
        mapa.shared::cluster.u32 %r3, %r2, %r4;
        @%p2 mbarrier.arrive.expect_tx.shared.b64 _, [s+2048], 128;
        @!%p3 STORE.u32 [%r3], %r0, [%r12];
        @%p3 bra SECOND;
        WAIT
        SECOND: nanosleep.u32 1;
        //order
        @%p3 ld.shared.u32 %r6, [%r2+-128];
        BARRIER",
    );
    let ran = Kernel { threads: 64, ..kernel(2, &body) }.run();
    let findings = &ran.report().findings;
    assert!(findings.iter().all(|f| f.thread[0] >= 32 && f.instruction.starts_with("ld.shared")), "{findings:?}");
    let race = |fault: &Fault| matches!(fault, Fault::Race { action: "read", other: Other::Copy, .. });
    assert!(findings.iter().any(|f| race(&f.fault)), "{findings:?}");
    Kernel { threads: 64, ..kernel(2, &body.replace("//order", "bar.sync 0;")) }.clean();
}

#[test]
fn the_completion_orders_the_bytes_alone() {
    let body = "@%p3 mbarrier.arrive.expect_tx.shared.b64 _, [s+2048], 128;
        @!%p1 st.shared::cluster.u32 [%r3+128], 5;
        //order
        @!%p1 STORE.u32 [%r3], %r0, [%r12];
        @!%p1 bra DONE;
        WAIT
        ld.shared.u32 %r6, [%r2];
        ld.shared.u32 %r7, [%r2+128];
        DONE: BARRIER";
    match finds(2, body, 1, 0, "[%r2+128]") {
        Fault::Race { action: "read", other: Other::Remote { rank: 0, thread: 0 }, .. } => {}
        other => panic!("{other}"),
    }
    clean(2, &body.replace("//order", "BARRIER"));
}

#[test]
fn a_store_over_bytes_that_are_still_read_races() {
    // Twice the same place: the second store must hear that the first one's bytes have come and been read. To know of
    // the object's initialisation is not enough.
    let body = "@%p3 mbarrier.arrive.expect_tx.shared.b64 _, [s+2048], 128;
        @!%p1 STORE.u32 [%r3], %r0, [%r12];
        @!%p1 bra AGAIN;
        WAIT
        ld.shared.u32 %r6, [%r2];
        mov.u32 %r7, 0;
        @%p2 mbarrier.arrive.expect_tx.shared.b64 _, [s+2048], 128;
        AGAIN: nanosleep.u32 1;
        //order
        @!%p1 STORE.u32 [%r3+0], %r0, [%r12];
        @!%p1 bra DONE;
        SECOND: mbarrier.try_wait.parity.shared.b64 %p7, [s+2048], 1;
        @!%p7 bra SECOND;
        DONE: BARRIER";
    match finds(2, body, 0, 0, "[%r3+0]") {
        Fault::Race { action: "write", other: Other::Copy, other_action: "write", .. }
        | Fault::CopyInFlight { action: "write", .. } => {}
        other => panic!("{other}"),
    }
    clean(2, &body.replace("//order", "BARRIER"));
}

#[test]
fn reductions_in_flight_go_with_each_other_and_with_atomics() {
    let body = "@%p1 st.shared.u32 [%r2], 1;
        BARRIER
        @%p3 mbarrier.arrive.expect_tx.shared.b64 _, [s+2048], 256;
        @!%p1 red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%r3], %r0, [%r12];
        @!%p1 red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%r3], 10, [%r12];
        @%p1 ACCESS
        @!%p1 bra DONE;
        WAIT
        ld.shared.u32 %r7, [%r2];
        st.global.u32 [%d2], %r7;
        DONE: BARRIER";
    let output = clean(2, &body.replace("ACCESS", "atom.shared.add.u32 %r6, [%r2], 100;"));
    assert_eq!(output[32..64], (0..32).map(|lane| 111 + lane).collect::<Vec<_>>());
    for access in ["ld.shared.u32 %r6, [%r2];", "st.shared.u32 [%r2+0], 1;"] {
        match finds(2, &body.replace("ACCESS", access), 1, 0, access) {
            Fault::CopyInFlight { .. } => {}
            other => panic!("{other}"),
        }
    }
    let bare = body.replace("@%p1 st.shared.u32 [%r2], 1;", "").replace("@%p1 ACCESS", "");
    let ran = kernel(2, &cluster(2, &bare)).run();
    let findings = &ran.report().findings;
    assert!(matches!(findings[0].fault, Fault::Uninitialised { size: 4, .. }), "{findings:?}");
    assert!(findings[0].instruction.starts_with("red.async"), "{findings:?}");
}

#[test]
fn a_block_waits_for_what_comes_into_its_memory() {
    let body = "@%p3 mbarrier.arrive.expect_tx.shared.b64 _, [s+2048], 128;
        @!%p1 STORE.u32 [%r3], %r0, [%r12];
        //rest";
    // Block 1 goes on first and exits.
    match finds(2, body, 0, 0, "st.async") {
        Fault::Exited { rank: 1, why: "which has exited", .. } => {}
        other => panic!("{other}"),
    }
    // Block 0 goes on first where it does not wait for the barrier's end; block 1 exits while the bytes are on their
    // way.
    let late = body.replacen("//rest", "barrier.cluster.arrive.relaxed;\nbarrier.cluster.wait;", 1);
    match finds(2, &late, 0, 0, "st.async") {
        Fault::Exited { rank: 1, why: "which exits while it is in flight", .. } => {}
        other => panic!("{other}"),
    }
    clean(2, &late.replace("barrier.cluster.wait;", "barrier.cluster.wait;\n@!%p1 exit;\nWAIT"));
}

/// The bytes come through the generic proxy, as those of an ordinary store: a bulk copy reads them behind a fence.
#[test]
fn bytes_are_ordinary_ones_to_the_asynchronous_proxy() {
    let body = "@%p3 mbarrier.arrive.expect_tx.shared.b64 _, [s+2048], 128;
        @!%p1 STORE.u32 [%r3], %r0, [%r12];
        @!%p1 bra DONE;
        WAIT
        //fence
        @%p3 cp.async.bulk.global.shared::cta.bulk_group [%d1], [s], 128;
        cp.async.bulk.commit_group;
        cp.async.bulk.wait_group 0;
        DONE: BARRIER";
    match finds(2, body, 1, 0, "cp.async.bulk.global") {
        Fault::NoProxyFence { action: "read", address: 0, .. } => {}
        other => panic!("{other}"),
    }
    let output = clean(2, &body.replace("//fence", "fence.proxy.async.shared::cta;"));
    assert_eq!(output[..32], (0..32).collect::<Vec<_>>());
}

/// So it is with arrivals, those of all lanes at one object included.
#[test]
fn a_block_waits_for_arrivals_at_its_objects() {
    let body = "@%p2 mbarrier.init.shared.b64 [s+2056], 32;
        @%p2 fence.mbarrier_init.release.cluster;
        BARRIER
        @!%p1 mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r12+8];
        barrier.cluster.arrive.relaxed;
        barrier.cluster.wait;
        //rest";
    match finds(2, body, 0, 0, "mbarrier.arrive.release") {
        Fault::Exited { rank: 1, why: "which exits without waiting for it", .. } => {}
        other => panic!("{other}"),
    }
    let wait = "@!%p1 exit;\nLOOP: mbarrier.try_wait.parity.shared.b64 %p7, [s+2056], 0;\n@!%p7 bra LOOP;";
    clean(2, &body.replace("//rest", wait));
}

#[test]
fn an_object_is_used_behind_its_initialisation() {
    let body = "@%p3 mbarrier.init.shared.b64 [s+2056], 1;
        //order
        nanosleep.u32 1;
        @!%p1 STORE.u32 [%r3], %r0, [%r12+8];
        @%p3 mbarrier.arrive.expect_tx.shared.b64 _, [s+2056], 128;
        @!%p1 bra DONE;
        LOOP: mbarrier.try_wait.parity.shared.b64 %p7, [s+2056], 0;
        @!%p7 bra LOOP;
        DONE: BARRIER";
    match finds(2, body, 0, 0, "st.async") {
        Fault::Mbarrier(why) => assert!(why.ends_with("without a barrier between"), "{why}"),
        other => panic!("{other}"),
    }
    clean(2, &body.replace("//order", "BARRIER"));
}

#[test]
fn the_meter_counts_them_as_remote() {
    let body = "@%p2 mbarrier.arrive.expect_tx.shared.b64 _, [s+2048], 512;
        mul.lo.u32 %r6, %r0, 16;
        mapa.shared::cluster.u32 %r6, %r6, %r4;
        STORE.v4.b32 [%r6], {%r0, %r0, %r0, %r0}, [%r12];
        WAIT";
    let meter = kernel(2, &cluster(2, body)).clean().report().meter.clone();
    let traffic = meter.traffic[&Path::RemoteWrite];
    assert_eq!((traffic.accesses, traffic.bytes, traffic.sectors), (2, 2 * 512, 2 * 16));
    assert!(!meter.traffic.contains_key(&Path::SharedWrite));
    assert_eq!(meter.instructions(Class::Atomic).warp, 0);
}

#[test]
fn what_the_isa_leaves_undefined_is_a_fault() {
    let red = "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32";
    let cases = [
        (
            2,
            format!("{STORE}.u32 [%r3], 1, [s+2048];"),
            "data of the cluster's block 0 complete on an mbarrier of block 1",
        ),
        (
            2,
            format!("{STORE}.u32 [%r2], 1, [%r12];"),
            "data of the cluster's block 1 complete on an mbarrier of block 0",
        ),
        (2, format!("{red} [%r2], 1, [s+2048];"), "a reduction in the thread's own block"),
        (1, format!("{STORE}.u32 [%r3], 1, [%r12];"), "a cluster of one block"),
        (2, "st.async.mbarrier::complete_tx::bytes.u32 [%d1], 1, [%d1];".into(), "is no address of shared memory"),
        (
            2,
            format!("{STORE}.u32 [%r3], 1, [%r12+8];"),
            "completes on 0x808 of the cluster's block 0, where there is none",
        ),
        (
            2,
            format!("{STORE}.u32 [%r3+2], 1, [%r12];"),
            "asynchronous store of 4 bytes at shared address 0x1000002 is not",
        ),
        (2, format!("{STORE}.v2.u32 [%r3+4], {{1, 1}}, [%r12];"), "is not aligned to 8 bytes"),
        (
            2,
            format!("{STORE}.u32 [%r3], 1, [%r12+4];"),
            "completion of 8 bytes at shared address 0x1000804 is not aligned",
        ),
        (2, format!("{STORE}.u32 [%r3+4096], 1, [%r12];"), "the block has 4096 bytes of shared memory"),
        (2, format!("{STORE}.u32 [%r3+0x2000000], 1, [%r12];"), "at shared address 0x3000000"),
    ];
    for (blocks, body, wanted) in cases {
        let fault = finds(blocks, &body, if blocks == 1 { 0 } else { 1 }, 0, &body).to_string();
        assert!(fault.contains(wanted), "{fault}");
    }
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    let red = "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes";
    let cases = [
        ("st.async.shared::cluster.u32 [%r2], 1, [%r3];".into(), "expected `.mbarrier::complete_tx::bytes`"),
        (format!("{STORE}.u32 [%r2], 1;"), "expected 3 to 3 operands, got 2"),
        (format!("{STORE}.b8 [%r2], 1, [%r3];"), "expected a type of 32 or 64 bits"),
        (format!("{STORE}.f16x2 [%r2], %r3, [%r3];"), "expected a type of 32 or 64 bits"),
        (format!("{STORE}.v4.b64 [%r2], {{%d2, %d3, %d4, %d5}}, [%r3];"), "no such asynchronous store"),
        (format!("{STORE}.v2.b32 [%r2], {{%r2, %r3, %r4, %r5}}, [%r3];"), "expected 2 values, found 4"),
        (format!("{STORE}.add.u32 [%r2], 1, [%r3];"), "no such asynchronous store"),
        (format!("{STORE}.v2.v2.b32 [%r2], {{%r2, %r3}}, [%r3];"), "a second part of the kind of `.v2`"),
        ("st.async.release.gpu.global.u32 [%d2], 1;".into(), "unknown part `.release`"),
        ("st.async.weak.cluster.mbarrier::complete_tx::bytes.u32 [%d2], 1, [%d3];".into(), "`.weak` does not go with"),
        (
            "st.async.shared::cta.mbarrier::complete_tx::bytes.u32 [%r2], 1, [%r3];".into(),
            "unknown part `.shared::cta`",
        ),
        (format!("{}.add.u32 [%r2], 1, [%r3];", red.replace(".relaxed", "")), "expected `.relaxed.cluster`"),
        (format!("{}.add.u32 [%r2], 1, [%r3];", red.replace(".cluster.", ".")), "expected `.relaxed.cluster`"),
        (format!("{red}.add.f32 [%r2], %f1, [%r3];"), "no such asynchronous reduction"),
        (format!("{red}.and.b64 [%r2], %d2, [%r3];"), "no such asynchronous reduction"),
        (format!("{red}.max.u64 [%r2], %d2, [%r3];"), "no such asynchronous reduction"),
        (format!("{red}.exch.b32 [%r2], %r3, [%r3];"), "no such asynchronous reduction"),
        (format!("{red}.inc.s32 [%r2], %r3, [%r3];"), "no such asynchronous reduction"),
        (format!("{red}.v2.add.u32 [%r2], {{%r3, %r4}}, [%r3];"), "no such asynchronous reduction"),
        (format!("{red}.u32 [%r2], %r3, [%r3];"), "expected an operation and a type"),
        ("red.async.release.gpu.global.add.u32 [%d2], 1;".into(), "unknown part `.release`"),
    ];
    for (body, wanted) in cases {
        let kernel = kernel(2, &body);
        let line = kernel.ptx().lines().position(|line| line == body).unwrap() + 1;
        let why = kernel.refusal();
        let opcode = body.split(' ').next().unwrap();
        assert!(why.starts_with(&format!("line {line}: `{opcode}`: ")) && why.contains(wanted), "{why}");
    }
}
