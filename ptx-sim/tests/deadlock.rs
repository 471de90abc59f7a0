//! Loops that poll for what never comes are deadlocks, found soon and explained; loops that go on by themselves are
//! none.

mod kernels;

use std::time::Instant;

use kernels::Kernel;
use ptx_sim::fault::Fault;
use ptx_sim::{Launch, LaunchError, Limits, Machine, Params};

/// A kernel with steps enough for ten seconds.
fn kernel(body: &str) -> Kernel<'_> {
    Kernel { body, threads: 64, steps: 100_000_000, ..Kernel::default() }
}

/// Why nobody could go on.
fn deadlock(kernel: &Kernel) -> String {
    let begun = Instant::now();
    let ran = kernel.run();
    let seconds = begun.elapsed().as_secs_f64();
    match ran.result {
        Err(LaunchError::Fault(finding)) => match finding.fault {
            Fault::Deadlock(why) => {
                println!("{seconds:.3} s: {why}");
                why
            }
            other => panic!("{other}\n{}", kernel.body),
        },
        other => panic!("{other:?}\n{}", kernel.body),
    }
}

/// Thread 0 prepares a flag in shared memory and an `mbarrier` for one arrival; what follows is behind a barrier.
fn prepared(rest: &str) -> String {
    format!(
        "setp.eq.u32 %p7, %r0, 0;
        @%p7 st.shared.u32 [s+64], 0;
        @%p7 mbarrier.init.shared.b64 [s], 1;
        mov.u32 %r10, 0;
        mov.u64 %d10, 0;
        bar.sync 0;
        {rest}"
    )
}

#[test]
fn a_waiting_loop_that_counts_is_a_deadlock() {
    for (look, at) in [
        ("mbarrier.try_wait.parity.shared.b64 %p1, [s], 0;", "1 of 1 arrivals are missing"),
        ("mbarrier.test_wait.parity.shared.b64 %p1, [s], 0;", "1 of 1 arrivals are missing"),
        ("ld.volatile.shared.u32 %r3, [s+64];\nsetp.ne.u32 %p1, %r3, 0;", "another value of shared memory at 0x40"),
        ("ld.volatile.global.u32 %r3, [%d0];\nsetp.ne.u32 %p1, %r3, 0;", "another value of global memory at 0x7"),
        (
            "ld.acquire.gpu.u64 %d3, [%d0];\nsetp.gt.u64 %p1, %d3, 0x700000000;\n",
            "another value of global memory at 0x7",
        ),
    ] {
        // The counter is looked at behind the loop alone.
        let body = prepared(&format!(
            "WAIT: add.u32 %r10, %r10, 1;
            add.u64 %d10, %d10, 4;
            {look}
            @!%p1 bra WAIT;
            setp.gt.u32 %p2, %r10, 7;
            @%p2 st.global.u32 [%d1], %r10;
            st.global.u64 [%d1+8], %d10;"
        ));
        let why = deadlock(&kernel(&body));
        assert!(why.starts_with("2 of 2 warps wait; 2 warps of block (0,0,0) at `") && why.contains(at), "{why}");
    }
}

#[test]
fn instructions_that_no_lane_executes_are_no_events() {
    for event in ["trap", "st.shared.u32 [s+64], %r10", "mbarrier.arrive.shared.b64 _, [s]", "bar.arrive 3, 64"] {
        let body = prepared(&format!(
            "WAIT: add.u32 %r10, %r10, 1;
            ld.volatile.shared.u32 %r3, [s+64];
            setp.ne.u32 %p1, %r3, 0;
            @%p1 {event};
            nanosleep.u32 20;
            @!%p1 bra WAIT;"
        ));
        let why = deadlock(&kernel(&body));
        assert!(why.contains("another value of shared memory at 0x40"), "{why}");
    }
}

#[test]
fn atomics_that_change_nothing_are_looks() {
    for space in ["shared", "global"] {
        let address = if space == "shared" { "s+64" } else { "%d0" };
        for atomic in [
            "atom.{space}.add.u32 %r3, [{address}], 0;",
            "atom.{space}.cas.b32 %r3, [{address}], 5, 6;",
            "atom.{space}.or.b32 %r3, [{address}], 0;",
            "atom.{space}.and.b32 %r3, [{address}], -1;",
            "atom.{space}.max.u32 %r3, [{address}], 0;",
            "atom.{space}.exch.b32 %r3, [{address}], 0;",
        ] {
            let atomic = atomic.replace("{space}", space).replace("{address}", address);
            let body = prepared(&format!(
                "WAIT: add.u32 %r10, %r10, 1;
                {atomic}
                setp.eq.u32 %p1, %r3, 0;
                @%p1 bra WAIT;"
            ));
            let why = deadlock(&kernel(&body));
            let wanted = format!("`{}` of PTX line", atomic.split(' ').next().unwrap());
            assert!(why.contains(&wanted) && why.contains(&format!("another value of {space} memory")), "{why}");
        }
    }
}

#[test]
fn loops_that_pass_a_barrier_each_round_are_deadlocks_if_nothing_changes() {
    // A thread looks for the whole block, as often in kernels; some warps wait for nothing else.
    let flag = prepared(
        "WAIT: add.u32 %r10, %r10, 1;
        @%p7 ld.volatile.global.u32 %r3, [%d0];
        @%p7 st.shared.u32 [s+64], %r3;
        bar.sync 0;
        ld.shared.u32 %r4, [s+64];
        bar.sync 0;
        setp.eq.u32 %p1, %r4, 0;
        @%p1 bra WAIT;",
    );
    let why = deadlock(&Kernel { threads: 256, ..kernel(&flag) });
    assert!(why.contains("8 of 8 warps wait") && why.contains("another value of global memory"), "{why}");
    let votes = prepared(
        "WAIT: add.u32 %r10, %r10, 1;
        ld.volatile.shared.u32 %r3, [s+64];
        setp.ne.u32 %p1, %r3, 0;
        barrier.red.or.pred %p2, 0, %p1;
        @!%p2 bra WAIT;",
    );
    deadlock(&kernel(&votes));
    let cluster = prepared(
        "WAIT: add.u32 %r10, %r10, 1;
        ld.volatile.shared.u32 %r3, [s+64];
        barrier.cluster.arrive;
        barrier.cluster.wait;
        setp.eq.u32 %p1, %r3, 0;
        @%p1 bra WAIT;",
    );
    let why = deadlock(&Kernel { blocks: 2, cluster: 2, ..kernel(&cluster) });
    assert!(why.starts_with("4 of 4 warps wait"), "{why}");
}

#[test]
fn those_who_wait_for_threads_that_go_round_in_circles_are_in_a_deadlock() {
    let body = |who: &str, circles: &str| format!("{who}\n@%p1 bra WAIT;\n{circles}\nWAIT: bar.sync 0;");
    for circles in ["ROUND: bra ROUND;", "ROUND: add.u32 %r10, %r10, 1;\nxor.b32 %r11, %r11, %r0;\nbra ROUND;"] {
        let why = deadlock(&kernel(&body("setp.lt.u32 %p1, %r0, 32;", circles)));
        assert!(why.contains("barrier 0"), "{why}");
    }
    // Lanes of the warps that they wait for: the barrier is to blame.
    let ran = kernel(&body("setp.eq.u32 %p1, %r0, 0;", "ROUND: bra ROUND;")).run();
    let Err(LaunchError::Fault(finding)) = ran.result else { panic!("it ended") };
    assert!(
        matches!(&finding.fault, Fault::DivergentBarrier(why) if why.contains("0xfffffffe never come")),
        "{finding}"
    );
    // A long calculation that ends is none.
    let body = "setp.lt.u32 %p1, %r0, 32;
        mov.u32 %r10, 0;
        mov.u32 %r11, 1;
        @%p1 bra WAIT;
        ROUND: mad.lo.u32 %r11, %r11, 1664525, 1013904223;
        add.u32 %r10, %r10, 1;
        setp.lt.u32 %p2, %r10, 1000000;
        @%p2 bra ROUND;
        WAIT: bar.sync 0;";
    kernel(body).clean();
}

#[test]
fn a_bounded_number_of_looks_is_no_deadlock() {
    for (look, rounds) in [
        ("mbarrier.try_wait.parity.shared.b64 %p1, [s], 0;", 100_000),
        ("mbarrier.test_wait.parity.shared.b64 %p1, [s], 0;", 100_000),
        ("ld.volatile.shared.u32 %r3, [s+64];\nsetp.ne.u32 %p1, %r3, 0;", 100_000),
        ("ld.volatile.global.u32 %r3, [%d0];\nsetp.ne.u32 %p1, %r3, 0;", 100_000),
        ("atom.global.cas.b32 %r3, [%d0], 5, 6;\nsetp.ne.u32 %p1, %r3, 0;", 100_000),
        ("bar.sync 0;\nld.volatile.shared.u32 %r3, [s+64];\nsetp.ne.u32 %p1, %r3, 0;", 100_000),
    ] {
        let body = prepared(&format!(
            "WAIT: add.u32 %r10, %r10, 1;
            {look}
            @%p1 bra END;
            setp.lt.u32 %p2, %r10, {rounds};
            @%p2 bra WAIT;
            @%p7 st.global.u32 [%d1], %r10;
            END:"
        ));
        assert_eq!(kernel(&body).clean().output[0], rounds, "{look}");
    }
    // One warp waits in vain for a while and then lets the others go, which meet at barriers all the time.
    let body = prepared(
        "setp.ge.u32 %p0, %r0, 32;
        @%p0 bra OTHERS;
        WAIT: add.u32 %r10, %r10, 1;
        mbarrier.try_wait.parity.shared.b64 %p1, [s], 0;
        setp.lt.u32 %p2, %r10, 50;
        @%p2 bra WAIT;
        @%p7 st.volatile.shared.u32 [s+64], 1;
        bra END;
        OTHERS: ld.volatile.shared.u32 %r3, [s+64];
        bar.sync 1, 32;
        setp.eq.u32 %p1, %r3, 0;
        @%p1 bra OTHERS;
        END:",
    );
    let ran = kernel(&body).run();
    ran.report();
}

#[test]
fn pauses_are_no_waits() {
    // More rounds than waits last; the other warp waits at a barrier, or for nothing.
    for other in ["bar.sync 0;", "nanosleep.u32 1;"] {
        let body = format!(
            "setp.lt.u32 %p1, %r0, 32;
            mov.u32 %r10, 0;
            @%p1 bra WAIT;
            ROUND: nanosleep.u32 1000;
            add.u32 %r10, %r10, 1;
            setp.lt.u32 %p2, %r10, 600000;
            @%p2 bra ROUND;
            WAIT: {other}"
        );
        kernel(&body).clean();
    }
}

#[test]
fn a_pause_that_reads_the_time_beside_those_that_poll_is_no_deadlock() {
    let body = prepared(
        "mov.u64 %d2, %globaltimer;
        setp.ge.u32 %p0, %r0, 32;
        @%p0 bra OTHERS;
        WAIT: mov.u64 %d3, %globaltimer;
        sub.s64 %d4, %d3, %d2;
        setp.lt.u64 %p1, %d4, 300000;
        @%p1 bra WAIT;
        @%p7 red.shared.add.u32 [s+64], 1;
        bra END;
        OTHERS: atom.shared.add.u32 %r3, [s+64], 0;
        setp.eq.u32 %p1, %r3, 0;
        @%p1 bra OTHERS;
        END: st.global.u32 [%d1], 7;",
    );
    assert_eq!(kernel(&body).clean().output[0], 7);
}

#[test]
fn lanes_of_a_warp_that_wait_for_each_other_get_their_share() {
    // A lock that spins without yielding: the lane that has it is behind the loop.
    let body = "mov.u32 %r10, 0;
        LOCK: atom.global.cas.b32 %r3, [%d0], 0, 1;
        setp.ne.u32 %p1, %r3, 0;
        @%p1 bra LOCK;
        ld.volatile.global.u32 %r4, [%d0+8];
        add.u32 %r4, %r4, 1;
        st.volatile.global.u32 [%d0+8], %r4;
        atom.global.exch.b32 %r3, [%d0], 0;";
    let ran = Kernel { threads: 4, input: vec![0; 64], ..kernel(body) }.clean();
    assert_eq!(ran.input[2], 4);
}

/// Every block adds 1 to a count and waits until all have.
const GRID_BARRIER: &str = "setp.ne.u32 %p0, %r0, 0;
    @%p0 bra END;
    mov.u32 %r2, %nctaid.x;
    red.release.gpu.global.add.u32 [%d0], 1;
    WAIT: ld.acquire.gpu.global.u32 %r3, [%d0];
    add.u32 %r10, %r10, 1;
    setp.ne.u32 %p1, %r3, %r2;
    @%p1 bra WAIT;
    END: bar.sync 0;";

#[test]
fn blocks_that_wait_for_others_finish_on_few_cores() {
    for (blocks, cores) in [(5, 1), (40, 1), (40, 2), (132, 2)] {
        let kernel = Kernel { blocks, cores, input: vec![0; 64], ..kernel(GRID_BARRIER) };
        assert_eq!(kernel.clean().input[0], blocks);
    }
    // Block 0 waits for the last one, which has done a lot of work by then.
    let body = "setp.ne.u32 %p0, %r1, 0;
        @%p0 bra WORK;
        WAIT: ld.acquire.gpu.global.u32 %r3, [%d0];
        setp.eq.u32 %p1, %r3, 0;
        @%p1 bra WAIT;
        bra END;
        WORK: add.u32 %r10, %r10, 1;
        setp.lt.u32 %p1, %r10, 3000000;
        @%p1 bra WORK;
        red.global.add.u32 [%d0], 1;
        END: st.global.u32 [%d1], 7;";
    let kernel = Kernel { threads: 32, blocks: 2, cores: 2, input: vec![0; 64], steps: 20_000_000, ..kernel(body) };
    assert_eq!(kernel.clean().output[0], 7);
}

#[test]
fn blocks_that_wait_for_nobody_are_a_deadlock_of_the_grid() {
    // One arrival too few: the last block has exited.
    let body = format!("setp.eq.u32 %p3, %r1, 3;\n@%p3 ret;\n{GRID_BARRIER}");
    for cores in [1, 2] {
        let why = deadlock(&Kernel { blocks: 4, cores, input: vec![0; 64], ..kernel(&body) });
        assert!(why.contains("1 warp of block (0,0,0) at `ld.acquire.gpu.global.u32` of PTX line"), "{why}");
        assert!(why.ends_with("no other block of the grid is left that could change what they look at"), "{why}");
    }
}

#[test]
fn blocks_that_wait_for_more_than_the_machine_holds_are_a_deadlock() {
    let machine = |multiprocessors| {
        let mut limits = Limits::default();
        (limits.cores, limits.multiprocessors) = (1, multiprocessors);
        let mut machine = Machine::new(limits);
        let kernel = Kernel { body: GRID_BARRIER, ..Kernel::default() };
        let module = machine.load(&kernel.ptx()).unwrap();
        let [a, b] = [0; 2].map(|_| machine.memory.allocate_zeros(256).unwrap());
        let params = Params::new().pointer(a).pointer(b);
        machine.launch(&module, "k", &Launch::new([9, 1, 1], [1024, 1, 1]), params.bytes())
    };
    // Two blocks of 1024 threads fit on a multiprocessor.
    machine(5).unwrap();
    let Err(LaunchError::Fault(finding)) = machine(4) else { panic!("not resident together") };
    let Fault::Deadlock(why) = &finding.fault else { panic!("{finding}") };
    assert!(why.contains("1 of the grid's clusters have not begun"), "{why}");
}

#[test]
fn those_who_wait_for_a_block_that_fails_leave_the_failure_to_it() {
    let body = "setp.ne.u32 %p0, %r1, 0;
        @%p0 bra FAIL;
        WAIT: ld.acquire.gpu.global.u32 %r3, [%d0];
        setp.eq.u32 %p1, %r3, 0;
        @%p1 bra WAIT;
        ret;
        FAIL: trap;";
    let fault = Kernel { threads: 32, blocks: 2, cores: 1, input: vec![0; 64], ..kernel(body) }.finds(1, 0, "trap;");
    assert_eq!(fault, Fault::Trap("trap".into()));
}

#[test]
fn what_is_in_flight_lands_before_anybody_is_said_to_wait_for_ever() {
    // Nobody waits for the copy's group, but it comes, and others look for what it brings.
    let body = "setp.ne.u32 %p0, %r0, 0;
        @%p0 bra WAIT;
        st.shared.v4.u32 [s], {1, 1, 1, 1};
        fence.proxy.async;
        cp.async.bulk.global.shared::cta.bulk_group [%d0], [s], 16;
        cp.async.bulk.commit_group;
        WAIT: ld.volatile.global.u32 %r3, [%d0];
        setp.eq.u32 %p1, %r3, 0;
        @%p1 bra WAIT;
        st.global.u32 [%d1], %r3;";
    let body = body.replace("{1, 1, 1, 1}", "{%r5, %r5, %r5, %r5}");
    let body = format!("mov.u32 %r5, 1;\n{body}");
    assert_eq!(Kernel { threads: 32, input: vec![0; 64], ..kernel(&body) }.run().output[0], 1);
}
