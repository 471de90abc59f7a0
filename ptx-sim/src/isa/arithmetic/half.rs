//! f16 and bf16 arithmetic, packed or not (PTX ISA 9.7.4). Results that are NaN are 0x7FFF; the ISA leaves open which
//! NaN.
//!
//! Operands are exact in f64; a result is rounded to odd there and in f32, then once to nearest.

use super::approximate::{exp2, tanh};
use super::float::{max, min, or_nan, xor_sign};
use super::numeric::{Bf16, Element, F16, Float, Pair, last, map};
use super::rounding::sum_to_odd;
use crate::decode::Operands;
use crate::isa::Decoded;
use crate::meter::Class;

pub(crate) fn decode(operands: &Operands) -> Decoded {
    match last(operands) {
        "f16" => typed::<F16>(operands, false),
        "bf16" => typed::<Bf16>(operands, false),
        "f16x2" => typed::<F16>(operands, true),
        "bf16x2" => typed::<Bf16>(operands, true),
        _ => Ok(None),
    }
}

fn typed<T: Float>(operands: &Operands, packed: bool) -> Decoded {
    match operands.root() {
        "add" | "sub" | "mul" | "fma" => arithmetic::<T>(operands, packed),
        "abs" | "neg" => sign(operands, packed, T::FORMAT.sign() == 0x8000 && T::FORMAT.largest == 0x7BFF),
        "min" | "max" => extreme::<T>(operands, packed),
        "ex2" | "tanh" => approximation::<T>(operands, packed),
        _ => Ok(None),
    }
}

/// A function of scalars, for both halves of packed operands or for the operands alone.
fn lift<T: Element, const N: usize>(
    operands: &Operands,
    class: Class,
    packed: bool,
    f: impl Fn([T; N]) -> T + Copy + Send + Sync + 'static,
) -> Decoded {
    if packed {
        map(operands, class, move |values: [Pair<T>; N]| Pair::each(values, f))
    } else {
        map(operands, class, f)
    }
}

/// Applies `.ftz` to operands and result. The result is then already rounded: rounding again changes nothing.
fn flushed<T: Float, const N: usize>(
    operands: &Operands,
    class: Class,
    packed: bool,
    f: impl Fn([T; N]) -> T + Copy + Send + Sync + 'static,
) -> Decoded {
    if operands.has("ftz") {
        lift(operands, class, packed, move |v: [T; N]| T::of(f(v.map(T::flush)).bits()).flush())
    } else {
        lift(operands, class, packed, f)
    }
}

/// `a * b + c`, rounded to odd in f32. Products are exact: at most 22 bits.
#[inline]
fn fused<T: Float>(a: T, b: T, c: f64) -> T {
    T::narrow(sum_to_odd(a.wide() * b.wide(), c))
}

fn arithmetic<T: Float>(operands: &Operands, packed: bool) -> Decoded {
    let fma = operands.root() == "fma";
    operands.only(if fma { &["rn", "ftz", "sat", "relu"] } else { &["rn", "ftz", "sat"] })?;
    if fma && !operands.has("rn") {
        return operands.error("expected `.rn`");
    }
    if T::FORMAT.largest != F16::FORMAT.largest && (operands.has("ftz") || operands.has("sat")) {
        return operands.error("bf16 has neither `.ftz` nor `.sat`");
    }
    macro_rules! limited {
        ($f:expr) => {
            match (operands.has("sat"), operands.has("relu")) {
                (false, false) => flushed(operands, Class::Half, packed, $f),
                // Limits before rounding: 0 and 1 are exact, so the order does not matter.
                (true, false) => flushed(operands, Class::Half, packed, move |v| $f(v).saturate()),
                (false, true) => flushed(operands, Class::Half, packed, move |v| $f(v).relu()),
                (true, true) => operands.error("expected `.sat` or `.relu`, not both"),
            }
        };
    }
    let one = T::narrow(1.0);
    match operands.root() {
        "add" => limited!(move |[a, b]: [T; 2]| fused(a, one, b.wide())),
        "sub" => limited!(move |[a, b]: [T; 2]| fused(a, one, -b.wide())),
        // Minus zero added leaves every product as it is, zeros included.
        "mul" => limited!(move |[a, b]: [T; 2]| fused(a, b, -0.0)),
        _ => limited!(move |[a, b, c]: [T; 3]| fused(a, b, c.wide())),
    }
}

/// Only the sign bits change.
fn sign(operands: &Operands, packed: bool, has_ftz: bool) -> Decoded {
    operands.only(if has_ftz { &["ftz"] } else { &[] })?;
    let signs: u32 = if packed { 0x8000_8000 } else { 0x8000 };
    let neg = operands.root() == "neg";
    let flip = move |bits: u32| if neg { bits ^ signs } else { bits & !signs };
    if !operands.has("ftz") {
        return map(operands, Class::Half, move |[a]: [u32; 1]| flip(a));
    }
    // Subnormals of f16: no exponent bit set.
    map(operands, Class::Half, move |[a]: [u32; 1]| {
        let low = if a & 0x7C00 == 0 { a & !0x3FF } else { a };
        flip(if a & 0x7C00_0000 == 0 { low & !0x3FF_0000 } else { low })
    })
}

/// `min` and `max` with two operands (PTX ISA 9.7.4.7-8).
fn extreme<T: Float>(operands: &Operands, packed: bool) -> Decoded {
    operands.only(&["ftz", "NaN", "xorsign", "abs"])?;
    let (nan, xorsign) = (operands.has("NaN"), operands.has("xorsign"));
    if xorsign != operands.has("abs") {
        return operands.error("expected `.xorsign.abs`");
    }
    if T::FORMAT.largest != F16::FORMAT.largest && operands.has("ftz") {
        return operands.error("bf16 has no `.ftz`");
    }
    macro_rules! variants {
        ($best:ident) => {
            match (nan, xorsign) {
                (false, false) => flushed(operands, Class::Half, packed, |[a, b]: [T; 2]| $best(a, b)),
                (true, false) => flushed(operands, Class::Half, packed, |v: [T; 2]| or_nan(v, $best(v[0], v[1]))),
                (false, true) => flushed(operands, Class::Half, packed, |v: [T; 2]| xor_sign(v, $best)),
                (true, true) => flushed(operands, Class::Half, packed, |v: [T; 2]| or_nan(v, xor_sign(v, $best))),
            }
        };
    }
    if operands.root() == "min" { variants!(min) } else { variants!(max) }
}

/// `ex2.approx` and `tanh.approx` (PTX ISA 9.7.4.9-10): here correctly rounded of f64 values.
fn approximation<T: Float>(operands: &Operands, packed: bool) -> Decoded {
    let ex2 = operands.root() == "ex2";
    let bf16 = T::FORMAT.largest != F16::FORMAT.largest;
    operands.only(if ex2 && bf16 { &["approx", "ftz"] } else { &["approx"] })?;
    if !operands.has("approx") || ex2 && bf16 && !operands.has("ftz") {
        return operands.error(if ex2 && bf16 { "expected `.approx.ftz`" } else { "expected `.approx`" });
    }
    if ex2 {
        flushed(operands, Class::Special, packed, |[a]: [T; 1]| T::narrow(exp2(a.wide())))
    } else {
        flushed(operands, Class::Special, packed, |[a]: [T; 1]| T::narrow(tanh(a.wide())))
    }
}
