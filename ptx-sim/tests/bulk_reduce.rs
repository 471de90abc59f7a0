//! Bulk reductions to global memory, where blocks work at the same time, and what is refused. The suite has what each
//! operation makes of its operands.

mod kernels;

use kernels::Kernel;
use ptx_sim::fault::{Fault, SpaceName};
use ptx_sim::meter::{Class, Path, Traffic};

/// Each block of 32 threads reduces 128 bytes of its own, of which `word` makes `%r3` of each thread, to the beginning of
/// the first buffer: 16 bytes by each of the first eight threads.
fn together(form: &str, word: &str) -> String {
    format!(
        "mov.u32 %r4, s;
        mad.lo.u32 %r2, %r0, 4, %r4;
        {word}
        st.shared.u32 [%r2], %r3;
        fence.proxy.async;
        bar.sync 0;
        setp.ge.u32 %p0, %r0, 8;
        @%p0 bra END;
        mad.lo.u32 %r2, %r0, 16, %r4;
        mul.wide.u32 %d2, %r0, 16;
        add.u64 %d2, %d0, %d2;
        cp.reduce.async.bulk.global.shared::cta.bulk_group.{form} [%d2], [%r2], 16;
        cp.async.bulk.commit_group;
        cp.async.bulk.wait_group 0;
        END: exit;"
    )
}

#[test]
fn reductions_of_blocks_on_several_cores_lose_nothing() {
    let blocks = 500;
    let run = |form: &str, word: &str, input: Vec<u32>| {
        let body = together(form, word);
        Kernel { body: &body, blocks, cores: 4, input, ..Kernel::default() }.clean().input
    };
    let index = "mad.lo.u32 %r3, %r1, 32, %r0;";
    // Sums of what the threads have: the number of the block times 32, plus the thread.
    let sums = run("add.u32", index, vec![7; 32]);
    let sum = |thread: u32| 7 + (0..blocks).map(|block| block * 32 + thread).sum::<u32>();
    assert_eq!(sums, (0..32).map(sum).collect::<Vec<_>>());
    assert_eq!(run("max.s32", index, vec![0; 32]), (0..32).map(|i| (blocks - 1) * 32 + i).collect::<Vec<_>>());
    assert_eq!(run("inc.u32", "mov.u32 %r3, 99;", vec![0; 32]), vec![blocks % 100; 32]);
    // Whole numbers, whose sums are exact in any order: two f16 in a word, f32, and 64 bits with a carry.
    assert_eq!(run("add.noftz.f16", "mov.b32 %r3, 0x40003C00;", vec![0; 32]), vec![0x63D0_5FD0; 32]);
    let (one, all) = (1f32.to_bits(), (blocks as f32).to_bits());
    assert_eq!(run("add.f32", &format!("mov.b32 %r3, {one};"), vec![0; 32]), vec![all; 32]);
    let wide = run("add.u64", "mov.b32 %r3, 0x80000000;", vec![0; 32]);
    let sum = 0x8000_0000_8000_0000_u64.wrapping_mul(blocks.into());
    assert_eq!(wide, [sum as u32, (sum >> 32) as u32].repeat(16));
}

#[test]
fn what_a_reduction_changes_must_have_been_written() {
    let body = together("add.u32", "mov.u32 %r3, 1;").replace("%d0, %d2", "%d1, %d2");
    let fault = Kernel { body: &body, ..Kernel::default() }.finds(0, 0, "cp.reduce");
    let global = SpaceName(ptx_sim::ast::Space::Global);
    assert!(matches!(fault, Fault::Uninitialised { space, size: 16, .. } if space == global), "{fault}");
}

#[test]
fn the_meter_counts_reductions_as_bulk_writes() {
    let body = together("add.u32", "mov.u32 %r3, 1;");
    let ran = Kernel { body: &body, ..Kernel::default() }.clean();
    let meter = &ran.report().meter;
    let wanted = Traffic { accesses: 8, bytes: 128, sectors: 8, ..Traffic::default() };
    assert_eq!(meter.traffic[&Path::BulkGlobalWrite], wanted);
    assert!(!meter.traffic.contains_key(&Path::GlobalAtomic));
    assert_eq!(meter.instructions(Class::Copy).lane, 24);
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    let global = "cp.reduce.async.bulk.global.shared::cta.bulk_group";
    let cluster = "cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes";
    let is = |line: String, wanted: &str| {
        let text = Kernel { body: &line, ..Kernel::default() }.refusal();
        let name = line.split(' ').next().unwrap();
        assert!(
            text.contains(&format!("`{name}`")) && text.contains("line ") && text.contains(wanted),
            "{line}: {text}"
        );
    };
    // Section 9.7.9.25.4.2 has a table of operations and types; its example of `.xor.s32` is not in it.
    for form in ["add.s64", "min.f32", "inc.u64", "and.u32", "xor.s32", "add.noftz.f16x2", "exch.b32", "cas.b32"] {
        is(format!("{global}.{form} [%d0], [%r2], 16;"), "no such bulk reduction");
    }
    for form in ["add.f32", "min.u64", "and.b64", "add.noftz.f16"] {
        is(format!("{cluster}.{form} [%r2], [%r3], 16, [%r4];"), "no such bulk reduction");
    }
    for form in ["add.f16", "min.noftz.f16", "add.noftz.f32", "add.bf16"] {
        is(format!("{global}.{form} [%d0], [%r2], 16;"), "`.noftz` is for sums of `.f16` and `.bf16`");
    }
    is(format!("{global}.add [%d0], [%r2], 16;"), "expected an operation and a type");
    is(format!("{global}.sub.u32 [%d0], [%r2], 16;"), "expected an operation and a type");
    is(format!("{global}.add.u32 [%d0], [%r2];"), "expected 3 to 3 operands");
    is(format!("{cluster}.add.u32 [%r2], [%r3], 16;"), "expected 4 to 4 operands");
    is(
        format!("{cluster}.L2::cache_hint.add.u32 [%r2], [%r3], 16, [%r4], %d2;"),
        "`.L2::cache_hint` is not known here",
    );
    is("cp.reduce.async.bulk.global.global.bulk_group.add.u32 [%d0], [%d1], 16;".into(), "no such bulk reduction");
    is("cp.reduce.async.bulk.add.u32 [%d0], [%d1], 16;".into(), "expected destination, source");
}
