//! Counts that are derived by hand.

mod kernels;

use kernels::Kernel;
use ptx_sim::meter::{Class, Meter, Path, Traffic};

fn meter(body: &str, threads: u32) -> Meter {
    let kernel = Kernel { body, threads, input: vec![0; 4096], output: 4096, shared: 16384, ..Kernel::default() };
    kernel.clean().report().meter.clone()
}

fn shared(accesses: u64, bytes: u64, wavefronts: u64, conflicts: u64) -> Traffic {
    let mut traffic = Traffic::default();
    (traffic.accesses, traffic.bytes, traffic.wavefronts, traffic.conflicts) = (accesses, bytes, wavefronts, conflicts);
    traffic
}

fn global(accesses: u64, bytes: u64, sectors: u64) -> Traffic {
    let mut traffic = Traffic::default();
    (traffic.accesses, traffic.bytes, traffic.sectors) = (accesses, bytes, sectors);
    traffic
}

/// Each thread loads `ty` elements of `size` bytes at `stride` times its index.
fn load(ty: &str, registers: &str, stride: u32, offset: u32) -> Traffic {
    let body = format!(
        "mul.wide.u32 %d2, %r0, {stride};\nadd.s64 %d2, %d0, %d2;\nld.global.{ty} {registers}, [%d2+{offset}];"
    );
    meter(&body, 32).traffic[&Path::GlobalRead]
}

#[test]
fn global_accesses_cost_their_distinct_sectors() {
    assert_eq!(load("u32", "%r2", 4, 0), global(1, 128, 4));
    // Shifted by one word, the warp touches a fifth sector.
    assert_eq!(load("u32", "%r2", 4, 4), global(1, 128, 5));
    assert_eq!(load("u32", "%r2", 8, 0), global(1, 128, 8));
    assert_eq!(load("u32", "%r2", 128, 0), global(1, 128, 32));
    assert_eq!(load("u32", "%r2", 0, 0), global(1, 128, 1));
    assert_eq!(load("u8", "%r2", 1, 0), global(1, 32, 1));
    assert_eq!(load("v4.u32", "{%r2, %r3, %r4, %r5}", 16, 0), global(1, 512, 16));
    assert_eq!(load("v2.u64", "{%d3, %d4}", 32, 0), global(1, 512, 32));
}

/// Each thread stores 4, 8 or 16 bytes at `stride` times its index into shared memory.
fn store(ty: &str, registers: &str, stride: u32) -> Traffic {
    let body = format!("mul.lo.u32 %r2, %r0, {stride};\nst.shared.{ty} [%r2], {registers};");
    meter(&body, 32).traffic[&Path::SharedWrite]
}

#[test]
fn shared_accesses_cost_a_wavefront_for_each_word_of_the_busiest_bank() {
    assert_eq!(store("u32", "%r0", 4), shared(1, 128, 1, 0));
    assert_eq!(store("u32", "%r0", 8), shared(1, 128, 2, 1));
    assert_eq!(store("u32", "%r0", 12), shared(1, 128, 1, 0));
    assert_eq!(store("u32", "%r0", 128), shared(1, 128, 32, 31));
    assert_eq!(store("u32", "%r0", 132), shared(1, 128, 1, 0));
    // Four lanes share a word, eight words in all.
    assert_eq!(store("u8", "%r0", 1), shared(1, 32, 1, 0));
}

#[test]
fn wide_shared_accesses_take_turns() {
    assert_eq!(store("u64", "%d0", 8), shared(1, 256, 2, 0));
    // In each half of the warp two lanes meet in a bank.
    assert_eq!(store("u64", "%d0", 16), shared(1, 256, 4, 2));
    assert_eq!(store("v4.u32", "{%r0, %r0, %r0, %r0}", 16), shared(1, 512, 4, 0));
    // Rows of 128 bytes: the eight lanes of a turn all begin in bank 0.
    assert_eq!(store("v4.u32", "{%r0, %r0, %r0, %r0}", 128), shared(1, 512, 32, 28));
    // Rows of 144 bytes: shifted by four banks each.
    assert_eq!(store("v4.u32", "{%r0, %r0, %r0, %r0}", 144), shared(1, 512, 4, 0));
}

#[test]
fn lanes_that_read_the_same_word_share_a_wavefront() {
    let body = "st.volatile.shared.u32 [s], 1;\nbar.warp.sync -1;\nld.shared.u32 %r2, [s];";
    assert_eq!(meter(body, 32).traffic[&Path::SharedRead], shared(1, 128, 1, 0));
}

/// A 32 x 32 transpose by 8 warps; rows of shared memory are `row` bytes long.
fn transpose(row: u32) -> Meter {
    // Thread (x, y) = (r2, r3); four rows a thread.
    let mut body = "and.b32 %r2, %r0, 31;\nshr.u32 %r3, %r0, 5;\n".to_string();
    body += "mul.wide.u32 %d2, %r3, 128;\nmul.wide.u32 %d3, %r2, 4;\nadd.s64 %d2, %d2, %d3;\n";
    body += "add.s64 %d4, %d0, %d2;\nadd.s64 %d5, %d1, %d2;\n";
    body += &format!("mul.lo.u32 %r4, %r3, {row};\nshl.b32 %r5, %r2, 2;\nadd.u32 %r4, %r4, %r5;\n");
    body += &format!("mul.lo.u32 %r6, %r2, {row};\nshl.b32 %r7, %r3, 2;\nadd.u32 %r6, %r6, %r7;\n");
    for i in 0..4 {
        body += &format!("ld.global.u32 %r8, [%d4+{}];\nst.shared.u32 [%r4+{}], %r8;\n", 1024 * i, 8 * row * i);
    }
    body += "bar.sync 0;\n";
    for i in 0..4 {
        body += &format!("ld.shared.u32 %r8, [%r6+{}];\nst.global.u32 [%d5+{}], %r8;\n", 32 * i, 1024 * i);
    }
    let kernel = Kernel {
        body: &body,
        threads: 256,
        input: (0..1024).collect(),
        output: 1024,
        shared: 8192,
        ..Kernel::default()
    };
    let ran = kernel.clean();
    assert!((0..1024).all(|i| ran.output[i] as usize == i % 32 * 32 + i / 32));
    ran.report().meter.clone()
}

#[test]
fn a_transpose_conflicts_unless_rows_are_padded() {
    let plain = transpose(128);
    assert_eq!(plain.traffic[&Path::GlobalRead], global(32, 4096, 128));
    assert_eq!(plain.traffic[&Path::GlobalWrite], global(32, 4096, 128));
    assert_eq!(plain.traffic[&Path::SharedWrite], shared(32, 4096, 32, 0));
    assert_eq!(plain.traffic[&Path::SharedRead], shared(32, 4096, 1024, 992));
    let padded = transpose(132);
    assert_eq!(padded.traffic[&Path::SharedWrite], shared(32, 4096, 32, 0));
    assert_eq!(padded.traffic[&Path::SharedRead], shared(32, 4096, 32, 0));
}

#[test]
fn asynchronous_copies_count_on_both_sides() {
    let body = "mul.wide.u32 %d2, %r0, 16;
        add.s64 %d2, %d0, %d2;
        shl.b32 %r2, %r0, 4;
        setp.lt.u32 %p0, %r0, 8;
        selp.b32 %r3, 16, 0, %p0;
        cp.async.cg.shared.global [%r2], [%d2], 16, %r3;
        cp.async.wait_all;";
    let meter = meter(body, 32);
    assert_eq!(meter.traffic[&Path::CopyGlobalRead], global(1, 128, 4));
    assert_eq!(meter.traffic[&Path::CopySharedWrite], shared(1, 512, 4, 0));
    assert_eq!(meter.instructions(Class::Copy).warp, 2);
}

#[test]
fn local_memory_is_interleaved_and_constants_and_atomics_have_paths() {
    let body = ".local .align 16 .b8 mine[16];
        st.local.u32 [mine], %r0;
        st.local.v4.u32 [mine], {%r0, %r0, %r0, %r0};
        ld.local.u32 %r2, [mine];
        red.global.add.u32 [%d0], 1;
        st.volatile.shared.u32 [s], 1;
        red.shared.add.u32 [s], 1;";
    let meter = meter(body, 32);
    assert_eq!(meter.traffic[&Path::LocalWrite], global(2, 640, 20));
    assert_eq!(meter.traffic[&Path::LocalRead], global(1, 128, 4));
    assert_eq!(meter.traffic[&Path::GlobalAtomic], global(1, 128, 1));
    assert_eq!(meter.traffic[&Path::SharedAtomic], shared(1, 128, 1, 0));
    let kernel = Kernel { module: ".const .u32 c = 3;", body: "ld.const.u32 %r2, [c];", ..Kernel::default() };
    assert_eq!(kernel.clean().report().meter.traffic[&Path::ConstRead], global(1, 128, 0));
}

#[test]
fn instructions_count_once_per_warp_and_once_per_active_lane() {
    let body = "setp.lt.u32 %p0, %r0, 5;\n@%p0 add.u32 %r2, %r0, 1;\nbar.sync 0;\nbar.sync 0;";
    let meter = meter(body, 48);
    // Two warps, of 32 and 16 lanes; in the second one nobody adds, but the instruction is issued.
    let integer = meter.instructions(Class::Integer);
    assert_eq!((integer.warp, integer.lane), (4, 48 + 5));
    // Waiting at a barrier is one instruction, however long it takes.
    let barrier = meter.instructions(Class::Barrier);
    assert_eq!((barrier.warp, barrier.lane), (4, 96));
    let total = meter.total();
    // Two parameters, two moves, `ret`.
    assert_eq!((total.warp, total.lane), (8 + 2 * 5, 48 + 5 + 96 + 48 * 5));
}

#[test]
fn reports_do_not_depend_on_the_number_of_cores() {
    let body = "mad.lo.u32 %r2, %r1, 64, %r0;
        mul.wide.u32 %d2, %r2, 4;
        add.s64 %d3, %d0, %d2;
        add.s64 %d4, %d1, %d2;
        ld.global.u32 %r3, [%d3];
        shl.b32 %r4, %r0, 2;
        xor.b32 %r5, %r4, 128;
        st.shared.u32 [%r4], %r3;
        ld.shared.u32 %r6, [%r5];
        bar.sync 0;
        ld.shared.u32 %r6, [%r5];
        st.global.u32 [%d4], %r6;";
    let input: Vec<u32> = (0..64 * 64).map(|i: u32| i.wrapping_mul(2_654_435_761)).collect();
    let run = |cores| {
        let kernel = Kernel { body, blocks: 64, threads: 64, input: input.clone(), output: 4096, ..Kernel::default() };
        Kernel { cores, ..kernel }.run()
    };
    let one = run(1);
    assert!(!one.report().findings.is_empty());
    for cores in [2, 3, 8] {
        let many = run(cores);
        assert_eq!(many.report(), one.report());
        assert_eq!(many.output, one.output);
    }
}
