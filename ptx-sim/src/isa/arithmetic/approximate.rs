//! Approximations of f32 and f64 (PTX ISA 9.7.3.8 and 9.7.3.13-22): `div.approx`, `div.full`, `rcp`, `sqrt`, `rsqrt`,
//! `sin`, `cos`, `lg2`, `ex2`, `tanh` with `.approx`.
//!
//! Hardware's results are not specified bit by bit, only their errors are. Here values are computed in f64 and rounded
//! to nearest, which lies within all of them; `.ftz` and special values are as the ISA's tables say.
//!
//! | instruction             | PTX ISA     | error that it allows                                              |
//! |-------------------------|-------------|-------------------------------------------------------------------|
//! | div.approx.f32          | 9.7.3.8     | 2 ulp for divisors of 2^-126 to 2^126; 0 or NaN for larger ones   |
//! | div.full.f32            | 9.7.3.8     | 2 ulp                                                             |
//! | rcp.approx.f32          | 9.7.3.13    | 1 ulp                                                             |
//! | sqrt.approx.f32         | 9.7.3.15    | relative 2^-23                                                    |
//! | rsqrt.approx.f32        | 9.7.3.16    | relative 2^-22.9                                                  |
//! | sin, cos.approx.f32     | 9.7.3.18-19 | absolute 2^-20.5 in -2 pi to 2 pi, 2^-14.7 in -100 pi to 100 pi   |
//! | lg2.approx.f32          | 9.7.3.20    | absolute 2^-22 for arguments between 0.5 and 2, else relative     |
//! | ex2.approx.f32          | 9.7.3.21    | 2 ulp from the correctly rounded result                           |
//! | tanh.approx.f32         | 9.7.3.22    | relative 2^-11                                                    |
//! | tanh.approx.f16, bf16   | 9.7.4.9     | absolute 2^-10.987, 2^-8                                          |
//! | ex2.approx.f16, bf16    | 9.7.4.10    | relative 2^-9.9, 2^-7                                             |
//! | rcp.approx.ftz.f64      | 9.7.3.14    | not stated; the lower word is zero, which leaves 20 fraction bits |
//! | rsqrt.approx.ftz.f64    | 9.7.3.17    | not stated; the lower word is zero                                |
//! | rsqrt.approx.f64        | 9.7.3.16    | not stated                                                        |

use super::numeric::{Float, NAN32, last, map, map1, map2};
use crate::decode::Operands;
use crate::isa::Decoded;
use crate::meter::Class;

const SPECIAL: Class = Class::Special;

pub(crate) fn decode(operands: &Operands) -> Decoded {
    if !operands.has("approx") && !operands.has("full") {
        return Ok(None);
    }
    match (operands.root(), last(operands)) {
        ("div", "f32") => div(operands),
        ("rcp", "f64") => upper(operands, |a| 1.0 / a),
        ("rsqrt", "f64") if operands.has("ftz") => upper(operands, |a| 1.0 / a.sqrt()),
        ("rsqrt", "f64") => {
            operands.only(&["approx"])?;
            map(operands, SPECIAL, |v: [f64; 1]| (1.0 / v[0].sqrt()).settle(v))
        }
        ("rcp", "f32") => function(operands, |a| 1.0 / a),
        ("sqrt", "f32") => function(operands, f64::sqrt),
        ("rsqrt", "f32") => function(operands, |a| 1.0 / a.sqrt()),
        ("sin", "f32") => function(operands, f64::sin),
        ("cos", "f32") => function(operands, f64::cos),
        ("lg2", "f32") => function(operands, f64::log2),
        ("ex2", "f32") => function(operands, exp2),
        ("tanh", "f32") if operands.has("ftz") => operands.error("has no `.ftz`"),
        ("tanh", "f32") => function(operands, tanh),
        _ => Ok(None),
    }
}

/// A function of one f32. Its special values are those of IEEE 754 functions in f64.
fn function(operands: &Operands, f: impl Fn(f64) -> f64 + Copy + Send + Sync + 'static) -> Decoded {
    operands.only(&["approx", "ftz"])?;
    if operands.has("ftz") {
        map1(operands, SPECIAL, move |a: f32| (f(a.flush().wide()) as f32).flush().settle([a]))
    } else {
        map1(operands, SPECIAL, move |a: f32| (f(a.wide()) as f32).settle([a]))
    }
}

fn div(operands: &Operands) -> Decoded {
    operands.only(&["approx", "full", "ftz"])?;
    match (operands.has("full"), operands.has("ftz")) {
        (true, false) => map2(operands, SPECIAL, |a: f32, b: f32| (a / b).settle([a, b])),
        (true, true) => map2(operands, SPECIAL, |a: f32, b: f32| (a.flush() / b.flush()).flush().settle([a, b])),
        (false, false) => map2(operands, SPECIAL, |a: f32, b: f32| product_with_reciprocal(a, b).settle([a, b])),
        (false, true) => map2(operands, SPECIAL, |a: f32, b: f32| {
            product_with_reciprocal(a.flush(), b.flush()).flush().settle([a, b])
        }),
    }
}

/// `div.approx` is a product with a reciprocal, and that of a divisor above 2^126 is zero (PTX ISA 9.7.3.8).
#[inline]
fn product_with_reciprocal(a: f32, b: f32) -> f32 {
    const LARGE: f32 = f32::from_bits((126 + 127) << 23);
    let lost = (b.abs() > LARGE) & b.is_finite();
    let product = a * 0f32.copysign(b);
    if lost { product } else { a / b }
}

/// `rcp.approx.ftz.f64` and `rsqrt.approx.ftz.f64`: of the operand and of the result only the upper 32 bits count.
fn upper(operands: &Operands, f: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Decoded {
    operands.only(&["approx", "ftz"])?;
    if !operands.has("ftz") {
        return operands.error("expected `.approx.ftz`");
    }
    const UPPER: u64 = 0xFFFF_FFFF_0000_0000;
    let flush = |x: f64| if x.abs() < f64::MIN_POSITIVE { 0f64.copysign(x) } else { x };
    map1(operands, SPECIAL, move |a: f64| {
        let result = flush(f(flush(f64::from_bits(a.to_bits() & UPPER))));
        let nan = a.is_nan() | result.is_nan();
        f64::from_bits(if nan { u64::from(NAN32.to_bits()) << 32 } else { result.to_bits() & UPPER })
    })
}

/// 2^x with a relative error below 2^-41: the same on every computer, and without branches, for loops over lanes.
#[inline]
pub(super) fn exp2(x: f64) -> f64 {
    /// 1.5 * 2^52: doubles of this size are the integers, so adding it rounds to one.
    const INTEGERS: f64 = 6_755_399_441_055_744.0;
    const LN2: f64 = std::f64::consts::LN_2;
    // f32 has no result beyond these, and NaN goes through the clamp.
    let clamped = if x < -200.0 { -200.0 } else { x };
    let clamped = if clamped > 200.0 { 200.0 } else { clamped };
    let shifted = clamped + INTEGERS;
    let fraction = (clamped - (shifted - INTEGERS)) * LN2;
    // The series of e^t for |t| <= ln(2) / 2: its first neglected term is below 2^-42.
    let inverse_factorials = [
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let power = inverse_factorials.iter().fold(0.0, |sum, coefficient| sum * fraction + coefficient);
    let exponent = shifted.to_bits().wrapping_sub(INTEGERS.to_bits()).wrapping_add(1023);
    let scaled = power * f64::from_bits(exponent << 52);
    if x.is_nan() {
        x
    } else if x.is_infinite() {
        if x > 0.0 { x } else { 0.0 }
    } else {
        scaled
    }
}

/// The hyperbolic tangent, for f32 and narrower results.
#[inline]
pub(super) fn tanh(x: f64) -> f64 {
    x.tanh()
}
