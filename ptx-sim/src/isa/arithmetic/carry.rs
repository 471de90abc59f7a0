//! Extended-precision arithmetic (PTX ISA 9.7.2): `add.cc`, `addc`, `sub.cc`, `subc`, `mad.cc`, `madc`.
//!
//! The carry flag is one bit per lane of the warp. Only these instructions read and write it; it does not survive
//! calls, which PTX does not promise either.

use std::array::from_fn;

use super::integer::part;
use super::numeric::{mask_of, write};
use crate::ast::Type;
use crate::decode::Operands;
use crate::exec::{Context, LANES, Lanes};
use crate::isa::Decoded;
use crate::meter::Class;

pub(crate) fn decode(operands: &Operands) -> Decoded {
    match (operands.root(), operands.has("cc")) {
        ("add", true) | ("addc", _) => sum(operands, false),
        ("sub", true) | ("subc", _) => sum(operands, true),
        ("mad", true) | ("madc", _) => mad(operands),
        _ => Ok(None),
    }
}

/// Width and signedness of the one type.
fn width(operands: &Operands) -> Result<(u32, bool), crate::decode::DecodeError> {
    match operands.types()[..] {
        [Type::U32 | Type::B32] => Ok((32, false)),
        [Type::S32] => Ok((32, true)),
        [Type::U64 | Type::B64] => Ok((64, false)),
        [Type::S64] => Ok((64, true)),
        _ => operands.error("expected one type of 32 or 64 bits"),
    }
}

/// `a + b + carry`, or `a - (b + borrow)`: the sum's low bits, and its carry or borrow.
fn add_lanes(context: &Context, a: &Lanes, b: &Lanes, reads: bool, minus: bool, bits: u32) -> (Lanes, [bool; LANES]) {
    let flags = if reads { context.warp.carry } else { 0 };
    let wide: [u128; LANES] = from_fn(|lane| {
        let (a, b, flag) = (u128::from(a[lane]), u128::from(b[lane]), u128::from(flags >> lane & 1));
        if minus { a.wrapping_sub(b + flag) } else { a + b + flag }
    });
    (wide.map(|sum| sum as u64 & (u64::MAX >> (64 - bits))), wide.map(|sum| sum >> bits & 1 == 1))
}

fn keep_carry(context: &mut Context, carries: &[bool; LANES]) {
    let mask = context.mask;
    context.warp.carry = context.warp.carry & !mask | mask_of(carries) & mask;
}

fn sum(operands: &Operands, minus: bool) -> Decoded {
    operands.only(&["cc"])?;
    operands.count(3, 3)?;
    let (bits, _) = width(operands)?;
    let ty = if bits == 32 { Type::B32 } else { Type::B64 };
    let (target, a, b) = (operands.destination(0)?, operands.source(1, ty)?, operands.source(2, ty)?);
    let (reads, writes) = (operands.root().ends_with('c'), operands.has("cc"));
    Ok(Some((
        Class::Integer,
        Box::new(move |context| {
            let (sum, carries) = add_lanes(context, &context.read(a), &context.read(b), reads, minus, bits);
            if writes {
                keep_carry(context, &carries);
            }
            write(context, target, sum)
        }),
    )))
}

/// The low or high half of a product, plus `c` and for `madc` the carry; the carry out is that of the addition.
fn mad(operands: &Operands) -> Decoded {
    operands.only(&["lo", "hi", "cc"])?;
    operands.count(4, 4)?;
    let (bits, signed) = width(operands)?;
    let high = match part(operands)? {
        "lo" => false,
        "hi" => true,
        _ => return operands.error("expected `.lo` or `.hi`"),
    };
    let ty = if bits == 32 { Type::B32 } else { Type::B64 };
    let (target, a, b) = (operands.destination(0)?, operands.source(1, ty)?, operands.source(2, ty)?);
    let c = operands.source(3, ty)?;
    let (reads, writes) = (operands.root() == "madc", operands.has("cc"));
    let extend = move |value: u64| {
        if signed { i128::from((value << (64 - bits)) as i64 >> (64 - bits)) } else { i128::from(value) }
    };
    Ok(Some((
        Class::Integer,
        Box::new(move |context| {
            let (a, b, c) = (context.read(a), context.read(b), context.read(c));
            let product: Lanes = from_fn(|lane| {
                // Products of unsigned 64-bit numbers exceed i128, but their bits do not.
                let product = extend(a[lane]).wrapping_mul(extend(b[lane])).cast_unsigned();
                (product >> if high { bits } else { 0 }) as u64 & (u64::MAX >> (64 - bits))
            });
            let (sum, carries) = add_lanes(context, &product, &c, reads, false, bits);
            if writes {
                keep_carry(context, &carries);
            }
            write(context, target, sum)
        }),
    )))
}
