//! Bulk copies that complete on an `mbarrier`: what arrives when, who knows of it, and each misuse at its line.

mod kernels;

use kernels::Kernel;
use ptx_sim::LaunchError;
use ptx_sim::fault::{Fault, Other};
use ptx_sim::meter::{Event, Path, Traffic};

/// Where the objects lie in `s`.
const FULL: u32 = 2048;

const LOAD: &str = "cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes";
const LOAD_CLUSTER: &str = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes";
const REMOTE: &str = "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes";

/// Waits for the phase of a parity of an object.
fn wait(object: u32, parity: u32) -> String {
    format!(
        "W{object}_{parity}: mbarrier.try_wait.parity.shared::cta.b64 %p7, [s+{object}], {parity};
        @!%p7 bra W{object}_{parity};"
    )
}

/// Thread 0 makes an object of one arrival and announces `bytes`, does `what`, and then all exit.
fn one(bytes: u32, what: &str) -> String {
    format!(
        "setp.ne.u32 %p0, %r0, 0;
        @%p0 bra END;
        mbarrier.init.shared::cta.b64 [s+{FULL}], 1;
        fence.mbarrier_init.release.cluster;
        mbarrier.arrive.expect_tx.shared::cta.b64 _, [s+{FULL}], {bytes};
        {what}
        END: exit;"
    )
}

fn kernel(body: &str) -> Kernel<'_> {
    Kernel { body, ..Kernel::default() }
}

#[test]
fn bytes_are_there_when_the_phase_has_ended_and_not_before() {
    let copy = format!("{LOAD} [s+64], [%d0+32], 128, [s+{FULL}];");
    let read = "ld.shared.v2.u32 {%r5, %r6}, [s+184];";
    let write = "st.global.v2.u32 [%d1], {%r5, %r6};";
    let ran = kernel(&one(128, &format!("{copy}\n{}\n{read}\n{write}", wait(FULL, 0)))).clean();
    assert_eq!(ran.output[..2], [38, 39]);
    let fault = kernel(&one(128, &format!("{copy}\n{read}\n{}", wait(FULL, 0)))).finds(0, 0, read);
    assert!(matches!(fault, Fault::CopyInFlight { action: "read", address: 184, .. }), "{fault}");
    let store = "st.shared.u32 [s+188], 1;";
    let fault = kernel(&one(128, &format!("{copy}\n{store}\n{}", wait(FULL, 0)))).finds(0, 0, store);
    assert!(matches!(fault, Fault::CopyInFlight { action: "write", address: 188, .. }), "{fault}");
    // Beside it there is nothing in flight.
    kernel(&one(128, &format!("{copy}\n{}\n{}", store.replace("188", "192"), wait(FULL, 0)))).clean();
}

#[test]
fn a_second_copy_to_bytes_in_flight_is_found() {
    let copy = format!("{LOAD} [s], [%d0], 64, [s+{FULL}];");
    let again = format!("{LOAD} [s+48], [%d0], 32, [s+{FULL}];");
    let fault = kernel(&one(96, &format!("{copy}\n{again}\n{}", wait(FULL, 0)))).finds(0, 0, &again);
    assert!(matches!(fault, Fault::CopyInFlight { action: "write", address: 48, .. }), "{fault}");
    kernel(&one(96, &format!("{copy}\n{}\n{}", again.replace("s+48", "s+64"), wait(FULL, 0)))).clean();
}

#[test]
fn bytes_that_do_not_add_up_are_a_deadlock_that_names_them() {
    for (announced, copied) in [(64, 48), (48, 64), (64, 0)] {
        let copy = match copied {
            0 => String::new(),
            bytes => format!("{LOAD} [s], [%d0], {bytes}, [s+{FULL}];"),
        };
        let body = one(announced, &format!("{copy}\n{}", wait(FULL, 0)));
        let ran = kernel(&body).run();
        let Err(LaunchError::Fault(finding)) = &ran.result else { panic!("{announced} {copied}") };
        let Fault::Deadlock(why) = &finding.fault else { panic!("{finding}") };
        ran.check_place(finding, 0, 0, "mbarrier.try_wait");
        assert!(why.contains("mbarrier at 0x800") && why.contains("byte"), "{announced} {copied}: {why}");
    }
    // Where none are announced the phase ends without them, and the block exits.
    let copy = format!("{LOAD} [s], [%d0], 64, [s+{FULL}];");
    let fault = kernel(&one(0, &format!("{copy}\n{}", wait(FULL, 0)))).finds(0, 0, &copy);
    assert!(matches!(fault, Fault::Exited { rank: 0, .. }), "{fault}");
}

#[test]
fn ordinary_writes_come_before_a_copy_over_them_by_a_proxy_fence() {
    let copy = format!("{LOAD} [s], [%d0], 64, [s+{FULL}];");
    let body = |fence: &str| one(64, &format!("st.shared.u32 [s+60], 1;\n{fence}\n{copy}\n{}", wait(FULL, 0)));
    let fault = kernel(&body("")).finds(0, 0, &copy);
    assert!(matches!(fault, Fault::NoProxyFence { action: "write", address: 60, .. }), "{fault}");
    kernel(&body("fence.proxy.async.shared::cta;")).clean();
}

#[test]
fn a_source_that_nothing_has_written_is_found() {
    let copy = format!("{LOAD} [s], [%d1], 64, [s+{FULL}];");
    let fault = kernel(&one(64, &format!("{copy}\n{}", wait(FULL, 0)))).finds(0, 0, &copy);
    assert!(matches!(fault, Fault::Uninitialised { size: 64, .. }), "{fault}");
}

/// The fault of one copy, which ends the launch at its line. `%r20` is 40.
fn misuse(cluster: u32, copy: &str) -> String {
    let body = one(64, &format!("mov.u32 %r20, 40;\n{copy}"));
    let kernel = Kernel { blocks: cluster, cluster, ..kernel(&body) };
    assert!(matches!(kernel.run().result, Err(LaunchError::Fault(_))), "{copy}");
    kernel.finds(0, 0, copy).to_string()
}

#[test]
fn what_the_isa_does_not_define_ends_the_launch() {
    let is = |copy: String, wanted: &str| {
        let text = misuse(2, &copy);
        assert!(text.contains(wanted), "{copy}: {text}");
    };
    is(format!("{LOAD} [s], [%d0], %r20, [s+{FULL}];"), "on 40 bytes, which are no multiple of 16");
    is(format!("{LOAD} [s], [%d0], 0, [s+{FULL}];"), "on 0 bytes, which the ISA does not define");
    is(format!("{LOAD} [s+8], [%d0], 64, [s+{FULL}];"), "shared address 0x8 is not aligned to 16 bytes");
    is(format!("{LOAD} [s], [%d0+8], 64, [s+{FULL}];"), "global address 0x700000000008 is not aligned to 16 bytes");
    is(format!("{LOAD} [s+4080], [%d0], 64, [s+{FULL}];"), "the block has 4096 bytes of shared memory");
    is(format!("{LOAD} [s], [%d0+208], 64, [s+{FULL}];"), "runs over the end of the allocation of 256 bytes");
    is(format!("{LOAD} [s], [%d0], 64, [s+{}];", FULL + 8), "0x808");
    is(format!("{LOAD} [s], [%d0], 64, [s+{}];", FULL + 4), "is not aligned to 8 bytes");
    // Addresses of the cluster's block 1 have the rank plus one from bit 24 on.
    let other = 2 << 24;
    is(format!("{LOAD} [{other}], [%d0], 64, [s+{FULL}];"), "of the cluster's block 1");
    is(format!("{LOAD_CLUSTER} [{other}], [%d0], 64, [s+{FULL}];"), "completes on one of block 0");
    is(format!("{REMOTE} [s], [s+64], 64, [s+{FULL}];"), "to that of the same block");
    is(format!("{REMOTE} [{other}], [{}], 64, [{}];", other + 64, other + FULL), "of the cluster's block 1");
    is(format!("{LOAD_CLUSTER}.multicast::cluster [s], [%d0], 64, [s+{FULL}], 4;"), "0b100 of a cluster of 2");
    is(format!("{LOAD_CLUSTER}.multicast::cluster [s], [%d0], 64, [s+{FULL}], 0;"), "0b0 of a cluster of 2");
}

/// Both blocks of a cluster, of one thread each, make their objects, of one arrival and so many bytes; then `first` and
/// `last` are what each does before and behind another barrier of the cluster. `%r9` and `%r10` are the other block's addresses of `s` and of its object;
/// `%p1` says whose rank is 0.
fn two(bytes: u32, first: &str, last: &str) -> String {
    format!(
        "mov.u32 %r4, s;
        mov.u32 %r8, %cluster_ctarank;
        setp.eq.u32 %p1, %r8, 0;
        xor.b32 %r8, %r8, 1;
        mapa.shared::cluster.u32 %r9, %r4, %r8;
        add.u32 %r10, %r9, {FULL};
        mbarrier.init.shared::cta.b64 [s+{FULL}], 1;
        mbarrier.arrive.expect_tx.shared::cta.b64 _, [s+{FULL}], {bytes};
        barrier.cluster.arrive.release.aligned;
        barrier.cluster.wait.acquire.aligned;
        {first}
        DONE: barrier.cluster.arrive.release.aligned;
        barrier.cluster.wait.acquire.aligned;
        {last}
        END: exit;"
    )
}

fn pair(body: &str) -> Kernel<'_> {
    Kernel { blocks: 2, cluster: 2, threads: 1, ..kernel(body) }
}

/// The block writes 16 bytes that say who it is and copies them to the other one.
fn exchange() -> String {
    format!(
        "add.u32 %r5, %r1, 70;
        st.shared.v4.u32 [s+64], {{%r5, %r5, %r5, %r5}};
        fence.proxy.async.shared::cta;
        {REMOTE} [%r9], [s+64], 16, [%r10];"
    )
}

#[test]
fn a_copy_to_another_block_tells_the_object_there() {
    let first = exchange() + "\n" + &wait(FULL, 0) + "\nld.shared.u32 %r6, [s+12];";
    let last = "mul.wide.u32 %d2, %r1, 4;\nadd.u64 %d2, %d1, %d2;\nst.global.u32 [%d2], %r6;";
    let ran = pair(&two(16, &first, last)).clean();
    assert_eq!(ran.output[..2], [71, 70]);
    let meter = &ran.report().meter;
    let shared = Traffic { accesses: 2, bytes: 32, wavefronts: 2, ..Traffic::default() };
    assert_eq!(meter.traffic[&Path::BulkSharedRead], shared);
    assert_eq!(meter.traffic[&Path::BulkSharedWrite], shared);
    assert_eq!(meter.traffic[&Path::RemoteWrite].bytes, 32);
    assert_eq!(meter.events[&Event::MbarrierWait], 2);
    assert!(!meter.traffic.contains_key(&Path::BulkGlobalRead));
}

#[test]
fn the_source_of_a_copy_to_another_block_is_free_when_it_is_known_to_have_arrived() {
    let again = "st.shared.u32 [s+76], 1;";
    // While it is in flight.
    let first = format!("{}\n@%p1 {again}\n{}", exchange(), wait(FULL, 0));
    let fault = pair(&two(16, &first, "")).finds(0, 0, again);
    assert!(matches!(fault, Fault::ReadInFlight { address: 76, .. }), "{fault}");
    // When it has arrived, and block 1 knows of that, and block 0 does not.
    let first = format!("{}\n{}\n{again}", exchange(), wait(FULL, 0));
    let ran = pair(&two(16, &first, "")).run();
    let findings = &ran.report().findings;
    let late = |fault: &Fault| matches!(fault, Fault::ReadInFlight { .. } | Fault::Race { other: Other::Copy, .. });
    assert!(!findings.is_empty() && findings.iter().all(|finding| late(&finding.fault)), "{findings:?}");
    // Behind the cluster's barrier both know.
    pair(&two(16, &format!("{}\n{}", exchange(), wait(FULL, 0)), again)).clean();
}

#[test]
fn a_multicast_brings_the_same_bytes_to_the_same_place_of_every_block() {
    let copy = format!("{LOAD_CLUSTER}.multicast::cluster [s+32], [%d0+16], 48, [s+{FULL}], 3;");
    let first = format!("@%p1 {copy}\n{}\nld.shared.u32 %r6, [s+76];", wait(FULL, 0));
    let last = "mul.wide.u32 %d2, %r1, 4;\nadd.u64 %d2, %d1, %d2;\nst.global.u32 [%d2], %r6;";
    let ran = pair(&two(48, &first, last)).clean();
    assert_eq!(ran.output[..2], [15, 15]);
    let meter = &ran.report().meter;
    let read = Traffic { accesses: 1, bytes: 48, sectors: 2, ..Traffic::default() };
    assert_eq!(meter.traffic[&Path::BulkGlobalRead], read);
    assert_eq!((meter.traffic[&Path::BulkSharedWrite].accesses, meter.traffic[&Path::BulkSharedWrite].bytes), (2, 96));
    assert_eq!((meter.traffic[&Path::RemoteWrite].accesses, meter.traffic[&Path::RemoteWrite].bytes), (1, 48));
    // Of a mask of one block that block alone; the other one would wait for ever.
    let ran = pair(&two(48, &first.replace("], 3;", "], 2;"), last)).run();
    let Err(LaunchError::Fault(finding)) = &ran.result else { panic!("no deadlock") };
    assert!(matches!(finding.fault, Fault::Deadlock(_)) && finding.block == [0, 0, 0], "{finding}");
}

#[test]
fn a_block_that_waits_for_its_own_object_knows_of_its_own_bytes_alone() {
    // Block 1 reads what the multicast brings without waiting for its object.
    let read = "@!%p1 ld.shared.u32 %r6, [s];";
    let copy = format!("{LOAD_CLUSTER}.multicast::cluster [s], [%d0], 16, [s+{FULL}], 3;");
    let first = format!("@%p1 {copy}\n@!%p1 bra DONE;\n{}", wait(FULL, 0));
    let last = format!("{read}\n@%p1 bra END;\n{}", wait(FULL, 0).replace('W', "V"));
    let fault = pair(&two(16, &first, &last)).finds(1, 0, read);
    assert!(matches!(fault, Fault::CopyInFlight { action: "read", .. }), "{fault}");
    let mended = format!("{}\n{read}", wait(FULL, 0).replace('W', "V"));
    pair(&two(16, &first, &mended)).clean();
}

#[test]
fn a_copy_into_a_block_that_has_exited_or_does_not_wait_for_it_is_found() {
    // Block 1 exits without waiting for its object; block 0 copies before or behind that.
    let copy = format!("@%p1 {REMOTE} [%r9], [s+64], 16, [%r10];");
    let fill = "st.shared.v4.u32 [s+64], {%r1, %r1, %r1, %r1};\nfence.proxy.async;";
    let finding = |body: &str| {
        let ran = pair(body).run();
        match &ran.result {
            Err(LaunchError::Fault(finding)) => (**finding).clone(),
            Err(error) => panic!("{error}"),
            Ok(report) => report.findings[0].clone(),
        }
    };
    for (first, last) in [(format!("{fill}\n{copy}"), String::new()), (fill.to_string(), copy)] {
        let found = finding(&two(16, &first, &last));
        assert!(matches!(found.fault, Fault::Exited { .. }), "{found}");
        assert_eq!(found.instruction.split(' ').next(), Some(REMOTE), "{found}");
    }
}

#[test]
fn an_object_that_another_warp_has_made_is_known_behind_a_barrier() {
    let copy = format!("@%p1 {LOAD} [s], [%d0], 16, [s+{FULL}];");
    let body = |between: &str| {
        format!(
            "setp.eq.u32 %p0, %r0, 0;
            setp.eq.u32 %p1, %r0, 32;
            @%p0 mbarrier.init.shared::cta.b64 [s+{FULL}], 1;
            @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [s+{FULL}], 16;
            {between}
            {copy}
            bar.sync 0;
            {}",
            wait(FULL, 0)
        )
    };
    let fault = Kernel { threads: 64, ..kernel(&body("")) }.finds(0, 32, &copy);
    assert!(matches!(&fault, Fault::Mbarrier(why) if why.contains("without a barrier between")), "{fault}");
    Kernel { threads: 64, ..kernel(&body("bar.sync 0;")) }.clean();
}

#[test]
fn the_bytes_of_a_copy_order_nothing_else_of_the_thread_that_has_issued_it() {
    // "It does not transitively establish ordering with respect to prior instructions from the issuing thread" (8.9.1.1).
    let store = "@%p0 st.shared.u32 [s+64], 5;";
    let read = "@!%p0 ld.shared.u32 %r5, [s+64];";
    let body = |before: &str, between: &str| {
        format!(
            "setp.eq.u32 %p0, %r0, 0;
            @%p0 mbarrier.init.shared::cta.b64 [s+{FULL}], 1;
            bar.sync 0;
            {before}
            @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [s+{FULL}], 16;
            {between}
            @%p0 {LOAD} [s], [%d0], 16, [s+{FULL}];
            {}
            ld.shared.u32 %r6, [s+4];
            {read}",
            wait(FULL, 0)
        )
    };
    let store = format!("{store}\nbar.warp.sync 0xffffffff;");
    let fault = Kernel { threads: 64, ..kernel(&body("", &store)) }.finds(0, 32, read);
    assert!(matches!(fault, Fault::Race { action: "read", other: Other::Thread(0), .. }), "{fault}");
    // The arrival releases what lies before it.
    Kernel { threads: 64, ..kernel(&body(&store, "")) }.clean();
}

/// A producer, thread 0, loads 16 rounds of 16 bytes into a ring of two stages, and a warp of consumers reads them. The
/// object at `FULL + 8 * stage` says that a stage is full, that at `FULL + 16 + 8 * stage` that it is empty.
fn ring(empty: &str) -> String {
    format!(
        "setp.eq.u32 %p0, %r0, 0;
        setp.lt.u32 %p1, %r0, 32;
        mov.u32 %r4, s;
        @!%p0 bra READY;
        mbarrier.init.shared::cta.b64 [s+{FULL}], 1;
        mbarrier.init.shared::cta.b64 [s+{}], 1;
        mbarrier.init.shared::cta.b64 [s+{}], 32;
        mbarrier.init.shared::cta.b64 [s+{}], 32;
        fence.mbarrier_init.release.cluster;
        READY: bar.sync 0;
        mov.u32 %r5, 0;
        LOOP: and.b32 %r6, %r5, 1;
        mad.lo.u32 %r7, %r6, 8, %r4;
        add.u32 %r7, %r7, {FULL};
        mad.lo.u32 %r8, %r6, 16, %r4;
        shr.u32 %r9, %r5, 1;
        and.b32 %r9, %r9, 1;
        xor.b32 %r10, %r9, 1;
        @!%p1 bra CONSUME;
        @!%p0 bra END;
        {empty}
        mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r7], 16;
        mul.wide.u32 %d2, %r5, 16;
        add.u64 %d2, %d0, %d2;
        {LOAD} [%r8], [%d2], 16, [%r7];
        bra NEXT;
        CONSUME: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r7], %r9;
        @!%p2 bra CONSUME;
        ld.shared.u32 %r11, [%r8+4];
        mbarrier.arrive.shared::cta.b64 _, [%r7+16];
        add.u32 %r12, %r12, %r11;
        NEXT: add.u32 %r5, %r5, 1;
        setp.lt.u32 %p3, %r5, 16;
        @%p3 bra LOOP;
        @%p1 bra END;
        mul.wide.u32 %d2, %r0, 4;
        add.u64 %d2, %d1, %d2;
        st.global.u32 [%d2], %r12;
        END: exit;",
        FULL + 8,
        FULL + 16,
        FULL + 24
    )
}

#[test]
fn order_through_the_objects_of_a_ring_is_order() {
    let empty = "EMPTY: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r7+16], %r10;\n@!%p2 bra EMPTY;";
    let body = ring(empty).replace("bar.sync 0;", "bar.sync 0;\nmov.u32 %r12, 0;");
    let ran = Kernel { threads: 64, ..kernel(&body) }.clean();
    let sum = (0..16).map(|round| 4 * round + 1).sum::<u32>();
    assert_eq!(ran.output[32..], [sum; 32]);
    // Who does not wait for an empty stage overwrites bytes that are read, or that are still on their way.
    let body = ring("").replace("bar.sync 0;", "bar.sync 0;\nmov.u32 %r12, 0;");
    let ran = Kernel { threads: 64, ..kernel(&body) }.run();
    match &ran.result {
        Ok(report) => {
            assert!(report.findings.iter().any(|finding| finding.instruction.starts_with(LOAD)), "{report:?}")
        }
        Err(LaunchError::Fault(finding)) => assert!(finding.instruction.starts_with("mbarrier"), "{finding}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    let is = |line: String, wanted: &str| {
        let text = kernel(&line).refusal();
        let name = line.split(' ').next().unwrap();
        assert!(
            text.contains(&format!("`{name}`")) && text.contains("line ") && text.contains(wanted),
            "{line}: {text}"
        );
    };
    is(format!("{LOAD} [s], [%d0], 16;"), "expected 4 to 4 operands");
    is(format!("{LOAD} [s], [%d0], 16, [s], %h0;"), "expected 4 to 4 operands");
    is(format!("{LOAD} [s], [%d0], 16, %r3;"), "expected an address");
    is(format!("{LOAD}.multicast::cluster [s], [%d0], 16, [s], %h0;"), "`.multicast::cluster` is not known here");
    is(format!("{LOAD}.ignore_oob [s], [%d0], 16, [s], 0, 0;"), "`.ignore_oob` is not known here");
    is(format!("{LOAD_CLUSTER}.multicast::cluster [s], [%d0], 16, [s];"), "expected 5 to 5 operands");
    is(
        format!("{LOAD_CLUSTER}.multicast::cluster.L2::cache_hint [s], [%d0], 16, [s], %h0;"),
        "expected 6 to 6 operands",
    );
    is(format!("{REMOTE}.L2::cache_hint [%r2], [s], 16, [%r3], %d2;"), "`.L2::cache_hint` is not known here");
    is("cp.async.bulk.shared.global.mbarrier::complete_tx::bytes [s], [%d0], 16, [s];".into(), "no such bulk copy");
    is("cp.async.bulk.shared::cta.global.bulk_group [s], [%d0], 16;".into(), "no such bulk copy");
    is(
        "cp.async.bulk.shared::cta.global [s], [%d0], 16;".into(),
        "expected destination, source and completion mechanism",
    );
    is("cp.async.bulk.prefetch.L2.global [%d0];".into(), "expected 2 to 2 operands");
    is("cp.async.bulk.prefetch.L1.global [%d0], 16;".into(), "no such prefetch");
    is("cp.async.bulk.prefetch.L2.global.L2::cache_hint [%d0], 16;".into(), "expected 3 to 3 operands");
}

#[test]
fn a_prefetch_changes_nothing_and_needs_a_size_and_an_address_of_sixteen_bytes() {
    kernel("cp.async.bulk.prefetch.L2.global [%d0], 256;\ncp.async.bulk.prefetch.L2.global [%d0+65536], 64;").clean();
    let line = "cp.async.bulk.prefetch.L2.global [%d0], %r2;";
    let fault = kernel(&format!("mov.u32 %r2, 24;\n{line}")).finds(0, 0, line);
    assert_eq!(fault.to_string(), "a bulk operation on 24 bytes, which are no multiple of 16");
    let line = "cp.async.bulk.prefetch.L2.global [%d0+4], 32;";
    assert!(matches!(kernel(line).finds(0, 0, line), Fault::Misaligned { alignment: 16, .. }));
}
