//! Each planted fault is found where it is, and the repaired kernel is clean.

mod kernels;

use kernels::Kernel;
use ptx_sim::fault::{Fault, Other};

/// `%d2` is the address of the thread's word in the first buffer, `%r2` that of its word in `s`.
const PLACES: &str = "mul.wide.u32 %d2, %r0, 4;\nadd.s64 %d2, %d0, %d2;\nshl.b32 %r2, %r0, 2;\n";

fn kernel(body: &str) -> Kernel<'_> {
    Kernel { body, threads: 64, ..Kernel::default() }
}

fn out_of_bounds(body: &str, thread: u32, marker: &str) -> String {
    match kernel(body).finds(0, thread, marker) {
        fault @ Fault::OutOfBounds { .. } => fault.to_string(),
        other => panic!("{other}"),
    }
}

#[test]
fn an_access_past_the_end_is_out_of_bounds() {
    let body = format!("{PLACES}ld.global.u32 %r3, [%d2+4];");
    let text = out_of_bounds(&body, 63, "ld.global.u32 %r3");
    assert_eq!(
        text,
        "read of 4 bytes at global address 0x700000000100: 0 bytes past the end of the allocation of 256 bytes at \
         0x700000000000"
    );
    kernel(&body.replace("+4]", "]")).clean();
}

#[test]
fn an_access_before_the_start_is_out_of_bounds() {
    let body = format!("{PLACES}st.global.u32 [%d2+-4], %r0;");
    let text = out_of_bounds(&body, 0, "st.global.u32 [%d2");
    assert_eq!(text, "write of 4 bytes at global address 0x6ffffffffffc: not in any allocation");
    kernel(&body.replace("+-4]", "]")).clean();
}

#[test]
fn an_access_between_allocations_or_over_an_end_is_out_of_bounds() {
    let text = out_of_bounds("ld.global.u32 %r3, [%d1+-64];", 0, "ld.global.u32 %r3");
    assert!(text.contains("bytes past the end of the allocation of 256 bytes"), "{text}");
    let text = {
        let kernel =
            Kernel { body: "ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%d0+16];", input: vec![1; 7], ..kernel("") };
        kernel.finds(0, 0, "ld.global.v4").to_string()
    };
    assert!(text.contains("runs over the end of the allocation of 28 bytes"), "{text}");
}

#[test]
fn accesses_beyond_shared_local_parameter_and_constant_memory_are_out_of_bounds() {
    let body = format!("{PLACES}st.shared.u32 [%r2+3844], %r0;");
    let text = out_of_bounds(&body, 63, "st.shared.u32");
    assert_eq!(text, "write of 4 bytes at shared address 0x1000: the block has 4096 bytes of shared memory");
    let body = format!("{PLACES}st.shared.u32 [%r2+-128], %r0;");
    let text = out_of_bounds(&body, 0, "st.shared.u32");
    assert_eq!(text, "write of 4 bytes at shared address 0xffffff80: the block has 4096 bytes of shared memory");
    let text = out_of_bounds(".local .align 4 .b8 mine[8];\nld.local.u32 %r3, [mine+8];", 0, "ld.local");
    assert_eq!(text, "read of 4 bytes at local address 0x8: the call has 8 bytes of local memory");
    let text = out_of_bounds(".local .align 4 .b8 mine[8];\nst.local.u32 [mine+8], 1;", 0, "st.local");
    assert_eq!(text, "write of 4 bytes at local address 0x8: the call has 8 bytes of local memory");
    let text = out_of_bounds("ld.param.u32 %r3, [b+8];", 0, "ld.param.u32");
    assert_eq!(text, "read of 4 bytes at parameter address 0x10: there are 16 bytes of parameters");
    let text = out_of_bounds("ld.const.u32 %r3, [0];", 0, "ld.const");
    assert_eq!(text, "read of 4 bytes at constant address 0x0: the constant bank has 0 bytes");
    let text = out_of_bounds("atom.global.add.u32 %r3, [%d0+256], 1;", 0, "atom.global");
    assert!(text.starts_with("atomic of 4 bytes at global address"), "{text}");
}

#[test]
fn a_vector_access_needs_the_alignment_of_the_vector() {
    let body = "mul.wide.u32 %d2, %r0, 8;
        add.s64 %d2, %d0, %d2;
        setp.lt.u32 %p0, %r0, 8;
        @%p0 ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%d2];";
    let fault = kernel(body).finds(0, 1, "ld.global.v4");
    assert_eq!(fault.to_string(), "read of 16 bytes at global address 0x700000000008 is not aligned to 16 bytes");
    kernel(&body.replace("v4.u32 {%r2, %r3, %r4, %r5}", "v2.u32 {%r2, %r3}")).clean();
    let fault = kernel("st.shared.u64 [s+4], %d0;").finds(0, 0, "st.shared");
    assert_eq!(fault.to_string(), "write of 8 bytes at shared address 0x4 is not aligned to 8 bytes");
}

#[test]
fn reads_of_global_memory_that_nothing_has_written_are_found() {
    let body = "ld.global.u32 %r3, [%d1];";
    let fault = kernel(body).finds(0, 0, body);
    assert_eq!(fault.to_string(), "read of 4 bytes at global address 0x700000010100, which nothing has written");
    let fault = kernel("red.global.add.u32 [%d1], 1;").finds(0, 0, "red.global");
    assert!(matches!(fault, Fault::Uninitialised { .. }));
    kernel(&format!("st.global.u32 [%d1], 1;\n{body}")).clean();
}

#[test]
fn reads_of_shared_memory_that_nothing_has_written_are_found() {
    let body = format!("{PLACES}setp.ne.u32 %p0, %r0, 40;\n@%p0 st.shared.u32 [%r2], 1;\nld.shared.u32 %r3, [%r2];");
    let fault = kernel(&body).finds(0, 40, "ld.shared");
    assert_eq!(fault.to_string(), "read of 4 bytes at shared address 0xa0, which nothing has written");
    kernel(&body.replace("@%p0 ", "")).clean();
}

/// Every thread writes its word and reads that of the thread 32 further on.
fn exchange(between: &str) -> String {
    format!("{PLACES}st.shared.u32 [%r2], %r0;\n{between}\nxor.b32 %r3, %r2, 128;\nld.shared.u32 %r4, [%r3];")
}

/// The second warp reads the first one's words, which the first one then does something with. The warp that completes
/// a barrier goes on first, so the reads come first here.
fn second_reads_first_does(what: &str) -> String {
    format!(
        "{PLACES}setp.lt.u32 %p0, %r0, 32;\n@%p0 st.shared.u32 [%r2], %r0;\nbar.sync 0;\n\
         @!%p0 ld.shared.u32 %r4, [%r2+-128];\n//sync\n@%p0 {what}"
    )
}

#[test]
fn a_read_of_another_warps_write_without_a_barrier_races() {
    let body = format!(
        "{PLACES}setp.lt.u32 %p0, %r0, 32;\n@%p0 st.shared.u32 [%r2+128], %r0;\n@!%p0 ld.shared.u32 %r4, [%r2];"
    );
    let ran = kernel(&body).run();
    let findings = &ran.report().findings;
    assert_eq!(findings.len(), 1);
    ran.check_place(&findings[0], 0, 32, "ld.shared");
    assert_eq!(findings[0].fault.to_string(), "read at shared address 0x80 races with thread 0's write (PTX line 28)");
    assert_eq!(findings[0].count, 32);
    kernel(&exchange("bar.sync 0;")).clean();
    assert!(!kernel(&exchange("")).run().report().findings.is_empty());
}

#[test]
fn a_write_over_what_another_warp_has_read_without_a_barrier_races() {
    let again = "st.shared.u32 [%r2], 5;";
    let body = second_reads_first_does(again);
    let fault = kernel(&body).finds(0, 0, again);
    assert!(
        matches!(fault, Fault::Race { action: "write", other_action: "read", other: Other::Thread(32), .. }),
        "{fault}"
    );
    kernel(&body.replace("//sync", "bar.sync 0;")).clean();
}

#[test]
fn writes_of_two_warps_to_one_place_race() {
    let body = "st.shared.u32 [s], 1;";
    let fault = kernel(body).finds(0, 32, body);
    assert!(matches!(fault, Fault::Race { action: "write", other_action: "write", .. }), "{fault}");
    kernel("st.volatile.shared.u32 [s], 1;").clean();
    kernel("st.relaxed.cta.shared.u32 [s], 1;\natom.shared.exch.b32 %r2, [s], 1;").clean();
}

#[test]
fn lanes_of_a_warp_race_without_a_warp_barrier() {
    let body = format!(
        "{PLACES}st.shared.u32 [%r2], %r0;\n//sync\nxor.b32 %r3, %r2, 4;\nld.shared.u32 %r4, [%r3];\n//more\nst.shared.u32 [%r2], 1;"
    );
    let one = |body: &str| Kernel { body, ..Kernel::default() }.run();
    let ran = one(&body);
    assert_eq!(ran.report().findings.len(), 2);
    ran.check_place(&ran.report().findings[0], 0, 0, "ld.shared");
    ran.check_place(&ran.report().findings[1], 0, 0, "st.shared.u32 [%r2], 1");
    let body = body.replace("//sync", "bar.warp.sync -1;");
    assert_eq!(one(&body).report().findings.len(), 1);
    let body = body.replace("//more", "bar.warp.sync -1;");
    assert_eq!(one(&body).report().findings.len(), 0);
}

#[test]
fn a_lane_that_overwrites_what_it_and_another_lane_have_read_races_with_the_other() {
    let body = "st.shared.u32 [s], 1;
        bar.warp.sync -1;
        ld.shared.u32 %r3, [s];
        setp.eq.u32 %p0, %r0, 31;
        @%p0 st.shared.u32 [s], 2;";
    let fault = Kernel { body, ..Kernel::default() }.finds(0, 31, "[s], 2");
    assert!(matches!(fault, Fault::Race { other: Other::Thread(30), .. }), "{fault}");
}

/// Each thread copies a word; reads its own word, or its neighbour's in the other warp.
fn copy(wait: &str, read: &str) -> String {
    format!(
        "{PLACES}cp.async.ca.shared.global [%r2], [%d2], 4;\ncp.async.commit_group;\n{wait}\n{read}\n\
         ld.shared.u32 %r4, [%r2];\nadd.s64 %d3, %d2, %d1;\nsub.s64 %d3, %d3, %d0;\nst.global.u32 [%d3], %r4;"
    )
}

#[test]
fn copied_bytes_may_not_be_used_before_they_are_waited_for() {
    let fault = kernel(&copy("", "")).finds(0, 0, "ld.shared");
    assert!(matches!(fault, Fault::CopyInFlight { action: "read", .. }));
    assert!(fault.to_string().ends_with("while the asynchronous copy of PTX line 26 is in flight"), "{fault}");
    let fault = kernel(&copy("cp.async.wait_group 1;", "")).finds(0, 0, "ld.shared");
    assert!(matches!(fault, Fault::CopyInFlight { .. }));
    let fault = kernel(&copy("", "st.shared.u32 [%r2], 1;")).finds(0, 0, "st.shared");
    assert!(matches!(fault, Fault::CopyInFlight { action: "write", .. }));
    for wait in ["cp.async.wait_group 0;", "cp.async.wait_all;"] {
        assert_eq!(kernel(&copy(wait, "")).clean().output, (0..64).collect::<Vec<_>>());
    }
}

#[test]
fn copied_bytes_may_not_be_used_by_another_warp_without_a_barrier() {
    let read = "setp.lt.u32 %p0, %r0, 32;\n@%p0 ret;\nxor.b32 %r2, %r2, 128;";
    let fault = kernel(&copy("cp.async.wait_all;", read)).finds(0, 32, "ld.shared");
    assert!(matches!(fault, Fault::Race { action: "read", other: Other::Thread(0), .. }), "{fault}");
    let clean = kernel(&copy("cp.async.wait_all;\nbar.sync 0;", read)).clean();
    assert_eq!(clean.output[32..34], [0, 1]);
}

#[test]
fn a_copy_over_what_another_warp_reads_races() {
    let body = second_reads_first_does("cp.async.ca.shared.global [%r2], [%d2], 4;");
    let fault = kernel(&body).finds(0, 0, "cp.async.ca");
    assert!(
        matches!(fault, Fault::Race { action: "write", other_action: "read", other: Other::Thread(32), .. }),
        "{fault}"
    );
    kernel(&body.replace("//sync", "bar.sync 0;")).clean();
}

#[test]
fn groups_arrive_in_order_and_short_sources_are_filled_with_zeros() {
    let body = "cp.async.cg.shared.global.L2::128B [s], [%d0], 16;
        cp.async.commit_group;
        cp.async.ca.shared.global [s+16], [%d0+16], 16, 6;
        cp.async.ca.shared.global [s+32], [%d0+1000000], 8, 0;
        setp.eq.u32 %p0, %r0, %r0;
        cp.async.ca.shared.global.L2::cache_hint [s+40], [%d0+16], 8, %p0, %d2;
        cp.async.ca.shared.global [s+48], [%d0+16], 8, !%p0;
        cp.async.commit_group;
        cp.async.wait_group 1;
        ld.shared.v4.u32 {%r2, %r3, %r4, %r5}, [s];
        st.global.v4.u32 [%d1], {%r2, %r3, %r4, %r5};
        cp.async.wait_group 0;
        ld.shared.v4.u32 {%r2, %r3, %r4, %r5}, [s+16];
        st.global.v4.u32 [%d1+16], {%r2, %r3, %r4, %r5};
        ld.shared.v4.u32 {%r2, %r3, %r4, %r5}, [s+32];
        st.global.v4.u32 [%d1+32], {%r2, %r3, %r4, %r5};
        ld.shared.v2.u32 {%r2, %r3}, [s+48];
        st.global.v2.u32 [%d1+48], {%r2, %r3};";
    let ran = Kernel { body, threads: 1, ..Kernel::default() }.clean();
    assert_eq!(ran.output[..14], [0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 4, 5]);
    let fault = Kernel { body: "mov.u32 %r2, 8;\ncp.async.ca.shared.global [s], [%d0], 4, %r2;", ..Kernel::default() };
    assert_eq!(fault.finds(0, 0, "cp.async").to_string(), "cp.async of 4 bytes with a source of 8");
}

#[test]
fn copies_read_bounds_and_what_was_written() {
    let fault = kernel("cp.async.cg.shared.global [s], [%d0+256], 16;").finds(0, 0, "cp.async");
    assert!(fault.to_string().starts_with("asynchronous copy of 16 bytes at global address"), "{fault}");
    let fault = kernel("cp.async.cg.shared.global [s+4088], [%d0], 16;").finds(0, 0, "cp.async");
    assert!(matches!(fault, Fault::Misaligned { alignment: 16, .. }), "{fault}");
    let body = format!("{PLACES}cp.async.ca.shared.global [%r2], [%d1], 4;");
    assert!(matches!(kernel(&body).finds(0, 0, "cp.async"), Fault::Uninitialised { .. }));
}

#[test]
fn the_first_block_of_a_finding_is_named_and_the_others_counted() {
    let body = "setp.gt.u32 %p0, %r1, 2;\n@%p0 ld.global.u32 %r3, [%d1];";
    let kernel = Kernel { body, blocks: 10, threads: 1, cores: 3, ..Kernel::default() };
    let ran = kernel.run();
    let [finding] = &ran.report().findings[..] else { panic!("one finding") };
    ran.check_place(finding, 3, 0, "ld.global");
    assert_eq!(finding.count, 7);
    let text = finding.to_string();
    let place =
        "\n  in k block (3,0,0) thread (0,0,0)\n  at PTX line 22: ld.global.u32\n  from kernel.cu:101\n  (7 times)";
    assert!(text.ends_with(place), "{text}");
}
