//! Integer instructions on single bits and bit fields (PTX ISA 9.7.1.14-22).

use super::numeric::{last, map1, map2, map3, per_type};
use crate::ast::Type;
use crate::decode::Operands;
use crate::exec::LANES;
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::meter::Class;

const INTEGER: Class = Class::Integer;

pub(crate) fn decode(operands: &Operands) -> Decoded {
    match operands.root() {
        "popc" => {
            operands.only(&[])?;
            per_type!(operands, ["b32": u32, "b64": u64], |T| map1(operands, INTEGER, T::count_ones))
        }
        "clz" => {
            operands.only(&[])?;
            per_type!(operands, ["b32": u32, "b64": u64], |T| map1(operands, INTEGER, T::leading_zeros))
        }
        "brev" => {
            operands.only(&[])?;
            per_type!(operands, ["b32": u32, "b64": u64], |T| map1(operands, INTEGER, T::reverse_bits))
        }
        "bfind" => bfind(operands),
        "fns" => fns(operands),
        "bfe" => bfe(operands),
        "bfi" => bfi(operands),
        "bmsk" => bmsk(operands),
        "szext" => szext(operands),
        _ => Ok(None),
    }
}

/// Position of the most significant bit that is not a copy of the sign, or with `.shiftamt` how far it is from the
/// top; all ones if there is none.
fn bfind(operands: &Operands) -> Decoded {
    operands.only(&["shiftamt"])?;
    let (shiftamt, signed) = (operands.has("shiftamt"), last(operands).starts_with('s'));
    per_type!(operands, ["u32": u32, "s32": u32, "u64": u64, "s64": u64], |T| {
        map1(operands, INTEGER, move |a: T| {
            let negative = signed && a >> (T::BITS - 1) == 1;
            let value = if negative { !a } else { a };
            let zeros = value.leading_zeros();
            let found = if shiftamt { zeros } else { (T::BITS - 1).wrapping_sub(zeros) };
            if value == 0 { u32::MAX } else { found }
        })
    })
}

/// The `offset`-th set bit of a mask, counted from `base`, downwards if `offset` is negative.
fn fns(operands: &Operands) -> Decoded {
    operands.only(&[])?;
    let [Type::B32] = operands.types()[..] else { return operands.error("expected `.b32`") };
    map3(operands, INTEGER, |mask: u32, base: u32, offset: i32| {
        let base = base & 31;
        if offset == 0 {
            return if mask >> base & 1 == 1 { base } else { u32::MAX };
        }
        let set = |position: &u32| mask >> position & 1 == 1;
        let nth = offset.unsigned_abs() as usize - 1;
        let found = if offset > 0 { (base..32).filter(set).nth(nth) } else { (0..=base).rev().filter(set).nth(nth) };
        found.unwrap_or(u32::MAX)
    })
}

/// The field of `a` at bit `b & 255` of `c & 255` bits (PTX ISA 9.7.1.19), extended by its sign bit, or if it ends beyond the value by the
/// value's.
fn bfe(operands: &Operands) -> Decoded {
    operands.only(&[])?;
    // In twice the width every shift up to the value's width is defined, and a signed value is already extended.
    macro_rules! field {
        ($int:ty, $wide:ty) => {
            map3(operands, INTEGER, |a: $int, start: u32, length: u32| {
                let (start, length) = ((start & 0xFF).min(<$int>::BITS), (length & 0xFF).min(<$int>::BITS));
                let unused = 2 * <$int>::BITS - length.max(1);
                let field = ((<$wide>::from(a) >> start) << unused >> unused) as $int;
                if length == 0 { 0 } else { field }
            })
        };
    }
    match last(operands) {
        "u32" => field!(u32, u64),
        "s32" => field!(i32, i64),
        "u64" => restricted(operands, [2, 3], field!(u64, u128)),
        "s64" => restricted(operands, [2, 3], field!(i64, i128)),
        _ => operands.error("expected an integer type of 32 or 64 bits"),
    }
}

/// `b` with the low `d & 255` bits of `a` inserted at bit `c & 255` (PTX ISA 9.7.1.20).
fn bfi(operands: &Operands) -> Decoded {
    operands.only(&[])?;
    operands.count(5, 5)?;
    let ty = match operands.types()[..] {
        [ty @ (Type::B32 | Type::B64)] => ty,
        _ => return operands.error("expected `.b32` or `.b64`"),
    };
    let width = 8 * ty.size() as u32;
    let (target, a, b) = (operands.destination(0)?, operands.source(1, ty)?, operands.source(2, ty)?);
    let (start, length) = (operands.source(3, Type::U32)?, operands.source(4, Type::U32)?);
    let inserted: Decoded = Ok(Some((
        INTEGER,
        Box::new(move |context| {
            let (a, b, start, length) = (context.read(a), context.read(b), context.read(start), context.read(length));
            let inserted = std::array::from_fn(|lane| {
                let (start, length) = (start[lane] as u32 & 0xFF, length[lane] as u32 & 0xFF);
                let field = (1u128 << length.min(width)) - 1;
                let (mask, value) = (field << start.min(width), (u128::from(a[lane]) & field) << start.min(width));
                let mask = mask as u64 & (u64::MAX >> (64 - width));
                b[lane] & !mask | value as u64 & mask
            });
            super::numeric::write(context, target, inserted)
        }),
    )));
    if ty == Type::B64 { restricted(operands, [3, 4], inserted) } else { inserted }
}

/// A field of a 64-bit value, of which position and length, the operands at `places`, have to be below 256. The ISA
/// restricts them to that and computes modulo 256 (9.7.1.19-20); devices do so for 32-bit values alone, so there is no
/// result to rely on.
fn restricted(operands: &Operands, places: [usize; 2], decoded: Decoded) -> Decoded {
    let Some((class, run)) = decoded? else { return Ok(None) };
    let (start, length) = (operands.source(places[0], Type::U32)?, operands.source(places[1], Type::U32)?);
    let what = operands.instruction.name();
    Ok(Some((
        class,
        Box::new(move |context| {
            for (name, source) in [("position", start), ("length", length)] {
                let values = context.read(source).map(|value| value as u32);
                let beyond = (0..LANES).find(|lane| context.mask >> lane & 1 == 1 && values[*lane] > 0xFF);
                if let Some(lane) = beyond {
                    return Err(Fault::Trap(format!("{what}: {name} {} is beyond 255", values[lane])));
                }
            }
            run(context)
        }),
    )))
}

/// `b` ones from bit `a` upwards; positions and lengths beyond 32 are clamped or wrap.
fn bmsk(operands: &Operands) -> Decoded {
    operands.only(&["clamp", "wrap"])?;
    let [Type::B32] = operands.types()[..] else { return operands.error("expected `.b32`") };
    let mask = |start: u32, length: u32| ((((1u64 << length) - 1) << start) & u64::from(u32::MAX)) as u32;
    match (operands.has("clamp"), operands.has("wrap")) {
        (true, false) => map2(operands, INTEGER, move |a: u32, b: u32| mask(a.min(32), b.min(32))),
        (false, true) => map2(operands, INTEGER, move |a: u32, b: u32| mask(a & 31, b & 31)),
        _ => operands.error("expected `.clamp` or `.wrap`"),
    }
}

/// The low `b` bits of `a`, extended by their sign or by zeros.
fn szext(operands: &Operands) -> Decoded {
    operands.only(&["clamp", "wrap"])?;
    let wrap = match (operands.has("clamp"), operands.has("wrap")) {
        (true, false) => false,
        (false, true) => true,
        _ => return operands.error("expected `.clamp` or `.wrap`"),
    };
    let bits = move |b: u32| if wrap { b & 31 } else { b.min(32) };
    match last(operands) {
        "u32" => map2(operands, INTEGER, move |a: u32, b: u32| (u64::from(a) & ((1 << bits(b)) - 1)) as u32),
        "s32" => map2(operands, INTEGER, move |a: i32, b: u32| {
            let unused = 64 - bits(b);
            if unused == 64 { 0 } else { (i64::from(a) << unused >> unused) as i32 }
        }),
        _ => operands.error("expected `.u32` or `.s32`"),
    }
}
