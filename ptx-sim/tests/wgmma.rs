//! `wgmma` beside the suite: what the checker says of registers, shared memory and warps, what the meter counts, and
//! what is refused (PTX ISA section 9.7.15).

mod kernels;

use kernels::{Kernel, Ran};
use ptx_sim::Machine;
use ptx_sim::meter::Path;

/// Fills 4 KiB of shared memory with f16 ones, makes a descriptor of 8 rows along M or N and 16 values of k in cores of
/// 128 bytes (leading offset 128, stride offset 256), and zeroes the accumulators %f0 to %f3 and A's registers.
const SETUP: &str = "mov.u32 %r2, 1006648320;
    mul.lo.u32 %r3, %r0, 16;
    mov.u32 %r4, s;
    add.u32 %r3, %r3, %r4;
    st.shared.v4.u32 [%r3], {%r2, %r2, %r2, %r2};
    st.shared.v4.u32 [%r3+2048], {%r2, %r2, %r2, %r2};
    fence.proxy.async;
    bar.sync 0;
    mov.u64 %d2, 68719476736;
    or.b64 %d2, %d2, 524288;
    mov.f32 %f0, 0f00000000;
    mov.f32 %f1, 0f00000000;
    mov.f32 %f2, 0f00000000;
    mov.f32 %f3, 0f00000000;
    mov.u32 %r10, %r2;
    mov.u32 %r11, %r2;
    mov.u32 %r12, %r2;
    mov.u32 %r13, %r2;\n";

const FENCE: &str = "wgmma.fence.sync.aligned;\n";
const COMMIT: &str = "wgmma.commit_group.sync.aligned;\n";
const WAIT: &str = "wgmma.wait_group.sync.aligned 0;\n";
const PRODUCT: &str =
    "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f0, %f1, %f2, %f3}, %d2, %d2, 1, 1, 1, 0, 0;\n";
const FROM_REGISTERS: &str = "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f0, %f1, %f2, %f3}, {%r10, %r11, %r12, %r13}, %d2, 1, 1, 1, 0;\n";
/// Stores %f0 of each thread.
const STORE: &str = "mul.wide.u32 %d3, %r0, 4;\nadd.s64 %d3, %d1, %d3;\nst.global.f32 [%d3], %f0;\n";

fn kernel(body: &str) -> Kernel<'_> {
    Kernel { body, threads: 128, shared: 16384, output: 128, ..Kernel::default() }
}

/// The one finding of a body, and that it is at the instruction that begins with `text`.
fn finds(body: &str, text: &str) -> String {
    let ran = kernel(body).run();
    let report = ran.result.as_ref().unwrap_or_else(|error| panic!("{error}\n{body}"));
    let found: Vec<_> = report.findings.iter().map(|finding| finding.fault.to_string()).collect();
    assert_eq!(found.len(), 1, "{found:?}\n{body}");
    check_line(&report.findings[0], body, text);
    found[0].clone()
}

/// The fault that ends a body's launch, at the instruction that begins with `text`.
fn fails(body: &str, text: &str) -> String {
    let ran = kernel(body).run();
    match &ran.result {
        Err(ptx_sim::LaunchError::Fault(finding)) => {
            check_line(finding, body, text);
            finding.fault.to_string()
        }
        other => panic!("{other:?}\n{body}"),
    }
}

fn check_line(finding: &ptx_sim::fault::Finding, body: &str, text: &str) {
    let (_, line) = finding.source.clone().expect("a line of the source");
    let found = body.lines().nth(line as usize - 100).unwrap_or_default().trim();
    assert!(found.starts_with(text), "{finding} at `{found}`, expected `{text}`");
}

fn clean(body: &str) -> Ran {
    let ran = kernel(body).run();
    let report = ran.result.as_ref().unwrap_or_else(|error| panic!("{error}\n{body}"));
    assert!(report.findings.is_empty(), "{:?}\n{body}", report.findings);
    ran
}

fn float(word: u32) -> f32 {
    f32::from_bits(word)
}

/// A product that is as it should be.
fn whole() -> String {
    format!("{SETUP}{FENCE}{PRODUCT}{COMMIT}{WAIT}{STORE}")
}

#[test]
fn a_product_with_fence_commit_and_wait_is_clean() {
    let ran = clean(&whole());
    assert!(ran.output.iter().all(|word| float(*word) == 16.0), "{:?}", ran.output);
}

#[test]
fn a_product_of_registers_is_clean_and_the_accumulators_count() {
    let body = format!("{SETUP}{FENCE}{FROM_REGISTERS}{FROM_REGISTERS}{COMMIT}{WAIT}{STORE}");
    let ran = clean(&body);
    assert!(ran.output.iter().all(|word| float(*word) == 32.0), "{:?}", ran.output);
}

#[test]
fn accumulators_read_before_the_wait_are_old_and_found() {
    let early = "mov.f32 %f4, %f0;\n";
    let body = format!("{SETUP}{FENCE}{PRODUCT}{COMMIT}{early}{WAIT}{}", STORE.replace("%f0", "%f4"));
    let line = finds(&body, "mov.f32 %f4");
    assert!(line.contains("register 0 of D of the `wgmma.mma_async` of PTX line"), "{line}");
    let ran = kernel(&body).run();
    assert!(ran.output.iter().all(|word| float(*word) == 0.0), "{:?}", ran.output);
    let mended = format!("{SETUP}{FENCE}{PRODUCT}{COMMIT}{WAIT}{early}{}", STORE.replace("%f0", "%f4"));
    let ran = clean(&mended);
    assert!(ran.output.iter().all(|word| float(*word) == 16.0), "{:?}", ran.output);
}

#[test]
fn accumulators_of_a_group_that_was_not_waited_for_are_in_flight() {
    let other = PRODUCT.replace("{%f0, %f1, %f2, %f3}", "{%f4, %f5, %f6, %f7}").replace("%d2, 1, 1", "%d2, 0, 1");
    let one = "wgmma.wait_group.sync.aligned 1;\n";
    let read = "add.f32 %f8, %f5, %f5;\n";
    let body = format!("{SETUP}{FENCE}{PRODUCT}{COMMIT}{other}{COMMIT}{one}{read}{WAIT}{STORE}");
    let line = finds(&body, "add.f32 %f8");
    assert!(line.starts_with("register 1 of D"), "{line}");
    clean(&body.replace(read, "add.f32 %f8, %f1, %f1;\n"));
}

#[test]
fn registers_of_a_must_not_be_touched_before_the_wait() {
    for (touch, text) in [("mov.u32 %r12, 0;\n", "mov.u32 %r12"), ("add.u32 %r5, %r12, 1;\n", "add.u32 %r5")] {
        let body = format!("{SETUP}{FENCE}{FROM_REGISTERS}{COMMIT}{touch}{WAIT}{STORE}");
        let line = finds(&body, text);
        assert!(line.starts_with("register 2 of A"), "{line}");
        clean(&format!("{SETUP}{FENCE}{FROM_REGISTERS}{COMMIT}{WAIT}{touch}{STORE}"));
    }
}

#[test]
fn a_product_after_ordinary_writes_needs_a_fence() {
    for (write, what) in
        [("mov.f32 %f2, 0f3F800000;\n", "register 2 of D"), ("mov.u32 %r11, %r2;\n", "register 1 of A")]
    {
        let body = format!("{SETUP}{FENCE}{write}{FROM_REGISTERS}{COMMIT}{WAIT}{STORE}");
        let line = finds(&body, "wgmma.mma_async");
        assert!(line.starts_with(what) && line.contains("without a `wgmma.fence` since"), "{line}");
        clean(&format!("{SETUP}{FENCE}{write}{FENCE}{FROM_REGISTERS}{COMMIT}{WAIT}{STORE}"));
    }
    let line = finds(&format!("{SETUP}{PRODUCT}{COMMIT}{WAIT}{STORE}"), "wgmma.mma_async");
    assert!(line.contains("no `wgmma.fence` before the first product"), "{line}");
}

#[test]
fn products_of_the_same_shape_follow_each_other_and_of_another_do_not() {
    let packed = "wgmma.mma_async.sync.aligned.m64n16k16.f16.f16.f16 {%f0, %f1, %f2, %f3}, %d2, %d2, 1, 1, 1, 0, 0;\n";
    let line = finds(&format!("{SETUP}{FENCE}{PRODUCT}{packed}{COMMIT}{WAIT}{STORE}"), "wgmma.mma_async");
    assert!(line.starts_with("register 0 of D of the `wgmma.mma_async` of PTX line"), "{line}");
    // After the wait, a fence is still needed.
    let line = finds(&format!("{SETUP}{FENCE}{PRODUCT}{COMMIT}{WAIT}{packed}{COMMIT}{WAIT}"), "wgmma.mma_async");
    assert!(line.contains("without a `wgmma.fence` since"), "{line}");
    clean(&format!("{SETUP}{FENCE}{PRODUCT}{COMMIT}{WAIT}{FENCE}{packed}{COMMIT}{WAIT}"));
    clean(&format!("{SETUP}{FENCE}{PRODUCT}{COMMIT}{WAIT}{PRODUCT}{COMMIT}{WAIT}"));
}

#[test]
fn ordinary_writes_to_shared_memory_need_a_proxy_fence() {
    let line = finds(&whole().replace("fence.proxy.async;", "//"), "wgmma.mma_async");
    assert!(line.contains("without a `fence.proxy.async` since"), "{line}");
}

#[test]
fn writes_of_other_warps_need_a_barrier() {
    let line = finds(&whole().replace("bar.sync 0;", "bar.warp.sync -1;"), "wgmma.mma_async");
    assert!(line.contains("races with thread"), "{line}");
}

#[test]
fn what_a_product_reads_must_not_be_written_before_the_wait() {
    let write = "st.shared.u32 [s+64], 0;\n";
    // Behind the barrier warp 3 goes on first, so warp 2 is the last one that reads.
    let only_first = format!("setp.eq.u32 %p1, %r0, 64;\n@%p1 {write}");
    let body = format!("{SETUP}{FENCE}{PRODUCT}{COMMIT}{only_first}{WAIT}{STORE}");
    let line = finds(&body, "@%p1 st.shared.u32");
    assert!(line.contains("while what PTX line"), "{line}");
    // Behind the wait of one warp the product has ended for all four.
    clean(&format!("{SETUP}{FENCE}{PRODUCT}{COMMIT}{WAIT}{only_first}{STORE}"));
}

#[test]
fn a_write_that_races_with_what_a_product_has_read_names_wgmma() {
    // A second warpgroup sees by a flag in global memory, which orders nothing, that the first one's product has ended.
    let roles = |ready: &str| {
        format!(
            "setp.ge.u32 %p1, %r0, 128;
            @%p1 bra OTHER;
            {SETUP}bar.sync 3;
{FENCE}{PRODUCT}{COMMIT}{WAIT}st.volatile.global.u32 [%d0], 77;
            {ready}
            ret;
            OTHER: bar.sync 3;
            POLL: ld.volatile.global.u32 %r5, [%d0];
            setp.ne.u32 %p2, %r5, 77;
            @%p2 bra POLL;
            {ready}
            setp.eq.u32 %p3, %r0, 128;
            @%p3 st.shared.u32 [s+64], 0;\n"
        )
        .replace("bar.sync 0;", "bar.sync 1, 128;")
    };
    let ran = Kernel { threads: 256, steps: 1_000_000, ..kernel(&roles("")) }.run();
    let found: Vec<String> = ran.report().findings.iter().map(ToString::to_string).collect();
    let product = ran.line_of("wgmma.mma_async");
    let wanted = format!("write at shared address 0x40 races with a `wgmma`'s read (PTX line {product})");
    assert!(found.len() == 1 && found[0].starts_with(&wanted), "{found:?}");
    Kernel { threads: 256, ..kernel(&roles("bar.sync 2;")) }.clean();
}

#[test]
fn copies_in_flight_are_no_operands() {
    let copy = "setp.eq.u32 %p1, %r0, 0;
        @%p1 cp.async.ca.shared.global [s], [%d0], 16;
        @%p1 cp.async.commit_group;
        bar.sync 0;\n";
    let (wait, fence) = ("cp.async.wait_group 0;\n", "fence.proxy.async;\n");
    let line = finds(&format!("{SETUP}{copy}{FENCE}{PRODUCT}{COMMIT}{WAIT}{wait}"), "wgmma.mma_async");
    assert!(line.contains("while the asynchronous copy of PTX line"), "{line}");
    // `cp.async` is no copy of the asynchronous proxy: waiting for it is not enough.
    let line = finds(&format!("{SETUP}{copy}{wait}bar.sync 0;\n{FENCE}{PRODUCT}{COMMIT}{WAIT}"), "wgmma.mma_async");
    assert!(line.contains("without a `fence.proxy.async` since"), "{line}");
    clean(&format!("{SETUP}{copy}{wait}{fence}bar.sync 0;\n{FENCE}{PRODUCT}{COMMIT}{WAIT}"));
}

#[test]
fn operands_that_nothing_has_written_are_found() {
    let body = whole().replace("st.shared.v4.u32 [%r3+2048]", "st.shared.v4.u32 [%r3+4096]");
    let high = body
        .replace("%d2, %d2, 1, 1, 1, 0, 0", "%d4, %d2, 1, 1, 1, 0, 0")
        .replace(FENCE, &format!("add.u64 %d4, %d2, 8;\n{FENCE}"));
    let line = finds(&high, "wgmma.mma_async");
    assert!(line.contains("which nothing has written"), "{line}");
}

#[test]
fn warps_of_a_warpgroup_execute_the_same_instructions() {
    let other = "setp.lt.u32 %p1, %r0, 32;\n@%p1 bra L;\n";
    let body = format!("{SETUP}{FENCE}{other}{PRODUCT}{COMMIT}{WAIT}ret;\nL:\n{PRODUCT}{COMMIT}{WAIT}");
    let line = fails(&body, "wgmma.mma_async");
    assert!(line.contains("all four have to execute the same"), "{line}");
    // One of them leaves out the product, or all of it.
    let line = fails(&format!("{SETUP}{FENCE}{other}{PRODUCT}L:\n{COMMIT}{WAIT}"), "wgmma.");
    assert!(line.contains("all four have to execute the same"), "{line}");
    let line = fails(&format!("{SETUP}{other}{FENCE}{PRODUCT}{COMMIT}{WAIT}L:\n"), "wgmma.wait_group");
    assert!(line.contains("warp 0 has exited after 0"), "{line}");
}

#[test]
fn descriptors_are_the_same_in_all_lanes_and_warps() {
    let lanes = "cvt.u64.u32 %d4, %r0;\nadd.u64 %d2, %d2, %d4;\n";
    let line = fails(&format!("{SETUP}{lanes}{FENCE}{PRODUCT}{COMMIT}{WAIT}"), "wgmma.mma_async");
    assert!(line.contains("lane 1 has") && line.contains("as the descriptor of A"), "{line}");
    let warps = format!("shr.u32 %r5, %r0, 5;\n{}", lanes.replace("%r0", "%r5"));
    let line = fails(&format!("{SETUP}{warps}{FENCE}{PRODUCT}{COMMIT}{WAIT}"), "wgmma.mma_async");
    assert!(line.contains("it has to be the same in all four"), "{line}");
    let line = fails(
        &format!("{SETUP}setp.lt.u32 %p1, %r0, 5;\n{FENCE}{}", PRODUCT.replace("%d2, 1, 1", "%d2, %p1, 1")),
        "wgmma.mma_async",
    );
    assert!(line.contains("as the scale-d"), "{line}");
}

#[test]
fn a_warpgroup_has_four_warps_of_32_lanes() {
    let ran = Kernel { threads: 96, ..kernel(FENCE) }.run();
    let Err(error) = &ran.result else { panic!("runs with three warps") };
    assert!(error.to_string().contains("warpgroup 0 of the block has 3 warps"), "{error}");
    let ran = Kernel { threads: 224, ..kernel(FENCE) }.run();
    let Err(error) = &ran.result else { panic!("runs with seven warps") };
    assert!(error.to_string().contains("warpgroup 1 of the block has 3 warps"), "{error}");
    let half = format!("setp.lt.u32 %p1, %r0, 16;\n@%p1 {FENCE}");
    assert!(kernel(&half).run().result.is_err());
}

#[test]
fn products_that_nobody_waits_for_are_found() {
    let line = finds(&format!("{SETUP}{FENCE}{PRODUCT}{COMMIT}"), "");
    assert!(line.contains("the warp exits and has not waited for the product of PTX line"), "{line}");
    let ran = kernel(&format!("{SETUP}{FENCE}{PRODUCT}{WAIT}")).run();
    let found: Vec<_> = ran.report().findings.iter().map(|finding| finding.fault.to_string()).collect();
    assert!(found.len() == 2 && found[0].contains("nothing is waited for"), "{found:?}");
}

#[test]
fn a_product_is_not_in_flight_across_a_return() {
    let module = ".visible .func issue(.param .b64 d)\n{\n.reg .f32 %f<4>;\n.reg .b64 %d<2>;\nld.param.u64 %d0, [d];\n\
        wgmma.fence.sync.aligned;\n\
        wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f0, %f1, %f2, %f3}, %d0, %d0, 0, 1, 1, 0, 0;\n\
        wgmma.commit_group.sync.aligned;\nret;\n}";
    let call = "{\n.param .b64 p;\nst.param.b64 [p], %d2;\ncall issue, (p);\n}\n";
    let body = format!("{SETUP}{call}{WAIT}");
    let ran = Kernel { module, ..kernel(&body) }.run();
    let Err(error) = &ran.result else { panic!("returns with a product in flight: {:?}", ran.result) };
    assert!(error.to_string().contains("is in flight across a call or a return"), "{error}");
}

#[test]
fn malformed_descriptors_are_faults() {
    // Bits of the descriptor, and what is said of them.
    let reserved = [14, 15, 30, 31, 46, 47, 48, 52, 57, 61];
    let mut cases: Vec<(u64, String)> =
        reserved.iter().map(|bit| (1 << bit, format!("has reserved bits: {:#018x}", 1u64 << bit))).collect();
    cases.push((1 << 49, "has the base offset 1 without a swizzle".into()));
    cases.push((1 << 62 | 8, "begins at 0x80, which is no beginning of a pattern of 128-byte swizzle".into()));
    cases.push((2 << 62 | 0x18, "begins at 0x180, which is no beginning of a pattern of 64-byte swizzle".into()));
    cases.push((3 << 62 | 8, "begins at 0x80, which is no beginning of a pattern of 32-byte swizzle".into()));
    cases.push((1 << 62 | 1 << 49, "begins at 0x0, which is no beginning of a pattern of 128-byte swizzle".into()));
    cases.push((0x3fff, "read of 16 bytes at shared address 0x3fff0: the block has 16384 bytes".into()));
    cases.push((0x400, "read of 16 bytes at shared address 0x4000: the block has 16384 bytes".into()));
    for (bits, message) in cases {
        let body = format!("{SETUP}mov.u64 %d2, {bits};\n{FENCE}{PRODUCT}{COMMIT}{WAIT}");
        let line = fails(&body, "wgmma.mma_async");
        assert!(line.contains(&message), "{line}, expected {message}");
        assert!(line.starts_with("read") || line.starts_with("wgmma: A: the descriptor"), "{line}");
    }
}

#[test]
fn the_meter_counts_products_by_shape_types_and_source() {
    let body = format!("{SETUP}{FENCE}{PRODUCT}{FROM_REGISTERS}{FROM_REGISTERS}{COMMIT}{WAIT}");
    let ran = clean(&body);
    let meter = &ran.report().meter;
    let rows: Vec<_> = meter.mma.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    let shape = "wgmma.m64n8k16.f32.f16.f16 A";
    assert_eq!(rows, [(&*format!("{shape} by descriptor"), 4), (&*format!("{shape} in registers"), 8)]);
    assert_eq!(meter.tensor_operations(), 3 * 2 * 64 * 8 * 16);
    // A is 64 rows of 32 bytes, B 8; the cores of 128 bytes have no conflicts. Read once for the four warps.
    let traffic = meter.traffic[&Path::DescriptorRead];
    assert_eq!((traffic.accesses, traffic.bytes), (1 + 3, 64 * 32 + 3 * 8 * 32));
    assert_eq!((traffic.wavefronts, traffic.conflicts), (traffic.bytes / 128, 0));
}

/// The module of a kernel that has one instruction.
fn module(instruction: &str) -> String {
    format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry k()\n{{\n.reg .b32 r<256>;\n.reg .b64 d<4>;\n\
         .reg .pred p;\n{instruction}\nret;\n}}\n"
    )
}

fn list(count: usize) -> String {
    let names: Vec<_> = (0..count).map(|index| format!("r{index}")).collect();
    format!("{{{}}}", names.join(", "))
}

/// What of a type there is: the types, k, registers of D per column as a divisor, and the operands behind the descriptors.
const TYPES: &[(&str, usize, usize, &str)] = &[
    ("f16.f16.f16", 16, 4, "p, 1, 1, 0, 0"),
    ("f32.f16.f16", 16, 2, "p, -1, 1, 1, 0"),
    ("f32.bf16.bf16", 16, 2, "1, 1, -1, 0, 1"),
    ("f32.tf32.tf32", 8, 2, "!p, 1, 1"),
    ("f32.e4m3.e5m2", 32, 2, "p, 1, 1"),
    ("f16.e5m2.e4m3", 32, 4, "0, 1, -1"),
    ("s32.s8.s8", 32, 2, "p"),
    ("s32.u8.s8.satfinite", 32, 2, "1"),
];

#[test]
fn every_n_of_a_type_is_known_and_no_other() {
    for (types, k, divisor, rest) in TYPES {
        for n in 1..=264 {
            let d = list((n / divisor).max(1));
            let text = format!("wgmma.mma_async.sync.aligned.m64n{n}k{k}.{types} {d}, d0, d1, {rest};");
            // For integers multiples of 8 up to 32, and of 16 above (section 9.7.15.2).
            let step = if types.starts_with('s') && n > 32 { 16 } else { 8 };
            let known = n % step == 0 && (8..=256).contains(&n);
            let loaded = Machine::default().load(&module(&text));
            assert_eq!(loaded.is_ok(), known, "{text}: {:?}", loaded.err());
        }
    }
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    let d = "{r0, r1, r2, r3}";
    let a = "{r4, r5, r6, r7}";
    let half = "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16";
    let refused = [
        (
            format!("wgmma.mma_async.sp.sync.aligned.m64n8k32.f32.f16.f16 {d}, d0, d1, r8, 0, p, 1, 1, 0, 0;"),
            "sparse products",
        ),
        (format!("wgmma.mma_async.sync.aligned.m64n8k256.s32.b1.b1.and.popc {d}, d0, d1, p;"), "single-bit products"),
        (
            "wgmma.mma_async.sync.aligned.m64n8k16.f16.bf16.bf16 {r0, r1}, d0, d1, p, 1, 1, 0, 0;".into(),
            "no product of the types",
        ),
        (
            format!("wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.bf16 {d}, d0, d1, p, 1, 1, 0, 0;"),
            "no product of the types",
        ),
        (format!("wgmma.mma_async.sync.aligned.m64n8k32.f32.f16.f16 {d}, d0, d1, p, 1, 1, 0, 0;"), "there is no shape"),
        (
            format!("wgmma.mma_async.sync.aligned.m64n08k16.f32.f16.f16 {d}, d0, d1, p, 1, 1, 0, 0;"),
            "there is no shape",
        ),
        (format!("{half}.satfinite {d}, d0, d1, p, 1, 1, 0, 0;"), "`.satfinite` is for integers"),
        (format!("{half} {{r0, r1, r2}}, d0, d1, p, 1, 1, 0, 0;"), "expected 4 registers, got 3"),
        (format!("{half} {{r0, r1, r2, r2}}, d0, d1, p, 1, 1, 0, 0;"), "register 3 of D is there twice"),
        (format!("{half} {{r0, r1, r2, _}}, d0, d1, p, 1, 1, 0, 0;"), "expected registers of 32 bits"),
        (format!("{half} {{d0, d1, d2, d3}}, d0, d1, p, 1, 1, 0, 0;"), "expected registers of 32 bits"),
        (format!("{half} {d}, r0, d1, p, 1, 1, 0, 0;"), "expected 64 bits"),
        (format!("{half} {d}, d0, {a}, p, 1, 1, 0, 0;"), "expected a value"),
        (format!("{half} {d}, d0, d1, 2, 1, 1, 0, 0;"), "expected a predicate"),
        (format!("{half} {d}, d0, d1, p, 1, 2, 0, 0;"), "operand 6: expected 1 or -1"),
        (format!("{half} {d}, d0, d1, p, 1, 1, 2, 0;"), "operand 7: expected 0 or 1"),
        (format!("{half} {d}, d0, d1, p, 1, 1;"), "expected 8 to 8 operands, got 6"),
        (format!("{half} {d}, {a}, d1, p, 1, 1, 0, 0;"), "expected 7 to 7 operands, got 8"),
        (
            format!("wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 {d}, d0, d1, p, 1, 1, 0, 1;"),
            "expected 6 to 6 operands",
        ),
        (format!("wgmma.mma_async.sync.aligned.m64n8k32.s32.s8.s8 {d}, d0, d1, p, 1, 1;"), "expected 4 to 4 operands"),
        ("wgmma.wait_group.sync.aligned r0;".into(), "expected a number"),
        ("wgmma.wait_group.sync.aligned -1;".into(), "expected a number"),
        ("wgmma.fence.sync;".into(), "expected `.fence`, `.mma_async`"),
    ];
    for (text, why) in refused {
        let error =
            Machine::default().load(&module(&text)).err().unwrap_or_else(|| panic!("accepted: {text}")).to_string();
        assert!(error.contains("line 9: `wgmma.") && error.contains(why), "{text}: {error}");
    }
}
