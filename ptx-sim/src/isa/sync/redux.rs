//! `redux.sync`: reductions over a warp (PTX ISA 9.7.13.12).

use super::converge::members;
use crate::ast::Type;
use crate::decode::{DecodeError, Operands};
use crate::exec::{LANES, Outcome, Run};

/// What NVIDIA's arithmetic makes of every NaN in f32.
const NAN: u32 = 0x7fff_ffff;

/// `redux.sync.op.type d, a, membermask`.
pub(super) fn decode(operands: &Operands) -> Result<Run, DecodeError> {
    let reduce: Box<dyn Fn(u32, u32) -> u32 + Send + Sync> =
        match operands.parts_with(&["sync", "add", "min", "max", "and", "or", "xor", "abs", "NaN"])[..] {
            ["sync", "add", "u32" | "s32"] => Box::new(u32::wrapping_add),
            ["sync", "min", "u32"] => Box::new(std::cmp::min),
            ["sync", "max", "u32"] => Box::new(std::cmp::max),
            ["sync", "min", "s32"] => Box::new(|a, b| (a as i32).min(b as i32) as u32),
            ["sync", "max", "s32"] => Box::new(|a, b| (a as i32).max(b as i32) as u32),
            ["sync", "and", "b32"] => Box::new(|a, b| a & b),
            ["sync", "or", "b32"] => Box::new(|a, b| a | b),
            ["sync", "xor", "b32"] => Box::new(|a, b| a ^ b),
            ["sync", op @ ("min" | "max"), ref rest @ .., "f32"] => {
                let (abs, nan) = match *rest {
                    [] => (false, false),
                    ["abs"] => (true, false),
                    ["NaN"] => (false, true),
                    ["abs", "NaN"] => (true, true),
                    _ => return operands.error("expected `{.abs}{.NaN}` in front of `.f32`"),
                };
                let max = op == "max";
                return float(operands, abs, move |a, b| extreme(a, b, max, nan));
            }
            _ => return operands.error("expected `.sync`, an operation and a type that has it"),
        };
    lanes(operands, Type::U32, |value| value, reduce, |value| value)
}

fn float(
    operands: &Operands,
    abs: bool,
    reduce: impl Fn(u32, u32) -> u32 + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    let strip = if abs { 0x7fff_ffff } else { u32::MAX };
    let canonical = |value: u32| if f32::from_bits(value).is_nan() { NAN } else { value };
    lanes(operands, Type::F32, move |value| value & strip, reduce, canonical)
}

/// The lesser or greater of two f32: -0 is less than +0, and a NaN loses unless `nan` makes it win.
fn extreme(a: u32, b: u32, max: bool, nan: bool) -> u32 {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    match (x.is_nan(), y.is_nan()) {
        (true, true) => a,
        (true, false) => {
            if nan {
                a
            } else {
                b
            }
        }
        (false, true) => {
            if nan {
                b
            } else {
                a
            }
        }
        (false, false) => {
            if (x.total_cmp(&y).is_gt()) == max {
                a
            } else {
                b
            }
        }
    }
}

fn lanes(
    operands: &Operands,
    ty: Type,
    prepare: impl Fn(u32) -> u32 + Send + Sync + 'static,
    reduce: impl Fn(u32, u32) -> u32 + Send + Sync + 'static,
    finish: impl Fn(u32) -> u32 + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    operands.count(3, 3)?;
    let target = operands.needed(0, ty)?;
    let (value, mask) = (operands.agreeing(1, ty)?, operands.agreeing(2, Type::U32)?);
    let what = operands.instruction.name();
    Ok(Box::new(move |context| {
        let masks = context.read(mask);
        let Some(members) = members(context, &what, &masks)? else { return Ok(Outcome::Wait) };
        let values = context.read(value).map(|value| prepare(value as u32));
        let total = |members: u32| {
            let taking_part = (0..LANES).filter(|lane| members >> lane & 1 == 1).map(|lane| values[lane]);
            taking_part.reduce(&reduce).map_or(0, &finish)
        };
        let first = members[context.mask.trailing_zeros() as usize];
        let common = total(first);
        let out = members.map(|members| u64::from(if members == first { common } else { total(members) }));
        context.write(target, &out);
        Ok(Outcome::Next)
    }))
}
