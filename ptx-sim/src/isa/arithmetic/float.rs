//! f32 and f64 arithmetic (PTX ISA 9.7.3). Results of f32 that are NaN are 0x7FFFFFFF; the ISA leaves open which NaN.

use std::ops::{Add, Div, Mul};

use super::numeric::{Float, last, map, map1};
use super::rounding::{Exact, Round, sum_to_odd};
use crate::decode::{DecodeError, Operands};
use crate::exec::has_wide_vectors;
use crate::isa::Decoded;
use crate::meter::Class;

pub(crate) fn decode(operands: &Operands) -> Decoded {
    // Approximations come in another family.
    if operands.has("approx") || operands.has("full") {
        return Ok(None);
    }
    match last(operands) {
        "f32" => typed::<f32>(operands),
        "f64" => typed::<f64>(operands),
        _ => Ok(None),
    }
}

/// What the two types do differently.
trait Real: Float + Add<Output = Self> + Mul<Output = Self> + Div<Output = Self> {
    fn root(a: Self) -> Self;
    /// `a * b + c`, rounded once, by an instruction of the processor if it has one.
    fn mul_add(a: Self, b: Self, c: Self) -> Self;
    /// The same, by instructions that every processor has, as far as that is faster than a function.
    fn fused(a: Self, b: Self, c: Self) -> Self;
}

impl Real for f32 {
    #[inline]
    fn root(a: Self) -> Self {
        a.sqrt()
    }
    #[inline]
    fn mul_add(a: Self, b: Self, c: Self) -> Self {
        a.mul_add(b, c)
    }
    /// The product is exact in f64.
    #[inline]
    fn fused(a: Self, b: Self, c: Self) -> Self {
        sum_to_odd(f64::from(a) * f64::from(b), f64::from(c)) as Self
    }
}

impl Real for f64 {
    #[inline]
    fn root(a: Self) -> Self {
        a.sqrt()
    }
    #[inline]
    fn mul_add(a: Self, b: Self, c: Self) -> Self {
        a.mul_add(b, c)
    }
    #[inline]
    fn fused(a: Self, b: Self, c: Self) -> Self {
        a.mul_add(b, c)
    }
}

fn typed<T: Real>(operands: &Operands) -> Decoded {
    match operands.root() {
        "add" => rounded(operands, |[a, b]: [T; 2]| a + b, |[a, b], mode| Exact::of(a).sum(Exact::of(b), mode)),
        "sub" => rounded(operands, |[a, b]: [T; 2]| a + b.neg(), |[a, b], mode| Exact::of(a).sum(Exact::of(-b), mode)),
        "mul" => rounded(operands, |[a, b]: [T; 2]| a * b, |[a, b], _| Exact::product(a, b)),
        // On sm_20 and later `mad` is `fma` (PTX ISA 9.7.3.7).
        "fma" | "mad" if has_wide_vectors() => rounded(operands, |[a, b, c]| T::mul_add(a, b, c), exact_fused),
        "fma" | "mad" => rounded(operands, |[a, b, c]| T::fused(a, b, c), exact_fused),
        "div" => rounded(operands, |[a, b]: [T; 2]| a / b, |[a, b], _| Exact::quotient(a, b)),
        "rcp" => rounded(operands, |[a]: [T; 1]| T::narrow(1.0) / a, |[a], _| Exact::quotient(1.0, a)),
        "sqrt" => rounded(operands, |[a]| T::root(a), |[a], _| Exact::root(a)),
        "abs" | "neg" => sign::<T>(operands),
        "min" | "max" => extreme::<T>(operands),
        _ => Ok(None),
    }
}

fn exact_fused([a, b, c]: [f64; 3], mode: Round) -> Exact {
    Exact::product(a, b).sum(Exact::of(c), mode)
}

/// The rounding mode; the nearest if it `may` be left out and is.
fn rounding(operands: &Operands, may: bool) -> Result<Round, DecodeError> {
    let mut modes = operands.modifiers().filter_map(Round::from_name);
    match (modes.next(), modes.next()) {
        (None, _) if may => Ok(Round::Nearest),
        (Some(round), None) => Ok(round),
        _ => operands.error("expected one rounding mode"),
    }
}

/// `.ftz` and `.sat`, which only f32 has.
fn flags<T: Float>(operands: &Operands) -> Result<(bool, bool), DecodeError> {
    let flags = (operands.has("ftz"), operands.has("sat"));
    if T::TYPE == crate::ast::Type::F64 && flags != (false, false) {
        return operands.error("f64 has neither `.ftz` nor `.sat`");
    }
    Ok(flags)
}

/// An operation of which `nearest` is the result rounded to nearest even, and `exact` for finite operands the result
/// before rounding.
fn rounded<T: Real, const N: usize>(
    operands: &Operands,
    nearest: impl Fn([T; N]) -> T + Copy + Send + Sync + 'static,
    exact: impl Fn([f64; N], Round) -> Exact + Copy + Send + Sync + 'static,
) -> Decoded {
    let quotient = matches!(operands.root(), "div" | "rcp");
    let may_omit_rounding = matches!(operands.root(), "add" | "sub" | "mul");
    operands.only(if quotient || operands.root() == "sqrt" {
        &["rn", "rz", "rm", "rp", "ftz"]
    } else {
        &["rn", "rz", "rm", "rp", "ftz", "sat"]
    })?;
    let round = rounding(operands, may_omit_rounding)?;
    if round == Round::Nearest {
        return flagged(operands, nearest);
    }
    // Not compiled into the loops over lanes: these modes are rare, and exact sums are long.
    let directed: Box<dyn Fn([T; N]) -> T + Send + Sync> = Box::new(move |values| {
        // What is infinite or not a number is so in every mode, unless finite operands overflowed.
        let near = nearest(values);
        let wide = values.map(Float::wide);
        let by_zero = quotient && wide[N - 1] == 0.0;
        if near.is_nan() || by_zero || !wide.iter().all(|x| x.is_finite()) {
            return near;
        }
        T::of(exact(wide, round).round(T::FORMAT, round))
    });
    flagged(operands, directed)
}

/// Applies `.ftz` and `.sat` around an operation.
fn flagged<T: Float, const N: usize>(operands: &Operands, f: impl Fn([T; N]) -> T + Send + Sync + 'static) -> Decoded {
    let class = Class::Float;
    match flags::<T>(operands)? {
        (false, false) => map(operands, class, move |v: [T; N]| f(v).settle(v)),
        (false, true) => map(operands, class, move |v: [T; N]| f(v).saturate()),
        (true, false) => map(operands, class, move |v: [T; N]| f(v.map(T::flush)).flush().settle(v)),
        (true, true) => map(operands, class, move |v: [T; N]| f(v.map(T::flush)).flush().saturate()),
    }
}

/// Only the sign bit changes, of NaN too. Which NaN results is unspecified, but that `abs.f64` keeps its operand's bits
/// (PTX ISA 9.7.3.9-10).
fn sign<T: Float>(operands: &Operands) -> Decoded {
    operands.only(&["ftz"])?;
    let (ftz, _) = flags::<T>(operands)?;
    match (operands.root(), ftz) {
        ("abs", false) => map1(operands, Class::Float, T::abs),
        ("abs", true) => map1(operands, Class::Float, |a: T| a.flush().abs()),
        (_, false) => map1(operands, Class::Float, T::neg),
        (_, true) => map1(operands, Class::Float, |a: T| a.flush().neg()),
    }
}

/// The smaller of two numbers, -0 being smaller than +0; a number if the other is NaN (PTX ISA 9.7.3.11).
#[inline]
pub(super) fn min<T: Float>(a: T, b: T) -> T {
    let less = (a < b) | ((a == b) & a.is_negative()) | b.is_nan();
    if less { a } else { b }
}

/// The larger of two numbers.
#[inline]
pub(super) fn max<T: Float>(a: T, b: T) -> T {
    let more = (a > b) | ((a == b) & b.is_negative()) | b.is_nan();
    if more { a } else { b }
}

/// `.NaN`: a NaN operand is the result.
#[inline]
pub(super) fn or_nan<T: Float, const N: usize>(values: [T; N], result: T) -> T {
    values.into_iter().find(|v| v.is_nan()).unwrap_or(result)
}

/// `.xorsign.abs`: magnitudes are compared, and the result's sign is the exclusive or of the signs.
#[inline]
pub(super) fn xor_sign<T: Float>([a, b]: [T; 2], f: impl Fn(T, T) -> T) -> T {
    let result = f(a.abs(), b.abs());
    if result.is_nan() { result } else { result.with_sign(a.is_negative() != b.is_negative()) }
}

/// `min` and `max` with two or three operands; f64 has no modifiers.
fn extreme<T: Float>(operands: &Operands) -> Decoded {
    let known: &[&str] = if T::TYPE == crate::ast::Type::F64 { &[] } else { &["ftz", "NaN", "xorsign", "abs"] };
    operands.only(known)?;
    let (nan, xorsign, abs) = (operands.has("NaN"), operands.has("xorsign"), operands.has("abs"));
    let three = operands.count(3, if known.is_empty() { 3 } else { 4 })? == 4;
    if three && xorsign || !three && xorsign != abs {
        return operands.error("`.xorsign.abs` is for two operands, `.abs` for three");
    }
    macro_rules! variants {
        ($best:ident) => {
            match (three, nan, abs) {
                (false, false, false) => flagged(operands, |[a, b]: [T; 2]| $best(a, b)),
                (false, true, false) => flagged(operands, |v: [T; 2]| or_nan(v, $best(v[0], v[1]))),
                (false, false, true) => flagged(operands, |v: [T; 2]| xor_sign(v, $best)),
                (false, true, true) => flagged(operands, |v: [T; 2]| or_nan(v, xor_sign(v, $best))),
                (true, false, false) => flagged(operands, |[a, b, c]: [T; 3]| $best($best(a, b), c)),
                (true, true, false) => flagged(operands, |v: [T; 3]| or_nan(v, $best($best(v[0], v[1]), v[2]))),
                (true, false, true) => flagged(operands, |v: [T; 3]| $best($best(v[0].abs(), v[1].abs()), v[2].abs())),
                (true, true, true) => {
                    flagged(operands, |v: [T; 3]| or_nan(v, $best($best(v[0].abs(), v[1].abs()), v[2].abs())))
                }
            }
        };
    }
    if operands.root() == "min" { variants!(min) } else { variants!(max) }
}
