//! Misuse, found where it happens, and deadlocks, explained.

use ptx_sim::LaunchError;
use ptx_sim::fault::Fault;

use crate::kernels::Kernel;
use crate::{deadlock, deadlock_of, initialised, kernel, mbarrier};

#[test]
fn waits_that_never_end_are_a_deadlock_with_all_that_is_missing() {
    for wait in ["try_wait", "test_wait"] {
        let body = initialised(
            3,
            &format!(
                "@%p7 mbarrier.arrive.expect_tx.shared.b64 _, [s], 512;
                @%p7 mbarrier.complete_tx.shared.b64 [s], 256;
                setp.ge.u32 %p0, %r0, 64;
                @%p0 bra OTHER;
                WAIT: mbarrier.{wait}.parity.shared.b64 %p1, [s], 0;
                @!%p1 bra WAIT;
                bra END;
                OTHER: bar.sync 1, 64;
                END: st.global.u32 [%d1], %r0;"
            ),
        );
        let why = deadlock(kernel(&body, 96));
        let object = "phase 0 (parity 0) of the mbarrier at 0x0, initialised at PTX line 22, where 2 of 3 arrivals are \
                      missing, and of 512 expected bytes 256 have come";
        let first = format!("`mbarrier.{wait}.parity.shared.b64` of PTX line 34 (kernel.cu:107), for {object}");
        assert_eq!(
            why,
            format!(
                "3 of 3 warps wait; 2 warps of block (0,0,0) at {first}; 1 warp of block (0,0,0) at `bar.sync` of PTX line \
                 40 (kernel.cu:110), for barrier 1, where 1 of 2 warps have arrived; 0 have exited"
            )
        );
    }
    // Loops that poll a flag which nobody sets.
    let flag = "st.shared.u32 [s], 0;
        bar.sync 0;
        WAIT: ld.volatile.shared.u32 %r3, [s];
        setp.eq.u32 %p1, %r3, 0;
        @%p1 bra WAIT;";
    let why = deadlock(kernel(flag, 64));
    assert!(why.starts_with("2 of 2 warps wait; "), "{why}");
    // The wrong parity: the phase has ended, and the wait is for the one behind.
    let wrong = initialised(
        1,
        "@%p7 mbarrier.arrive.shared.b64 _, [s];
        bar.sync 0;
        WAIT: mbarrier.try_wait.parity.shared.b64 %p1, [s], 1;
        @!%p1 bra WAIT;",
    );
    let why = deadlock(kernel(&wrong, 32));
    assert!(why.contains("for phase 1 (parity 1)") && why.contains("1 of 1 arrivals are missing"), "{why}");
}

#[test]
fn loops_that_wait_with_an_eye_on_the_time_are_deadlocks_if_nobody_comes() {
    // Backs off for longer and longer, as `cuda::barrier` does.
    let body = |arrive: &str| {
        initialised(
            1,
            &format!(
                "mov.u64 %d2, %globaltimer;
                WAIT: mbarrier.try_wait.parity.shared.b64 %p1, [s], 0;
                @%p1 bra END;
                mov.u64 %d3, %globaltimer;
                sub.s64 %d4, %d3, %d2;
                setp.lt.u64 %p2, %d4, 4000;
                @%p2 bra WAIT;
                shr.u64 %d5, %d4, 2;
                cvt.u32.u64 %r2, %d5;
                nanosleep.u32 %r2;
                {arrive}
                bra WAIT;
                END:"
            ),
        )
    };
    let why = deadlock_of(Kernel { steps: 100_000_000, ..kernel(&body(""), 64) });
    assert!(why.contains("2 warps of block (0,0,0) at `mbarrier.try_wait") && why.contains("1 of 1 arrivals"), "{why}");
    // A few thousand steps are not for ever.
    Kernel { steps: 40_000, ..kernel(&body("@%p7 mbarrier.arrive.shared.b64 _, [s];"), 64) }.clean();
}

#[test]
fn a_loop_that_neither_waits_nor_polls_is_not_called_a_deadlock() {
    let ran = Kernel { steps: 300_000, ..kernel("LOOP: add.u32 %r2, %r2, 0;\nbra LOOP;", 32) }.run();
    let Err(LaunchError::Fault(finding)) = ran.result else { panic!("it ended") };
    assert!(matches!(finding.fault, Fault::StepLimit(_)), "{finding}");
}

/// A fault, its words, and the kernel that has it; without the line that is marked it passes.
fn planted(body: &str, threads: u32, thread: u32, words: &str) {
    let fault = kernel(body, threads).finds(0, thread, "/* bad */");
    assert!(mbarrier(&fault).contains(words), "{fault}");
    let mended: String = body.lines().filter(|line| !line.contains("/* bad */")).map(|l| l.to_owned() + "\n").collect();
    kernel(&mended, threads).clean();
}

#[test]
fn misuse_is_found_where_it_happens() {
    let init = "mbarrier.init.shared.b64 [s], 2;\n";
    let faults = [
        ("mbarrier.arrive.shared.b64 _, [s+8]; /* bad */\n", "no object at shared address 0x8"),
        ("mbarrier.arrive.shared.b64 _, [s], 3; /* bad */\n", "3 arrivals in phase 0, which waits for 2 more"),
        ("mov.u32 %r2, 0;\nmbarrier.arrive.shared.b64 _, [s], %r2; /* bad */\n", "a count of 0"),
        ("mbarrier.init.shared.b64 [s+16], 0; /* bad */\n", "a count of 0"),
        ("mbarrier.init.shared.b64 [s+16], 1048576; /* bad */\n", "a count of 1048576"),
        ("mbarrier.arrive.noComplete.shared.b64 _, [s], 2; /* bad */\n", "completes phase 0"),
        ("mbarrier.expect_tx.shared.b64 [s], 1048576; /* bad */\n", "1048576 pending bytes"),
        ("mbarrier.complete_tx.shared.b64 [s], 1048576; /* bad */\n", "-1048576 pending bytes"),
        ("mbarrier.init.shared.b64 [s], 2; /* bad */\n", "initialised again without `mbarrier.inval`"),
        ("st.shared.u32 [s+4], 7; /* bad */\n", "write of bytes of the object at 0x0, initialised at PTX line 20"),
        ("ld.shared.u64 %d2, [s]; /* bad */\n", "read of bytes of the object at 0x0"),
        ("mov.u32 %r2, 2;\nmbarrier.test_wait.parity.shared.b64 %p0, [s], %r2; /* bad */\n", "a phase's parity of 2"),
        (
            "mov.b64 %d2, 0;\nmbarrier.test_wait.shared.b64 %p0, [s], %d2; /* bad */\n",
            "is none that an arrival has returned",
        ),
        ("mov.b64 %d2, 0;\nmbarrier.pending_count.b64 %r2, %d2; /* bad */\n", "no arrival with `.noComplete`"),
        (
            "mbarrier.init.shared.b64 [s+8], 2;\nmbarrier.arrive.shared.b64 %d2, [s+8];\n\
             mbarrier.test_wait.shared.b64 %p0, [s], %d2; /* bad */\n",
            "is of the object at 0x8, not of that at 0x0",
        ),
        (
            "mbarrier.arrive.shared.b64 %d2, [s], 2;\nmbarrier.arrive.shared.b64 _, [s], 2;\n\
             mbarrier.test_wait.shared.b64 %p0, [s], %d2; /* bad */\n",
            "is of phase 0, but the current one is 2",
        ),
        ("mbarrier.inval.shared.b64 [s];\nmbarrier.arrive.shared.b64 _, [s]; /* bad */\n", "no object"),
        // An object expects one arrival at least, also of phases that nobody means to wait for.
        (
            "mbarrier.arrive_drop.shared.b64 _, [s], 2; /* bad */\n",
            "2 arrivals drop out of phases of 2, and none is left",
        ),
        (
            "mbarrier.arrive_drop.shared.b64 _, [s], 3; /* bad */\n",
            "3 arrivals drop out of phases of 2, and none is left",
        ),
        (
            "mbarrier.arrive_drop.shared.b64 _, [s];\nmbarrier.arrive_drop.expect_tx.shared.b64 _, [s], 0; /* bad */\n",
            "1 arrival drops out of phases of 1, and none is left",
        ),
        (
            "mbarrier.arrive_drop.noComplete.shared.b64 %d2, [s], 1;\n\
             mbarrier.arrive_drop.noComplete.shared.b64 %d2, [s], 1; /* bad */\n",
            "completes phase 0",
        ),
    ];
    for (body, words) in faults {
        planted(&format!("{init}{body}"), 1, 0, words);
    }
}

#[test]
fn a_wait_for_a_phase_that_the_thread_has_already_seen_is_found() {
    let round = |parity: u32, mark: &str| {
        format!(
            "mbarrier.arrive.shared.b64 _, [s];
            mbarrier.try_wait.parity.shared.b64 %p0, [s], {parity};{mark}\n"
        )
    };
    // One of the warps begins the second phase before the other has come to it.
    let forgets = initialised(64, &(round(0, "") + &round(0, " /* bad */")));
    let fault = kernel(&forgets, 64).finds(0, 0, "/* bad */");
    assert!(mbarrier(&fault).contains("for phase 0 of the object at 0x0") && mbarrier(&fault).contains("has parity 1"));
    kernel(&initialised(64, &(round(0, "") + &round(1, ""))), 64).clean();
    // The phase before the first counts as seen by everyone.
    let early = initialised(64, &round(1, " /* bad */"));
    let fault = kernel(&early, 32).finds(0, 0, "/* bad */");
    assert!(mbarrier(&fault).contains("phase before the first"), "{fault}");
}

#[test]
fn waits_as_pipelines_have_them_are_no_misuse() {
    // A producer's first wait is for the phase before the first; a consumer looks before it waits, waits twice, and
    // hands the buffer back.
    let body = "setp.eq.u32 %p7, %r0, 0;
        @%p7 mbarrier.init.shared.b64 [s], 1;
        @%p7 mbarrier.init.shared.b64 [s+8], 32;
        bar.sync 0;
        mov.u32 %r2, 0;
        mov.u32 %r6, 0;
        setp.ge.u32 %p0, %r0, 32;
        @%p0 bra CONSUME;
        @!%p7 bra END;
        PRODUCE: and.b32 %r3, %r2, 1;
        xor.b32 %r4, %r3, 1;
        W1: mbarrier.try_wait.parity.shared.b64 %p1, [s+8], %r4;
        @!%p1 bra W1;
        st.shared.u32 [s+64], %r2;
        mbarrier.arrive.shared.b64 _, [s];
        add.u32 %r2, %r2, 1;
        setp.lt.u32 %p2, %r2, 7;
        @%p2 bra PRODUCE;
        bra END;
        CONSUME: and.b32 %r3, %r2, 1;
        mbarrier.test_wait.parity.shared.b64 %p1, [s], %r3;
        W2: mbarrier.try_wait.parity.shared.b64 %p1, [s], %r3;
        @!%p1 bra W2;
        mbarrier.try_wait.parity.shared.b64 %p1, [s], %r3;
        ld.shared.u32 %r5, [s+64];
        add.u32 %r6, %r6, %r5;
        mbarrier.arrive.shared.b64 _, [s+8];
        add.u32 %r2, %r2, 1;
        setp.lt.u32 %p2, %r2, 7;
        @%p2 bra CONSUME;
        mul.wide.u32 %d2, %r0, 4;
        add.s64 %d2, %d1, %d2;
        st.global.u32 [%d2], %r6;
        END:";
    assert_eq!(kernel(body, 64).clean().output[32..64], [21; 32]);
}

#[test]
fn an_object_is_used_behind_a_barrier_and_left_alone_by_its_end() {
    let init = "setp.eq.u32 %p7, %r0, 0;\n@%p7 mbarrier.init.shared.b64 [s], 64;\n";
    let unordered = format!("{init}nanosleep.u32 1;\nmbarrier.arrive.shared.b64 _, [s]; /* bad */\n");
    let fault = kernel(&unordered, 64).finds(0, 32, "/* bad */");
    assert!(mbarrier(&fault).contains("without a barrier between"), "{fault}");
    kernel(&format!("{init}bar.sync 0;\nmbarrier.arrive.shared.b64 _, [s];\n"), 64).clean();
    // Ended or begun anew while somebody waits.
    for (end, words) in [("inval.shared.b64 [s]", "invalidated"), ("init.shared.b64 [s], 1", "initialised again")] {
        let body = initialised(
            1,
            &format!(
                "setp.lt.u32 %p0, %r0, 32;
                @%p0 bra WAIT;
                setp.eq.u32 %p1, %r0, 32;
                nanosleep.u32 1;
                @%p1 mbarrier.{end}; /* bad */
                bra END;
                WAIT: mbarrier.try_wait.parity.shared.b64 %p1, [s], 0;
                @!%p1 bra WAIT;
                END:"
            ),
        );
        let fault = kernel(&body, 64).finds(0, 32, "/* bad */");
        assert!(mbarrier(&fault).contains(words) && mbarrier(&fault).contains("waits there"), "{fault}");
    }
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    let refused = [
        ("mbarrier.init.shared::cluster.b64 [s], 1;", "unexpected part `.shared::cluster`"),
        ("mbarrier.init.shared.b32 [s], 1;", "`.b64`"),
        ("mbarrier.init.release.cta.shared.b64 [s], 1;", "unexpected part `.release`"),
        ("mbarrier.init.shared.b64 [s];", "expected 2 to 2 operands"),
        ("mbarrier.inval.shared.b64 [s], 1;", "expected 1 to 1 operands"),
        ("mbarrier.arrive.shared::cluster.b64 %d2, [s];", "returns no state"),
        ("mbarrier.arrive.release.shared.b64 %d2, [s];", "expected `.cta` or `.cluster`"),
        ("mbarrier.arrive.acquire.cta.shared.b64 %d2, [s];", "unexpected part `.acquire`"),
        ("mbarrier.arrive.release.gpu.shared.b64 %d2, [s];", "expected `.cta` or `.cluster`"),
        ("mbarrier.arrive.noComplete.shared.b64 %d2, [s];", "expected 3 to 3 operands"),
        ("mbarrier.arrive.noComplete.relaxed.cta.shared.b64 %d2, [s], 1;", "unexpected part `.relaxed`"),
        ("mbarrier.arrive.noComplete.release.cluster.shared.b64 %d2, [s], 1;", "`.cta` scope"),
        ("mbarrier.arrive.noComplete.shared::cluster.b64 _, [s], 1;", "unexpected part `.shared::cluster`"),
        ("mbarrier.arrive.expect_tx.shared.b64 %d2, [s];", "expected 3 to 3 operands"),
        ("mbarrier.arrive.expect_tx.noComplete.shared.b64 %d2, [s], 1;", "unexpected part `.noComplete`"),
        ("mbarrier.arrive.shared.expect_tx.b64 %d2, [s], 8;", "unexpected part `.expect_tx`"),
        ("mbarrier.arrive.global.b64 %d2, [s];", "unexpected part `.global`"),
        ("mbarrier.expect_tx.release.cta.shared.b64 [s], 8;", "unexpected part `.release`"),
        ("mbarrier.test_wait.shared::cluster.b64 %p0, [s], %d2;", "unexpected part `.shared::cluster`"),
        ("mbarrier.test_wait.parity.shared.b64 %p0, [s], 2;", "parity of a phase is 0 or 1"),
        ("mbarrier.test_wait.parity.shared.b64 %p0, [s], 1, 20;", "expected 3 to 3 operands"),
        ("mbarrier.test_wait.parity.shared.b64 _, [s], 1;", "expected a predicate"),
        ("mbarrier.try_wait.release.cta.shared.b64 %p0, [s], %d2;", "unexpected part `.release`"),
        ("mbarrier.try_wait.shared.b64 %r2, [s], %d2;", "no predicate"),
        ("mbarrier.pending_count.shared.b64 %r2, %d2;", "expected `mbarrier.pending_count.b64`"),
        ("mbarrier.pending_count.b64 _, %d2;", "expected a register"),
        ("mbarrier.shared.b64 [s];", "unknown operation"),
        ("cp.async.mbarrier.arrive.shared::cluster.b64 [s];", "cp.async.mbarrier.arrive"),
        ("cp.async.mbarrier.arrive.noinc.shared.b64 [s], 1;", "expected 1 to 1 operands"),
    ];
    for (body, words) in refused {
        let error = kernel(body, 1).refusal();
        let name = body.split(' ').next().unwrap();
        assert!(error.contains("line 20: ") && error.contains(name) && error.contains(words), "{body}: {error}");
    }
}
