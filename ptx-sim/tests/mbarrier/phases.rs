//! Phases: who may go on when, and what is ordered by that.

use ptx_sim::fault::Fault;

use crate::kernels::Kernel;
use crate::{initialised, kernel, mbarrier, waits};

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
