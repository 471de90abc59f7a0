//! Barriers of blocks and warps, and what goes wrong at them.

mod kernels;

use kernels::Kernel;
use ptx_sim::fault::Fault;

fn kernel(body: &str, threads: u32) -> Kernel<'_> {
    Kernel { body, threads, output: 512, ..Kernel::default() }
}

fn divergent(fault: &Fault) -> &str {
    match fault {
        Fault::DivergentBarrier(why) => why,
        other => panic!("{other}"),
    }
}

#[test]
fn a_barrier_of_the_block_orders_what_warps_do() {
    let body = "shl.b32 %r2, %r0, 2;
        mul.wide.u32 %d2, %r0, 4;
        add.s64 %d2, %d1, %d2;
        mov.u32 %r5, 0;
        LOOP: add.u32 %r6, %r0, %r5;
        st.shared.u32 [%r2], %r6;
        bar.sync 0;
        xor.b32 %r3, %r2, 256;
        ld.shared.u32 %r4, [%r3];
        barrier.cta.sync.aligned 3, 128;
        add.u32 %r5, %r5, 1;
        setp.lt.u32 %p0, %r5, 5;
        @%p0 bra LOOP;
        st.global.u32 [%d2], %r4;";
    let ran = kernel(body, 128).clean();
    assert_eq!(ran.output[..128], (0..128).map(|i| (i ^ 64) + 4).collect::<Vec<_>>());
}

#[test]
fn reductions_see_every_thread() {
    let body = "setp.lt.u32 %p0, %r0, 70;
        setp.lt.u32 %p1, %r0, 200;
        mov.u32 %r9, 5;
        bar.red.popc.u32 %r2, 1, %p0;
        barrier.cta.red.and.aligned.pred %p2, %r9, 96, %p0;
        bar.red.or.pred %p3, 1, !%p1;
        bar.red.and.pred %p4, 1, %p1;
        selp.u32 %r3, 1, 0, %p2;
        selp.u32 %r4, 1, 0, %p3;
        selp.u32 %r5, 1, 0, %p4;
        mul.wide.u32 %d2, %r0, 16;
        add.s64 %d2, %d1, %d2;
        st.global.v4.u32 [%d2], {%r2, %r3, %r4, %r5};";
    let ran = kernel(body, 96).clean();
    assert!(ran.output[..384].chunks(4).all(|row| row == [70, 0, 0, 1]), "{:?}", &ran.output[..384]);
}

/// Warp 0 produces and warp 1 consumes, over one buffer: barrier 1 says "full", barrier 2 "empty".
fn pipeline(full: &str, empty: &str) -> String {
    format!(
        "and.b32 %r2, %r0, 31;
        shl.b32 %r2, %r2, 2;
        mov.u32 %r5, 0;
        mov.u32 %r6, 0;
        setp.ge.u32 %p0, %r0, 32;
        @%p0 bra CONSUME;
        PRODUCE: bar.sync 2, 64;
        add.u32 %r3, %r0, %r5;
        st.shared.u32 [%r2], %r3;
        {full}
        add.u32 %r5, %r5, 1;
        setp.lt.u32 %p1, %r5, 4;
        @%p1 bra PRODUCE;
        bra END;
        CONSUME: bar.arrive 2, 64;
        NEXT: bar.sync 1, 64;
        xor.b32 %r4, %r2, 4;
        ld.shared.u32 %r3, [%r4];
        add.u32 %r6, %r6, %r3;
        add.u32 %r5, %r5, 1;
        setp.lt.u32 %p1, %r5, 4;
        {empty}
        @%p1 bra NEXT;
        mul.wide.u32 %d2, %r2, 1;
        add.s64 %d2, %d1, %d2;
        st.global.u32 [%d2], %r6;
        END:"
    )
}

#[test]
fn named_barriers_hand_buffers_from_producer_to_consumer() {
    let good = pipeline("bar.arrive 1, 64;", "@%p1 bar.arrive 2, 64;");
    let ran = kernel(&good, 64).clean();
    assert_eq!(ran.output[..32], (0..32).map(|lane| 4 * (lane ^ 1) + 6).collect::<Vec<_>>());
}

#[test]
fn what_a_producer_does_behind_its_arrival_is_not_ordered() {
    let late = pipeline("bar.arrive 1, 64;\nst.shared.u32 [%r2], %r3;", "@%p1 bar.arrive 2, 64;");
    let ran = kernel(&late, 64).run();
    let races = ran.report().findings.iter().filter(|f| matches!(f.fault, Fault::Race { .. })).count();
    assert!(races > 0);
    // Handing the buffer back before reading it.
    let early = pipeline("bar.arrive 1, 64;", "@%p1 bar.arrive 2, 64;")
        .replace("NEXT: bar.sync 1, 64;", "NEXT: bar.sync 1, 64;\nsetp.lt.u32 %p2, %r5, 3;\n@%p2 bar.arrive 2, 64;")
        .replace("\n        @%p1 bar.arrive 2, 64;", "\n");
    assert!(kernel(&early, 64).run().report().findings.iter().any(|f| matches!(f.fault, Fault::Race { .. })));
}

#[test]
fn lanes_that_took_different_ways_meet_at_one_barrier() {
    // The second way lies behind the barrier and jumps back to it.
    let body = "setp.lt.u32 %p0, %r0, 5;
        @%p0 bra FAR;
        NEAR: bar.sync 0;
        bra END;
        FAR: add.u32 %r2, %r0, 1;
        bra NEAR;
        END:";
    kernel(body, 64).clean();
}

#[test]
fn an_aligned_barrier_reached_at_two_places_is_divergent() {
    let body = "setp.lt.u32 %p0, %r0, 40;
        @%p0 bra OTHER;
        bar.sync 0;
        bra END;
        OTHER: barrier.sync.aligned 0;
        END:";
    let fault = kernel(body, 64).finds(0, 32, "OTHER:");
    assert_eq!(divergent(&fault), "other lanes of the warp have come to barrier 0 at PTX line 24");
    // Without `.aligned` it is allowed.
    kernel(&body.replace("bar.sync 0", "barrier.sync 0").replace(".aligned", ""), 64).clean();
}

#[test]
fn a_barrier_that_other_lanes_or_warps_exit_without_is_divergent() {
    let body = "setp.gt.u32 %p0, %r0, 40;\n@%p0 exit;\nbar.sync 0;";
    let fault = kernel(body, 64).finds(0, 32, "bar.sync");
    assert_eq!(divergent(&fault), "23 lanes of the warp have exited without coming to barrier 0");
    let body = "setp.gt.u32 %p0, %r0, 31;\n@%p0 exit;\nbar.sync 0;";
    let fault = kernel(body, 96).finds(0, 0, "bar.sync");
    assert_eq!(divergent(&fault), "2 warps have exited without coming to barrier 0");
    // A block whose last warp is not full has nobody missing.
    kernel("bar.sync 0;", 40).clean();
}

#[test]
fn lanes_at_different_barriers_are_divergent() {
    let body = "setp.lt.u32 %p0, %r0, 16;\n@%p0 bar.sync 1;\n@!%p0 bar.sync 2;";
    let fault = kernel(body, 32).finds(0, 0, "bar.sync 1");
    assert_eq!(divergent(&fault), "lanes 0x0000ffff are at barrier 1, lanes 0xffff0000 never come");
}

#[test]
fn different_numbers_and_counts_are_faults() {
    let fault = kernel("barrier.sync %r0;", 32).finds(0, 1, "barrier.sync");
    assert_eq!(divergent(&fault), "the lanes of a warp have different barrier numbers");
    let fault = kernel("barrier.sync 0, %r0;", 32).finds(0, 1, "barrier.sync");
    assert_eq!(divergent(&fault), "the lanes of a warp have different thread counts");
    let body = "setp.lt.u32 %p0, %r0, 32;\n@%p0 bar.sync 1, 64;\n@!%p0 bar.sync 1, 96;";
    let fault = kernel(body, 96).finds(0, 32, "bar.sync 1, 96");
    assert_eq!(divergent(&fault), "barrier 1 for 96 threads, but PTX line 21 says 64".replace("21", "22"));
    assert_eq!(kernel("mov.u32 %r2, 16;\nbar.sync %r2;", 32).finds(0, 0, "bar.sync").to_string(), "barrier 16 of 16");
    let fault = kernel("mov.u32 %r2, 40;\nbar.sync 1, %r2;", 64).finds(0, 0, "bar.sync");
    assert_eq!(fault.to_string(), "a barrier of 40 threads in a block of 64");
}

#[test]
fn a_warp_that_skips_a_counted_barrier_is_a_deadlock() {
    let body = "setp.ge.u32 %p0, %r0, 64;\n@!%p0 bar.sync 1, 96;\nbar.sync 0;";
    let fault = kernel(body, 96).finds(0, 0, "bar.sync 1");
    let text = "deadlock: 3 of 3 warps wait; 2 warps of block (0,0,0) at `bar.sync` of PTX line 22 (kernel.cu:101), for \
                barrier 1, where 2 of 3 warps have arrived; 1 warp of block (0,0,0) at `bar.sync` of PTX line 24 \
                (kernel.cu:102), for barrier 0, where 1 of 3 warps have arrived; 0 have exited";
    assert_eq!(fault.to_string(), text);
    kernel(&body.replace("@!%p0 ", ""), 96).clean();
}

#[test]
fn a_warp_barrier_waits_for_the_lanes_of_its_mask() {
    // Both halves store, meet and read the other's words; they come from different instructions.
    let body = "shl.b32 %r2, %r0, 2;
        xor.b32 %r3, %r2, 64;
        st.shared.u32 [%r2], %r0;
        setp.lt.u32 %p0, %r0, 16;
        @%p0 bra LOW;
        bar.warp.sync 0xFFFFFFFF;
        bra END;
        LOW: bar.warp.sync 0xFFFFFFFF;
        END: ld.shared.u32 %r4, [%r3];
        setp.eq.u32 %p1, %r0, 31;
        @%p1 exit;
        bar.warp.sync -1;
        mul.wide.u32 %d2, %r0, 4;
        add.s64 %d2, %d1, %d2;
        st.global.u32 [%d2], %r4;";
    let ran = kernel(body, 32).clean();
    assert_eq!(ran.output[..31], (0..31).map(|lane| lane ^ 16).collect::<Vec<_>>());
}

#[test]
fn halves_of_a_warp_meet_on_their_own() {
    let body = "setp.lt.u32 %p0, %r0, 16;
        selp.b32 %r2, 0x0000FFFF, 0xFFFF0000, %p0;
        bar.warp.sync %r2;
        @%p0 bar.warp.sync 0xFFFF;
        bar.warp.sync %r2;";
    kernel(body, 32).clean();
    let fault = kernel("bar.warp.sync 0xFFFF;", 32).finds(0, 16, "bar.warp");
    assert_eq!(fault.to_string(), "bar.warp.sync of lanes 0x0000ffff by lane 16, which is none of them");
    let body = "setp.lt.u32 %p0, %r0, 16;\n@%p0 bar.warp.sync -1;\n@!%p0 bar.sync 0, 32;";
    let fault = kernel(body, 32).finds(0, 16, "bar.sync");
    assert_eq!(divergent(&fault), "lanes 0xffff0000 are at barrier 0, lanes 0x0000ffff never come");
    let body = "setp.lt.u32 %p0, %r0, 16;\n@%p0 bar.warp.sync -1;\nbar.warp.sync 0xFFFF0000;";
    let ran = kernel(body, 32).run();
    assert!(ran.result.is_err());
}
