//! f16 and bf16 arithmetic against exact integers, and special values.

mod common;

use common::exact::{Narrow, scaled};
use common::{Random, Snippet, evaluate32, rows};

fn f16(bits: u64) -> f64 {
    half::f16::from_bits(bits as u16).to_f64()
}

fn bf16(bits: u64) -> f64 {
    half::bf16::from_bits(bits as u16).to_f64()
}

/// The encoding of `exact * 2^-scale`, by comparison with every number of the format.
fn nearest(format: &Narrow, exact: i128, scale: i32) -> u64 {
    let magnitude = exact.abs();
    let value = |index: usize| scaled(format.values[index], scale);
    let (mut low, mut high) = (0, format.values.len() - 1);
    let sign = if exact < 0 { 0x8000 } else { 0 };
    if magnitude >= value(high) {
        return high as u64 | sign;
    }
    while high - low > 1 {
        let middle = (low + high) / 2;
        if value(middle) <= magnitude { low = middle } else { high = middle }
    }
    let twice = value(low) + value(high);
    let up = 2 * magnitude > twice || 2 * magnitude == twice && low % 2 == 1;
    (low + usize::from(up)) as u64 | sign
}

/// Checks a scalar instruction and its packed form on the same rows, leaving out zero results, whose sign integers do
/// not know.
fn check(ty: &str, opcode: &str, list: &[Vec<u64>], exact: impl Fn(&[u64]) -> i128, format: &Narrow, scale: i32) {
    let list: Vec<_> = list.iter().filter(|row| exact(row) != 0).cloned().collect();
    let width = list[0].len();
    let operands: Vec<String> = (0..width).map(|i| format!("%x{i}")).collect();
    let body = format!("{opcode}.{ty} %y0, {};", operands.join(", "));
    let expected = |row: &[u64]| nearest(format, exact(row), scale);
    Snippet { inputs: &vec!["b16"; width], outputs: &["b16"], body: &body }.check(&list, expected);
    let body = format!("{opcode}.{ty}x2 %y0, {};", operands.join(", "));
    let join = |low: &[u64], high: &[u64]| low.iter().zip(high).map(|(low, high)| low | high << 16).collect::<Vec<_>>();
    let pairs: Vec<_> = (0..list.len()).map(|i| join(&list[i], &list[(i + 1) % list.len()])).collect();
    let split = |row: &[u64], i: u32| row.iter().map(|x| x >> (16 * i) & 0xFFFF).collect::<Vec<_>>();
    Snippet { inputs: &vec!["b32"; width], outputs: &["b32"], body: &body }
        .check(&pairs, |row| expected(&split(row, 0)) | expected(&split(row, 1)) << 16);
}

fn check_all(ty: &str, list: &[Vec<u64>], value: impl Fn(u64) -> f64, format: &Narrow, scale: i32) {
    let whole = |x: u64| scaled(value(x), scale);
    let pairs: Vec<_> = list.iter().map(|row| row[..2].to_vec()).collect();
    check(ty, "add", &pairs, |row| (whole(row[0]) + whole(row[1])) << scale, format, 2 * scale);
    check(ty, "sub.rn", &pairs, |row| (whole(row[0]) - whole(row[1])) << scale, format, 2 * scale);
    check(ty, "mul", &pairs, |row| whole(row[0]) * whole(row[1]), format, 2 * scale);
    check(ty, "fma.rn", list, |row| whole(row[0]) * whole(row[1]) + (whole(row[2]) << scale), format, 2 * scale);
}

#[test]
fn f16_results_are_rounded_once_over_all_finite_numbers() {
    let edges = [0, 1, 0x8001, 0x3FF, 0x400, 0x3C00, 0xBC01, 0x7BFF, 0x6400];
    let mut list = rows(&edges, 3, 16, 4000);
    // Sums just beside a tie: a product near 1 and a small addend of either sign.
    let mut random = Random(3);
    list.extend((0..3000).map(|_| {
        let bits = random.next();
        vec![0x3C00 | bits & 0x3FF, 0x3C00 | bits >> 10 & 0x3FF, bits >> 20 & 0x83FF | (bits >> 40 & 3) << 10]
    }));
    list.retain(|row| row.iter().all(|x| f16(*x).is_finite()));
    let format = Narrow::new(5, 10, 0x7BFF);
    check_all("f16", &list, f16, &format, 24);
}

#[test]
fn bf16_results_are_rounded_once() {
    let mut random = Random(5);
    // Exponents from -12 to 12, so that exact results fit into 128 bits.
    let list: Vec<Vec<u64>> = (0..6000)
        .map(|_| {
            let mut number = || {
                let bits = random.next();
                (bits & 0x807F) | (115 + (bits >> 20) % 25) << 7
            };
            vec![number(), number(), number()]
        })
        .collect();
    // Of the format's numbers those that such results can be, beginning with an even one.
    let full = Narrow::new(8, 7, 0x7F7F).values;
    let first = full.iter().position(|x| *x >= 1e-12).unwrap() & !1;
    let last = full.iter().rposition(|x| *x <= 1e12).unwrap();
    let window = Narrow { values: full[first..=last].to_vec() };
    let whole = |x: u64| scaled(bf16(x), 20);
    let shifted = |opcode: &str, width: usize, exact: &dyn Fn(&[u64]) -> i128| {
        let operands: Vec<String> = (0..width).map(|i| format!("%x{i}")).collect();
        let body = format!("{opcode}.bf16 %y0, {};", operands.join(", "));
        let list: Vec<Vec<u64>> = list.iter().map(|row| row[..width].to_vec()).filter(|row| exact(row) != 0).collect();
        Snippet { inputs: &vec!["b16"; width], outputs: &["b16"], body: &body }.check(&list, |row| {
            let result = exact(row);
            // Below the window's scale nothing can be: results are multiples of 2^-40.
            let scale = 60;
            let bits = nearest(&window, result << (scale - 40), scale);
            ((bits & 0x7FFF) + first as u64) | (bits & 0x8000)
        });
    };
    shifted("add", 2, &|row| (whole(row[0]) + whole(row[1])) << 20);
    shifted("mul", 2, &|row| whole(row[0]) * whole(row[1]));
    shifted("fma.rn", 3, &|row| whole(row[0]) * whole(row[1]) + (whole(row[2]) << 20));
    // Subnormal products: 3 * 2^-133 halved is a tie, three quarters of it are not.
    let list = [vec![3, 0x3F00], vec![3, 0x3F40], vec![1, 0x3F00], vec![0x8001, 0x3F01]];
    assert_eq!(evaluate32("mul.bf16x2 %y0, %x0, %x1;", &list), [2, 2, 0, 0x8001]);
}

/// Both halves of one value.
fn both(x: u32) -> u32 {
    x | x << 16
}

fn packed(body: &str, list: &[Vec<u32>]) -> Vec<u32> {
    let list: Vec<Vec<u32>> = list.iter().map(|row| row.iter().map(|x| both(*x)).collect()).collect();
    evaluate32(body, &list).into_iter().inspect(|x| assert_eq!(x >> 16, x & 0xFFFF)).map(|x| x & 0xFFFF).collect()
}

#[test]
fn special_values_limits_and_flushing() {
    let list =
        [vec![0x7C00, 0xFC00], vec![0x7E01, 0], vec![0x7BFF, 0x7BFF], vec![0x8000, 0x8000], vec![0x3C00, 0xBC00]];
    assert_eq!(packed("add.f16x2 %y0, %x0, %x1;", &list), [0x7FFF, 0x7FFF, 0x7C00, 0x8000, 0]);
    assert_eq!(
        packed("mul.f16x2 %y0, %x0, %x1;", &[vec![0x7C00, 0], vec![0x8000, 0x3C00], vec![0, 0]]),
        [0x7FFF, 0x8000, 0]
    );
    assert_eq!(packed("add.bf16x2 %y0, %x0, %x1;", &[vec![0x7F80, 0xFF80], vec![0x7F7F, 0x7F7F]]), [0x7FFF, 0x7F80]);
    let values = [0x4000, 0x3800, 0xBC00, 0x8000, 0x7E00].map(|x| vec![x]);
    assert_eq!(packed("mul.sat.f16x2 %y0, %x0, 0x3C003C00;", &values), [0x3C00, 0x3800, 0, 0, 0]);
    assert_eq!(packed("fma.rn.relu.f16x2 %y0, %x0, 0x3C003C00, 0x80008000;", &values), [0x4000, 0x3800, 0, 0, 0x7FFF]);
    let small = [0x03FF, 0x83FF, 0x0400].map(|x| vec![x]);
    assert_eq!(packed("mul.ftz.f16x2 %y0, %x0, 0x3C003C00;", &small), [0, 0x8000, 0x0400]);
    assert_eq!(packed("mul.ftz.f16x2 %y0, %x0, 0x38003800;", &small), [0, 0x8000, 0]);
    assert_eq!(packed("mul.f16x2 %y0, %x0, 0x38003800;", &small), [0x0200, 0x8200, 0x0200]);
    // Just below the smallest normal number, but rounded to it: not subnormal.
    assert_eq!(packed("mul.ftz.f16x2 %y0, %x0, %x1;", &[vec![0x0401, 0x3BFE]]), [0x0400]);
    assert_eq!(packed("neg.f16x2 %y0, %x0;", &small), [0x83FF, 0x03FF, 0x8400]);
    assert_eq!(packed("neg.ftz.f16x2 %y0, %x0;", &small), [0x8000, 0, 0x8400]);
    assert_eq!(packed("abs.bf16x2 %y0, %x0;", &small), [0x03FF, 0x03FF, 0x0400]);
}

#[test]
fn minima_and_maxima_order_zeros_and_prefer_numbers() {
    for (ty, one, two, nan) in [("f16x2", 0x3C00, 0x4000, 0x7E01), ("bf16x2", 0x3F80, 0x4000, 0x7FC1)] {
        let list = [vec![one, two], vec![0, 0x8000], vec![0x8000, 0], vec![nan, one], vec![one, nan], vec![nan, nan]];
        assert_eq!(packed(&format!("min.{ty} %y0, %x0, %x1;"), &list), [one, 0x8000, 0x8000, one, one, 0x7FFF]);
        assert_eq!(packed(&format!("max.{ty} %y0, %x0, %x1;"), &list), [two, 0, 0, one, one, 0x7FFF]);
        assert_eq!(packed(&format!("max.NaN.{ty} %y0, %x0, %x1;"), &list), [two, 0, 0, 0x7FFF, 0x7FFF, 0x7FFF]);
        let list = [vec![two | 0x8000, one], vec![two | 0x8000, one | 0x8000]];
        assert_eq!(packed(&format!("min.xorsign.abs.{ty} %y0, %x0, %x1;"), &list), [one | 0x8000, one]);
    }
}

#[test]
fn approximations_are_within_their_bounds_for_every_number() {
    let list: Vec<Vec<u64>> = (0..0x1_0000).map(|x| vec![x]).collect();
    let run = |body: &str| Snippet { inputs: &["b16"], outputs: &["b16"], body }.run(&list).concat();
    let check =
        |body: &str, value: &dyn Fn(u64) -> f64, f: &dyn Fn(f64) -> f64, relative: f64, absolute: f64, largest: f64| {
            for (x, y) in run(body).into_iter().enumerate() {
                let (wanted, got) = (f(value(x as u64)), value(y));
                let close = (got - wanted).abs() <= relative * wanted.abs() + absolute;
                let overflow = wanted > largest && got == f64::INFINITY;
                assert!(
                    close || overflow || wanted == got || wanted.is_nan() && y == 0x7FFF,
                    "{body} {x:#x}: {got} {wanted}"
                );
            }
        };
    let flush = |x: f64| if x.abs() < f64::from(f32::MIN_POSITIVE) { 0.0 } else { x };
    // The absolute error is half of the smallest number, or for bf16 what is flushed.
    check("ex2.approx.f16 %y0, %x0;", &f16, &f64::exp2, 2f64.powf(-9.9), 2f64.powi(-25), 65504.0);
    check("ex2.approx.ftz.bf16 %y0, %x0;", &bf16, &|x| flush(flush(x).exp2()), 2f64.powi(-7), 0.0, 3.3e38);
    check("tanh.approx.f16 %y0, %x0;", &f16, &f64::tanh, 0.0, 2f64.powf(-10.987), 2.0);
    check("tanh.approx.bf16 %y0, %x0;", &bf16, &f64::tanh, 0.0, 2f64.powi(-8), 2.0);
    let pairs = evaluate32("ex2.approx.f16x2 %y0, %x0;", &[vec![0x4000_3C00], vec![0xFC00_7C00]]);
    assert_eq!(pairs, [0x4400_4000, 0x0000_7C00]);
    assert_eq!(evaluate32("tanh.approx.bf16x2 %y0, %x0;", &[vec![0xFF80_7F80]]), [0xBF80_3F80]);
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    let cases = [
        ("fma.f16 %h0, %h1, %h2, %h3;", "expected `.rn`"),
        ("add.sat.bf16 %h0, %h1, %h2;", "bf16 has neither"),
        ("ex2.approx.bf16 %h0, %h1;", "expected `.approx.ftz`"),
        ("min.xorsign.f16 %h0, %h1, %h2;", "expected `.xorsign.abs`"),
        ("div.f16 %h0, %h1, %h2;", "unknown instruction"),
    ];
    for (body, why) in cases {
        let (message, line) = Snippet { inputs: &["b32"], outputs: &["b32"], body }.refusal();
        let instruction = body.split(' ').next().unwrap();
        assert!(message.starts_with(&format!("line {line}: `{instruction}`")) && message.contains(why), "{message}");
    }
}
