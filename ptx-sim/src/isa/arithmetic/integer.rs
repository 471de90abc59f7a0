//! Integer arithmetic (PTX ISA 9.7.1), with carries (9.7.2) in `carry`, and single bits in `bits`.
//!
//! Division by zero "yields an unspecified, machine-specific value" (9.7.1.8-9): here all ones, for the quotient and
//! the remainder, as the code that ptxas makes of 32-bit division returns.

use super::numeric::{Element, Pair, is_integer, last, map, map1, map2, map3, per_type};
use crate::decode::Operands;
use crate::isa::Decoded;
use crate::meter::Class;

const INTEGER: Class = Class::Integer;

pub(crate) fn decode(operands: &Operands) -> Decoded {
    if !is_integer(last(operands)) || operands.has("cc") {
        return Ok(None);
    }
    match operands.root() {
        "add" => add(operands),
        "sub" => sub(operands),
        "mul" => mul(operands),
        "mad" => mad(operands),
        "mul24" | "mad24" => product24(operands),
        "sad" => sad(operands),
        "div" | "rem" => div(operands),
        "abs" | "neg" => sign(operands),
        "min" | "max" => extreme(operands),
        "dp4a" => dp4a(operands),
        "dp2a" => dp2a(operands),
        _ => Ok(None),
    }
}

/// Integers of every type that arithmetic has.
trait Integer: Element + Ord {
    const ZERO: Self;
    const ALL_ONES: Self;
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    fn times_high(self, other: Self) -> Self;
    /// The quotient and remainder; the divisor is not zero.
    fn divide(self, other: Self) -> (Self, Self);
}

macro_rules! integers {
    ($($int:ty, $wide:ty;)*) => { $(
        impl Integer for $int {
            const ZERO: Self = 0;
            const ALL_ONES: Self = !0;
            #[inline]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline]
            fn times(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline]
            fn times_high(self, other: Self) -> Self {
                ((<$wide>::from(self) * <$wide>::from(other)) >> Self::BITS) as Self
            }
            #[inline]
            fn divide(self, other: Self) -> (Self, Self) {
                (self.wrapping_div(other), self.wrapping_rem(other))
            }
        }
    )* };
}

integers! { u16, u32; i16, i32; u32, u64; i32, i64; u64, u128; i64, i128; }

/// The body for each type of 16, 32 or 64 bits.
macro_rules! per_integer {
    ($operands:expr, |$alias:ident| $body:expr) => {
        per_type!($operands, ["u16": u16, "s16": i16, "u32": u32, "s32": i32, "u64": u64, "s64": i64], |$alias| $body)
    };
}

fn add(operands: &Operands) -> Decoded {
    operands.only(&["sat", "u16x2", "s16x2"])?;
    match last(operands) {
        "s32" if operands.has("sat") => map2(operands, INTEGER, i32::saturating_add),
        _ if operands.has("sat") => operands.error("`.sat` is for `.s32`"),
        "u16x2" | "s16x2" => map(operands, INTEGER, |v: [Pair<u16>; 2]| Pair::each(v, |[a, b]| a.wrapping_add(b))),
        _ => per_integer!(operands, |T| map(operands, INTEGER, |[a, b]: [T; 2]| a.plus(b))),
    }
}

fn sub(operands: &Operands) -> Decoded {
    operands.only(&["sat"])?;
    match last(operands) {
        "s32" if operands.has("sat") => map2(operands, INTEGER, i32::saturating_sub),
        _ if operands.has("sat") => operands.error("`.sat` is for `.s32`"),
        _ => per_integer!(operands, |T| map(operands, INTEGER, |[a, b]: [T; 2]| a.minus(b))),
    }
}

/// `.lo`, `.hi` or `.wide` of `mul` and `mad`.
pub(super) fn part<'a>(operands: &'a Operands) -> Result<&'a str, crate::decode::DecodeError> {
    let mut parts = operands.modifiers().filter(|m| matches!(*m, "lo" | "hi" | "wide"));
    match (parts.next(), parts.next()) {
        (Some(part), None) => Ok(part),
        _ => operands.error("expected one of `.lo`, `.hi` and `.wide`"),
    }
}

fn mul(operands: &Operands) -> Decoded {
    operands.only(&["lo", "hi", "wide"])?;
    match (part(operands)?, last(operands)) {
        ("wide", "u16") => map2(operands, INTEGER, |a: u16, b: u16| u32::from(a) * u32::from(b)),
        ("wide", "s16") => map2(operands, INTEGER, |a: i16, b: i16| i32::from(a) * i32::from(b)),
        ("wide", "u32") => map2(operands, INTEGER, |a: u32, b: u32| u64::from(a) * u64::from(b)),
        ("wide", "s32") => map2(operands, INTEGER, |a: i32, b: i32| i64::from(a) * i64::from(b)),
        ("wide", _) => operands.error("`.wide` is for 16 and 32 bits"),
        ("lo", _) => per_integer!(operands, |T| map(operands, INTEGER, |[a, b]: [T; 2]| a.times(b))),
        _ => per_integer!(operands, |T| map(operands, INTEGER, |[a, b]: [T; 2]| a.times_high(b))),
    }
}

fn mad(operands: &Operands) -> Decoded {
    operands.only(&["lo", "hi", "wide", "sat"])?;
    let part = part(operands)?;
    if operands.has("sat") {
        return match (part, last(operands)) {
            ("hi", "s32") => map3(operands, INTEGER, |a: i32, b: i32, c: i32| a.times_high(b).saturating_add(c)),
            _ => operands.error("`.sat` is for `.hi.s32`"),
        };
    }
    match (part, last(operands)) {
        ("wide", "u16") => map3(operands, INTEGER, |a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).plus(c)),
        ("wide", "s16") => map3(operands, INTEGER, |a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).plus(c)),
        ("wide", "u32") => map3(operands, INTEGER, |a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).plus(c)),
        ("wide", "s32") => map3(operands, INTEGER, |a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).plus(c)),
        ("wide", _) => operands.error("`.wide` is for 16 and 32 bits"),
        ("lo", _) => per_integer!(operands, |T| map(operands, INTEGER, |[a, b, c]: [T; 3]| a.times(b).plus(c))),
        _ => per_integer!(operands, |T| map(operands, INTEGER, |[a, b, c]: [T; 3]| a.times_high(b).plus(c))),
    }
}

/// The 48-bit product of the low 24 bits (PTX ISA 9.7.1.5-6).
fn unsigned24(a: u32, b: u32) -> u64 {
    u64::from(a & 0xFF_FFFF) * u64::from(b & 0xFF_FFFF)
}

fn signed24(a: i32, b: i32) -> i64 {
    i64::from(a << 8 >> 8) * i64::from(b << 8 >> 8)
}

/// `mul24` and `mad24`: `.lo` takes the product's low 32 bits, `.hi` its bits 16 to 47.
fn product24(operands: &Operands) -> Decoded {
    operands.only(&["lo", "hi", "sat"])?;
    let (part, mad, sat) = (part(operands)?, operands.root() == "mad24", operands.has("sat"));
    match (part, last(operands), mad) {
        ("hi", "s32", true) if sat => {
            map3(operands, INTEGER, |a: i32, b: i32, c: i32| ((signed24(a, b) >> 16) as i32).saturating_add(c))
        }
        _ if sat => operands.error("`.sat` is for `mad24.hi.s32`"),
        ("lo", "u32", false) => map2(operands, INTEGER, |a: u32, b: u32| unsigned24(a, b) as u32),
        ("hi", "u32", false) => map2(operands, INTEGER, |a: u32, b: u32| (unsigned24(a, b) >> 16) as u32),
        ("lo", "s32", false) => map2(operands, INTEGER, |a: i32, b: i32| signed24(a, b) as i32),
        ("hi", "s32", false) => map2(operands, INTEGER, |a: i32, b: i32| (signed24(a, b) >> 16) as i32),
        ("lo", "u32", _) => map3(operands, INTEGER, |a: u32, b: u32, c: u32| (unsigned24(a, b) as u32).plus(c)),
        ("hi", "u32", _) => map3(operands, INTEGER, |a: u32, b: u32, c: u32| ((unsigned24(a, b) >> 16) as u32).plus(c)),
        ("lo", "s32", _) => map3(operands, INTEGER, |a: i32, b: i32, c: i32| (signed24(a, b) as i32).plus(c)),
        ("hi", "s32", _) => map3(operands, INTEGER, |a: i32, b: i32, c: i32| ((signed24(a, b) >> 16) as i32).plus(c)),
        _ => operands.error("24-bit products are of 32-bit values"),
    }
}

/// `c + |a - b|`.
fn sad(operands: &Operands) -> Decoded {
    operands.only(&[])?;
    per_integer!(operands, |T| map(operands, INTEGER, |[a, b, c]: [T; 3]| c.plus(a.max(b).minus(a.min(b)))))
}

fn div(operands: &Operands) -> Decoded {
    operands.only(&[])?;
    if operands.root() == "div" {
        return per_integer!(operands, |T| map(operands, INTEGER, |[a, b]: [T; 2]| {
            if b == T::ZERO { T::ALL_ONES } else { a.divide(b).0 }
        }));
    }
    per_integer!(operands, |T| map(operands, INTEGER, |[a, b]: [T; 2]| {
        if b == T::ZERO { T::ALL_ONES } else { a.divide(b).1 }
    }))
}

fn sign(operands: &Operands) -> Decoded {
    operands.only(&[])?;
    if operands.root() == "abs" {
        return per_type!(operands, ["s16": i16, "s32": i32, "s64": i64], |T| map1(operands, INTEGER, T::wrapping_abs));
    }
    per_type!(operands, ["s16": i16, "s32": i32, "s64": i64], |T| map1(operands, INTEGER, T::wrapping_neg))
}

/// `min` and `max`; `.relu` clamps at zero (PTX ISA 9.7.1.12-13).
fn extreme(operands: &Operands) -> Decoded {
    operands.only(&["relu", "u16x2", "s16x2"])?;
    let (min, relu) = (operands.root() == "min", operands.has("relu"));
    match (last(operands), min) {
        ("s32", true) if relu => map2(operands, INTEGER, |a: i32, b: i32| a.min(b).max(0)),
        ("s32", false) if relu => map2(operands, INTEGER, |a: i32, b: i32| a.max(b).max(0)),
        ("s16x2", true) if relu => map(operands, INTEGER, |v: [Pair<i16>; 2]| Pair::each(v, |[a, b]| a.min(b).max(0))),
        ("s16x2", false) if relu => map(operands, INTEGER, |v: [Pair<i16>; 2]| Pair::each(v, |[a, b]| a.max(b).max(0))),
        _ if relu => operands.error("`.relu` is for `.s32` and `.s16x2`"),
        ("s16x2", true) => map(operands, INTEGER, |v: [Pair<i16>; 2]| Pair::each(v, |[a, b]| a.min(b))),
        ("s16x2", false) => map(operands, INTEGER, |v: [Pair<i16>; 2]| Pair::each(v, |[a, b]| a.max(b))),
        ("u16x2", true) => map(operands, INTEGER, |v: [Pair<u16>; 2]| Pair::each(v, |[a, b]| a.min(b))),
        ("u16x2", false) => map(operands, INTEGER, |v: [Pair<u16>; 2]| Pair::each(v, |[a, b]| a.max(b))),
        (_, true) => per_integer!(operands, |T| map(operands, INTEGER, |[a, b]: [T; 2]| a.min(b))),
        (_, false) => per_integer!(operands, |T| map(operands, INTEGER, |[a, b]: [T; 2]| a.max(b))),
    }
}

/// The two types of `dp4a` and `dp2a`, as whether they are signed.
fn signs(operands: &Operands) -> Result<(bool, bool), crate::decode::DecodeError> {
    let mut types = operands.modifiers().filter(|m| matches!(*m, "u32" | "s32"));
    match (types.next(), types.next(), types.next()) {
        (Some(a), Some(b), None) => Ok((a == "s32", b == "s32")),
        _ => operands.error("expected two types, each `.u32` or `.s32`"),
    }
}

/// Byte `index` of a word.
fn byte(word: u32, index: u32, signed: bool) -> i32 {
    let byte = (word >> (8 * index)) as u8;
    if signed { i32::from(byte as i8) } else { i32::from(byte) }
}

fn half_word(word: u32, index: u32, signed: bool) -> i32 {
    let half = (word >> (16 * index)) as u16;
    if signed { i32::from(half as i16) } else { i32::from(half) }
}

/// Four products of bytes, added to `c`; the sum wraps (PTX ISA 9.7.1.23).
fn dp4a(operands: &Operands) -> Decoded {
    operands.only(&[])?;
    let (a_signed, b_signed) = signs(operands)?;
    map3(operands, INTEGER, move |a: u32, b: u32, c: i32| {
        (0..4).fold(c, |sum, i| sum.wrapping_add(byte(a, i, a_signed) * byte(b, i, b_signed)))
    })
}

/// Two products of half words with the low or high two bytes of `b`, added to `c` (PTX ISA 9.7.1.24).
fn dp2a(operands: &Operands) -> Decoded {
    operands.only(&["lo", "hi"])?;
    let (a_signed, b_signed) = signs(operands)?;
    let first = match part(operands)? {
        "lo" => 0,
        "hi" => 2,
        _ => return operands.error("expected `.lo` or `.hi`"),
    };
    map3(operands, INTEGER, move |a: u32, b: u32, c: i32| {
        (0..2).fold(c, |sum, i| sum.wrapping_add(half_word(a, i, a_signed) * byte(b, first + i, b_signed)))
    })
}
