//! Approximations: functions of f64, with the errors that the ISA allows (PTX ISA 9.7.3.8, 9.7.3.13-22, 9.7.4.9-10).

use crate::cases::{Case, Format, Tolerance};
use crate::expected_float::{bits32, f32_of, flush};
use crate::expected_half::Small;
use crate::inputs::Element::{self, F32, F64, Range};
use crate::inputs::rows;

fn power(exponent: f64) -> f64 {
    exponent.exp2()
}

fn within(format: Format, relative: f64, absolute: f64) -> Tolerance {
    Tolerance::Within { format, relative, absolute }
}

/// A function of f32 with and without `.ftz`.
fn single(list: &mut Vec<Case>, name: &str, operands: &[Element], tolerance: Tolerance, f: fn(f64) -> f64) {
    for ftz in [false, true] {
        let instruction = format!("{name}.approx{}.f32", if ftz { ".ftz" } else { "" });
        let flushed = move |x: f32| if ftz { flush(x) } else { x };
        let cases = operands.iter().flat_map(|operand| rows(&[*operand])).collect();
        let case = Case::of("approximate", &instruction, 1, cases, move |row| {
            vec![bits32(flushed(f(flushed(f32_of(row[0])).into()) as f32))]
        });
        list.push(case.within(tolerance));
    }
}

fn quotients(list: &mut Vec<Case>) {
    for name in ["div.approx.f32", "div.approx.ftz.f32", "div.full.f32", "div.full.ftz.f32"] {
        let flushed = move |x: f32| if name.contains("ftz") { flush(x) } else { x };
        let mut case = Case::new("approximate", name, &[F32; 2], move |row| {
            bits32(flushed(flushed(f32_of(row[0])) / flushed(f32_of(row[1]))))
        });
        // The error is stated for divisors of 2^-126 to 2^126, and of subnormal quotients nothing is said.
        case.rows.retain(|row| {
            let (a, b) = (f32_of(row[0]), f32_of(row[1]));
            let plain = (power(-126.0)..=power(126.0)).contains(&f64::from(b).abs()) && !(a / b).is_subnormal();
            plain && (a == 0.0 || !a.is_subnormal()) || b == 0.0 && !a.is_subnormal()
        });
        list.push(case.within(Tolerance::Ulp(2)));
    }
}

/// Functions of 16-bit floats, and of both halves of a word.
fn small(list: &mut Vec<Case>, small: Small, name: &'static str, error: (f64, f64), f: fn(f64) -> f64) {
    let (file, format) = match small {
        Small::F16 => ("approximate", Format::F16),
        Small::Bf16 => ("half_90", Format::Bf16),
    };
    // Every number of the format.
    let every = (0..0x1_0000).step_by(7).map(|x| vec![x]).collect();
    let ftz = name.contains("ftz");
    let flushed = move |x: f64| if ftz && x.abs() < power(-126.0) { 0f64.copysign(x) } else { x };
    let result = move |x: u64| small.round(flushed(f(flushed(small.value(x)))), "rn");
    let case = Case::of(file, name, 1, every, move |row| vec![result(row[0])]);
    list.push(case.within(within(format, error.0, error.1)));
    if small == Small::Bf16 {
        let name = format!("{name}x2");
        let pairs = (0..0x1_0000u64).step_by(7).map(|x| vec![x | ((x * 3) & 0xFFFF) << 16]).collect();
        let case =
            Case::of(file, &name, 1, pairs, move |row| vec![result(row[0] & 0xFFFF) | result(row[0] >> 16) << 16]);
        list.push(case.within(Tolerance::HalvesWithin { format, relative: error.0, absolute: error.1 }));
    }
}

/// Coarse approximations of f64 (9.7.3.14 and 17), for which no error is stated. Of the operand and of the result 20 bits
/// of fraction count, which may cost 2^-20 each; subnormals are zeros.
fn coarse(list: &mut Vec<Case>, name: &str, f: fn(f64) -> f64) {
    let case = Case::new("approximate", name, &[F64], move |row| {
        let x = f64::from_bits(row[0]);
        let y = f(if x.is_subnormal() { 0f64.copysign(x) } else { x });
        (if y.is_subnormal() { 0f64.copysign(y) } else { y }).to_bits()
    });
    list.push(case.within(within(Format::F64, power(-19.0), 0.0)));
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    let all = [F32, Range(-1.0, 1.0), Range(0.5, 2.0), Range(-130.0, 130.0)];
    let f32_within = |relative, absolute| within(Format::F32, relative, absolute);
    // From the correctly rounded result (9.7.3.21).
    single(&mut list, "ex2", &all, Tolerance::Ulp(2), f64::exp2);
    // Absolute between 0.5 and 2, where the logarithm is less than 1, and relative elsewhere (9.7.3.20).
    single(&mut list, "lg2", &all, f32_within(power(-22.0), power(-22.0)), f64::log2);
    single(&mut list, "rcp", &all, Tolerance::Ulp(1), |x| 1.0 / x);
    single(&mut list, "sqrt", &all, f32_within(power(-23.0), 0.0), f64::sqrt);
    single(&mut list, "rsqrt", &all, f32_within(power(-22.9), 0.0), |x| 1.0 / x.sqrt());
    // The narrower of two ranges for which errors are stated (9.7.3.18-19).
    let turn = std::f32::consts::TAU;
    single(&mut list, "sin", &[Range(-turn, turn)], f32_within(0.0, power(-20.5)), f64::sin);
    single(&mut list, "cos", &[Range(-turn, turn)], f32_within(0.0, power(-20.5)), f64::cos);
    let tanh =
        Case::new("approximate", "tanh.approx.f32", &[F32], |row| bits32(f64::from(f32_of(row[0])).tanh() as f32));
    list.push(tanh.within(f32_within(power(-11.0), power(-148.0))));
    quotients(&mut list);
    small(&mut list, Small::F16, "ex2.approx.f16", (power(-9.9), power(-24.0)), f64::exp2);
    small(&mut list, Small::F16, "tanh.approx.f16", (0.0, power(-10.987)), f64::tanh);
    small(&mut list, Small::Bf16, "ex2.approx.ftz.bf16", (power(-7.0), 0.0), f64::exp2);
    small(&mut list, Small::Bf16, "tanh.approx.bf16", (0.0, power(-8.0)), f64::tanh);
    coarse(&mut list, "rcp.approx.ftz.f64", |x| 1.0 / x);
    coarse(&mut list, "rsqrt.approx.ftz.f64", |x| 1.0 / x.sqrt());
    // No error is stated for this one either; it has to be as good as its coarse form.
    let root =
        Case::new("approximate", "rsqrt.approx.f64", &[F64], |row| (1.0 / f64::from_bits(row[0]).sqrt()).to_bits());
    list.push(root.within(within(Format::F64, power(-19.0), 0.0)));
    list
}
