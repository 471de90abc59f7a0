//! f32 and f64 arithmetic: IEEE 754 operations of this computer, and exact error terms for the directed modes
//! (PTX ISA 9.7.3).

use crate::cases::{Case, Format, Tolerance};
use crate::exact::scaled;
use crate::exactly::{Exactly, single};
use crate::inputs::Element::{F32, F64, Tame};
use crate::inputs::rows;

const MODES: [&str; 4] = ["rn", "rz", "rm", "rp"];

pub fn f32_of(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

/// The bits of an f32 result. NaN is one of many here, the ISA leaves open which (9.7.3).
pub fn bits32(x: f32) -> u64 {
    if x.is_nan() { 0x7FFF_FFFF } else { x.to_bits().into() }
}

pub fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

fn saturate(x: f32) -> f32 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

/// The result of an operation in a mode, given the exact one; `plain` is what IEEE 754 says to nearest. Infinite
/// operands and NaN have the same result in all modes.
fn directed(mode: &str, plain: f64, exact: f64, operands: &[f64]) -> Option<f64> {
    let special = plain.is_nan() || !operands.iter().all(|x| x.is_finite());
    (mode != "rn" && !special).then_some(exact)
}

/// A zero that sums cancel to is negative when rounding down (IEEE 754, 6.3).
fn zero_of_sum(mode: &str, exact: f64, a: f64, b: f64) -> f64 {
    if exact == 0.0 && mode == "rm" && (a != 0.0 || a.is_sign_negative() != b.is_sign_negative()) {
        -0.0
    } else {
        exact
    }
}

type Operation = (&'static str, fn(f32, f32) -> f32, fn(f64, f64) -> f64, fn(f64, f64) -> Exactly);

const BINARY: [Operation; 4] = [
    ("add", |a, b| a + b, |a, b| a + b, Exactly::sum),
    ("sub", |a, b| a - b, |a, b| a - b, |a, b| Exactly::sum(a, -b)),
    ("mul", |a, b| a * b, |a, b| a * b, Exactly::product),
    ("div", |a, b| a / b, |a, b| a / b, Exactly::quotient),
];

fn binary(list: &mut Vec<Case>) {
    for (name, plain, double, exact) in BINARY {
        let sums = name == "add" || name == "sub";
        let negate = if name == "sub" { -1.0 } else { 1.0 };
        for mode in MODES {
            list.push(Case::new("float", &format!("{name}.{mode}.f32"), &[F32; 2], move |row| {
                let [a, b] = [f32_of(row[0]), f32_of(row[1])];
                let [x, y] = [f64::from(a), f64::from(b)];
                let odd = exact(x, y).odd();
                let odd = if sums { zero_of_sum(mode, odd, x, negate * y) } else { odd };
                let near = plain(a, b);
                bits32(directed(mode, near.into(), odd, &[x, y]).map_or(near, |odd| single(odd, mode)))
            }));
            // Error terms of products and quotients must not underflow.
            let operand = if sums || mode == "rn" { F64 } else { Tame };
            let case = Case::new("float", &format!("{name}.{mode}.f64"), &[operand; 2], move |row| {
                let [a, b] = [f64::from_bits(row[0]), f64::from_bits(row[1])];
                let near = double(a, b);
                let rounded = exact(a, b).double(mode);
                let rounded = if sums { zero_of_sum(mode, rounded, a, negate * b) } else { rounded };
                let overflows = near.is_infinite() && a.is_finite() && b.is_finite() && (sums || b != 0.0);
                let largest = match (mode, near > 0.0) {
                    ("rz", _) | ("rm", true) | ("rp", false) => f64::MAX.copysign(near),
                    _ => near,
                };
                if overflows { largest } else { directed(mode, near, rounded, &[a, b]).unwrap_or(near) }.to_bits()
            });
            list.push(case.within(Tolerance::Number(Format::F64)));
        }
        list.push(Case::new("float", &format!("{name}.rn.ftz.f32"), &[F32; 2], move |row| {
            bits32(flush(plain(flush(f32_of(row[0])), flush(f32_of(row[1])))))
        }));
        if name != "div" {
            list.push(Case::new("float", &format!("{name}.rn.sat.f32"), &[F32; 2], move |row| {
                bits32(saturate(plain(f32_of(row[0]), f32_of(row[1]))))
            }));
        }
    }
    list.push(Case::new("float", "add.f32", &[F32; 2], |row| bits32(f32_of(row[0]) + f32_of(row[1]))));
}

/// `a * b + c` of f32: the product is exact in f64.
fn fused(row: &[u64]) -> Exactly {
    let [a, b, c] = [0, 1, 2].map(|i| f64::from(f32_of(row[i])));
    Exactly::sum(a * b, c)
}

/// `a * b + c` of tame f64 in units of 2^-112.
fn fused_double(row: &[u64], mode: &str) -> f64 {
    let [a, b, c] = [0, 1, 2].map(|i| f64::from_bits(row[i]));
    let exact = scaled(a, 56) * scaled(b, 56) + scaled(c, 112);
    let value = a.mul_add(b, c);
    if exact == 0 {
        return zero_of_sum(mode, value, a * b, c);
    }
    Exactly { value, rest: exact.cmp(&scaled(value, 112)) }.double(mode)
}

fn multiply_add(list: &mut Vec<Case>) {
    let near = |row: &[u64]| f32_of(row[0]).mul_add(f32_of(row[1]), f32_of(row[2]));
    for mode in MODES {
        list.push(Case::new("float", &format!("fma.{mode}.f32"), &[F32; 3], move |row| {
            let operands = [0, 1, 2].map(|i| f64::from(f32_of(row[i])));
            let exact = zero_of_sum(mode, fused(row).odd(), operands[0] * operands[1], operands[2]);
            bits32(directed(mode, near(row).into(), exact, &operands).map_or(near(row), |odd| single(odd, mode)))
        }));
        if mode != "rn" {
            let case = Case::new("float", &format!("fma.{mode}.f64"), &[Tame; 3], move |row| {
                fused_double(row, mode).to_bits()
            });
            list.push(case.within(Tolerance::Number(Format::F64)));
        }
    }
    for name in ["fma.rn.f64", "mad.rn.f64"] {
        let case = Case::new("float", name, &[F64; 3], |row| {
            f64::from_bits(row[0]).mul_add(f64::from_bits(row[1]), f64::from_bits(row[2])).to_bits()
        });
        list.push(case.within(Tolerance::Number(Format::F64)));
    }
    list.push(Case::new("float", "mad.rn.f32", &[F32; 3], move |row| bits32(near(row))));
    list.push(Case::new("float", "fma.rn.sat.f32", &[F32; 3], move |row| bits32(saturate(near(row)))));
    list.push(Case::new("float", "fma.rn.ftz.f32", &[F32; 3], |row| {
        let [a, b, c] = [0, 1, 2].map(|i| flush(f32_of(row[i])));
        bits32(flush(a.mul_add(b, c)))
    }));
}

fn unary(list: &mut Vec<Case>) {
    for mode in MODES {
        let mut add = |name: &str, plain: fn(f64) -> f64, near: fn(f32) -> f32, exact: fn(f64) -> Exactly| {
            list.push(Case::new("float", &format!("{name}.{mode}.f32"), &[F32], move |row| {
                let x = f32_of(row[0]);
                let odd = directed(mode, near(x).into(), exact(x.into()).odd(), &[x.into()]);
                bits32(odd.filter(|_| x != 0.0).map_or(near(x), |odd| single(odd, mode)))
            }));
            let operand = if mode == "rn" { F64 } else { Tame };
            let case = Case::new("float", &format!("{name}.{mode}.f64"), &[operand], move |row| {
                let x = f64::from_bits(row[0]);
                let rounded = directed(mode, plain(x), exact(x).double(mode), &[x]);
                rounded.filter(|_| x != 0.0).unwrap_or(plain(x)).to_bits()
            });
            list.push(case.within(Tolerance::Number(Format::F64)));
        };
        add("rcp", |x| 1.0 / x, |x| 1.0 / x, |x| Exactly::quotient(1.0, x));
        add("sqrt", f64::sqrt, f32::sqrt, Exactly::root);
    }
    let mut flushed = |name: &str, f: fn(f32) -> f32| {
        list.push(Case::new("float", name, &[F32], move |row| bits32(flush(f(flush(f32_of(row[0])))))));
    };
    flushed("rcp.rn.ftz.f32", |x| 1.0 / x);
    flushed("sqrt.rn.ftz.f32", f32::sqrt);
    // NaN's bits are unspecified for f32 (9.7.3.9-10).
    let mut sign = |name: &str, set: fn(u64) -> u64, ftz: bool| {
        let mut case = Case::new("float", name, &[F32], move |row| {
            set(if ftz { flush(f32_of(row[0])) } else { f32_of(row[0]) }.to_bits().into())
        });
        case.rows.retain(|row| !f32_of(row[0]).is_nan());
        list.push(case);
    };
    sign("abs.f32", |x| x & 0x7FFF_FFFF, false);
    sign("abs.ftz.f32", |x| x & 0x7FFF_FFFF, true);
    sign("neg.f32", |x| x ^ 0x8000_0000, false);
    sign("neg.ftz.f32", |x| x ^ 0x8000_0000, true);
    list.push(Case::new("float", "abs.f64", &[F64], |row| row[0] & !(1 << 63)).within(Tolerance::Number(Format::F64)));
    list.push(Case::new("float", "neg.f64", &[F64], |row| row[0] ^ 1 << 63).within(Tolerance::Number(Format::F64)));
}

/// The order of f64 as `min` and `max` see it: -0 below +0. A NaN loses, unless `nan` lets it win.
pub fn extreme(a: f64, b: f64, max: bool, nan: bool) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => f64::NAN,
        (true, false) | (false, true) if nan => f64::NAN,
        (true, false) => b,
        (false, true) => a,
        _ if a.total_cmp(&b).is_gt() == max => a,
        _ => b,
    }
}

fn extremes(list: &mut Vec<Case>) {
    for (name, max) in [("min", false), ("max", true)] {
        let best = move |row: &[u64], nan: bool, change: fn(f32) -> f32| {
            let [a, b] = [0, 1].map(|i| f64::from(change(f32_of(row[i]))));
            extreme(a, b, max, nan) as f32
        };
        let same: fn(f32) -> f32 = |x| x;
        list.push(Case::new("float", &format!("{name}.f32"), &[F32; 2], move |row| bits32(best(row, false, same))));
        list.push(Case::new("float", &format!("{name}.ftz.f32"), &[F32; 2], move |row| {
            bits32(best(row, false, flush))
        }));
        list.push(Case::new("float", &format!("{name}.NaN.f32"), &[F32; 2], move |row| bits32(best(row, true, same))));
        let case = Case::new("float", &format!("{name}.f64"), &[F64; 2], move |row| {
            extreme(f64::from_bits(row[0]), f64::from_bits(row[1]), max, false).to_bits()
        });
        list.push(case.within(Tolerance::Number(Format::F64)));
        for nan in [false, true] {
            if nan && !max {
                continue;
            }
            let name = format!("{name}{}.xorsign.abs.f32", if nan { ".NaN" } else { "" });
            list.push(Case::of("float_90", &name, 1, rows(&[F32; 2]), move |row| {
                let result = best(row, nan, f32::abs);
                let negative = (row[0] ^ row[1]) >> 31 & 1 == 1;
                vec![bits32(if negative { -result } else { result })]
            }));
        }
    }
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    binary(&mut list);
    multiply_add(&mut list);
    unary(&mut list);
    extremes(&mut list);
    list
}
