//! The checker knows single bytes of shared memory, however wide the accesses around them are.

mod kernels;

use kernels::Kernel;
use ptx_sim::fault::Fault;

/// 64 threads: behind a barrier the second warp's lane 0 executes `first`, then the first warp's lane 0 `second`: the warp
/// that completes a barrier goes on first here. `%p1` holds for thread 0, `%p2` for thread 32.
fn two_warps(before: &str, first: &str, second: &str) -> String {
    format!(
        "setp.eq.u32 %p1, %r0, 0;\nsetp.eq.u32 %p2, %r0, 32;\nmov.u64 %d2, 0;\nmov.b16 %h0, 0;\n{before}\nbar.sync 0;\n\
         @%p2 {first}\n@%p1 {second}"
    )
}

fn kernel(body: &str) -> Kernel<'_> {
    Kernel { body, threads: 64, ..Kernel::default() }
}

/// Writes the first 16 bytes of `s`.
const WRITTEN: &str = "@%p1 st.shared.v2.u64 [s], {%d2, %d2};";

#[test]
fn neighbouring_bytes_of_a_word_do_not_race() {
    for (first, second) in [
        ("st.shared.u8 [s], %h0;", "st.shared.u8 [s+1], %h0;"),
        ("st.shared.u16 [s], %h0;", "st.shared.u16 [s+2], %h0;"),
        ("st.shared.u8 [s+3], %h0;", "st.shared.u16 [s], %h0;"),
        ("st.shared.u8 [s+3], %h0;", "st.shared.u32 [s+4], %r0;"),
        ("ld.shared.u8 %h1, [s+2];", "st.shared.u16 [s], %h0;"),
        ("st.shared.u16 [s+2], %h0;", "ld.shared.u8 %h1, [s+1];"),
    ] {
        kernel(&two_warps(WRITTEN, first, second)).clean();
    }
}

#[test]
fn a_race_on_one_byte_is_found_whatever_the_widths_and_named_by_its_first_byte() {
    for (first, second, marker, byte) in [
        ("st.shared.u8 [s+3], %h0;", "st.shared.u32 [s], %r0;", "st.shared.u32", 3),
        ("st.shared.u32 [s], %r0;", "st.shared.u8 [s+3], %h0;", "st.shared.u8", 3),
        ("st.shared.u16 [s+6], %h0;", "st.shared.u64 [s], %d2;", "st.shared.u64", 6),
        ("st.shared.u8 [s+5], %h0;", "st.shared.v4.u32 [s], {%r0, %r0, %r0, %r0};", "st.shared.v4", 5),
        ("ld.shared.u8 %h1, [s+9];", "st.shared.v2.u64 [s], {%d2, %d2};", "st.shared.v2.u64 [s], {%d2, %d2};", 9),
        ("st.shared.u8 [s+1], %h0;", "ld.shared.u16 %h1, [s];", "ld.shared.u16", 1),
        ("st.shared.u8 [s+7], %h0;", "ld.shared.u64 %d3, [s];", "ld.shared.u64", 7),
    ] {
        // The line that is to be found must be the only one like it.
        let body = two_warps(&WRITTEN.replace("%p1", "%p1 "), first, second);
        let body = body.replace("@%p1  st.shared.v2.u64 [s], {%d2, %d2}", "@%p1 st.shared.v2.b64 [s], {%d2, %d2}");
        match kernel(&body).finds(0, 0, marker) {
            Fault::Race { address, .. } => assert_eq!(address, byte, "{first} {second}"),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_byte_that_nothing_has_written_is_found_in_a_word_whose_others_are_written() {
    let write = |bytes: &[u32]| -> String {
        bytes.iter().map(|byte| format!("@%p1 st.shared.u8 [s+{byte}], %h0;\n")).collect()
    };
    let body = two_warps(&write(&[0, 1, 3]), "ld.shared.u16 %h1, [s];", "ld.shared.u32 %r2, [s];");
    match kernel(&body).finds(0, 0, "ld.shared.u32") {
        Fault::Uninitialised { address: 0, size: 4, .. } => {}
        other => panic!("{other}"),
    }
    kernel(&two_warps(&write(&[0, 1, 2, 3]), "ld.shared.u16 %h1, [s];", "ld.shared.u32 %r2, [s];")).clean();
}

#[test]
fn reads_of_several_warps_are_remembered_for_each_byte_of_a_word_that_is_written_in_part() {
    // Both warps read the word; then warp 0 writes a byte of it, which warp 1 has read.
    let reads = "ld.shared.u32 %r2, [s];\nbar.warp.sync 0xFFFFFFFF;";
    let body = format!("{}\n{reads}\n@%p1 st.shared.u8 [s+2], %h0;", two_warps(WRITTEN, "bra next;\nnext:", ""));
    let body = body.replace("\n@%p1 \n", "\n").replace("@%p2 bra next;", "bra next;");
    match kernel(&body).finds(0, 0, "st.shared.u8") {
        Fault::Race { address: 2, other_action: "read", .. } => {}
        other => panic!("{other}"),
    }
    kernel(&body.replace("bar.warp.sync 0xFFFFFFFF;", "bar.sync 0;")).clean();
}

#[test]
fn a_word_that_was_written_in_parts_is_one_again_when_it_is_written_as_a_whole() {
    // Behind the fourth barrier it is the first warp that goes on first.
    let body = format!(
        "{}\nbar.sync 0;\n@%p2 st.shared.u32 [s], %r0;\nbar.sync 0;\n@%p1 ld.shared.u32 %r3, [s];\nbar.sync 0;\n\
         @%p1 st.shared.u16 [s+2], %h0;\n@%p2 ld.shared.u8 %h1, [s+2];",
        two_warps(WRITTEN, "st.shared.u8 [s+1], %h0;", "st.shared.u16 [s+2], %h0;")
    );
    match kernel(&body).finds(0, 32, "ld.shared.u8") {
        Fault::Race { address: 2, other_action: "write", .. } => {}
        other => panic!("{other}"),
    }
    kernel(&body.replace("%h1, [s+2]", "%h1, [s+1]")).clean();
}

#[test]
fn the_end_of_memory_may_cut_a_word() {
    let kernel = |body| Kernel { shared: 6, ..kernel(body) };
    let clean = two_warps("@%p1 st.shared.u16 [s+4], %h0;", "ld.shared.u16 %h1, [s+4];", "ld.shared.u8 %h1, [s+5];");
    kernel(&clean).clean();
    let racy = two_warps("", "st.shared.u8 [s+5], %h0;", "st.shared.u16 [s+4], %h0;");
    assert!(matches!(kernel(&racy).finds(0, 0, "st.shared.u16"), Fault::Race { address: 5, .. }));
}

#[test]
fn what_one_block_knew_is_nothing_to_the_next_one_in_its_place() {
    // Every block reads before it writes: the memory of the block before it is not its own, nor are its accesses.
    let body = "setp.eq.u32 %p1, %r0, 0;\n@%p1 ld.shared.u32 %r2, [s];\nst.shared.u8 [s], %h0;";
    let ran = Kernel { body: "shl.b32 %r2, %r0, 2;\nst.shared.u32 [%r2], %r0;", blocks: 3, ..kernel("") }.clean();
    assert!(ran.report().findings.is_empty());
    let ran = Kernel { body, blocks: 3, threads: 32, ..Kernel::default() }.run();
    let found = &ran.report().findings;
    assert_eq!((found.len(), found[0].count), (1, 3));
    assert!(matches!(found[0].fault, Fault::Uninitialised { .. }));
}
