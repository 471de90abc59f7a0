//! Divergence, reconvergence, loops, calls, and launches that do not end.

mod kernels;

use kernels::Kernel;
use ptx_sim::fault::Fault;
use ptx_sim::meter::Class;

/// Runs a body whose result is `%r10`, one word a thread; returns the words and the lanes of float instructions,
/// which serve as markers for convergence.
fn run(module: &str, body: &str) -> (Vec<u32>, u64) {
    let body = format!("{body}\nmul.wide.u32 %d2, %r0, 4;\nadd.s64 %d2, %d1, %d2;\nst.global.u32 [%d2], %r10;");
    let ran = Kernel { module, body: &body, ..Kernel::default() }.clean();
    (ran.output[..32].to_vec(), ran.report().meter.instructions(Class::Memory).warp)
}

/// Memory instructions of a converged run: two parameters and the store of the result.
const CONVERGED: u64 = 3;

fn expect(module: &str, body: &str, f: impl Fn(u32) -> u32) {
    let (words, memory) = run(module, body);
    assert_eq!(words, (0..32).map(f).collect::<Vec<_>>());
    assert_eq!(memory, CONVERGED, "the lanes did not meet again");
}

#[test]
fn nested_branches_meet_again() {
    let body = "mov.u32 %r10, 0;
        setp.lt.u32 %p0, %r0, 20;
        @!%p0 bra ELSE;
        setp.lt.u32 %p1, %r0, 7;
        @%p1 bra INNER;
        add.u32 %r10, %r10, 1;
        bra.uni JOIN;
        INNER: add.u32 %r10, %r10, 2;
        JOIN: add.u32 %r10, %r10, 10;
        bra.uni END;
        ELSE: add.u32 %r10, %r10, 100;
        END: add.u32 %r10, %r10, 1000;";
    expect("", body, |lane| match lane {
        0..7 => 1012,
        7..20 => 1011,
        _ => 1100,
    });
}

#[test]
fn loops_with_different_trip_counts_meet_again() {
    let body = "mov.u32 %r10, 0;
        mov.u32 %r2, 0;
        LOOP: setp.ge.u32 %p0, %r2, %r0;
        @%p0 bra DONE;
        add.u32 %r10, %r10, %r2;
        add.u32 %r2, %r2, 1;
        bra LOOP;
        DONE: add.u32 %r10, %r10, 5;";
    expect("", body, |lane| (0..lane).sum::<u32>() + 5);
}

#[test]
fn a_loop_that_some_lanes_leave_in_the_middle_meets_again_behind_it() {
    let body = "mov.u32 %r10, 0;
        LOOP: add.u32 %r10, %r10, 1;
        setp.eq.u32 %p0, %r10, %r0;
        @%p0 bra OUT;
        setp.lt.u32 %p1, %r10, 40;
        @%p1 bra LOOP;
        add.u32 %r10, %r10, 100;
        OUT: add.u32 %r10, %r10, 1;";
    expect("", body, |lane| if lane == 0 { 141 } else { lane + 1 });
}

#[test]
fn indexed_branches_take_each_lane_to_its_label() {
    let body = "and.b32 %r2, %r0, 3;
        T: .branchtargets A, B, A, C;
        brx.idx %r2, T;
        A: mov.u32 %r10, 1;
        bra END;
        B: mov.u32 %r10, 2;
        bra END;
        C: mov.u32 %r10, 3;
        END: add.u32 %r10, %r10, %r0;";
    expect("", body, |lane| lane + [1, 2, 1, 3][lane as usize % 4]);
    let kernel = Kernel { body: "T: .branchtargets A;\nbrx.idx %r0, T;\nA: mov.u32 %r10, 1;", ..Kernel::default() };
    assert_eq!(kernel.finds(0, 1, "brx.idx").to_string(), "brx.idx index 1 of 1 targets");
}

#[test]
fn lanes_that_exit_early_do_nothing_more() {
    let body = "mul.wide.u32 %d2, %r0, 4;
        add.s64 %d2, %d1, %d2;
        st.global.u32 [%d2], 1;
        setp.gt.u32 %p0, %r0, 9;
        @%p0 exit;
        st.global.u32 [%d2], 2;
        setp.gt.u32 %p0, %r0, 4;
        @%p0 ret;
        st.global.u32 [%d2], 3;";
    let ran = Kernel { body, ..Kernel::default() }.clean();
    let expected = (0..32).map(|lane| match lane {
        0..5 => 3,
        5..10 => 2,
        _ => 1,
    });
    assert_eq!(ran.output[..32], expected.collect::<Vec<_>>());
}

const FACTORIAL: &str = ".func (.param .b32 result) factorial (.param .b32 n)
    {
    .reg .b32 %a<4>; .reg .pred %c;
    .local .align 4 .b8 kept[4];
    ld.param.u32 %a0, [n];
    setp.gt.u32 %c, %a0, 1;
    @%c bra MORE;
    st.param.b32 [result], 1;
    ret;
    MORE: st.local.u32 [kept], %a0;
    add.u32 %a1, %a0, -1;
    { .param .b32 arg; .param .b32 got;
    st.param.b32 [arg], %a1;
    call (got), factorial, (arg);
    ld.param.b32 %a2, [got]; }
    ld.local.u32 %a3, [kept];
    mul.lo.u32 %a2, %a2, %a3;
    st.param.b32 [result], %a2;
    ret;
    }";

#[test]
fn recursion_to_different_depths_returns_to_each_lane() {
    let body = "and.b32 %r2, %r0, 7;
        { .param .b32 arg; .param .b32 got;
        st.param.b32 [arg], %r2;
        call (got), factorial, (arg);
        ld.param.b32 %r10, [got]; }";
    let (words, _) = run(FACTORIAL, body);
    let factorial = |n: u32| (1..=n).product::<u32>();
    assert_eq!(words, (0..32).map(|lane| factorial(lane % 8)).collect::<Vec<_>>());
}

#[test]
fn calls_under_a_condition_leave_the_other_lanes_alone() {
    let body = "mov.u32 %r10, 7;
        mov.u32 %r2, 5;
        { .param .b32 arg; .param .b32 got;
        st.param.b32 [arg], %r2;
        st.param.b32 [got], 9;
        setp.lt.u32 %p0, %r0, 3;
        @%p0 call (got), factorial, (arg);
        ld.param.b32 %r10, [got]; }";
    let (words, _) = run(FACTORIAL, body);
    assert_eq!(words, (0..32).map(|lane| if lane < 3 { 120 } else { 9 }).collect::<Vec<_>>());
}

#[test]
fn functions_are_called_by_address() {
    let body = "mov.u64 %d3, factorial;
        mov.u32 %r2, 4;
        { .param .b32 arg; .param .b32 got;
        st.param.b32 [arg], %r2;
        P: .callprototype (.param .b32 _) _ (.param .b32 _);
        call (got), %d3, (arg), P;
        ld.param.b32 %r10, [got]; }";
    assert_eq!(run(FACTORIAL, body).0, [24; 32]);
    let kernel = Kernel {
        module: FACTORIAL,
        body: &body.replace("mov.u64 %d3, factorial", "mov.u64 %d3, 12"),
        ..Kernel::default()
    };
    let fault = kernel.finds(0, 0, "call (got), %d3");
    assert_eq!(fault.to_string(), "indirect call of 0xc, which is no function");
}

#[test]
fn recursion_without_end_is_found() {
    let module = ".func f () { call f, (); ret; }";
    let ran = Kernel { module, body: "call f, ();", ..Kernel::default() }.run();
    let Err(error) = ran.result else { panic!("it ended") };
    assert!(error.to_string().starts_with("more than 1000 nested calls"), "{error}");
}

#[test]
fn a_loop_without_end_hits_the_limit() {
    let body = "LOOP: add.u32 %r2, %r2, 1;\nbra.uni LOOP;";
    let fault = Kernel { body, steps: 1000, ..Kernel::default() }.finds(0, 0, "add.u32");
    assert_eq!(fault, Fault::StepLimit(1000));
    assert_eq!(fault.to_string(), "a warp has executed 1000 instructions: the kernel does not seem to finish");
}

#[test]
fn traps_end_the_launch() {
    let body = "setp.eq.u32 %p0, %r0, 17;\n@%p0 trap;";
    assert_eq!(Kernel { body, ..Kernel::default() }.finds(0, 17, "trap"), Fault::Trap("trap".into()));
    let fault = Kernel { body: "brkpt;", ..Kernel::default() }.finds(0, 0, "brkpt");
    assert_eq!(fault, Fault::Trap("brkpt".into()));
}

#[test]
fn a_warp_that_polls_another_one_makes_progress() {
    let body = "setp.lt.u32 %p0, %r0, 32;
        @%p0 bra POLL;
        st.release.cta.shared.u32 [s], 1;
        bra END;
        POLL: nanosleep.u32 10;
        atom.acquire.cta.shared.add.u32 %r2, [s], 0;
        setp.eq.u32 %p1, %r2, 0;
        @%p1 bra POLL;
        END: fence.acq_rel.cta;
        membar.gl;
        griddepcontrol.wait;";
    let ran = Kernel { body, threads: 64, steps: 10_000, ..Kernel::default() }.run();
    // Polling begins before anything is written.
    assert!(ran.report().findings.iter().all(|f| matches!(f.fault, Fault::Uninitialised { .. })));
}

#[test]
fn griddepcontrol_does_one_thing() {
    for form in ["griddepcontrol;", "griddepcontrol.wait.launch_dependents;", "griddepcontrol.wait.wait;"] {
        let text = Kernel { body: form, ..Kernel::default() }.ptx();
        let error = ptx_sim::Machine::default().load(&text).err().expect(form).to_string();
        assert!(error.contains("expected `.launch_dependents` or `.wait`"), "{error}");
    }
}

#[test]
fn a_pause_by_the_clock_is_no_deadlock() {
    let body = "mov.u64 %d2, %clock64;
        AGAIN: nanosleep.u32 20;
        mov.u64 %d3, %clock64;
        sub.s64 %d3, %d3, %d2;
        setp.lt.u64 %p0, %d3, 50000;
        @%p0 bra AGAIN;
        st.global.u32 [%d1], 1;";
    assert_eq!(Kernel { body, ..Kernel::default() }.clean().output[0], 1);
}
