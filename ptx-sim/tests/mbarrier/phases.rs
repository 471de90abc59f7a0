//! `mbarrier` objects: phases, who may go on when, and what goes wrong at them.

mod kernels;

use kernels::{Kernel, Ran};
use ptx_sim::LaunchError;
use ptx_sim::fault::Fault;
use ptx_sim::meter::Event;

fn kernel(body: &str, threads: u32) -> Kernel<'_> {
    Kernel { body, threads, output: 512, ..Kernel::default() }
}

/// Thread 0 initialises the object at shared address 0 for `count` arrivals, and `rest` follows behind a barrier.
fn initialised(count: u32, rest: &str) -> String {
    format!("setp.eq.u32 %p7, %r0, 0;\n@%p7 mbarrier.init.shared.b64 [s], {count};\nbar.sync 0;\n{rest}")
}

fn mbarrier(fault: &Fault) -> &str {
    match fault {
        Fault::Mbarrier(why) => why,
        other => panic!("{other}"),
    }
}

/// Why nobody could go on, which must be found before any warp has issued 40,000 instructions: far less than a second.
fn deadlock(kernel: Kernel) -> String {
    match (Kernel { steps: 40_000, ..kernel }).run().result {
        Err(LaunchError::Fault(finding)) => match finding.fault {
            Fault::Deadlock(why) => why,
            other => panic!("{other}"),
        },
        other => panic!("{other:?}"),
    }
}

fn waits(ran: &Ran) -> u64 {
    ran.report().meter.events.get(&Event::MbarrierWait).copied().unwrap_or(0)
}

/// Each thread writes a word, arrives, waits and reads its neighbour's; `arrive` and `wait` are of iteration `%r5`.
fn exchange(arrive: &str, wait: &str) -> String {
    initialised(
        64,
        &format!(
            "shl.b32 %r2, %r0, 2;
            mul.wide.u32 %d2, %r0, 4;
            add.s64 %d2, %d1, %d2;
            mov.u32 %r5, 0;
            LOOP: add.u32 %r6, %r0, %r5;
            st.shared.u32 [%r2+64], %r6;
            {arrive}
            and.b32 %r7, %r5, 1;
            WAIT: {wait}
            @!%p1 bra WAIT;
            xor.b32 %r3, %r2, 128;
            ld.shared.u32 %r4, [%r3+64];
            bar.sync 0;
            add.u32 %r5, %r5, 1;
            setp.lt.u32 %p0, %r5, 5;
            @%p0 bra LOOP;
            st.global.u32 [%d2], %r4;"
        ),
    )
}

#[test]
fn a_phase_orders_what_was_before_arrivals_and_what_is_behind_waits() {
    let arrivals = [
        "mbarrier.arrive.shared.b64 %d3, [s];",
        "mbarrier.arrive.release.cta.shared::cta.b64 %d3, [s], 1;",
        "fence.acq_rel.cta;\nmbarrier.arrive.relaxed.cta.shared.b64 %d3, [s];",
    ];
    let waits_for = [
        "mbarrier.try_wait.parity.shared.b64 %p1, [s], %r7;",
        "mbarrier.test_wait.parity.acquire.cta.shared::cta.b64 %p1, [s], %r7;",
        "mbarrier.try_wait.shared.b64 %p1, [s], %d3, 1000;",
        "mbarrier.test_wait.shared.b64 %p1, [s], %d3;",
        "mbarrier.try_wait.relaxed.cta.shared.b64 %p1, [s], %d3;\nfence.acquire.cta;",
    ];
    for arrive in arrivals {
        for wait in waits_for {
            let ran = kernel(&exchange(arrive, wait), 64).clean();
            assert_eq!(ran.output[..64], (0..64).map(|i| (i ^ 32) + 4).collect::<Vec<_>>(), "{arrive} {wait}");
            // Two warps, five phases: however often they looked.
            assert_eq!(waits(&ran), 10, "{arrive} {wait}");
        }
    }
}

#[test]
fn relaxed_arrivals_and_waits_order_nothing() {
    let bad = [
        ("mbarrier.arrive.relaxed.cta.shared.b64 %d3, [s];", "mbarrier.try_wait.shared.b64 %p1, [s], %d3;"),
        ("mbarrier.arrive.shared.b64 %d3, [s];", "mbarrier.try_wait.relaxed.cta.shared.b64 %p1, [s], %d3;"),
    ];
    for (arrive, wait) in bad {
        let ran = kernel(&exchange(arrive, wait), 64).run();
        let findings = &ran.report().findings;
        assert!(findings.iter().any(|f| matches!(f.fault, Fault::Race { .. })), "{arrive} {wait}");
    }
}

/// Operations of one thread on an object against a model of the ISA's section 9.7.13.15.6: a list of what is pending.
#[test]
fn phases_follow_the_model() {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for count in [1, 2, 3, 7, 30, 1_048_575] {
        let (mut body, mut expected) = (format!("mbarrier.init.shared.b64 [s], {count};\n"), Vec::new());
        let (mut each, mut pending, mut bytes, mut phase) = (count, count, 0_i64, 0_u64);
        for _ in 0..100 {
            let some = 1 + next(u64::from(pending).max(1)) as u32;
            let amount = 16 * next(4) as i64;
            match next(6) {
                // What is left of a phase.
                _ if pending == 0 && next(2) == 0 => {
                    let (verb, rest) = if bytes > 0 { ("complete_tx", bytes) } else { ("expect_tx", -bytes) };
                    body += &format!("mbarrier.{verb}.relaxed.cluster.shared.b64 [s], {rest};\n");
                    bytes = 0;
                }
                0 | 1 if pending > 0 => {
                    let drop = each > some && next(3) == 0;
                    body += &format!("mbarrier.arrive{}.shared.b64 _, [s], {some};\n", if drop { "_drop" } else { "" });
                    pending -= some;
                    each -= if drop { some } else { 0 };
                }
                2 if pending > 0 => {
                    body += &format!("mbarrier.arrive.expect_tx.shared.b64 _, [s], {amount};\n");
                    (pending, bytes) = (pending - 1, bytes + amount);
                }
                3 => {
                    body += &format!("mbarrier.expect_tx.relaxed.cta.shared.b64 [s], {amount};\n");
                    bytes += amount;
                }
                _ => {
                    body += &format!("mbarrier.complete_tx.shared::cluster.b64 [s], {amount};\n");
                    bytes -= amount;
                }
            }
            if pending == 0 && bytes == 0 {
                (phase, pending) = (phase + 1, each);
            }
            body += "mbarrier.test_wait.parity.shared.b64 %p0, [s], 0;\nmbarrier.test_wait.parity.shared.b64 %p1, [s], 1;\n";
            body += &format!(
                "selp.u32 %r2, 1, 0, %p0;\nselp.u32 %r3, 1, 0, %p1;\nst.global.v2.u32 [%d1+{}], {{%r2, %r3}};\n",
                4 * expected.len()
            );
            expected.extend([phase & 1 == 1, phase & 1 == 0].map(u32::from));
        }
        // Parities of phases that have ended are looked at again and again, which is noted where the thread has arrived.
        let ran = Kernel { body: &body, threads: 1, output: 512, ..Kernel::default() }.run();
        assert!(ran.report().findings.iter().all(|f| matches!(f.fault, Fault::Mbarrier(_))));
        assert_eq!(ran.output[..expected.len()], expected, "{body}");
        assert!(phase > 5 || count > 30, "{phase}");
    }
}

#[test]
fn states_know_their_phase_and_count() {
    let body = "mbarrier.init.shared.b64 [s], 5;
        mbarrier.arrive.noComplete.shared.b64 %d2, [s], 2;
        mbarrier.arrive.noComplete.release.cta.shared::cta.b64 %d3, [s], 1;
        mbarrier.pending_count.b64 %r2, %d2;
        mbarrier.pending_count.b64 %r3, %d3;
        mbarrier.test_wait.shared.b64 %p0, [s], %d3;
        mbarrier.arrive_drop.noComplete.shared.b64 %d4, [s], 1;
        mbarrier.pending_count.b64 %r4, %d4;
        mbarrier.arrive.shared.b64 _, [s];
        mbarrier.test_wait.shared.b64 %p1, [s], %d2;
        selp.u32 %r5, 1, 0, %p0;
        selp.u32 %r6, 1, 0, %p1;
        st.global.v4.u32 [%d1], {%r2, %r3, %r4, %r5};
        mbarrier.arrive.noComplete.shared.b64 %d5, [s], 1;
        mbarrier.pending_count.b64 %r7, %d5;
        st.global.v2.u32 [%d1+16], {%r6, %r7};";
    assert_eq!(kernel(body, 1).clean().output[..6], [5, 3, 2, 0, 1, 4]);
}

#[test]
fn guarded_and_diverged_lanes_arrive_and_wait_each_for_itself() {
    // Two objects: odd lanes wait for the one that even lanes arrive at, and the other way round.
    let body = "setp.eq.u32 %p7, %r0, 0;
        @%p7 mbarrier.init.shared.b64 [s], 16;
        @%p7 mbarrier.init.shared.b64 [s+8], 16;
        bar.warp.sync -1;
        and.b32 %r2, %r0, 1;
        shl.b32 %r3, %r2, 3;
        xor.b32 %r4, %r3, 8;
        shl.b32 %r5, %r0, 2;
        setp.eq.u32 %p0, %r2, 0;
        st.shared.u32 [%r5+64], %r0;
        @%p0 bra EVEN;
        W1: mbarrier.try_wait.parity.shared.b64 %p1, [%r4], 0;
        @!%p1 bra W1;
        mbarrier.arrive.shared.b64 _, [%r3];
        bra END;
        EVEN: mbarrier.arrive.shared.b64 _, [%r3];
        W2: mbarrier.test_wait.parity.shared.b64 %p1, [%r4], 0;
        @!%p1 bra W2;
        END: mul.wide.u32 %d2, %r0, 4;
        add.s64 %d2, %d1, %d2;
        xor.b32 %r5, %r5, 4;
        bar.warp.sync -1;
        ld.shared.u32 %r6, [%r5+64];
        st.global.u32 [%d2], %r6;";
    assert_eq!(kernel(body, 32).clean().output[..32], (0..32).map(|i| i ^ 1).collect::<Vec<_>>());
    // The loop that polls comes first in the program, so that the lanes it waits for are behind it.
    let polls = body.replace("try_wait", "test_wait");
    kernel(&polls, 32).clean();
    let guarded = initialised(
        3,
        "setp.lt.u32 %p0, %r0, 3;
        @%p0 mbarrier.arrive.shared.b64 %d2, [s];
        @%p0 mbarrier.try_wait.shared.b64 %p1, [s], %d2;
        @!%p0 mbarrier.try_wait.parity.shared.b64 %p1, [s], 0;
        selp.u32 %r2, 1, 0, %p1;
        mul.wide.u32 %d2, %r0, 4;
        add.s64 %d2, %d1, %d2;
        st.global.u32 [%d2], %r2;",
    );
    assert_eq!(kernel(&guarded, 64).clean().output[..64], [1; 64]);
}

#[test]
fn generic_addresses_name_objects_too() {
    let body = "cvta.shared.u64 %d2, s;
        mbarrier.init.b64 [%d2+16], 1;
        mbarrier.arrive.expect_tx.b64 %d3, [%d2+16], 8;
        mbarrier.complete_tx.relaxed.cta.b64 [%d2+16], 8;
        mbarrier.test_wait.b64 %p0, [%d2+16], %d3;
        mbarrier.inval.b64 [%d2+16];
        selp.u32 %r2, 1, 0, %p0;
        st.shared.u64 [s+16], %d3;
        st.global.u32 [%d1], %r2;";
    assert_eq!(kernel(body, 1).clean().output[0], 1);
    let global = kernel("mbarrier.init.b64 [%d0], 1;", 1).finds(0, 0, "mbarrier.init");
    assert!(mbarrier(&global).contains("objects lie in shared memory"), "{global}");
    let odd = kernel("mbarrier.init.shared.b64 [s+4], 1;", 1).finds(0, 0, "mbarrier.init");
    assert!(matches!(odd, Fault::Misaligned { alignment: 8, .. }), "{odd}");
    let far = kernel("mbarrier.init.shared.b64 [s+4096], 1;", 1).finds(0, 0, "mbarrier.init");
    assert!(matches!(far, Fault::OutOfBounds { .. }), "{far}");
}

#[test]
fn a_try_wait_gives_up_when_nobody_else_can_go_on() {
    // The phase ends by what the loop does when the wait has failed.
    let body = "mbarrier.init.shared.b64 [s], 3;
        mov.u32 %r2, 0;
        WAIT: mbarrier.try_wait.parity.shared.b64 %p0, [s], 0;
        @%p0 bra END;
        mbarrier.arrive.shared.b64 _, [s];
        add.u32 %r2, %r2, 1;
        bra WAIT;
        END: st.global.u32 [%d1], %r2;";
    assert_eq!(kernel(body, 1).clean().output[0], 3);
}

#[test]
fn a_warp_that_polls_while_another_works_is_no_deadlock() {
    // A few hundred thousand instructions of the second warp touch nothing but its registers.
    let body = initialised(
        1,
        "setp.lt.u32 %p0, %r0, 32;
        @%p0 bra WAIT;
        mov.u32 %r2, 0;
        WORK: add.u32 %r2, %r2, 1;
        setp.lt.u32 %p1, %r2, 100000;
        @%p1 bra WORK;
        setp.eq.u32 %p2, %r0, 32;
        @%p2 mbarrier.arrive.shared.b64 _, [s];
        bra END;
        WAIT: mbarrier.test_wait.parity.shared.b64 %p1, [s], 0;
        @!%p1 bra WAIT;
        END: st.global.u32 [%d1], %r0;",
    );
    Kernel { steps: 10_000_000, ..kernel(&body, 64) }.clean();
    // By loads of shared memory.
    let flag = "setp.lt.u32 %p0, %r0, 32;
        st.shared.u32 [s], 0;
        bar.sync 0;
        @%p0 bra WAIT;
        mov.u32 %r2, 0;
        WORK: add.u32 %r2, %r2, 1;
        setp.lt.u32 %p1, %r2, 100000;
        @%p1 bra WORK;
        st.release.cta.shared.u32 [s], 1;
        bra END;
        WAIT: ld.acquire.cta.shared.u32 %r3, [s];
        setp.eq.u32 %p1, %r3, 0;
        @%p1 bra WAIT;
        END: st.global.u32 [%d1], %r0;";
    Kernel { steps: 10_000_000, ..kernel(flag, 64) }.run().report();
}

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
fn a_loop_that_neither_waits_nor_polls_is_not_called_a_deadlock() {
    let ran = Kernel { steps: 300_000, ..kernel("LOOP: add.u32 %r2, %r2, 0;\nbra LOOP;", 32) }.run();
    assert!(matches!(ran.result, Err(LaunchError::Fault(finding)) if matches!(finding.fault, Fault::StepLimit(_))));
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
        ("mbarrier.arrive.shared.b64 _, [s], 0; /* bad */\n", "a count of 0"),
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
        (
            "mbarrier.arrive_drop.shared.b64 _, [s], 2;\nmbarrier.arrive.shared.b64 _, [s]; /* bad */\n",
            "waits for 0 more",
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
