//! Objects that come and go, and the engines in whose name copies write that complete on them: they are used again, and
//! no race is lost or invented by that.

use ptx_sim::LaunchError;
use ptx_sim::fault::{Fault, Other};

use crate::kernels::Kernel;
use crate::{rounds, run, takes_no_memory};

const INIT: &str = "mbarrier.init.shared.b64 [s], 1;\n";
const INVAL: &str = "mbarrier.inval.shared.b64 [s];";

/// A copy of 16 bytes to `s+256`, whose arrival is announced and waited for.
const COPY: &str = "mbarrier.arrive.expect_tx.shared.b64 _, [s], 16;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [s+256], [%d0], 16, [s];
    WAIT: mbarrier.try_wait.parity.shared.b64 %p1, [s], 0;
    @!%p1 bra WAIT;\n";

const SMALL_COPY: &str = "cp.async.ca.shared.global [s+256], [%d0], 16;
    cp.async.mbarrier.arrive.noinc.shared.b64 [s];
    WAIT: mbarrier.try_wait.parity.shared.b64 %p1, [s], 0;
    @!%p1 bra WAIT;
    cp.async.wait_all;\n";

#[test]
fn loops_of_objects_take_no_memory() {
    for used in ["", "mbarrier.arrive.shared.b64 _, [s];\n", COPY, SMALL_COPY] {
        for checked in [true, false] {
            let body = rounds(&format!("{INIT}{used}{INVAL}"));
            takes_no_memory(&Kernel { body: &body, threads: 1, checked, ..Kernel::default() });
        }
    }
}

#[test]
fn objects_that_are_initialised_again_leave_nothing_behind() {
    // That is misuse, which is found; memory is another thing.
    for used in ["", COPY] {
        let body = rounds(&format!("{INIT}{used}"));
        let kernel = Kernel { body: &body, threads: 1, ..Kernel::default() };
        let [few, many] = [4000, 16_000].map(|rounds| {
            let (ran, bytes) = run(&kernel, rounds);
            let findings = &ran.report().findings;
            assert_eq!(findings.iter().map(|finding| finding.count).collect::<Vec<_>>(), [u64::from(rounds) - 1]);
            bytes
        });
        assert!(many < few + 4096, "{few} bytes and {many} bytes: {body}");
    }
}

/// One thread in each of eight blocks of a cluster initialises `ROUNDS` objects, and executes `used` with each, whose
/// address is `%r2`.
fn many_objects(used: &str) -> String {
    let round = format!("mbarrier.init.shared.b64 [%r2], 1;\n{used}\nadd.u32 %r2, %r2, 8;");
    format!("mov.u32 %r2, s;\n{}", rounds(&round))
}

#[test]
fn objects_take_memory_in_proportion_to_their_number() {
    for used in ["", "mbarrier.arrive.shared.b64 _, [%r2];", "fence.mbarrier_init.release.cluster;"] {
        for checked in [true, false] {
            let body = many_objects(used);
            let kernel =
                Kernel { body: &body, threads: 1, blocks: 8, cluster: 8, shared: 32_768, checked, ..Kernel::default() };
            let [none, few, many] = [1, 1000, 4000].map(|rounds| {
                let (ran, bytes) = run(&kernel, rounds);
                assert!(ran.report().findings.is_empty());
                bytes
            });
            // Four times as many, up to the room that a growing list has left.
            assert!(many - none < 6 * (few - none), "{none}, {few} and {many} bytes: {used}");
            assert!(many < 64 << 20, "{many} bytes: {used}");
        }
    }
}

#[test]
fn what_is_known_of_many_copies_is_bounded() {
    // An arrival at each object releases what is known of the copies to all before it: that is the square of their
    // number.
    let used = "mbarrier.arrive.expect_tx.shared.b64 _, [%r2], 16;
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [s+32768], [%d0], 16, [%r2];
        WAIT: mbarrier.try_wait.parity.shared.b64 %p1, [%r2], 0;
        @!%p1 bra WAIT;";
    let body = many_objects(used);
    let kernel = Kernel { body: &body, threads: 1, shared: 65536, held_bytes: 4 << 20, ..Kernel::default() };
    let (ran, bytes) = run(&kernel, 4000);
    let Err(LaunchError::Fault(finding)) = &ran.result else { panic!("{:?}", ran.result) };
    assert!(finding.to_string().contains("`Limits::held_bytes`"), "{finding}");
    assert!(finding.instruction.contains("mbarrier"), "{finding}");
    assert!(bytes < 32 << 20, "{bytes}");
    // Nobody knows anything where nobody asks.
    let (ran, _) = run(&Kernel { checked: false, ..kernel }, 4000);
    assert!(ran.result.is_ok(), "{:?}", ran.result);
}

#[test]
fn what_is_remembered_of_many_reads_of_the_same_bytes_is_bounded() {
    // Each copy to the other block reads the same 16 KiB of block 0, and completes on an object of its own there.
    let copies = "mapa.shared::cluster.u32 %r3, %r2, 1;
        cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r4], [s+32768], 16384, [%r3];
        add.u32 %r2, %r2, 8;";
    let waits = "mbarrier.arrive.expect_tx.shared.b64 _, [%r2], 16384;
        WAIT: mbarrier.try_wait.parity.shared.b64 %p1, [%r2], 0;
        @!%p1 bra WAIT; /* op */
        add.u32 %r2, %r2, 8;";
    let body = format!(
        "mov.u32 %r2, s;
        INIT: mbarrier.init.shared.b64 [%r2], 1;
        add.u32 %r2, %r2, 8;
        setp.lt.u32 %p0, %r2, 8192;
        @%p0 bra INIT;
        mov.u32 %r2, s+32768;
        mov.u32 %r3, 0;
        FILL: st.shared.u32 [%r2], %r3;
        add.u32 %r2, %r2, 4;
        setp.lt.u32 %p0, %r2, 49152;
        @%p0 bra FILL;
        fence.proxy.async;
        barrier.cluster.arrive.aligned;
        barrier.cluster.wait.aligned;
        mapa.shared::cluster.u32 %r4, s+16384, 1;
        setp.eq.u32 %p2, %r1, 1;
        mov.u32 %r2, s;
        @%p2 bra WAITS;
        {}
        bra END;
        WAITS: {}
        END: barrier.cluster.arrive.aligned;
        barrier.cluster.wait.aligned;",
        rounds(copies),
        rounds(waits).replace("ROUND:", "AGAIN:").replace("bra ROUND;", "bra AGAIN;")
    );
    // 1000 copies of 16 KiB are 16 MiB in flight, and what is remembered of them would be seven times as much.
    let kernel = Kernel {
        body: &body,
        threads: 1,
        blocks: 2,
        cluster: 2,
        shared: 65536,
        held_bytes: 24 << 20,
        ..Kernel::default()
    };
    let (ran, bytes) = run(&kernel, 1000);
    let Err(LaunchError::Fault(finding)) = &ran.result else { panic!("{:?}", ran.result) };
    assert!(matches!(finding.fault, Fault::OutOfMemory { .. }), "{finding}");
    assert!(finding.instruction.starts_with("mbarrier.try_wait"), "{finding}");
    assert!(bytes < 96 << 20, "{bytes}");
    let (ran, _) = run(&Kernel { checked: false, ..kernel }, 1000);
    assert!(ran.report().findings.is_empty());
}

/// Thread 0 copies to `s+256` so many times, by an object that is gone each time; then by one that all know of. When
/// the bytes have come, the second warp's first thread reads them behind `wait`.
fn behind_others(count: u32, wait: &str) -> String {
    let others = rounds(&format!("{INIT}{COPY}{INVAL}")).replace("ROUNDS", &count.to_string());
    format!(
        "setp.eq.u32 %p7, %r0, 0;
        @!%p7 bra MEET;
        {}
        {INIT}
        MEET: bar.sync 0;
        @!%p7 bra OTHER;
        {}
        OTHER: setp.eq.u32 %p2, %r0, 32;
        @!%p2 bra END;
        {wait}
        ld.shared.u32 %r5, [s+256]; /* read */
        st.global.u32 [%d1], %r5;
        END:",
        if count == 0 { "" } else { &others },
        COPY.replace("WAIT", "LAST"),
    )
}

#[test]
fn races_with_engines_that_were_used_before_are_found_and_none_is_invented() {
    let kernel = |body: &str| {
        let ran = Kernel { body, threads: 64, steps: 1_000_000, ..Kernel::default() }.run();
        ran.report().findings.clone()
    };
    // The first copy of an engine's life and one of a later life: to know of an object is not to know of what it
    // counts.
    for count in [0, 1, 3000] {
        let found = kernel(&behind_others(count, "nanosleep.u32 1;"));
        assert_eq!(found.len(), 1, "{count}: {found:?}");
        assert!(matches!(found[0].fault, Fault::Race { other: Other::Copy, .. }), "{}", found[0]);
        let wait = "THEN: mbarrier.try_wait.parity.shared.b64 %p1, [s], 0;\n@!%p1 bra THEN;";
        assert_eq!(kernel(&behind_others(count, wait)), [], "{count}");
    }
}

#[test]
fn a_race_with_a_copy_is_not_lost_when_a_later_one_is_known() {
    // Thread 0 copies to 3000 places, by an object for each, and waits for each itself. The second warp knows of the
    // last copies only, each by an object of its own: of what all others have copied it knows nothing, whoever's
    // engines the last ones have.
    let copy = |to: &str, object: &str, label: &str| {
        format!(
            "mbarrier.arrive.expect_tx.relaxed.cluster.shared::cta.b64 _, [{object}], 16;
            cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [{to}], [%d0], 16, [{object}];
            {label}: mbarrier.try_wait.parity.shared.b64 %p1, [{object}], 0;
            @!%p1 bra {label};\n"
        )
    };
    let first = rounds(&format!("{INIT}{}{INVAL}\nadd.u32 %r2, %r2, 16;", copy("%r2", "s", "WAIT")));
    let last: String = (0..40)
        .map(|i| {
            let object = format!("s+{}", 64 + 8 * i);
            copy("s+1024", &object, &format!("LAST{i}"))
        })
        .collect();
    let inits: String = (0..40).map(|i| format!("mbarrier.init.shared.b64 [s+{}], 1;\n", 64 + 8 * i)).collect();
    let waits: String = (0..40)
        .map(|i| {
            format!("THEN{i}: mbarrier.try_wait.parity.shared.b64 %p1, [s+{}], 0;\n@!%p1 bra THEN{i};\n", 64 + 8 * i)
        })
        .collect();
    let body = format!(
        "setp.eq.u32 %p7, %r0, 0;
        @!%p7 bra MEET;
        mov.u32 %r2, s+2048;
        {}
        {inits}
        fence.mbarrier_init.release.cluster;
        MEET: bar.warp.sync 0xffffffff;
        barrier.cluster.arrive.relaxed.aligned;
        barrier.cluster.wait.aligned;
        @!%p7 bra OTHER;
        {last}
        OTHER: setp.eq.u32 %p2, %r0, 32;
        @!%p2 bra END;
        {waits}
        ld.shared.u32 %r5, [s+1024];
        mov.u32 %r2, s+2048;
        mov.u32 %r31, 0;
        READ: ld.shared.u32 %r5, [%r2]; /* read */
        add.u32 %r2, %r2, 16;
        add.u32 %r31, %r31, 1;
        setp.lt.u32 %p3, %r31, 3000;
        @%p3 bra READ;
        END: bar.warp.sync 0xffffffff;",
        first.replace("ROUNDS", "3000")
    );
    let kernel = Kernel { body: &body, threads: 64, shared: 65536, steps: 1_000_000, ..Kernel::default() };
    let ran = kernel.run();
    let findings = &ran.report().findings;
    assert_eq!(findings.len(), 1, "{findings:?}");
    ran.check_place(&findings[0], 0, 32, "/* read */");
    assert!(matches!(findings[0].fault, Fault::Race { other: Other::Copy, .. }), "{}", findings[0]);
    assert_eq!(findings[0].count, 3000);
}
