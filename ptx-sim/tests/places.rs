//! Registers share places only where no lane could notice.

mod kernels;
mod programs;

use kernels::Kernel;
use programs::{INPUTS, KERNELS, SLOTS, model};
use ptx_sim::{Launch, Limits, Machine, Params};

/// Runs a body of 32 threads, which stores `%r9` of each thread.
fn results(body: &str) -> Vec<u32> {
    let text = format!("{body}\nmul.wide.u32 %d2, %r0, 4;\nadd.s64 %d2, %d1, %d2;\nst.global.u32 [%d2], %r9;");
    let ran = Kernel { body: &text, ..Kernel::default() }.clean();
    ran.output[..32].to_vec()
}

#[test]
fn a_register_that_is_never_written_is_zero_although_others_have_had_its_place() {
    let body = "mov.u32 %r2, 7;\nadd.u32 %r3, %r2, %r2;\nadd.u32 %r4, %r3, 1;\nadd.u32 %r9, %r4, %r5;";
    assert_eq!(results(body), [15; 32]);
}

#[test]
fn a_register_that_some_lanes_write_keeps_what_the_others_have() {
    let body = "setp.lt.u32 %p0, %r0, 16;\nmov.u32 %r9, 5;\nmov.u32 %r2, 1;\nadd.u32 %r3, %r2, 1;\n\
                @%p0 add.u32 %r9, %r3, 1;\nmov.u32 %r4, 9;\nadd.u32 %r4, %r4, 1;";
    let expected: Vec<u32> = (0..32).map(|lane| if lane < 16 { 3 } else { 5 }).collect();
    assert_eq!(results(body), expected);
    // Nor is a register that only some lanes have written free for the others.
    let body = "setp.lt.u32 %p0, %r0, 16;\nmov.u32 %r2, 3;\n@%p0 mov.u32 %r9, %r2;\nmov.u32 %r3, 4;\n\
                add.u32 %r4, %r3, 1;";
    let expected: Vec<u32> = (0..32).map(|lane| if lane < 16 { 3 } else { 0 }).collect();
    assert_eq!(results(body), expected);
}

#[test]
fn what_a_loop_reads_in_its_next_round_lives_through_this_one() {
    // `%r2` is read at the top of the loop and written before it; `%r5` at its end and read in the next round.
    let body = "mov.u32 %r2, 3;\nmov.u32 %r9, 0;\nmov.u32 %r6, 0;\nloop:\nadd.u32 %r9, %r9, %r2;\nadd.u32 %r9, %r9, %r5;\n\
                mov.u32 %r7, 100;\nadd.u32 %r8, %r7, 1;\nadd.u32 %r5, %r6, 10;\nadd.u32 %r6, %r6, 1;\n\
                setp.le.u32 %p0, %r6, %r0;\n@%p0 bra loop;";
    // Round i adds 3 and what round i - 1 left: 10 + (i - 1), in the first round nothing.
    let expected: Vec<u32> = (0..32).map(|n: u32| 3 * (n + 1) + (0..n).map(|i| 10 + i).sum::<u32>()).collect();
    assert_eq!(results(body), expected);
}

#[test]
fn lanes_on_different_ways_do_not_share() {
    let body = "setp.lt.u32 %p0, %r0, 16;\nmov.u32 %r2, %r0;\n@%p0 bra low;\nmov.u32 %r3, 1;\nadd.u32 %r9, %r3, %r2;\n\
                bra end;\nlow:\nmov.u32 %r4, 2;\nadd.u32 %r5, %r4, 100;\nadd.u32 %r9, %r5, %r2;\nend:\nadd.u32 %r9, %r9, %r2;";
    let expected: Vec<u32> = (0..32).map(|lane| if lane < 16 { 102 + 2 * lane } else { 1 + 2 * lane }).collect();
    assert_eq!(results(body), expected);
}

#[test]
fn an_indexed_branch_reaches_all_of_its_targets() {
    let body = "and.b32 %r2, %r0, 1;\nmov.u32 %r3, 40;\nmov.u32 %r4, 50;\nts: .branchtargets even, odd;\nbrx.idx %r2, ts;\n\
                even:\nmov.u32 %r5, 1;\nadd.u32 %r9, %r3, %r5;\nbra.uni end;\nodd:\nmov.u32 %r6, 2;\nadd.u32 %r9, %r4, %r6;\nend:";
    let expected: Vec<u32> = (0..32).map(|lane| if lane % 2 == 0 { 41 } else { 52 }).collect();
    assert_eq!(results(body), expected);
}

#[test]
fn parts_of_a_register_of_several_lie_side_by_side() {
    let body = "mov.u64 %d3, 0x100000002;\nmov.u64 %d4, 3;\nmov.b128 %q0, {%d3, %d4};\nmov.u64 %d5, 9;\nadd.u64 %d6, %d5, 1;\n\
                mov.b128 %q1, %q0;\nmov.b128 {%d7, %d8}, %q1;\ncvt.u32.u64 %r2, %d7;\ncvt.u32.u64 %r3, %d8;\n\
                add.u32 %r9, %r2, %r3;\nshr.u64 %d7, %d7, 32;\ncvt.u32.u64 %r4, %d7;\nadd.u32 %r9, %r9, %r4;";
    assert_eq!(results(body), [6; 32]);
}

#[test]
fn a_called_function_has_registers_of_its_own() {
    let module = ".func (.param .b32 out) twice(.param .b32 in) {\n.reg .b32 %r<4>;\nld.param.u32 %r0, [in];\n\
                  add.u32 %r1, %r0, %r0;\nadd.u32 %r1, %r1, %r2;\nst.param.u32 [out], %r1;\nret;\n}";
    let body = "mov.u32 %r2, 1000;\n{\n.param .b32 x;\n.param .b32 y;\nst.param.b32 [x], %r0;\ncall (y), twice, (x);\n\
                ld.param.b32 %r3, [y];\n}\nadd.u32 %r9, %r3, %r2;\nmul.wide.u32 %d2, %r0, 4;\nadd.s64 %d2, %d1, %d2;\n\
                st.global.u32 [%d2], %r9;";
    let ran = Kernel { module, body, ..Kernel::default() }.clean();
    assert_eq!(ran.output[..32], (0..32).map(|lane| 1000 + 2 * lane).collect::<Vec<u32>>()[..]);
}

/// A function that reads what it never writes before, registers of every width and a predicate, and leaves something in
/// all of them. Its result is what it read and its argument.
const LEAVES: &str = ".func (.param .b32 out) leaves(.param .b32 in) {
    .reg .b32 %r<4>; .reg .b64 %d<4>; .reg .b128 %q0; .reg .pred %p0;
    ld.param.u32 %r0, [in];
    selp.u32 %r3, 100, 0, %p0;
    add.u32 %r3, %r3, %r1;
    cvt.u32.u64 %r2, %d0; add.u32 %r3, %r3, %r2;
    mov.b128 {%d1, %d2}, %q0;
    cvt.u32.u64 %r2, %d1; add.u32 %r3, %r3, %r2;
    cvt.u32.u64 %r2, %d2; add.u32 %r3, %r3, %r2;
    mov.u32 %r1, 1000;
    mov.u64 %d0, 10000;
    mov.b128 %q0, {%d0, %d0};
    setp.eq.u32 %p0, %r1, 1000;
    add.u32 %r3, %r3, %r0;
    st.param.u32 [out], %r3;
    ret;
    }";

/// Lines that call a function of one number, whose result is `%r9`.
fn call(guard: &str, function: &str, argument: &str) -> String {
    format!(
        "{{\n.param .b32 x;\n.param .b32 y;\nst.param.b32 [x], {argument};\nst.param.b32 [y], 7;\n\
         {guard} call (y), {function}, (x);\nld.param.b32 %r9, [y];\n}}\n"
    )
}

/// Lines that half of the lanes execute, the first 16 `low` and the others `high`.
fn apart(high: &str, low: &str) -> String {
    format!("setp.lt.u32 %p0, %r0, 16;\n@%p0 bra low;\n{high}bra end;\nlow:\n{low}end:\n")
}

/// Runs a body as [`results`] does, with functions.
fn results_with(module: &str, body: &str) -> Vec<u32> {
    let text = format!("{body}\nmul.wide.u32 %d2, %r0, 4;\nadd.s64 %d2, %d1, %d2;\nst.global.u32 [%d2], %r9;");
    Kernel { module, body: &text, ..Kernel::default() }.clean().output[..32].to_vec()
}

#[test]
fn a_call_finds_nothing_of_what_an_earlier_one_left() {
    let body = [call("", "leaves", "%r0"), "mov.u32 %r4, %r9;\n".into(), call("", "leaves", "%r4")].concat();
    assert_eq!(results_with(LEAVES, &body), (0..32).collect::<Vec<u32>>());
    // Some lanes have called before, and others only now.
    let body =
        ["setp.lt.u32 %p0, %r0, 16;\n".into(), call("@%p0", "leaves", "%r0"), call("", "leaves", "%r0")].concat();
    assert_eq!(results_with(LEAVES, &body), (0..32).collect::<Vec<u32>>());
}

#[test]
fn a_call_clears_nothing_of_other_lanes_in_a_call_of_the_same_depth() {
    // Lanes that sleep in the function let the others call it.
    let module = ".func (.param .b32 out) sleeps(.param .b32 in) {
        .reg .b32 %r<4>; .reg .pred %p0;
        ld.param.u32 %r0, [in];
        add.u32 %r1, %r0, 1000; setp.eq.u32 %p0, %r0, %r0;
        nanosleep.u32 20;
        selp.u32 %r2, %r1, 0, %p0; add.u32 %r2, %r2, %r3; mov.u32 %r3, 5;
        st.param.u32 [out], %r2;
        ret;
        }";
    let sleep = call("", "sleeps", "%r0");
    assert_eq!(results_with(module, &apart(&sleep, &sleep)), (1000..1032).collect::<Vec<u32>>());
}

#[test]
fn every_level_of_a_recursion_keeps_its_registers_and_begins_with_zeros() {
    // `%r1` lives through the call; `%r3` is never written before it is read.
    let module = ".func (.param .b32 out) sum(.param .b32 in) {
        .reg .b32 %r<6>; .reg .pred %p0;
        ld.param.u32 %r0, [in];
        mul.lo.u32 %r1, %r0, 3;
        add.u32 %r1, %r1, %r3;
        mov.u32 %r3, 1000;
        setp.eq.u32 %p0, %r0, 0;
        mov.u32 %r4, 0;
        @%p0 bra END;
        sub.u32 %r2, %r0, 1;
        { .param .b32 x; .param .b32 y;
        st.param.b32 [x], %r2;
        call (y), sum, (x);
        ld.param.b32 %r4, [y]; }
        END: add.u32 %r5, %r4, %r1;
        st.param.u32 [out], %r5;
        ret;
        }";
    let body = ["and.b32 %r2, %r0, 7;\n".into(), call("", "sum", "%r2"), call("", "sum", "%r2")].concat();
    let expected = |lane: u32| (0..=lane % 8).map(|n| 3 * n).sum::<u32>();
    assert_eq!(results_with(module, &body), (0..32).map(expected).collect::<Vec<u32>>());
}

#[test]
fn functions_called_by_address_have_registers_of_their_own() {
    let module = [
        LEAVES,
        ".func (.param .b32 out) twice(.param .b32 in) {\n.reg .b32 %r<3>;\nld.param.u32 %r0, [in];\n\
                           add.u32 %r1, %r0, %r0;\nadd.u32 %r1, %r1, %r2;\nmov.u32 %r2, 9;\nst.param.u32 [out], %r1;\nret;\n}",
    ];
    // Lanes call either of two functions by the same instruction. What the caller has in `%r4` and `%d5` lives on.
    let body = "mov.u32 %r4, 500;\nmov.u64 %d5, 3;\nmov.u64 %d3, leaves;\nmov.u64 %d4, twice;\nand.b32 %r2, %r0, 1;\n\
                setp.eq.u32 %p0, %r2, 0;\nselp.b64 %d3, %d3, %d4, %p0;\nP: .callprototype (.param .b32 _) _ (.param .b32 _);\n{\n\
                .param .b32 x;\n.param .b32 y;\nst.param.b32 [x], %r0;\ncall (y), %d3, (x), P;\ncall (y), %d3, (x), P;\n\
                ld.param.b32 %r9, [y];\n}\nadd.u32 %r9, %r9, %r4;\ncvt.u32.u64 %r3, %d5;\nadd.u32 %r9, %r9, %r3;";
    let expected: Vec<u32> = (0..32).map(|lane| 503 + if lane % 2 == 0 { lane } else { 2 * lane }).collect();
    assert_eq!(results_with(&module.concat(), body), expected);
}

#[test]
fn calls_in_branches_that_lanes_take_differently_leave_the_callers_registers() {
    // Each way has values that live through its call, in places that the other way uses for its own.
    let high = ["add.u32 %r3, %r0, 100;\n", &call("", "leaves", "%r3"), "add.u32 %r9, %r9, %r3;\n"].concat();
    let low = ["add.u32 %r4, %r0, 300;\n", &call("", "leaves", "%r4"), "sub.u32 %r9, %r9, %r4;\n"].concat();
    let body = ["mov.u32 %r2, 40;\n", &apart(&high, &low), "add.u32 %r9, %r9, %r2;"];
    let expected: Vec<u32> = (0..32).map(|lane| 40 + if lane < 16 { 0 } else { 2 * (lane + 100) }).collect();
    assert_eq!(results_with(LEAVES, &body.concat()), expected);
}

#[test]
fn two_kernels_call_one_function() {
    // Kernels of few and of many registers, so that the function's lie beside other ones of theirs.
    let kernel = |name: &str, body: &str| {
        format!(
            ".visible .entry {name}(.param .u64 to) {{\n.reg .pred %p<2>; .reg .b32 %r<16>; .reg .b64 %d<8>;\n\
             mov.u32 %r0, %tid.x;\nld.param.u64 %d1, [to];\n{body}\nmul.wide.u32 %d2, %r0, 4;\nadd.s64 %d2, %d1, %d2;\n\
             st.global.u32 [%d2], %r9;\nret;\n}}\n"
        )
    };
    let values: String = (2..8).map(|i| format!("add.u32 %r{i}, %r0, {i};\n")).collect();
    let sums: String = (2..8).map(|i| format!("add.u32 %r9, %r9, %r{i};\n")).collect();
    let many = [values, call("", "leaves", "%r7"), call("", "leaves", "%r9"), sums].concat();
    let header = ".version 9.0\n.target sm_80\n.address_size 64\n";
    let ptx = [header, LEAVES, "\n", &kernel("few", &call("", "leaves", "%r0")), &kernel("many", &many)].concat();
    let mut machine = Machine::default();
    let module = machine.load(&ptx).unwrap();
    let to = machine.memory.allocate(4 * 32).unwrap();
    for (name, expected) in [("few", (|n| n) as fn(u32) -> u32), ("many", |n| 7 * n + 34), ("few", |n| n)] {
        let launch = Launch::new([1; 3], [32, 1, 1]);
        assert_eq!(machine.launch(&module, name, &launch, Params::new().pointer(to).bytes()).unwrap().findings, []);
        let mut bytes = [0; 4 * 32];
        machine.memory.read(to, &mut bytes).unwrap();
        let found: Vec<u32> = bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        assert_eq!(found, (0..32).map(expected).collect::<Vec<u32>>(), "{name}");
    }
}

/// A function that jumps backwards from stretch to stretch: what lives where is known only after as many passes.
#[test]
fn a_long_chain_of_jumps_backwards_is_assembled_soon() {
    let mut body = String::from("bra L20000;\nL0:\nadd.u32 %r9, %r9, 1;\nbra end;\n");
    for link in 1..=20000 {
        body += &format!("L{link}:\nbra L{};\n", link - 1);
    }
    body += "end:";
    let started = std::time::Instant::now();
    let text = Kernel { body: &body, ..Kernel::default() }.ptx();
    assert!(ptx_sim::Machine::default().load(&text).is_ok());
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

/// Functions that call themselves and each other, by name and by address, from loops and branches that lanes take
/// differently, and from two kernels: what a thread computes is what it would compute alone, with registers of its own
/// that begin as zeros in every call.
#[test]
fn threads_of_random_programs_compute_what_they_would_alone() {
    const THREADS: [u32; 2] = [40, 2];
    let inputs: [u32; INPUTS] = std::array::from_fn(|i| (i as u32).wrapping_mul(0x9E37_79B9) >> (i % 29));
    let bytes: Vec<u8> = inputs.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut limits = Limits::default();
    limits.cores = 1;
    for seed in 0..300 {
        let program = programs::random(seed, None);
        let ptx = program.ptx();
        let mut machine = Machine::new(limits);
        let module = machine.load(&ptx).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
        let words = (THREADS[0] * THREADS[1]) as usize * SLOTS;
        let (input, output) =
            (machine.memory.allocate(bytes.len()).unwrap(), machine.memory.allocate_zeros(4 * words).unwrap());
        machine.memory.write(input, &bytes).unwrap();
        let mut expected = vec![[0; SLOTS]; words / SLOTS];
        for kernel in 0..KERNELS {
            for (thread, own) in expected.iter_mut().enumerate() {
                let place = [thread as u32 % THREADS[0], thread as u32 / THREADS[0]];
                *own = model::outputs(&program, kernel, &inputs, place, *own);
            }
            let launch = Launch::new([THREADS[1], 1, 1], [THREADS[0], 1, 1]);
            let report = machine.launch(
                &module,
                &format!("F{kernel}"),
                &launch,
                Params::new().pointer(input).pointer(output).bytes(),
            );
            let report = report.unwrap_or_else(|error| panic!("seed {seed}: {error}\n{ptx}"));
            assert!(report.findings.is_empty(), "seed {seed}: {}\n{ptx}", report.findings[0]);
            let mut found = vec![0; 4 * words];
            machine.memory.read(output, &mut found).unwrap();
            let found: Vec<u32> =
                found.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
            for (thread, own) in expected.iter().enumerate() {
                assert_eq!(found[thread * SLOTS..][..SLOTS], own[..], "seed {seed}, F{kernel}, thread {thread}\n{ptx}");
            }
        }
    }
}
