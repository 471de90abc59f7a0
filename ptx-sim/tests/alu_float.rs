//! f32 and f64 arithmetic in every rounding mode against exact integers, and special values.

mod common;

use std::cmp::Ordering;

use common::exact::{rounded, scaled};
use common::{Random, Snippet, evaluate32, rows};

const NAN: u32 = 0x7FFF_FFFF;
const MODES: [&str; 4] = ["rn", "rz", "rm", "rp"];

/// Random numbers of `bits` significant bits with exponents from `-range` to `range`, some with few bits.
fn numbers(single: bool, range: i64, width: usize, count: usize) -> Vec<Vec<f64>> {
    let mut random = Random(7);
    let mut number = || {
        let bits = random.next();
        let fraction = match (single, bits >> 60 & 3) {
            (true, 0) => bits & 0xE000_0020_0000_0000 & ((1 << 52) - 1),
            (false, 0) => bits & 0xE_0000_0000_0003,
            (true, _) => bits & 0xF_FFFF_E000_0000,
            (false, _) => bits & 0xF_FFFF_FFFF_FFFF,
        };
        let exponent = (random.next() % (2 * range as u64 + 1)) as i64 - range + 1023;
        f64::from_bits(bits & 1 << 63 | (exponent as u64) << 52 | fraction)
    };
    (0..count).map(|_| (0..width).map(|_| number()).collect()).collect()
}

/// Checks `opcode` in every mode for exact results that `compare` knows: how a number, times 2, compares with twice
/// the result.
fn check(
    opcode: &str,
    single: bool,
    list: &[Vec<f64>],
    guess: impl Fn(&[f64]) -> f64,
    compare: impl Fn(&[f64], f64, f64) -> Ordering,
) {
    let (ty, register) = if single { ("f32", "b32") } else { ("f64", "b64") };
    let bits = |x: f64| if single { u64::from((x as f32).to_bits()) } else { x.to_bits() };
    let operands: Vec<String> = (0..list[0].len()).map(|i| format!("%x{i}")).collect();
    let raw: Vec<Vec<u64>> = list.iter().map(|row| row.iter().map(|x| bits(*x)).collect()).collect();
    for mode in MODES {
        let body = format!("{opcode}.{mode}.{ty} %y0, {};", operands.join(", "));
        let results = Snippet { inputs: &vec![register; list[0].len()], outputs: &[register], body: &body }.run(&raw);
        for (row, result) in list.iter().zip(results) {
            let wanted = rounded(mode, single, guess(row), |x| compare(row, x, x), |x, y| compare(row, x, y));
            assert_eq!(result[0], bits(wanted), "{body} of {row:?}: expected {wanted:?}");
        }
    }
}

#[test]
fn sums_products_and_fused_products_round_the_exact_result_once() {
    for (single, range, scale) in [(true, 8, 45), (false, 2, 104)] {
        let twice = |x: f64, y: f64| scaled(x, scale) + scaled(y, scale);
        let list = numbers(single, range, 2, 3000);
        let sum = |row: &[f64]| 2 * (scaled(row[0], scale) + scaled(row[1], scale));
        // Equal numbers of opposite sign: zero is -0 when rounding down, which `rounded` does not tell.
        let list: Vec<_> = list.into_iter().filter(|row| row[0] != -row[1]).collect();
        check("add", single, &list, |row| row[0] + row[1], |row, x, y| twice(x, y).cmp(&sum(row)));
        let difference = |row: &[f64]| 2 * (scaled(row[0], scale) - scaled(row[1], scale));
        let list: Vec<_> = list.into_iter().filter(|row| row[0] != row[1]).collect();
        check("sub", single, &list, |row| row[0] - row[1], |row, x, y| twice(x, y).cmp(&difference(row)));
    }
    // Mantissas as integers leave room for products: 106 bits and exponents of -2 to 2.
    for (single, range) in [(true, 8), (false, 2)] {
        let fraction = if single { 23 } else { 52 };
        let scale = 2 * (fraction + range as i32);
        let list = numbers(single, range, 3, 3000);
        let product = |row: &[f64]| scaled(row[0], scale / 2) * scaled(row[1], scale / 2);
        let twice = |x: f64, y: f64| scaled(x, scale) + scaled(y, scale);
        let pairs: Vec<_> = list.iter().map(|row| row[..2].to_vec()).collect();
        check("mul", single, &pairs, |row| row[0] * row[1], |row, x, y| twice(x, y).cmp(&(2 * product(row))));
        // Also sums that nearly cancel: c is the negative rounded product.
        let cancelling = list.iter().map(|row| {
            let near = -row[0] * row[1];
            vec![row[0], row[1], if single { f64::from(near as f32) } else { near }]
        });
        let list: Vec<_> = list.iter().cloned().chain(cancelling).collect();
        let fused = |row: &[f64]| product(row) + scaled(row[2], scale);
        let list: Vec<_> = list.into_iter().filter(|row| fused(row) != 0).collect();
        check(
            "fma",
            single,
            &list,
            |row| fused(row) as f64 * 2f64.powi(-scale),
            |row, x, y| twice(x, y).cmp(&(2 * fused(row))),
        );
    }
}

#[test]
fn quotients_and_roots_round_the_exact_result_once() {
    for single in [true, false] {
        let (range, scale) = if single { (6, 30) } else { (0, 53) };
        // x + y against 2a/b, over b: scaled so that both sides are integers.
        let quotient = |a: f64, b: f64, x: f64, y: f64| {
            let (b_whole, shift) = (scaled(b, scale), scale + if single { 24 } else { 1 });
            let left = (scaled(x, shift) + scaled(y, shift)) * b_whole;
            let right = (2 * scaled(a, scale)) << shift;
            if b > 0.0 { left.cmp(&right) } else { right.cmp(&left) }
        };
        let list = numbers(single, range, 2, 3000);
        check("div", single, &list, |row| row[0] / row[1], |row, x, y| quotient(row[0], row[1], x, y));
        let list = numbers(single, range, 1, 3000);
        check("rcp", single, &list, |row| 1.0 / row[0], |row, x, y| quotient(1.0, row[0], x, y));
        // (x + y)^2 against 4a.
        let list: Vec<_> = list.iter().map(|row| vec![row[0].abs()]).collect();
        let scale = if single { 28 } else { 53 };
        check(
            "sqrt",
            single,
            &list,
            |row| row[0].sqrt(),
            |row, x, y| {
                let sum = scaled(x, scale) + scaled(y, scale);
                (sum * sum).cmp(&(4 * scaled(row[0], 2 * scale)))
            },
        );
    }
}

#[test]
fn fma_of_f32_agrees_with_the_correctly_rounded_one_over_all_bit_patterns() {
    let edges =
        [0, 1, 0x007F_FFFF, 0x0080_0000, 0x3F80_0001, 0x7F7F_FFFF, 0x7F80_0000, 0x8000_0000, 0x8000_0001, 0xBF80_0000];
    let list = rows(&edges, 3, 32, 20_000);
    Snippet { inputs: &["b32"; 3], outputs: &["b32"], body: "fma.rn.f32 %y0, %x0, %x1, %x2;" }.check(&list, |row| {
        let [a, b, c] = [0, 1, 2].map(|i| f32::from_bits(row[i] as u32));
        let result = a.mul_add(b, c);
        (if result.is_nan() { NAN } else { result.to_bits() }).into()
    });
}

#[test]
fn overflow_goes_to_infinity_or_stops_as_the_mode_says() {
    let (max, inf, two) = (0x7F7F_FFFF, 0x7F80_0000, 0x4000_0000);
    let sign = 0x8000_0000;
    for (mode, positive, negative) in [("rn", inf, inf), ("rz", max, max), ("rm", max, inf), ("rp", inf, max)] {
        let expected = vec![positive, negative | sign];
        let list = [vec![max, two], vec![max | sign, two]];
        assert_eq!(evaluate32(&format!("mul.{mode}.f32 %y0, %x0, %x1;"), &list), expected);
        assert_eq!(evaluate32(&format!("fma.{mode}.f32 %y0, %x0, %x1, 0f00000000;"), &list), expected);
        assert_eq!(evaluate32(&format!("add.{mode}.f32 %y0, %x0, %x0;"), &list), expected);
        // Division by zero is exact, and so is arithmetic with infinities.
        let list = [vec![two, 0], vec![two, sign], vec![inf, two], vec![inf | sign, two]];
        let exact = vec![inf, inf | sign, inf, inf | sign];
        assert_eq!(evaluate32(&format!("div.{mode}.f32 %y0, %x0, %x1;"), &list), exact);
    }
}

#[test]
fn subnormal_results_round_in_every_mode() {
    // 3 and -3 times 2^-149, halved: 1.5 of the smallest number.
    for (mode, up, down) in [("rn", 2, 2), ("rz", 1, 1), ("rm", 1, 2), ("rp", 2, 1)] {
        let expected = vec![up, down | 0x8000_0000];
        let list = [vec![3, 0x3F00_0000, 0x4000_0000], vec![0x8000_0003, 0x3F00_0000, 0x4000_0000]];
        assert_eq!(evaluate32(&format!("mul.{mode}.f32 %y0, %x0, %x1;"), &list), expected, "{mode}");
        assert_eq!(evaluate32(&format!("div.{mode}.f32 %y0, %x0, %x2;"), &list), expected, "{mode}");
        assert_eq!(evaluate32(&format!("fma.{mode}.f32 %y0, %x0, %x1, 0f00000000;"), &list), expected, "{mode}");
        // What is far below the smallest number is zero or that number.
        let tiny = vec![u32::from(mode == "rp"), 0x8000_0000 | u32::from(mode == "rm")];
        let list = [vec![0x0080_0000, 0x0080_0000], vec![0x8080_0000, 0x0080_0000]];
        assert_eq!(evaluate32(&format!("mul.{mode}.f32 %y0, %x0, %x1;"), &list), tiny, "{mode}");
    }
}

#[test]
fn zero_sums_are_negative_only_when_rounding_down() {
    for mode in MODES {
        let zero = if mode == "rm" { 0x8000_0000 } else { 0 };
        let list = [vec![0x3F80_0000, 0xBF80_0000], vec![0, 0x8000_0000], vec![0, 0], vec![0x8000_0000, 0x8000_0000]];
        let expected = vec![zero, zero, 0, 0x8000_0000];
        assert_eq!(evaluate32(&format!("add.{mode}.f32 %y0, %x0, %x1;"), &list), expected, "{mode}");
        assert_eq!(evaluate32(&format!("fma.{mode}.f32 %y0, %x0, 0f3F800000, %x1;"), &list), expected, "{mode}");
        let list = [vec![0x3F80_0000, 0x3F80_0000], vec![0x8000_0000, 0]];
        assert_eq!(evaluate32(&format!("sub.{mode}.f32 %y0, %x0, %x1;"), &list), [zero, 0x8000_0000], "{mode}");
        assert_eq!(evaluate32(&format!("sqrt.{mode}.f32 %y0, %x0;"), &[vec![0], vec![0x8000_0000]]), [0, 0x8000_0000]);
    }
}

#[test]
fn results_that_are_no_numbers_are_canonical() {
    let (inf, snan, negative) = (0x7F80_0000, 0xFF81_2345, 0xBF80_0000);
    for mode in MODES {
        for body in [
            "add.{}.f32 %y0, %x0, %x1;",
            "mul.{}.f32 %y0, %x0, %x1;",
            "fma.{}.f32 %y0, %x0, %x1, %x0;",
            "div.{}.f32 %y0, %x0, %x1;",
        ] {
            let body = body.replace("{}", mode);
            assert_eq!(evaluate32(&body, &[vec![snan, 0], vec![0, snan]]), [NAN, NAN], "{body}");
        }
        assert_eq!(evaluate32(&format!("add.{mode}.f32 %y0, %x0, %x1;"), &[vec![inf, inf | 1 << 31]]), [NAN]);
        assert_eq!(evaluate32(&format!("mul.{mode}.f32 %y0, %x0, %x1;"), &[vec![inf, 0]]), [NAN]);
        assert_eq!(evaluate32(&format!("div.{mode}.f32 %y0, %x0, %x1;"), &[vec![0, 0], vec![inf, inf]]), [NAN, NAN]);
        assert_eq!(evaluate32(&format!("sqrt.{mode}.f32 %y0, %x0;"), &[vec![negative]]), [NAN]);
    }
    // Doubles hand on a payload, quiet.
    let list =
        [vec![0x7FF0_0000_0000_1234, 1 << 62], vec![1 << 62, 0xFFF8_0000_0000_0005], vec![0x7FF0 << 48, 0xFFF0 << 48]];
    let result = Snippet { inputs: &["b64"; 2], outputs: &["b64"], body: "add.f64 %y0, %x0, %x1;" }.run(&list);
    assert_eq!(result, [[0x7FF8_0000_0000_1234], [0xFFF8_0000_0000_0005], [0xFFF8_0000_0000_0000]]);
}

#[test]
fn flushing_keeps_the_sign_of_operands_and_results() {
    let (small, least, sign, one) = (0x007F_FFFF, 0x0080_0000, 0x8000_0000, 0x3F80_0000);
    let list = [
        vec![small, one],
        vec![small | sign, one],
        vec![least, 0x3F00_0000],
        vec![least | sign, 0x3F00_0000],
        vec![least, one],
    ];
    assert_eq!(evaluate32("mul.ftz.f32 %y0, %x0, %x1;", &list), [0, sign, 0, sign, least]);
    assert_eq!(
        evaluate32("mul.f32 %y0, %x0, %x1;", &list),
        [small, small | sign, 0x0040_0000, 0x0040_0000 | sign, least]
    );
    assert_eq!(evaluate32("fma.rn.ftz.f32 %y0, %x0, %x1, %x0;", &[vec![small, one]]), [0]);
    assert_eq!(evaluate32("neg.ftz.f32 %y0, %x0;", &[vec![small], vec![one]]), [sign, one | sign]);
    assert_eq!(evaluate32("abs.ftz.f32 %y0, %x0;", &[vec![small | sign], vec![one | sign]]), [0, one]);
    assert_eq!(evaluate32("neg.f32 %y0, %x0;", &[vec![small]]), [small | sign]);
    assert_eq!(evaluate32("min.ftz.f32 %y0, %x0, %x1;", &[vec![small, one]]), [0]);
    assert_eq!(evaluate32("rcp.rn.ftz.f32 %y0, %x0;", &[vec![small | sign], vec![0x7F7F_FFFF]]), [0xFF80_0000, 0]);
    assert_eq!(evaluate32("div.rz.ftz.f32 %y0, %x0, %x1;", &[vec![small, one], vec![one, small]]), [0, 0x7F80_0000]);
}

#[test]
fn saturation_limits_to_zero_and_one() {
    let list = [0x4000_0000, 0x3F00_0000, 0xBF80_0000, 0x8000_0000, NAN, 0x7F80_0000, 0xFF80_0000].map(|x| vec![x]);
    let expected = [0x3F80_0000, 0x3F00_0000, 0, 0, 0, 0x3F80_0000, 0];
    assert_eq!(evaluate32("mul.sat.f32 %y0, %x0, 0f3F800000;", &list), expected);
    assert_eq!(evaluate32("fma.rn.sat.f32 %y0, %x0, 0f3F800000, 0f80000000;", &list), expected);
    assert_eq!(evaluate32("add.rp.ftz.sat.f32 %y0, %x0, 0f80000000;", &list), expected);
}

#[test]
fn minima_and_maxima_order_zeros_and_prefer_numbers() {
    let (one, two, sign, inf) = (0x3F80_0000u32, 0x4000_0000u32, 0x8000_0000u32, 0x7F80_0000u32);
    let nan = 0xFFC1_2345;
    let list = [
        vec![one, two],
        vec![two | sign, one],
        vec![0, sign],
        vec![sign, 0],
        vec![nan, one],
        vec![one, nan],
        vec![nan, nan],
        vec![inf, inf | sign],
    ];
    assert_eq!(evaluate32("min.f32 %y0, %x0, %x1;", &list), [one, two | sign, sign, sign, one, one, NAN, inf | sign]);
    assert_eq!(evaluate32("max.f32 %y0, %x0, %x1;", &list), [two, one, 0, 0, one, one, NAN, inf]);
    assert_eq!(
        evaluate32("min.NaN.f32 %y0, %x0, %x1;", &list),
        [one, two | sign, sign, sign, NAN, NAN, NAN, inf | sign]
    );
    assert_eq!(evaluate32("max.NaN.f32 %y0, %x0, %x1;", &list), [two, one, 0, 0, NAN, NAN, NAN, inf]);
    let signed = [vec![two | sign, one], vec![two | sign, one | sign], vec![two, one]];
    assert_eq!(evaluate32("min.xorsign.abs.f32 %y0, %x0, %x1;", &signed), [one | sign, one, one]);
    assert_eq!(evaluate32("max.xorsign.abs.f32 %y0, %x0, %x1;", &signed), [two | sign, two, two]);
    let three = [vec![two, one, one | sign], vec![nan, two, one]];
    assert_eq!(evaluate32("min.f32 %y0, %x0, %x1, %x2;", &three), [one | sign, one]);
    assert_eq!(evaluate32("max.NaN.abs.f32 %y0, %x0, %x1, %x2;", &three), [two, NAN]);
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    let cases = [
        ("fma.f32 %y0, %x0, %x0, %x0;", "expected one rounding mode"),
        ("add.rn.rz.f32 %y0, %x0, %x0;", "expected one rounding mode"),
        ("add.ftz.f64 %d0, %d1, %d2;", "f64 has neither"),
        ("div.rn.sat.f32 %y0, %x0, %x0;", "unknown part `.sat`"),
        ("min.xorsign.f32 %y0, %x0, %x0;", "`.xorsign.abs` is for two operands"),
        ("sqrt.f32 %y0, %x0;", "expected one rounding mode"),
        ("rsqrt.rn.f32 %y0, %x0;", "unknown instruction"),
    ];
    for (body, why) in cases {
        let (message, line) = Snippet { inputs: &["b32"], outputs: &["b32"], body }.refusal();
        let instruction = body.split(' ').next().unwrap();
        assert!(message.starts_with(&format!("line {line}: `{instruction}`")) && message.contains(why), "{message}");
    }
}
