//! `mma.sync` against products in f64 and i64. Matrices are packed by the fragment formulas as the PTX ISA prints them
//! (9.7.14.5.2 to 11), shape by shape; the simulator has them in a general form.

mod common;
#[path = "mma/formats.rs"]
mod formats;
#[path = "mma/printed.rs"]
mod printed;
#[path = "mma/warps.rs"]
mod warps;

use common::{Random, Snippet};
use formats::{encode_f16, value};
use printed::shape;
use ptx_sim::fault::Fault;
use ptx_sim::meter::Path;
use ptx_sim::{Launch, Machine};
use warps::{Matrices, Mma};

const FLOATS: &[Mma] = &[
    Mma("m16n8k8", "f32", "f16", "f16"),
    Mma("m16n8k16", "f32", "f16", "f16"),
    Mma("m16n8k8", "f16", "f16", "f16"),
    Mma("m16n8k16", "f16", "f16", "f16"),
    Mma("m16n8k8", "f32", "bf16", "bf16"),
    Mma("m16n8k16", "f32", "bf16", "bf16"),
    Mma("m16n8k4", "f32", "tf32", "tf32"),
    Mma("m16n8k8", "f32", "tf32", "tf32"),
    Mma("m16n8k16", "f32", "e4m3", "e4m3"),
    Mma("m16n8k32", "f32", "e4m3", "e5m2"),
    Mma("m16n8k16", "f16", "e5m2", "e4m3"),
    Mma("m16n8k32", "f16", "e5m2", "e5m2"),
    Mma("m8n8k4", "f64", "f64", "f64"),
];

const INTEGERS: &[Mma] = &[
    Mma("m8n8k16", "s32", "s8", "u8"),
    Mma("m16n8k16", "s32", "s8", "s8"),
    Mma("m16n8k16", "s32", "u8", "s8"),
    Mma("m16n8k32", "s32", "s8", "u8"),
    Mma("m16n8k32", "s32", "u8", "u8"),
    Mma("m16n8k32", "s32", "s4", "s4"),
    Mma("m16n8k32", "s32", "u4", "s4"),
    Mma("m16n8k64", "s32", "s4", "u4"),
    Mma("m16n8k64", "s32", "u4", "u4"),
];

/// Element (row, column) of A times B: the sum, and the sum of magnitudes.
fn dot(mma: Mma, matrices: &Matrices, row: usize, column: usize) -> (f64, f64) {
    let Mma(.., a, b) = mma;
    let k = mma.shape().k;
    let products = (0..k).map(|i| value(a, matrices.a[row * k + i]) * value(b, matrices.b[i * 8 + column]));
    products.fold((0.0, 0.0), |(sum, magnitude), product| (sum + product, magnitude + product.abs()))
}

/// Any element whose magnitude lets sums stay finite, subnormals included.
fn tame(random: &mut Random, ty: &str) -> u64 {
    let bits = random.next();
    let sign = bits & 1;
    match ty {
        "f16" => sign << 15 | bits >> 8 & 0x4fff,
        "bf16" => (sign << 15) | ((bits >> 8 & 0x1fff) + 0x3000),
        "f32" | "tf32" => (sign << 31) | ((bits >> 8 & 0x1fff_ffff) + 0x3000_0000),
        "e4m3" => sign << 7 | (bits >> 8 & 0x7f).min(0x7e),
        "e5m2" => sign << 7 | bits >> 8 & 0x4f,
        "f64" => (sign << 63) | ((bits >> 2 & 0x1f_ffff_ffff_ffff) + 0x3fe0_0000_0000_0000),
        other => bits & (u64::MAX >> (64 - formats::bits(other))),
    }
}

#[test]
fn printed_formulas_give_the_elements_of_the_isa_figures() {
    // (shape, multiplicand, operand, lane, element, row, column), read off the figures of the ISA.
    let figures = [
        ("m16n8k8", "f16", 'a', 0, 0, 0, 0),
        ("m16n8k8", "f16", 'a', 31, 3, 15, 7),
        ("m16n8k8", "f16", 'b', 5, 1, 3, 1),
        ("m16n8k16", "bf16", 'a', 0, 4, 0, 8),
        ("m16n8k16", "bf16", 'a', 1, 2, 8, 2),
        ("m16n8k16", "bf16", 'a', 6, 7, 9, 13),
        ("m16n8k16", "bf16", 'b', 0, 2, 8, 0),
        ("m16n8k16", "bf16", 'b', 31, 3, 15, 7),
        ("m16n8k16", "bf16", 'c', 4, 2, 9, 0),
        ("m16n8k16", "bf16", 'c', 31, 3, 15, 7),
        ("m16n8k4", "tf32", 'a', 2, 1, 8, 2),
        ("m16n8k8", "tf32", 'a', 1, 2, 0, 5),
        ("m16n8k8", "tf32", 'b', 6, 1, 6, 1),
        ("m16n8k32", "s8", 'a', 3, 15, 8, 31),
        ("m16n8k32", "s8", 'b', 4, 4, 16, 1),
        ("m16n8k16", "e4m3", 'a', 1, 4, 8, 4),
        ("m16n8k64", "u4", 'a', 0, 16, 0, 32),
        ("m16n8k64", "u4", 'b', 1, 15, 47, 0),
        ("m8n8k16", "s8", 'a', 9, 3, 2, 7),
        ("m8n8k4", "f64", 'b', 7, 0, 3, 1),
        ("m8n8k4", "f64", 'c', 7, 1, 1, 7),
    ];
    for (name, ty, operand, lane, element, row, column) in figures {
        let shape = shape(name, ty);
        let places = match operand {
            'a' => &shape.a,
            'b' => &shape.b,
            _ => &shape.c,
        };
        assert_eq!(places[element](lane), (row, column), "{name} {ty} {operand}{element} of lane {lane}");
    }
}

#[test]
fn every_element_has_exactly_one_place() {
    for mma in FLOATS.iter().chain(INTEGERS) {
        let shape = mma.shape();
        for (places, width, len) in
            [(&shape.a, shape.k, shape.m * shape.k), (&shape.b, 8, shape.k * 8), (&shape.c, 8, shape.m * 8)]
        {
            let mut seen = vec![0; len];
            for lane in 0..32 {
                for (row, column) in places.iter().map(|place| place(lane)) {
                    seen[row * width + column] += 1;
                }
            }
            assert!(seen.iter().all(|&count| count == 1), "{mma:?}");
        }
    }
}

#[test]
fn one_hot_matrices_select_one_element() {
    for &mma in FLOATS.iter().chain(INTEGERS) {
        let shape = mma.shape();
        let one = |ty| formats::one(ty);
        let places: Vec<(usize, usize)> = (0..shape.k).map(|i| ((5 * i + 3) % shape.m, i)).collect();
        let zero = Matrices { a: vec![0; shape.m * shape.k], b: vec![0; shape.k * 8], c: vec![0; shape.m * 8] };
        let batch: Vec<Matrices> = places
            .iter()
            .map(|&(row, i)| {
                let mut matrices = zero.clone();
                matrices.a[row * shape.k + i] = one(mma.2);
                matrices.b[i * 8 + (i + 2) % 8] = one(mma.3);
                matrices
            })
            .collect();
        for (&(row, i), d) in places.iter().zip(mma.run("", &batch)) {
            let hot = row * 8 + (i + 2) % 8;
            assert!((0..d.len()).all(|at| d[at] == if at == hot { one(mma.1) } else { 0 }), "{mma:?} k {i}");
        }
    }
}

#[test]
fn float_products_are_within_a_rounding_of_the_exact_result() {
    let mut random = Random(17);
    for &mma in FLOATS {
        let batch: Vec<_> = (0..24).map(|_| mma.random(&mut random, tame)).collect();
        for (matrices, d) in batch.iter().zip(mma.run("", &batch)) {
            for (at, &bits) in d.iter().enumerate() {
                let (sum, magnitude) = dot(mma, matrices, at / 8, at % 8);
                let c = value(mma.1, matrices.c[at]);
                let (expected, magnitude) = (sum + c, magnitude + c.abs());
                let got = value(mma.1, bits);
                if mma.1 == "f16" && expected.abs() >= 65520.0 {
                    assert_eq!(got, f64::INFINITY.copysign(expected));
                    continue;
                }
                let (ulp, least) = match mma.1 {
                    "f16" => (2f64.powi(-11), 2f64.powi(-25)),
                    "f32" => (2f64.powi(-24), 2f64.powi(-150)),
                    _ => (0.0, 0.0),
                };
                let bound = expected.abs() * ulp + least + magnitude * 2f64.powi(-50);
                assert!((got - expected).abs() <= bound, "{mma:?}: {got} instead of {expected}");
            }
        }
    }
}

#[test]
fn f64_products_are_chains_of_fused_multiply_adds() {
    let mma = FLOATS[12];
    let mut random = Random(19);
    let batch: Vec<_> = (0..16).map(|_| mma.random(&mut random, tame)).collect();
    for (matrices, d) in batch.iter().zip(mma.run("", &batch)) {
        for (at, &bits) in d.iter().enumerate() {
            let float = f64::from_bits;
            let expected = (0..4).fold(float(matrices.c[at]), |sum, i| {
                float(matrices.a[at / 8 * 4 + i]).mul_add(float(matrices.b[i * 8 + at % 8]), sum)
            });
            assert_eq!(bits, expected.to_bits());
        }
    }
    assert_eq!(mma.run(".rn", &batch), mma.run("", &batch));
}

/// Each row and column has one element that is not zero, at the same k: D is the table of all products.
fn products(mma: Mma, x: &[u64], y: &[u64]) -> Vec<(u64, u64, u64)> {
    let shape = mma.shape();
    let mut pairs = Vec::new();
    let mut batch = Vec::new();
    for (index, x) in x.chunks(shape.m).enumerate() {
        for y in y.chunks(8) {
            let i = (7 * index + batch.len()) % shape.k;
            let mut matrices =
                Matrices { a: vec![0; shape.m * shape.k], b: vec![0; shape.k * 8], c: vec![0; shape.m * 8] };
            x.iter().enumerate().for_each(|(row, x)| matrices.a[row * shape.k + i] = *x);
            y.iter().enumerate().for_each(|(column, y)| matrices.b[i * 8 + column] = *y);
            pairs.push((x, y));
            batch.push(matrices);
        }
    }
    let mut out = Vec::new();
    for ((x, y), d) in pairs.into_iter().zip(mma.run("", &batch)) {
        for (row, &x) in x.iter().enumerate() {
            out.extend(y.iter().enumerate().map(|(column, &y)| (x, y, d[row * 8 + column])));
        }
    }
    out
}

/// A float result; all NaNs must be the canonical one. Zeros lose their sign when +0 is added.
fn assert_float(d: &str, got: u64, expected: f64, what: &str) {
    let bits = match d {
        _ if expected.is_nan() => formats::nan(d),
        "f16" => encode_f16(expected + 0.0),
        "f32" => u64::from(((expected + 0.0) as f32).to_bits()),
        _ => (expected + 0.0).to_bits(),
    };
    assert_eq!(got, bits, "{what}: {:e} instead of {expected:e}", value(d, got));
}

#[test]
fn every_fp8_value_is_what_the_format_says() {
    let all: Vec<u64> = (0..256).collect();
    for a in ["e4m3", "e5m2"] {
        for (d, shape) in [("f32", "m16n8k32"), ("f16", "m16n8k16")] {
            let mma = Mma(shape, d, a, "e5m2");
            for (x, y, got) in products(mma, &all, &[0x3c, 0xbc, 0x40, 0x34]) {
                let expected = value(a, x) * value("e5m2", y);
                assert_float(d, got, expected, &format!("{mma:?} {x:#x} * {y:#x}"));
            }
        }
    }
    assert_eq!(value("e4m3", 0x7e), 448.0);
    assert_eq!(value("e4m3", 1), 2f64.powi(-9));
    assert_eq!(value("e5m2", 0x7b), 57344.0);
    assert_eq!(value("e5m2", 1), 2f64.powi(-16));
}

#[test]
fn edges_of_float_formats_multiply_as_ieee_says() {
    for &mma in FLOATS {
        let Mma(_, d, a, b) = mma;
        for (x, y, got) in products(mma, &formats::edges(a), &formats::edges(b)) {
            assert_float(d, got, value(a, x) * value(b, y), &format!("{mma:?} {x:#x} * {y:#x}"));
        }
    }
}

#[test]
fn accumulators_that_are_special_or_subnormal_pass_through() {
    for &mma in FLOATS {
        let shape = mma.shape();
        let edges = formats::edges(mma.1);
        let c: Vec<u64> = edges.iter().cycle().take(shape.m * 8).copied().collect();
        let matrices = Matrices { a: vec![0; shape.m * shape.k], b: vec![0; shape.k * 8], c: c.clone() };
        for (got, c) in mma.run("", &[matrices])[0].iter().zip(c) {
            assert_float(mma.1, *got, value(mma.1, c), &format!("{mma:?} {c:#x}"));
        }
    }
}

#[test]
fn f16_results_are_rounded_once() {
    // 1 + 2^-11 is a tie; what follows decides it, however small, and a rounding in between would lose it.
    let mma = Mma("m16n8k16", "f16", "f16", "f16");
    let bits = |x: f64| encode_f16(x);
    let mut matrices = Matrices { a: vec![0; 256], b: vec![0; 128], c: vec![bits(1.0); 128] };
    (matrices.a[0], matrices.b[0]) = (bits(2f64.powi(-6)), bits(2f64.powi(-5)));
    assert_eq!(mma.run("", &[matrices.clone()])[0][0], bits(1.0));
    (matrices.a[1], matrices.b[8]) = (1, 1);
    assert_eq!(mma.run("", &[matrices])[0][0], bits(1.0) + 1);
}

#[test]
fn tf32_ignores_the_lower_bits() {
    let mma = Mma("m16n8k4", "f32", "tf32", "tf32");
    for (x, y, got) in products(mma, &[0x3f80_0000, 0x3f80_1fff, 0x3f80_2000, 0x4049_0fdb], &[0x3f80_1abc]) {
        assert_eq!(got, x & !0x1fff, "{x:#x} {y:#x}");
    }
}

#[test]
fn integer_products_are_exact_and_wrap_or_saturate() {
    let mut random = Random(23);
    for &mma in INTEGERS {
        let mut batch: Vec<_> = (0..16).map(|_| mma.random(&mut random, tame)).collect();
        // Accumulators at the ends of the range, with products of either sign.
        for end in [i32::MAX, i32::MIN] {
            let mut matrices = mma.random(&mut random, tame);
            matrices.c.fill((end as u32).into());
            batch.push(matrices);
        }
        for modifier in ["", ".satfinite"] {
            for (matrices, d) in batch.iter().zip(mma.run(modifier, &batch)) {
                for (at, &got) in d.iter().enumerate() {
                    let exact = dot(mma, matrices, at / 8, at % 8).0 as i64 + i64::from(matrices.c[at] as u32 as i32);
                    let expected = match modifier {
                        "" => exact as i32,
                        _ => exact.clamp(i32::MIN.into(), i32::MAX.into()) as i32,
                    };
                    assert_eq!(got as u32 as i32, expected, "{mma:?}{modifier}");
                }
            }
        }
    }
}

#[test]
fn all_pairs_of_small_integers_multiply_exactly() {
    for &mma in INTEGERS {
        let Mma(.., a, b) = mma;
        let all = |ty: &str| (0..1u64 << formats::bits(ty)).collect::<Vec<_>>();
        let (x, y) = (all(a), all(b));
        let y = if y.len() > 16 { vec![0, 1, 2, 0x7e, 0x7f, 0x80, 0x81, 0xff] } else { y };
        for (x, y, got) in products(mma, &x, &y) {
            assert_eq!(f64::from(got as u32 as i32), value(a, x) * value(b, y), "{mma:?} {x} {y}");
        }
    }
}

#[test]
fn a_warp_that_is_not_whole_is_a_fault() {
    let body = format!(
        "{}\nmov.b32 %y0, 0;",
        "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%t0,%t1,%t2,%t3}, {%t4,%t5}, {%t6}, {%t0,%t1,%t2,%t3};"
    );
    let run = |body: &str, threads: u32| {
        let ptx = Snippet { inputs: &[], outputs: &["b32"], body }.ptx();
        let mut machine = Machine::default();
        let module = machine.load(&ptx).unwrap();
        let output = machine.memory.allocate(256).unwrap();
        let params: Vec<u8> = [0, output].iter().flat_map(|pointer: &u64| pointer.to_le_bytes()).collect();
        machine.launch(&module, "k", &Launch::new([1; 3], [threads, 1, 1]), &params)
    };
    assert!(run(&body, 32).is_ok());
    let result = run(&body, 24);
    assert!(matches!(Machine::fault(&result), Some(Fault::Trap(why)) if why.contains("0x00ffffff")), "{result:?}");
    // Lanes that pass by exit without having come.
    let body = format!("mov.u32 %t0, %laneid;\nsetp.ne.u32 %p0, %t0, 9;\n@%p0 {body}");
    let result = run(&body, 32);
    assert!(matches!(Machine::fault(&result), Some(Fault::Trap(why)) if why.contains("0xfffffdff")), "{result:?}");
}

#[test]
fn a_tiled_product_compiled_by_nvcc_equals_f64() {
    let mut machine = Machine::default();
    let module = machine.load(include_str!("ptx/matmul.ptx")).unwrap();
    let mut random = Random(29);
    let mut matrix = || (0..4096).map(|_| 0x3f00 + (random.next() & 0x80ff) as u16).collect::<Vec<_>>();
    let (a, b) = (matrix(), matrix());
    let [left, right, out] = [8192, 8192, 16384].map(|len| machine.memory.allocate(len).unwrap());
    for (address, matrix) in [(left, &a), (right, &b)] {
        let bytes: Vec<u8> = matrix.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        machine.memory.write(address, &bytes).unwrap();
    }
    let params: Vec<u8> = [left, right, out].iter().flat_map(|pointer| pointer.to_le_bytes()).collect();
    let bf16 = |bits: u16| value("bf16", bits.into());
    // Rows of 144 bytes have no bank conflicts. Those of 128 bytes have all eight rows of a matrix in the same banks:
    // 4 warps load 4 times 4 * 4 matrices, each with 7 wavefronts too many.
    for (kernel, conflicts) in [("padded", 0), ("dense", 4 * 4 * 4 * 4 * 7)] {
        machine.memory.write(out, &[0xff; 16384]).unwrap();
        let report = machine.launch(&module, kernel, &Launch::new([1; 3], [128, 1, 1]), &params).unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        let mut bytes = vec![0; 16384];
        machine.memory.read(out, &mut bytes).unwrap();
        for (at, got) in bytes.chunks_exact(4).enumerate() {
            let got = f32::from_le_bytes(got.try_into().unwrap());
            let products = (0..64).map(|k| bf16(a[at / 64 * 64 + k]) * bf16(b[k * 64 + at % 64]));
            let (sum, magnitude) =
                products.fold((0.0, 0.0), |(sum, all), product| (sum + product, all + product.abs()));
            // Four roundings, one per 16 products.
            assert!(
                (f64::from(got) - sum).abs() <= 4.0 * magnitude * 2f64.powi(-24),
                "{kernel} {at}: {got} instead of {sum}"
            );
        }
        // 64 * 64 * 64 multiplications of 16 * 8 * 16 each.
        assert_eq!(report.meter.mma["m16n8k16.f32.bf16.bf16.f32"], 128);
        let read = report.meter.traffic[&Path::SharedRead];
        assert_eq!((read.accesses, read.bytes, read.wavefronts), (64, 64 * 512, 256 + conflicts), "{kernel}");
        assert_eq!(read.conflicts, conflicts, "{kernel}");
    }
}

#[test]
fn operands_may_be_constants_and_results_unwanted() {
    let body = "mov.b32 %t0, 0x3f803f80;\n\
                mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%y0,_,_,_}, {%t0,%t0}, {%t0}, \
                {0f3f000000,0f00000000,0f00000000,0f00000000};";
    let results = Snippet { inputs: &["b32"], outputs: &["b32"], body }.run(&vec![vec![0]; 32]);
    assert!(results.iter().all(|row| row[0] == u64::from(8.5f32.to_bits())));
}

#[test]
fn unknown_products_are_refused_with_line_and_instruction() {
    let (c4, a4, a2, b2) = ("{%t0,%t1,%t2,%t3}", "{%t4,%t5,%t6,%t7}", "{%t4,%t5}", "{%t8,%t9}");
    let forms = [
        ("mma.sync.aligned.m16n8k16.row.row.f32.bf16.bf16.f32", a4),
        ("mma.sync.aligned.m16n8k16.col.col.f32.bf16.bf16.f32", a4),
        ("mma.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", a4),
        ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.f16.f32", a4),
        ("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f16", a4),
        ("mma.sync.aligned.m16n8k16.row.col.satfinite.f32.bf16.bf16.f32", a4),
        ("mma.sync.aligned.m16n8k16.row.col.kind::f8f6f4.f32.e4m3.e4m3.f32", a4),
        ("mma.sync.aligned.m16n8k32.row.col.s32.s4.s8.s32", a4),
        ("mma.sync.aligned.m16n8k128.row.col.s32.b1.b1.s32.xor.popc", a2),
        ("mma.sync.aligned.m16n8k16.row.col.f64.f64.f64.f64", a4),
        ("mma.sp.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", a4),
        ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", a2),
    ];
    for (name, a) in forms {
        let body = format!("{name} {c4}, {a}, {b2}, {c4};");
        let (error, line) = Snippet { inputs: &["b32"], outputs: &["b32"], body: &body }.refusal();
        assert!(error.contains(&format!("line {line}:")) && error.contains(&format!("`{name}`")), "{error}");
    }
}
