//! Loads, stores, state spaces, generic addresses, atomics and `printf`.

mod kernels;

use kernels::Kernel;
use ptx_sim::fault::Fault;

/// The first words of the second buffer after a run of one thread that finds nothing.
fn one(body: &str, words: usize) -> Vec<u32> {
    Kernel { body, threads: 1, ..Kernel::default() }.clean().output[..words].to_vec()
}

#[test]
fn policies_that_the_isa_gives_no_meaning_end_the_launch() {
    for (body, words) in [
        ("mov.f32 %f0, 0f00000000;\nPOLICY %d2, %f0;", "createpolicy: a fraction of 0, which is not more than 0"),
        ("mov.f32 %f0, 0f3F800001;\nPOLICY %d2, %f0;", "createpolicy: a fraction of 1.0000001, which is not more"),
        ("mov.f32 %f0, 0f7FC00000;\nPOLICY %d2, %f0;", "createpolicy: a fraction of NaN, which is not more than 0"),
        ("mov.u32 %r2, 9;\nRANGE %d2, [%d0], %r2, 8;", "createpolicy: a primary range of 9 bytes in one of 8"),
        ("cvta.shared.u64 %d3, s;\nRANGE %d2, [%d3], 8, 8;", "createpolicy: a range at 0x0 of shared memory, where"),
    ] {
        let body = body
            .replace("POLICY", "createpolicy.fractional.L2::evict_last.b64")
            .replace("RANGE", "createpolicy.range.L2::evict_last.b64");
        let fault = Kernel { body: &body, threads: 1, ..Kernel::default() }.finds(0, 0, "createpolicy");
        assert!(matches!(&fault, Fault::Trap(why) if why.starts_with(words)), "{fault}");
    }
}

#[test]
fn accesses_take_the_policies_that_are_made_and_any_other_bits() {
    let body = "createpolicy.fractional.L2::evict_first.b64 %d2, 0.25;
        createpolicy.range.L2::evict_last.b64 %d3, [%d0], 16, 64;
        mov.b64 %d4, 0x12F0000000000000;
        st.global.L2::cache_hint.u32 [%d1], 5, %d2;
        atom.global.add.L2::cache_hint.u32 %r2, [%d1], 2, %d3;
        ld.global.L2::cache_hint.u32 %r3, [%d1], %d4;
        mov.u32 %r4, s;
        cp.async.cg.shared.global.L2::cache_hint [%r4], [%d0], 16, %d2;
        cp.async.wait_all;
        ld.shared.u32 %r5, [s+12];
        st.global.v2.u32 [%d1+8], {%r3, %r5};
        setp.ne.u64 %p0, %d2, %d3;
        selp.u32 %r6, 1, 0, %p0;
        st.global.u32 [%d1+4], %r6;";
    assert_eq!(one(body, 4), [7, 1, 7, 3]);
}

#[test]
fn narrow_loads_extend_to_their_register() {
    let body = "st.shared.u32 [s], 0x80FF8081;
        ld.shared.s8 %r2, [s];
        ld.shared.u8 %r3, [s];
        ld.shared.s16 %r4, [s+2];
        ld.shared.u16 %r5, [s+2];
        ld.shared.s8 %h0, [s+1];
        ld.shared.s32 %d2, [s];
        st.global.v4.u32 [%d1], {%r2, %r3, %r4, %r5};
        st.global.u16 [%d1+16], %h0;
        st.global.u16 [%d1+18], 1;
        st.global.u64 [%d1+24], %d2;";
    let out = one(body, 8);
    assert_eq!(out[..4], [0xFFFF_FF81, 0x81, 0xFFFF_80FF, 0x80FF]);
    assert_eq!(out[4], 0x0001_FF80);
    assert_eq!(out[6..], [0x80FF_8081, 0xFFFF_FFFF]);
}

#[test]
fn vectors_of_every_width_keep_their_order() {
    let body = "ld.global.v8.b32 {%r2, %r3, %r4, %r5, %r6, %r7, %r8, %r9}, [%d0+32];
        st.global.v4.b32 [%d1], {%r9, %r8, %r7, %r6};
        ld.global.nc.L1::no_allocate.L2::128B.v2.u64 {%d2, %d3}, [%d0+16];
        st.global.v2.u64 [%d1+16], {%d3, %d2};
        ld.global.b128 %q0, [%d0];
        st.global.b128 [%d1+32], %q0;
        ld.global.v4.u8 {%r2, _, %r3, %r4}, [%d0+4];
        st.global.v2.u32 [%d1+48], {%r2, %r4};
        ld.weak.global.ca.L2::cache_hint.f32 %f0, [%d0+8], %d2;
        st.relaxed.gpu.global.f32 [%d1+56], %f0;";
    assert_eq!(one(body, 15), [15, 14, 13, 12, 6, 7, 4, 5, 0, 1, 2, 3, 1, 0, 2]);
}

#[test]
fn a_vector_register_stands_for_its_elements() {
    let body = ".reg .v2 .b32 %v;
        ld.global.v2.b32 %v, [%d0+8];
        st.global.b32 [%d1], %v.y;
        st.global.v2.b32 [%d1+8], %v;";
    assert_eq!(one(body, 4)[..1], [3]);
    assert_eq!(one(body, 4)[2..], [2, 3]);
}

#[test]
fn generic_addresses_reach_every_space() {
    let body = ".local .align 8 .b8 mine[16];
        mov.u64 %d2, mine;
        cvta.local.u64 %d3, %d2;
        st.u32 [%d3+4], 11;
        ld.local.u32 %r2, [mine+4];
        mov.u64 %d4, s;
        cvta.shared.u64 %d5, %d4;
        st.u32 [%d5+8], 22;
        ld.shared.u32 %r3, [s+8];
        cvta.global.u64 %d6, %d1;
        mov.u64 %d7, table;
        cvta.const.u64 %d8, %d7;
        ld.u32 %r4, [%d8+4];
        ld.const.u32 %r5, [table];
        st.v4.u32 [%d6], {%r2, %r3, %r4, %r5};
        cvta.to.shared.u64 %d9, %d5;
        ld.shared.u32 %r6, [%d9+8];
        cvta.to.local.u64 %d9, %d3;
        ld.local.u32 %r7, [%d9+4];
        isspacep.shared %p0, %d5;
        isspacep.local %p1, %d5;
        isspacep.global %p2, %d6;
        @%p0 st.global.u32 [%d1+24], 1;
        @!%p1 st.global.u32 [%d1+28], 1;
        @%p2 st.global.u32 [%d1+32], 1;
        st.global.v2.u32 [%d1+16], {%r6, %r7};";
    let kernel = Kernel { body, threads: 1, module: ".const .align 4 .u32 table[2] = {33, 44};", ..Kernel::default() };
    assert_eq!(kernel.clean().output[..9], [11, 22, 44, 33, 22, 11, 1, 1, 1]);
}

#[test]
fn each_lane_has_its_own_local_memory() {
    let body = ".local .align 4 .b8 mine[4];
        st.local.u32 [mine], %r0;
        ld.local.u32 %r2, [mine];
        mul.wide.u32 %d2, %r0, 4;
        add.s64 %d2, %d1, %d2;
        st.global.u32 [%d2], %r2;";
    let ran = Kernel { body, ..Kernel::default() }.clean();
    assert_eq!(ran.output[..32], (0..32).collect::<Vec<_>>());
}

#[test]
fn the_constant_bank_and_parameters_are_read_only() {
    let module = ".const .align 4 .u32 table[2] = {33, 44};";
    let kernel = Kernel { module, body: "st.const.u32 [table], 1;", threads: 1, ..Kernel::default() };
    assert_eq!(kernel.finds(0, 0, "st.const").to_string(), "the constant bank cannot be written");
    let kernel = Kernel { body: "st.param.u32 [a], 1;", threads: 1, ..Kernel::default() };
    assert_eq!(kernel.finds(0, 0, "st.param").to_string(), "kernel parameters cannot be written");
}

#[test]
fn unknown_parts_and_operands_are_refused() {
    for (line, why) in [
        ("ld.global.often.u32 %r2, [%d0];", "line 20: `ld.global.often.u32`: unknown part `.often`"),
        ("ld.global %r2, [%d0];", "line 20: `ld.global`: expected one type"),
        ("ld.global.v4.u32 {%r2, %r3}, [%d0];", "line 20: `ld.global.v4.u32`: expected 4 registers, found 2"),
        ("ld.global.v8.b64 %d2, [%d0];", "line 20: `ld.global.v8.b64`: no such access"),
        ("st.global.u32 [%d0];", "line 20: `st.global.u32`: expected 2 to 2 operands, got 1"),
        ("atom.global.add.b32 %r2, [%d0], 1;", "line 20: `atom.global.add.b32`: no such atomic"),
        ("atom.local.add.u32 %r2, [%d0], 1;", "line 20: `atom.local.add.u32`: no such atomic"),
        ("cvta.shared.u32 %r2, %r3;", "line 20: `cvta.shared.u32`: generic addresses need 64 bits"),
        ("cp.async.cg.shared.global [s], [%d0], 8;", "line 20: `cp.async.cg.shared.global`: cannot copy 8 bytes"),
        ("bar.arrive 1;", "line 20: `bar.arrive`: needs a thread count"),
    ] {
        assert_eq!(Kernel { body: line, ..Kernel::default() }.refusal(), why);
    }
}

/// Two ones, of f16 in `%r5` and of bf16 in `%r6`.
const PAIRS: &str = "mov.b32 %r5, 0x3C003C00;\nmov.b32 %r6, 0x3F803F80;\n";

/// Applies an atomic to a word and returns old and new value.
fn atomic(instruction: &str, word: u32) -> (u32, u32) {
    let body = format!("{PAIRS}{instruction}\nst.global.u32 [%d1], %r2;");
    let ran = Kernel { body: &body, threads: 1, input: vec![word; 4], ..Kernel::default() }.clean();
    (ran.output[0], ran.input[0])
}

#[test]
fn atomics_return_the_old_word_and_store_the_new() {
    for (operation, word, new) in [
        ("add.u32 %r2, [%d0], 5", u32::MAX, 4),
        ("inc.u32 %r2, [%d0], 9", 9, 0),
        ("inc.u32 %r2, [%d0], 9", 3, 4),
        ("dec.u32 %r2, [%d0], 9", 0, 9),
        ("dec.u32 %r2, [%d0], 9", 12, 9),
        ("dec.u32 %r2, [%d0], 9", 3, 2),
        ("min.s32 %r2, [%d0], -3", 2, u32::MAX - 2),
        ("min.u32 %r2, [%d0], -3", 2, 2),
        ("max.s32 %r2, [%d0], -3", 2, 2),
        ("max.u32 %r2, [%d0], -3", 2, u32::MAX - 2),
        ("and.b32 %r2, [%d0], 12", 10, 8),
        ("or.b32 %r2, [%d0], 12", 10, 14),
        ("xor.b32 %r2, [%d0], 12", 10, 6),
        ("exch.b32 %r2, [%d0], 12", 10, 12),
        ("cas.b32 %r2, [%d0], 10, 12", 10, 12),
        ("cas.b32 %r2, [%d0], 11, 12", 10, 10),
        ("add.f32 %r2, [%d0], 0f3F800000", 1f32.to_bits(), 2f32.to_bits()),
        ("add.noftz.f16x2 %r2, [%d0], %r5", 0x4000_3C00, 0x4200_4000),
        ("add.noftz.bf16x2 %r2, [%d0], %r6", 0x4000_3F80, 0x4040_4000),
    ] {
        assert_eq!(atomic(&format!("atom.global.{operation};"), word), (word, new), "{operation}");
        // The same without a space, and in shared memory.
        assert_eq!(atomic(&format!("atom.relaxed.gpu.{operation};"), word), (word, new), "{operation}");
        let shared = operation.replace("[%d0]", "[s]");
        let body = format!(
            "{PAIRS}ld.global.u32 %r3, [%d0];\nst.shared.u32 [s], %r3;\natom.shared.{shared};\n\
             ld.shared.u32 %r4, [s];\nst.global.v2.u32 [%d1], {{%r2, %r4}};"
        );
        let ran = Kernel { body: &body, threads: 1, input: vec![word; 4], ..Kernel::default() }.clean();
        assert_eq!(ran.output[..2], [word, new], "{operation}");
    }
}

#[test]
fn wide_and_narrow_atomics_work_on_all_their_bytes() {
    let body = "atom.global.add.u64 %d2, [%d0], 0xFFFFFFFF;
        atom.global.cas.b16 %h0, [%d0+12], 3, 9;
        atom.global.exch.b128 %q0, [%d0+16], %q1;
        red.global.add.f64 [%d0+32], 0d3FF0000000000000;
        red.global.add.v2.f32 [%d0+40], {%f0, %f0};
        st.global.u64 [%d1], %d2;
        st.global.b128 [%d1+16], %q0;";
    let mut input: Vec<u32> = (0..64).collect();
    (input[8], input[9]) = (0, 0x4000_0000);
    let ran = Kernel { body, threads: 1, input, ..Kernel::default() }.clean();
    // 2^32 + 2^32 - 1.
    assert_eq!(ran.input[..10], [0xFFFF_FFFF, 1, 2, 9, 0, 0, 0, 0, 0, 0x4008_0000]);
    assert_eq!(ran.output[..2], [0, 1]);
    assert_eq!(ran.output[4..8], [4, 5, 6, 7]);
}

#[test]
fn atomics_of_many_blocks_on_several_cores_add_up() {
    let body = "atom.global.add.u32 %r2, [%d0], 1;
        red.global.max.u32 [%d0+4], %r1;
        red.global.add.u64 [%d0+8], 3;
        st.shared.u32 [s], 0;
        bar.sync 0;
        red.shared.add.u32 [s], 1;
        bar.sync 0;
        ld.shared.u32 %r3, [s];
        setp.eq.u32 %p0, %r0, 0;
        @%p0 red.global.add.u32 [%d0+16], %r3;";
    let body = &body.replace("st.shared", "setp.eq.u32 %p1, %r0, 0;\n@%p1 st.shared");
    let kernel = Kernel { body, blocks: 200, threads: 96, input: vec![0; 8], cores: 4, ..Kernel::default() };
    assert_eq!(kernel.clean().input, [19200, 199, 57600, 0, 19200, 0, 0, 0]);
}

#[test]
fn printf_formats_as_c_does() {
    let format = r"%d %5u|%-4x|%08.3f %s %c %lld %% %e %g %g %+d %#X";
    let bytes: Vec<String> = format.bytes().chain([10, 0]).map(|b| b.to_string()).collect();
    let module = format!(
        ".extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 v);\n\
         .global .align 1 .b8 fmt[{}] = {{{}}};\n.global .align 1 .b8 word[3] = {{104, 105, 0}};",
        bytes.len(),
        bytes.join(",")
    );
    let body = ".local .align 8 .b8 v[88];
        st.local.u32 [v], -7;
        st.local.u32 [v+4], 42;
        st.local.u32 [v+8], 255;
        st.local.f64 [v+16], 0d3FF8000000000000;
        mov.u64 %d2, word;
        cvta.global.u64 %d2, %d2;
        st.local.u64 [v+24], %d2;
        st.local.u32 [v+32], 65;
        st.local.u64 [v+40], -1;
        st.local.f64 [v+48], 0d40F86A0000000000;
        st.local.f64 [v+56], 0d3FE0000000000000;
        st.local.f64 [v+64], 0d4341C37937E08000;
        st.local.u32 [v+72], 3;
        st.local.u32 [v+76], 171;
        mov.u64 %d3, v;
        cvta.local.u64 %d3, %d3;
        mov.u64 %d4, fmt;
        cvta.global.u64 %d4, %d4;
        { .param .b64 pf; .param .b64 pv; .param .b32 rv;
        st.param.b64 [pf], %d4;
        st.param.b64 [pv], %d3;
        call.uni (rv), vprintf, (pf, pv);
        ld.param.b32 %r5, [rv]; }";
    let ran = Kernel { module: &module, body, threads: 2, ..Kernel::default() }.clean();
    let line = "-7    42|ff  |0001.500 hi A -1 % 1.000000e+05 0.5 1e+16 +3 0XAB\n";
    assert_eq!(ran.report().printed, line.repeat(2));
}

#[test]
fn a_failed_assertion_and_a_missing_function_end_the_launch() {
    let module =
        ".extern .func __assertfail (.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 c);
        .extern .func other ();
        .global .align 1 .b8 text[4] = {97, 62, 98, 0};
        .global .align 1 .b8 file[5] = {107, 46, 99, 117, 0};";
    let body = "mov.u64 %d2, text;
        mov.u64 %d3, file;
        { .param .b64 m; .param .b64 f; .param .b32 l; .param .b64 n; .param .b64 c;
        st.param.b64 [m], %d2;
        st.param.b64 [f], %d3;
        st.param.b32 [l], 12;
        st.param.b64 [n], %d2;
        st.param.b64 [c], 1;
        call.uni __assertfail, (m, f, l, n, c); }";
    let fault = Kernel { module, body, ..Kernel::default() }.finds(0, 0, "call.uni");
    assert_eq!(fault.to_string(), "k.cu:12: assertion `a>b` failed");
    let fault = Kernel { module, body: "call.uni other;", ..Kernel::default() }.finds(0, 0, "call.uni");
    assert_eq!(fault.to_string(), "call of `other`, which has no body");
}

#[test]
fn discarded_bytes_count_as_never_written() {
    let read = "ld.global.u32 %r2, [%d0+124];";
    let discard = "discard.global.L2 [%d0], 128;";
    let fault = Kernel { body: &format!("{discard}\n{read}"), threads: 1, ..Kernel::default() }.finds(0, 0, read);
    assert!(matches!(fault, Fault::Uninitialised { .. }), "{fault}");
    // They are there again when they are written, and what lies beside them always is.
    one(&format!("{discard}\nst.global.u32 [%d0+124], 1;\n{read}\nld.global.u32 %r3, [%d0+128];"), 0);
    let misuse = |line: &str| Kernel { body: line, threads: 1, ..Kernel::default() }.finds(0, 0, line).to_string();
    let text = misuse("discard.L2 [%d0+64], 128;");
    assert_eq!(text, "discard of 128 bytes at global address 0x700000000040 is not aligned to 128 bytes");
    assert!(misuse("discard.L2 [%d0+1024], 128;").contains("past the end of the allocation"));
    assert!(misuse("applypriority.L2::evict_normal [%d0+4], 128;").contains("is not aligned to 128 bytes"));
    let body = "cvta.shared.u64 %d2, 0;\nadd.u64 %d2, %d2, 128;\ndiscard.L2 [%d2], 128;";
    let fault = Kernel { body, threads: 1, ..Kernel::default() }.finds(0, 0, "discard");
    assert!(fault.to_string().contains("discard of shared memory"), "{fault}");
}

#[test]
fn hints_that_the_isa_does_not_have_are_refused() {
    for line in [
        "prefetch.shared.L1 [%d0];",
        "prefetch.global.L1::evict_last [%d0];",
        "prefetch.local.L2::evict_last [%d0];",
        "prefetch.global [%d0];",
        "prefetch.global.tensormap [%d0];",
        "prefetchu.L2 [%d0];",
        "prefetchu.global.L1 [%d0];",
        "applypriority.global.L2::evict_last [%d0], 128;",
        "discard.global.L1 [%d0], 128;",
        "discard.local.L2 [%d0], 128;",
    ] {
        let text = Kernel { body: line, ..Kernel::default() }.refusal();
        let name = line.split(' ').next().unwrap();
        assert!(text.contains(&format!("`{name}`: no such hint")) && text.contains("line "), "{line}: {text}");
    }
    for (line, why) in [
        ("applypriority.global.L2::evict_normal [%d0], 64;", "the size is 128"),
        ("discard.global.L2 [%d0];", "expected 2 to 2 operands"),
        ("prefetch.global.L1 [%d0], 128;", "expected 1 to 1 operands"),
    ] {
        assert!(Kernel { body: line, ..Kernel::default() }.refusal().contains(why), "{line}");
    }
}
