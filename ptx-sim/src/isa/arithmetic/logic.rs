//! Logic, shifts and byte permutation (PTX ISA 9.7.8 and 9.7.9.7).

use std::array::from_fn;

use super::numeric::{apply, last, map, map1, map2, map3, mask_of, per_type, predicate_bits};
use crate::ast::{Operand, Type};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Outcome, Source, Words};
use crate::isa::Decoded;
use crate::meter::Class;

const INTEGER: Class = Class::Integer;

/// A bitwise operation on two values or on two predicates.
macro_rules! binary {
    ($operands:expr, $operator:tt) => {{
        $operands.only(&[])?;
        match $operands.types()[..] {
            [Type::Pred] => of_predicates($operands, |a, b| a $operator b),
            [Type::B16] => map($operands, INTEGER, |[a, b]: [u16; 2]| a $operator b),
            [Type::B32] => map($operands, INTEGER, |[a, b]: [u32; 2]| a $operator b),
            [Type::B64] => map($operands, INTEGER, |[a, b]: [u64; 2]| a $operator b),
            _ => $operands.error("expected `.pred`, `.b16`, `.b32` or `.b64`"),
        }
    }};
}

pub(crate) fn decode(operands: &Operands) -> Decoded {
    match operands.root() {
        "and" => binary!(operands, &),
        "or" => binary!(operands, |),
        "xor" => binary!(operands, ^),
        "not" => not(operands),
        "cnot" => {
            operands.only(&[])?;
            per_type!(operands, ["b16": u16, "b32": u32, "b64": u64], |T| {
                map1(operands, INTEGER, |a: T| -> T { (a == 0).into() })
            })
        }
        "lop3" => lop3(operands),
        "shl" => {
            operands.only(&[])?;
            per_type!(operands, ["b16": u16, "b32": u32, "b64": u64], |T| {
                map2(operands, INTEGER, |a: T, n: u32| if n < T::BITS { a << n } else { 0 })
            })
        }
        // Beyond the width, zeros or copies of the sign remain (PTX ISA 9.7.8.8-9).
        "shr" => {
            operands.only(&[])?;
            per_type!(
                operands,
                ["b16": u16, "b32": u32, "b64": u64, "u16": u16, "u32": u32, "u64": u64, "s16": i16, "s32": i32, "s64": i64],
                |T| map2(operands, INTEGER, |a: T, n: u32| {
                    let most = T::BITS - 1;
                    let rest = u32::from(n > most);
                    a >> n.min(most) >> rest.min(most)
                })
            )
        }
        "shf" => shf(operands),
        "prmt" => prmt(operands),
        _ => Ok(None),
    }
}

/// A bitwise function of two predicates.
fn of_predicates(operands: &Operands, f: impl Fn(u32, u32) -> u32 + Send + Sync + 'static) -> Decoded {
    operands.count(3, 3)?;
    let target = operands.predicate_destination(operands.operand(0)?)?;
    let (a, b) = (predicate(operands, 1)?, predicate(operands, 2)?);
    Ok(Some((
        INTEGER,
        Box::new(move |context| {
            let bits = f(predicate_bits(context, a), predicate_bits(context, b));
            if let Some(target) = target {
                context.write_predicate(target, bits);
            }
            Ok(Outcome::Next)
        }),
    )))
}

/// A predicate or a constant.
fn predicate(operands: &Operands, index: usize) -> Result<Source, DecodeError> {
    match operands.source(index, Type::Pred)? {
        source @ (Source::Predicate { .. } | Source::Immediate(_)) => Ok(source),
        _ => operands.error("expected a predicate"),
    }
}

fn not(operands: &Operands) -> Decoded {
    operands.only(&[])?;
    if operands.types() == [Type::Pred] {
        operands.count(2, 2)?;
        let target = operands.predicate_destination(operands.operand(0)?)?;
        let a = predicate(operands, 1)?;
        return Ok(Some((
            INTEGER,
            Box::new(move |context| {
                if let Some(target) = target {
                    context.write_predicate(target, !predicate_bits(context, a));
                }
                Ok(Outcome::Next)
            }),
        )));
    }
    per_type!(operands, ["b16": u16, "b32": u32, "b64": u64], |T| map1(operands, INTEGER, |a: T| !a))
}

/// Any function of three bits, whose value for bits (a, b, c) is bit `4a + 2b + c` of a table; with `.and` or `.or`
/// also whether the result is not zero, combined with a predicate (PTX ISA 9.7.8.6).
fn lop3(operands: &Operands) -> Decoded {
    operands.only(&["and", "or"])?;
    let [Type::B32] = operands.types()[..] else { return operands.error("expected `.b32`") };
    let combined = operands.has("and") || operands.has("or");
    operands.count(if combined { 6 } else { 5 }, if combined { 6 } else { 5 })?;
    let (target, nonzero) = match operands.operand(0)? {
        Operand::Pair(d, p) if combined => (operands.register(d)?, operands.predicate_destination(p)?),
        _ if combined => return operands.error("expected destinations `d|p`"),
        d => (operands.register(d)?, None),
    };
    let (a, b) = (operands.source(1, Type::B32)?, operands.source(2, Type::B32)?);
    let c = operands.source(3, Type::B32)?;
    let Operand::Integer(table @ 0..=255) = *operands.operand(4)? else {
        return operands.error("expected a table of 0 to 255");
    };
    let q = if combined { Some(predicate(operands, 5)?) } else { None };
    let and = operands.has("and");
    // The table as words of equal bits: what remains is a tree of bitwise selections.
    let words: [u32; 8] = from_fn(|i| if table >> i & 1 == 1 { u32::MAX } else { 0 });
    let select = |bit: u32, ones: u32, zeros: u32| zeros ^ (bit & (ones ^ zeros));
    let f = move |[a, b, c]: [u32; 3]| {
        let [w0, w1, w2, w3, w4, w5, w6, w7] = words;
        let low = select(b, select(c, w3, w2), select(c, w1, w0));
        let high = select(b, select(c, w7, w6), select(c, w5, w4));
        select(a, high, low)
    };
    let Some(q) = q else {
        return Ok(Some((INTEGER, Box::new(move |context| apply(context, target, [a, b, c], &f)))));
    };
    Ok(Some((
        INTEGER,
        Box::new(move |context| {
            let [a, b, c] = [a, b, c].map(|source| context.words(source));
            let result: Words = from_fn(|i| f([a[i], b[i], c[i]]));
            let bits = mask_of(&result.map(|value| value != 0));
            let q = predicate_bits(context, q);
            if let Some(nonzero) = nonzero {
                context.write_predicate(nonzero, if and { bits & q } else { bits | q });
            }
            if let Some(target) = target {
                context.write_typed(target, &result);
            }
            Ok(Outcome::Next)
        }),
    )))
}

/// Shifts of the 64 bits `b:a` (PTX ISA 9.7.8.7): left keeps the high word, right the low one.
fn shf(operands: &Operands) -> Decoded {
    operands.only(&["l", "r", "wrap", "clamp"])?;
    let [Type::B32] = operands.types()[..] else { return operands.error("expected `.b32`") };
    let join = |a: u32, b: u32| u64::from(b) << 32 | u64::from(a);
    let modes = ["l", "r", "wrap", "clamp"].map(|mode| operands.has(mode));
    match modes {
        [true, false, true, false] => {
            map3(operands, INTEGER, move |a: u32, b: u32, c: u32| (join(a, b) << (c & 31) >> 32) as u32)
        }
        [true, false, false, true] => {
            map3(operands, INTEGER, move |a: u32, b: u32, c: u32| (join(a, b) << c.min(32) >> 32) as u32)
        }
        [false, true, true, false] => {
            map3(operands, INTEGER, move |a: u32, b: u32, c: u32| (join(a, b) >> (c & 31)) as u32)
        }
        [false, true, false, true] => {
            map3(operands, INTEGER, move |a: u32, b: u32, c: u32| (join(a, b) >> c.min(32)) as u32)
        }
        _ => operands.error("expected `.l` or `.r`, and `.wrap` or `.clamp`"),
    }
}

/// Byte permutation (PTX ISA 9.7.9.7). A mode is a table of the selectors that the default mode would need.
fn prmt(operands: &Operands) -> Decoded {
    operands.only(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"])?;
    let modes: Vec<&str> = operands.modifiers().filter(|m| *m != "b32").collect();
    let selectors: [u32; 4] = match modes[..] {
        _ if last(operands) != "b32" && operands.types() != [Type::B32] => return operands.error("expected `.b32`"),
        [] => {
            return map(operands, INTEGER, |[a, b, c]: [u32; 3]| permute(a, b, c));
        }
        ["f4e"] => [0x3210, 0x4321, 0x5432, 0x6543],
        ["b4e"] => [0x5670, 0x6701, 0x7012, 0x0123],
        ["rc8"] => [0x0000, 0x1111, 0x2222, 0x3333],
        ["ecl"] => [0x3210, 0x3211, 0x3222, 0x3333],
        ["ecr"] => [0x0000, 0x1110, 0x2210, 0x3210],
        ["rc16"] => [0x1010, 0x3232, 0x1010, 0x3232],
        _ => return operands.error("expected at most one mode"),
    };
    map(operands, INTEGER, move |[a, b, c]: [u32; 3]| permute(a, b, selectors[c as usize & 3]))
}

/// Each nibble of the selector picks one of the eight bytes `b:a`, or with its top bit set the byte's sign, replicated.
#[inline]
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let mut result = 0;
    for i in 0..4 {
        let nibble = selector >> (4 * i);
        let byte = (bytes >> (8 * (nibble & 7))) as u8;
        let sign = ((byte as i8) >> 7) as u8;
        result |= u32::from(if nibble & 8 == 0 { byte } else { sign }) << (8 * i);
    }
    result
}
