//! What atomics and reductions make of the value in memory and their operand (PTX ISA 9.7.9.25.4.2, 9.7.13.5-6): one
//! definition for `atom`, `red` and the asynchronous reductions.

use std::cmp::Ordering;
use std::sync::Arc;

use half::{bf16, f16};

use crate::ast::Type;
use crate::exec::Merge;
use crate::isa::arithmetic::numeric::NAN32;
use crate::isa::arithmetic::rounding::f32_to_odd;

/// What becomes of an element and an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Inc,
    Dec,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exch,
    Cas,
}

impl Operation {
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "add" => Self::Add,
            "inc" => Self::Inc,
            "dec" => Self::Dec,
            "min" => Self::Min,
            "max" => Self::Max,
            "and" => Self::And,
            "or" => Self::Or,
            "xor" => Self::Xor,
            "exch" => Self::Exch,
            "cas" => Self::Cas,
            _ => return None,
        })
    }

    /// The operation on the elements of asynchronous reductions; `flush` says whether subnormals of f32 become zeros
    /// of their sign.
    pub fn merge(self, ty: Type, flush: bool) -> Merge {
        let element = ty.size();
        let apply = move |old: &mut [u8], new: &[u8]| {
            for (old, new) in old.chunks_exact_mut(element).zip(new.chunks_exact(element)) {
                let result = match (wide(old), wide(new)) {
                    (a, b) if flush && ty == Type::F32 => flushed(self.apply(ty, flushed(a), flushed(b), 0)),
                    (a, b) => self.apply(ty, a, b, 0),
                };
                old.copy_from_slice(&result.to_le_bytes()[..element]);
            }
        };
        Merge { element, apply: Arc::new(apply) }
    }

    /// Whether the ISA has `atom` or `red` with the operation for elements of the type.
    pub fn takes(self, ty: Type, vector: usize) -> bool {
        let floating = matches!(ty, Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2);
        match self {
            Self::Add if floating || ty == Type::F32 => true,
            Self::Min | Self::Max if vector > 1 => floating,
            _ if vector > 1 => false,
            Self::Add => matches!(ty, Type::U32 | Type::S32 | Type::U64 | Type::S64 | Type::F64),
            Self::Inc | Self::Dec => ty == Type::U32,
            Self::Min | Self::Max => matches!(ty, Type::U32 | Type::S32 | Type::U64 | Type::S64),
            Self::And | Self::Or | Self::Xor => matches!(ty, Type::B32 | Type::B64),
            Self::Exch => matches!(ty, Type::B32 | Type::B64 | Type::B128),
            Self::Cas => matches!(ty, Type::B16 | Type::B32 | Type::B64 | Type::B128),
        }
    }

    /// The new value of an element. `a` and `b` are the operands: `b` is used by `cas` alone.
    pub fn apply(self, ty: Type, old: u128, a: u128, b: u128) -> u128 {
        let signed = |value: u128| match ty {
            Type::S32 => i64::from(value as i32),
            _ => value as i64,
        };
        match self {
            Self::Add => add(ty, old as u64, a as u64).into(),
            Self::Inc => {
                if old >= a {
                    0
                } else {
                    old + 1
                }
            }
            Self::Dec => {
                if old == 0 || old > a {
                    a
                } else {
                    old - 1
                }
            }
            Self::Min | Self::Max if matches!(ty, Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2) => {
                halves(ty, old as u64, a as u64, |x, y| extreme(x, y, self == Self::Min)).into()
            }
            Self::Min if matches!(ty, Type::S32 | Type::S64) => {
                if signed(a) < signed(old) {
                    a
                } else {
                    old
                }
            }
            Self::Max if matches!(ty, Type::S32 | Type::S64) => {
                if signed(a) > signed(old) {
                    a
                } else {
                    old
                }
            }
            Self::Min => old.min(a),
            Self::Max => old.max(a),
            Self::And => old & a,
            Self::Or => old | a,
            Self::Xor => old ^ a,
            Self::Exch => a,
            Self::Cas => {
                if old == a {
                    b
                } else {
                    old
                }
            }
        }
    }
}

fn add(ty: Type, old: u64, a: u64) -> u64 {
    match ty {
        Type::F32 => {
            let sum = f32::from_bits(old as u32) + f32::from_bits(a as u32);
            if sum.is_nan() { NAN32.to_bits() } else { sum.to_bits() }.into()
        }
        Type::F64 => (f64::from_bits(old) + f64::from_bits(a)).to_bits(),
        Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2 => halves(ty, old, a, |x, y| x + y),
        Type::U32 | Type::S32 => u64::from((old as u32).wrapping_add(a as u32)),
        _ => old.wrapping_add(a),
    }
}

/// The lesser or the greater of two numbers, and of zeros that of the sign. A number is preferred to NaN.
fn extreme(x: f64, y: f64, least: bool) -> f64 {
    let first = match x.partial_cmp(&y) {
        None => y.is_nan(),
        Some(Ordering::Equal) => x.is_sign_negative() == least,
        Some(order) => order.is_lt() == least,
    };
    if first { x } else { y }
}

/// Combines 16-bit floating-point values, rounding to nearest even: a sum of two of them is exact in f64, or so close to
/// it that the rest decides nothing. NaN becomes the canonical one.
fn halves(ty: Type, old: u64, a: u64, f: impl Fn(f64, f64) -> f64) -> u64 {
    let brain = matches!(ty, Type::Bf16 | Type::Bf16x2);
    let widen = |bits: u16| if brain { bf16::from_bits(bits).to_f64() } else { f16::from_bits(bits).to_f64() };
    let narrow = |value: f64| match brain {
        _ if value.is_nan() => 0x7FFF,
        // Through a f32 rounded to odd, because `from_f64` ignores the lowest bits.
        true => bf16::from_f32(f32_to_odd(value)).to_bits(),
        false => f16::from_f32(f32_to_odd(value)).to_bits(),
    };
    let element = |i: u32| u64::from(narrow(f(widen((old >> (16 * i)) as u16), widen((a >> (16 * i)) as u16))));
    if ty.size() == 4 { element(0) | element(1) << 16 } else { element(0) }
}

/// An element of up to 16 little-endian bytes.
pub(super) fn wide(bytes: &[u8]) -> u128 {
    let mut wide = [0; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    u128::from_le_bytes(wide)
}

/// The bits of an f32, a zero of its sign in place of a subnormal.
fn flushed(bits: u128) -> u128 {
    let sign = 1 << 31;
    if f32::from_bits(bits as u32).is_subnormal() { bits & sign } else { bits }
}
