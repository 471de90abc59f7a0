//! Bulk groups, and copies from shared to global memory that complete in them: what arrives when, and each misuse at
//! its line.

mod kernels;

use kernels::Kernel;
use ptx_sim::LaunchError;
use ptx_sim::fault::{Fault, Other};
use ptx_sim::meter::{Class, Path, Traffic};

/// Each thread writes its index to its word of `s`; `%r4` is the address of `s`, `%r2` that of the word, and `%p0` says
/// who is thread 0. Lines after `//fence` and `//bar` make it visible to copies of thread 0.
const FILL: &str = "mov.u32 %r4, s;
    mad.lo.u32 %r2, %r0, 4, %r4;
    st.shared.u32 [%r2], %r0;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    setp.eq.u32 %p0, %r0, 0;
    @!%p0 bra END;
    ";

/// Thread 0 copies the first 128 bytes of `s` to the second buffer.
const STORE: &str = "cp.async.bulk.global.shared::cta.bulk_group [%d1], [%r4], 128;
    cp.async.bulk.commit_group;
    ";

fn kernel(body: &str) -> Kernel<'_> {
    Kernel { body, threads: 64, ..Kernel::default() }
}

/// What thread 0 does when all have filled their words; then all exit.
fn one(what: &str) -> String {
    format!("{FILL}{what}\nEND: exit;")
}

#[test]
fn bytes_arrive_when_the_group_is_waited_for() {
    let body =
        one(&format!("{STORE}cp.async.bulk.wait_group 0;\nld.global.u32 %r5, [%d1+4];\nst.global.u32 [%d1], %r5;"));
    let ran = kernel(&body).clean();
    let wanted: Vec<u32> = (0..32).map(|i| if i == 0 { 1 } else { i }).chain([0; 32]).collect();
    assert_eq!(ran.output, wanted);
}

/// Thread 0 copies three pieces of 16 bytes to zeros, each in a group of its own, and after `wait` it reads the first
/// word of each: what has not arrived is still zero. Then it waits for all.
fn three_groups(wait: &str) -> Vec<u32> {
    let mut what = String::new();
    for at in [0, 16, 32] {
        what += &format!(
            "st.global.v4.u32 [%d1+{at}], {{%r3, %r3, %r3, %r3}};
            cp.async.bulk.global.shared::cta.bulk_group [%d1+{at}], [%r4+{}], 16;
            cp.async.bulk.commit_group;\n",
            at + 16
        );
    }
    what += wait;
    for (i, at) in [0, 16, 32].iter().enumerate() {
        what += &format!("\nld.global.u32 %r{}, [%d1+{at}];", 6 + i);
    }
    what += "\ncp.async.bulk.wait_group 0;\nst.global.u32 [%d1+64], %r6;\nst.global.u32 [%d1+68], %r7;
        st.global.u32 [%d1+72], %r8;";
    let ran = kernel(&one(&format!("mov.u32 %r3, 0;\n{what}"))).clean();
    assert_eq!(ran.output[..12], (4..16).collect::<Vec<u32>>(), "{wait}");
    ran.output[16..19].to_vec()
}

#[test]
fn groups_complete_in_their_order_and_the_most_recent_stay_pending() {
    assert_eq!(three_groups("cp.async.bulk.wait_group 3;"), [0, 0, 0]);
    assert_eq!(three_groups("cp.async.bulk.wait_group 2;"), [4, 0, 0]);
    assert_eq!(three_groups("cp.async.bulk.wait_group 1;"), [4, 8, 0]);
    assert_eq!(three_groups("cp.async.bulk.wait_group 0;"), [4, 8, 12]);
    // An empty group counts.
    assert_eq!(three_groups("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 2;"), [4, 8, 0]);
    // Reading is waited for, not writing; and a group whose sources were read is still pending.
    assert_eq!(three_groups("cp.async.bulk.wait_group.read 0;"), [0, 0, 0]);
    assert_eq!(three_groups("cp.async.bulk.wait_group.read 1;\ncp.async.bulk.wait_group 2;"), [4, 0, 0]);
    // Other copies have other groups.
    assert_eq!(three_groups("cp.async.wait_all;"), [0, 0, 0]);
}

#[test]
fn threads_have_groups_of_their_own() {
    // Threads 0 and 1 copy their own 16 bytes; each waits for its own.
    let body = "mov.u32 %r4, s;
        mad.lo.u32 %r2, %r0, 16, %r4;
        mad.wide.u32 %d2, %r0, 16, %d1;
        st.shared.v4.u32 [%r2], {%r0, %r0, %r0, %r0};
        fence.proxy.async;
        cp.async.bulk.global.shared::cta.bulk_group [%d2], [%r2], 16;
        cp.async.bulk.commit_group;
        cp.async.bulk.wait_group 0;
        ld.global.u32 %r5, [%d2+8];
        add.u32 %r5, %r5, 1;
        st.global.u32 [%d2], %r5;";
    let ran = Kernel { threads: 40, output: 160, ..kernel(body) }.clean();
    let wanted = |i: u32| if i.is_multiple_of(4) { i / 4 + 1 } else { i / 4 };
    assert_eq!(ran.output, (0..160).map(wanted).collect::<Vec<_>>());
    assert_eq!(ran.report().meter.traffic[&Path::BulkGlobalWrite].accesses, 40);
}

#[test]
fn a_source_written_before_the_copy_has_read_it_is_found() {
    let again = "st.shared.u32 [s+124], 99;";
    let wait = "cp.async.bulk.wait_group.read 0;";
    for early in ["", "cp.async.bulk.wait_group.read 1;", "cp.async.wait_all;"] {
        let body = one(&format!("{STORE}{early}\n{again}\n{wait}"));
        let fault = kernel(&body).finds(0, 0, again);
        assert!(matches!(fault, Fault::ReadInFlight { action: "write", address: 112..=127, .. }), "{early}: {fault}");
    }
    let ran = kernel(&one(&format!("{STORE}{wait}\n{again}"))).clean();
    assert_eq!(ran.output[..32], (0..32).collect::<Vec<_>>());
    // Bytes beside the source are free.
    kernel(&one(&format!("{STORE}{}\n{wait}", again.replace("124", "128")))).clean();
}

#[test]
fn another_thread_that_writes_the_source_has_to_know_that_it_was_read() {
    // The warp that completes a barrier goes on first: the second one copies, and then the first one writes.
    let again = "@%p0 st.shared.u32 [s+64], 99;";
    let body = |between: &str| {
        FILL.replace("@!%p0 bra END;", "setp.eq.u32 %p1, %r0, 32;")
            + &STORE.replace("cp.", "@%p1 cp.")
            + "@%p1 cp.async.bulk.wait_group.read 0;\n"
            + &format!("{between}\n{again}\nbar.sync 0;")
    };
    let fault = kernel(&body("")).finds(0, 0, again);
    assert!(matches!(fault, Fault::Race { other: Other::Thread(32), other_action: "read", .. }), "{fault}");
    kernel(&body("bar.sync 0;")).clean();
}

#[test]
fn a_group_that_is_never_waited_for_is_found_when_the_source_is_used_again() {
    let round = |at: u32| {
        format!(
            "st.shared.u32 [s+{at}], 7;\nfence.proxy.async;
            cp.async.bulk.global.shared::cta.bulk_group [%d1+{at}], [s+{at}], 16;\ncp.async.bulk.commit_group;\n"
        )
    };
    // Three buffers, of which the first comes again: the wait before that is to leave two groups pending.
    let again = "st.shared.u32 [s], 8;";
    let end = "cp.async.bulk.wait_group.read 0;";
    let body = |wait: &str| one(&format!("{}{}{}{wait}\n{again}\n{end}", round(0), round(16), round(32)));
    let fault = kernel(&body("cp.async.bulk.wait_group.read 3;")).finds(0, 0, again);
    assert!(matches!(fault, Fault::ReadInFlight { address: 0, .. }), "{fault}");
    kernel(&body("cp.async.bulk.wait_group.read 2;")).clean();
}

#[test]
fn a_block_may_not_exit_while_its_shared_memory_is_read() {
    let copy = "cp.async.bulk.global.shared::cta.bulk_group";
    for wait in ["", "cp.async.bulk.wait_group.read 1;"] {
        let fault = kernel(&one(&format!("{STORE}{wait}"))).finds(0, 0, copy);
        assert!(matches!(fault, Fault::Exited { rank: 0, .. }), "{fault}");
    }
    for wait in ["cp.async.bulk.wait_group.read 0;", "cp.async.bulk.wait_group 0;"] {
        kernel(&one(&format!("{STORE}{wait}"))).clean();
    }
}

#[test]
fn bytes_that_are_never_waited_for_arrive_at_the_end() {
    let ran = kernel(&one(&STORE.replace("cp.async.bulk.commit_group;", ""))).run();
    assert!(matches!(ran.report().findings[0].fault, Fault::Exited { .. }));
    assert_eq!(ran.output[..32], (0..32).collect::<Vec<_>>());
}

#[test]
fn ordinary_writes_reach_a_copy_by_a_proxy_fence() {
    let copy = "cp.async.bulk.global.shared::cta.bulk_group";
    let wait = "cp.async.bulk.wait_group.read 0;";
    let body = one(&format!("{STORE}{wait}")).replace("fence.proxy.async.shared::cta;", "");
    let fault = kernel(&body).finds(0, 0, copy);
    assert!(
        matches!(fault, Fault::NoProxyFence { action: "read", address: 0, other: Other::Thread(0), .. }),
        "{fault}"
    );
    // A fence of the thread that copies, behind the barrier, is one between.
    kernel(&one(&format!("fence.proxy.async;\n{STORE}{wait}")).replace("fence.proxy.async.shared::cta;", "")).clean();
    // One for other memory is not.
    let wrong = one(&format!("{STORE}{wait}")).replace(".shared::cta;", ".global;");
    assert!(matches!(kernel(&wrong).finds(0, 0, copy), Fault::NoProxyFence { .. }));
}

#[test]
fn a_copy_of_what_other_warps_write_needs_a_barrier() {
    let body = one(&format!("{STORE}cp.async.bulk.wait_group 0;"));
    let body = body.replace("bar.sync 0;", "bar.warp.sync 0xffffffff;").replace("%r0, 0;", "%r0, 32;");
    let copy = "cp.async.bulk.global.shared::cta.bulk_group";
    let fault = kernel(&body).finds(0, 32, copy);
    assert!(matches!(fault, Fault::Race { action: "read", other_action: "write", .. }), "{fault}");
}

#[test]
fn bytes_that_nothing_has_written_are_found() {
    let body = one(&format!("{}cp.async.bulk.wait_group 0;", STORE.replace("128;", "272;")));
    let fault = Kernel { output: 128, ..kernel(&body) }.finds(0, 0, "cp.async.bulk.global");
    assert!(matches!(fault, Fault::Uninitialised { .. }), "{fault}");
}

/// The fault of one copy with these operands, which ends the launch at its line. `%r5` is 8.
fn misuse(operands: &str) -> String {
    let copy = format!("cp.async.bulk.global.shared::cta.bulk_group {operands};");
    let body = one(&format!("mov.u32 %r5, 8;\n{copy}"));
    let ran = kernel(&body).run();
    assert!(matches!(ran.result, Err(LaunchError::Fault(_))), "{operands}");
    kernel(&body).finds(0, 0, &copy).to_string()
}

#[test]
fn sizes_addresses_and_ranges_that_the_isa_does_not_define_end_the_launch() {
    let is = |operands: &str, wanted: &str| assert_eq!(misuse(operands), wanted, "{operands}");
    is("[%d1], [%r4], %r5", "a bulk operation on 8 bytes, which are no multiple of 16");
    is("[%d1], [%r4], %r0", "a bulk operation on 0 bytes, which the ISA does not define");
    is("[%d1], [%r4+8], 16", "bulk operation of 16 bytes at shared address 0x8 is not aligned to 16 bytes");
    is("[%d1+4], [%r4], 32", "bulk operation of 32 bytes at global address 0x700000010104 is not aligned to 16 bytes");
    is(
        "[%d1], [%r4+4080], 32",
        "bulk operation of 32 bytes at shared address 0xff0: the block has 4096 bytes of shared memory",
    );
    is(
        "[%d1], [%r4+-16], 16",
        "bulk operation of 16 bytes at shared address 0xfffffff0: the block has 4096 bytes of \
        shared memory",
    );
    is(
        "[%d1+240], [%r4], 32",
        "bulk write of 32 bytes at global address 0x7000000101f0: runs over the end of the allocation of 256 bytes at \
         0x700000010100",
    );
    is(
        "[%d1], [%r4+33554432], 16",
        "bulk operation of 16 bytes at shared address 0x2000000: the block has 4096 bytes of shared memory",
    );
}

#[test]
fn the_meter_counts_bytes_rows_of_banks_and_sectors() {
    let body =
        one(&format!("{}cp.async.bulk.wait_group 0;", STORE.replace("[%d1], [%r4], 128", "[%d1+16], [%r4+16], 144")));
    let ran = kernel(&body).clean();
    let meter = &ran.report().meter;
    let shared = Traffic { accesses: 1, bytes: 144, wavefronts: 2, ..Traffic::default() };
    assert_eq!(meter.traffic[&Path::BulkSharedRead], shared);
    // From byte 16 of a sector to the end of another: half a sector and four whole ones.
    let global = Traffic { accesses: 1, bytes: 144, sectors: 5, ..Traffic::default() };
    assert_eq!(meter.traffic[&Path::BulkGlobalWrite], global);
    assert!(!meter.traffic.contains_key(&Path::GlobalWrite));
    assert_eq!(meter.instructions(Class::Copy).warp, 3);
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    let is = |line: &str, wanted: &str| {
        let text = Kernel { body: line, ..Kernel::default() }.refusal();
        let name = line.split(' ').next().unwrap().trim_end_matches(';');
        assert!(
            text.contains(&format!("`{name}`")) && text.contains("line ") && text.contains(wanted),
            "{line}: {text}"
        );
    };
    is("cp.async.bulk.commit_group 0;", "expected 0 to 0 operands");
    is("cp.async.bulk.commit_group.read;", "unknown part `.read`");
    is("cp.async.bulk.wait_group;", "expected 1 to 1 operands");
    is("cp.async.bulk.wait_group %r0;", "expected a number of groups");
    is("cp.async.bulk.wait_group -1;", "expected a number of groups");
    is("cp.async.bulk.wait_group.write 0;", "unknown part `.write`");
    let copy = "cp.async.bulk.global.shared::cta.bulk_group";
    is(&format!("{copy} [%d0], [%r2];"), "expected 3 to 3 operands");
    is(&format!("{copy} [%d0], [%r2], %d2;"), "`%d2` is a register of 64 bits, where `.u32` has 32");
    is(&format!("{copy} [%d0], %r2, 16;"), "expected an address");
    is(&format!("{copy}.L2::cache_hint [%d0], [%r2], 16;"), "expected 4 to 4 operands");
    is(&format!("{copy}.L2::cache_hint.L2::cache_hint [%d0], [%r2], 16, %d2;"), "stands twice");
    is(&format!("{copy}.cp_mask [%d0], [%r2], 16, %h0;"), "`.cp_mask` needs sm_100");
    is(&format!("{copy}.multicast::cluster [%d0], [%r2], 16, %h0;"), "`.multicast::cluster` is not known here");
    is("cp.async.bulk.global.shared::cluster.bulk_group [%d0], [%r2], 16;", "no such bulk copy");
    is("cp.async.bulk.global.shared::cta.mbarrier::complete_tx::bytes [%d0], [%r2], 16, [%r3];", "no such bulk copy");
    is("cp.async.bulk.global.global.bulk_group [%d0], [%d1], 16;", "no such bulk copy");
    is("cp.async.bulk [%d0], [%d1], 16;", "expected destination, source and completion mechanism");
}
