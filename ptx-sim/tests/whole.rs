//! Strong accesses of 8 and 16 bytes to global memory are whole, whichever cores the blocks run on.

mod kernels;

use kernels::Kernel;

/// How often each lane of the readers reads. The writer writes as long as they do.
const ROUNDS: u32 = 20_000;

/// Block 0 writes pairs of equal words by `write`, from `%d2`, which holds them, or `%q0`, which holds that twice. All
/// lanes of the other blocks read by `read` into `%d3`, or `%q1` that becomes `%d3` and `%d4`. Counts unequal halves.
fn halves(write: &str, read: &str) -> u32 {
    let body = format!(
        "mov.u32 %r2, 0;
        mov.u32 %r3, 0;
        mov.u64 %d4, 0;
        mov.u64 %d6, 0;
        mov.b128 %q1, {{%d6, %d6}};
        setp.ne.u32 %p0, %r1, 0;
        @%p0 bra READ;
        setp.ne.u32 %p1, %r0, 0;
        @%p1 bra END;
        WRITE: add.u32 %r2, %r2, 1;
        mov.b64 %d2, {{%r2, %r2}};
        mov.b128 %q0, {{%d2, %d2}};
        {write}
        ld.volatile.global.u32 %r6, [%d0+36];
        setp.lt.u32 %p1, %r6, 96;
        @%p1 bra WRITE;
        bra END;
        READ: add.u32 %r2, %r2, 1;
        {read}
        mov.b64 {{%r4, %r5}}, %d3;
        setp.ne.u32 %p1, %r4, %r5;
        @%p1 add.u32 %r3, %r3, 1;
        setp.lt.u32 %p1, %r2, {ROUNDS};
        @%p1 bra READ;
        red.global.add.u32 [%d0+32], %r3;
        red.global.add.u32 [%d0+36], 1;
        END:"
    );
    let kernel =
        Kernel { body: &body, blocks: 4, cores: 4, steps: 1_000_000_000, input: vec![0; 64], ..Kernel::default() };
    kernel.clean().input[8]
}

#[test]
fn strong_accesses_of_8_bytes_never_see_halves_of_two_values() {
    let writes = [
        "st.release.gpu.global.u64 [%d0], %d2;",
        "st.relaxed.gpu.global.b64 [%d0], %d2;",
        "st.volatile.global.u64 [%d0], %d2;",
        "st.volatile.u64 [%d0], %d2;",
        "atom.exch.global.b64 %d5, [%d0], %d2;",
        "red.max.global.u64 [%d0], %d2;",
    ];
    let reads = [
        "ld.acquire.gpu.global.u64 %d3, [%d0];",
        "ld.relaxed.gpu.global.b64 %d3, [%d0];",
        "ld.volatile.global.u64 %d3, [%d0];",
        "ld.acquire.gpu.b64 %d3, [%d0];",
        "atom.or.global.b64 %d3, [%d0], 0;",
        "atom.cas.global.b64 %d3, [%d0], -1, -1;",
    ];
    for (write, read) in writes.into_iter().zip(reads) {
        assert_eq!(halves(write, read), 0, "{write} {read}");
        assert_eq!(halves(write, reads[0]), 0, "{write} {}", reads[0]);
    }
}

#[test]
fn lanes_that_lie_in_several_allocations_read_whole_values_too() {
    // Not served together: one lane reads local memory.
    let read = "mov.u64 %d5, buffer;
        cvta.local.u64 %d5, %d5;
        st.local.u64 [buffer], %d6;
        setp.eq.u32 %p2, %r0, 31;
        @!%p2 mov.u64 %d5, %d0;
        ld.volatile.u64 %d3, [%d5];";
    let body = format!(".local .align 8 .b8 buffer[8];\n{read}");
    assert_eq!(halves("st.volatile.global.u64 [%d0], %d2;", &format!("{{\n{body}\n}}")), 0);
}

#[test]
fn strong_accesses_of_16_bytes_never_see_halves_of_two_values() {
    for (write, read) in [
        ("st.relaxed.gpu.global.b128 [%d0], %q0;", "ld.relaxed.gpu.global.b128 %q1, [%d0];"),
        ("atom.exch.global.b128 %q2, [%d0], %q0;", "ld.acquire.gpu.global.b128 %q1, [%d0];"),
        ("st.release.gpu.global.b128 [%d0], %q0;", "atom.cas.global.b128 %q1, [%d0], %q1, %q1;"),
    ] {
        // The first word of the first half, and the first of the second.
        let read = format!(
            "{read}
            mov.b128 {{%d3, %d4}}, %q1;
            cvt.u32.u64 %r6, %d3;
            cvt.u32.u64 %r7, %d4;
            mov.b64 %d3, {{%r6, %r7}};"
        );
        assert_eq!(halves(write, &read), 0, "{write} {read}");
    }
}

#[test]
fn atomics_lose_no_strong_store_to_the_same_place() {
    // A swap of a value for itself changes nothing, so what block 0 has stored is there when it looks.
    for ty in ["b16", "b64"] {
        let register = if ty == "b16" { "%h" } else { "%d" };
        let (r0, r1, r2) = (format!("{register}5"), format!("{register}6"), format!("{register}7"));
        let unsigned = ty.replace('b', "u");
        let body = format!(
            "mov.u32 %r2, 0;
            mov.{ty} {r0}, 0;
            setp.ne.u32 %p1, %r0, 0;
            @%p1 bra END;
            setp.ne.u32 %p0, %r1, 0;
            @%p0 bra SWAP;
            WRITE: add.u32 %r2, %r2, 1;
            cvt.{unsigned}.u32 {r0}, %r2;
            st.relaxed.gpu.global.{ty} [%d0], {r0};
            ld.relaxed.gpu.global.{ty} {r1}, [%d0];
            setp.ne.{unsigned} %p1, {r0}, {r1};
            @%p1 red.global.add.u32 [%d0+32], 1;
            setp.lt.u32 %p1, %r2, {ROUNDS};
            @%p1 bra WRITE;
            bra END;
            SWAP: add.u32 %r2, %r2, 1;
            atom.relaxed.gpu.global.cas.{ty} {r2}, [%d0], {r0}, {r0};
            mov.{ty} {r0}, {r2};
            setp.lt.u32 %p1, %r2, {ROUNDS};
            @%p1 bra SWAP;
            END:"
        );
        let kernel =
            Kernel { body: &body, blocks: 4, cores: 4, steps: 1_000_000, input: vec![0; 64], ..Kernel::default() };
        assert_eq!(kernel.clean().input[8], 0, "{ty}");
    }
}
