//! Registers share places only where no lane could notice.

mod kernels;

use kernels::Kernel;

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
