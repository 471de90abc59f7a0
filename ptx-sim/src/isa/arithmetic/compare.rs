//! Comparison and selection (PTX ISA 9.7.6-7), `testp` and `copysign` (9.7.3.1-2).

use std::array::from_fn;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::numeric::{Bf16, Element, F16, Float, Pair, last, map2, map3, mask_of, per_type, predicate_bits, write};
use crate::ast::{Operand, Type};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, Kernel, LANES, Lanes, Outcome, Run, Source, Vectors, run_vectors};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::meter::Class;

pub(crate) fn decode(operands: &Operands) -> Decoded {
    match operands.root() {
        "setp" => setp(operands),
        "set" => set(operands),
        "selp" => selp(operands),
        "slct" => slct(operands),
        "testp" => testp(operands),
        "copysign" => {
            operands.only(&[])?;
            per_type!(operands, ["f32": f32, "f64": f64], |T| {
                map2(operands, Class::Float, |a: T, b: T| b.copysign(a))
            })
        }
        _ => Ok(None),
    }
}

/// Compares two operands in all lanes: one bit per lane, of packed types for each half.
type Comparison = Box<dyn Fn(&Context, [Source; 2]) -> [u32; 2] + Send + Sync>;

/// Comparisons as a loop over lanes.
struct Compare<'a, T: Element, F> {
    columns: [&'a [T::Word; LANES]; 2],
    compare: &'a F,
}

impl<T: Element, F: Fn(T, T) -> bool> Kernel for Compare<'_, T, F> {
    type Output = u32;

    #[inline(always)]
    fn run<V: Vectors>(self) -> u32 {
        let [a, b] = self.columns;
        mask_of(&from_fn(|i| (self.compare)(T::load(a[i]), T::load(b[i]))))
    }
}

/// One bit per lane.
fn compare_lanes<T: Element>(context: &Context, [a, b]: [Source; 2], compare: &impl Fn(T, T) -> bool) -> u32 {
    let (mut room_a, mut room_b) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let columns = [context.view(a, &mut room_a), context.view(b, &mut room_b)];
    run_vectors(Compare { columns, compare })
}

/// The modifiers of `setp` and `set`.
const MODIFIERS: [&str; 22] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan",
    "and", "or", "xor", "ftz",
];

fn class_of(name: &str) -> Class {
    match name {
        "f32" | "f64" => Class::Float,
        "f16" | "f16x2" | "bf16" | "bf16x2" => Class::Half,
        _ => Class::Integer,
    }
}

/// The comparison of the type that the instruction ends in.
fn comparison(operands: &Operands) -> Result<Comparison, DecodeError> {
    operands.only(&MODIFIERS)?;
    let operator = operands.modifiers().next().unwrap_or_default();
    let ftz = operands.has("ftz");
    let name = last(operands);
    if ftz && !matches!(name, "f32" | "f16" | "f16x2" | "bf16" | "bf16x2") {
        return operands.error(format!("`.ftz` does not exist for type `.{name}`"));
    }
    macro_rules! ordered {
        ($ty:ty, [$($extra:literal => $operation:expr),*]) => {
            match operator {
                "eq" => lanes(|a: $ty, b: $ty| a == b),
                "ne" => lanes(|a: $ty, b: $ty| a != b),
                "lt" => lanes(|a: $ty, b: $ty| a < b),
                "le" => lanes(|a: $ty, b: $ty| a <= b),
                "gt" => lanes(|a: $ty, b: $ty| a > b),
                "ge" => lanes(|a: $ty, b: $ty| a >= b),
                $($extra => lanes($operation),)*
                other => return operands.error(format!("unknown comparison `.{other}` of type `.{name}`")),
            }
        };
    }
    // `lo` and its like are `lt` and its like under other names.
    macro_rules! unsigned {
        ($ty:ty) => {
            ordered!($ty, ["lo" => |a: $ty, b: $ty| a < b, "ls" => |a: $ty, b: $ty| a <= b,
                "hi" => |a: $ty, b: $ty| a > b, "hs" => |a: $ty, b: $ty| a >= b])
        };
    }
    macro_rules! equal {
        ($ty:ty) => {
            match operator {
                "eq" => lanes(|a: $ty, b: $ty| a == b),
                "ne" => lanes(|a: $ty, b: $ty| a != b),
                other => return operands.error(format!("unknown comparison `.{other}` of type `.{name}`")),
            }
        };
    }
    Ok(match name {
        "u16" => unsigned!(u16),
        "u32" => unsigned!(u32),
        "u64" => unsigned!(u64),
        "s16" => ordered!(i16, []),
        "s32" => ordered!(i32, []),
        "s64" => ordered!(i64, []),
        "b16" => equal!(u16),
        "b32" => equal!(u32),
        "b64" => equal!(u64),
        "f32" => floats::<f32>(operands, operator, ftz, true)?,
        "f64" => floats::<f64>(operands, operator, false, true)?,
        "f16" => floats::<F16>(operands, operator, ftz, true)?,
        "bf16" => floats::<Bf16>(operands, operator, ftz, true)?,
        "f16x2" => floats::<F16>(operands, operator, ftz, false)?,
        "bf16x2" => floats::<Bf16>(operands, operator, ftz, false)?,
        _ => return operands.error(format!("does not exist for type `.{name}`")),
    })
}

fn lanes<T: Element>(compare: impl Fn(T, T) -> bool + Send + Sync + 'static) -> Comparison {
    Box::new(move |context, sources| [compare_lanes(context, sources, &compare), 0])
}

/// Ordered comparisons are false and unordered ones true if a NaN is among the operands (PTX ISA 9.3.1.2).
fn floats<T: Float>(operands: &Operands, operator: &str, ftz: bool, scalar: bool) -> Result<Comparison, DecodeError> {
    let unordered = |a: T, b: T| a.is_nan() | b.is_nan();
    macro_rules! build {
        ($operation:expr) => {
            match (ftz, scalar) {
                (false, true) => lanes($operation),
                (true, true) => lanes(move |a: T, b: T| $operation(a.flush(), b.flush())),
                (false, false) => halves($operation),
                (true, false) => halves(move |a: T, b: T| $operation(a.flush(), b.flush())),
            }
        };
    }
    Ok(match operator {
        "eq" => build!(|a: T, b: T| a == b),
        // Not an unordered comparison, unlike C's `!=`.
        "ne" => build!(|a: T, b: T| (a < b) | (a > b)),
        "lt" => build!(|a: T, b: T| a < b),
        "le" => build!(|a: T, b: T| a <= b),
        "gt" => build!(|a: T, b: T| a > b),
        "ge" => build!(|a: T, b: T| a >= b),
        "equ" => build!(move |a: T, b: T| (a == b) | unordered(a, b)),
        "neu" => build!(|a: T, b: T| a != b),
        "ltu" => build!(move |a: T, b: T| (a < b) | unordered(a, b)),
        "leu" => build!(move |a: T, b: T| (a <= b) | unordered(a, b)),
        "gtu" => build!(move |a: T, b: T| (a > b) | unordered(a, b)),
        "geu" => build!(move |a: T, b: T| (a >= b) | unordered(a, b)),
        "num" => build!(move |a: T, b: T| !unordered(a, b)),
        "nan" => build!(unordered),
        other => return operands.error(format!("unknown comparison `.{other}` of type `.{}`", last(operands))),
    })
}

fn halves<T: Float>(compare: impl Fn(T, T) -> bool + Send + Sync + 'static) -> Comparison {
    Box::new(move |context, sources| {
        let half = |k: usize| compare_lanes(context, sources, &|a: Pair<T>, b: Pair<T>| compare(a.0[k], b.0[k]));
        [half(0), half(1)]
    })
}

/// `.and`, `.or` or `.xor` with a predicate.
#[derive(Clone, Copy)]
enum Combination {
    And,
    Or,
    Xor,
}

/// The combination that the modifiers ask for, and the predicate, operand 3.
fn combination(operands: &Operands) -> Result<Option<(Combination, Source)>, DecodeError> {
    let mut combination = None;
    for (name, kind) in [("and", Combination::And), ("or", Combination::Or), ("xor", Combination::Xor)] {
        if operands.has(name) && combination.replace(kind).is_some() {
            return operands.error("expected at most one of `.and`, `.or` and `.xor`");
        }
    }
    operands.count(if combination.is_some() { 4 } else { 3 }, if combination.is_some() { 4 } else { 3 })?;
    let Some(kind) = combination else { return Ok(None) };
    match operands.source(3, Type::Pred)? {
        source @ (Source::Predicate { .. } | Source::Immediate(_)) => Ok(Some((kind, source))),
        _ => operands.error("expected a predicate"),
    }
}

fn combine(context: &Context, bits: u32, combination: Option<(Combination, Source)>) -> u32 {
    match combination {
        None => bits,
        Some((Combination::And, c)) => bits & predicate_bits(context, c),
        Some((Combination::Or, c)) => bits | predicate_bits(context, c),
        Some((Combination::Xor, c)) => bits ^ predicate_bits(context, c),
    }
}

/// How constants among the operands are read.
fn source_type(name: &str) -> Type {
    match name {
        "f16x2" | "bf16x2" => Type::B32,
        "f16" | "bf16" => Type::B16,
        name => Type::from_name(name).unwrap_or(Type::B64),
    }
}

/// `p` of `p|q` gets the comparison, and `q` its opposite, or of packed types the high half's; both are then combined
/// with `c`.
fn setp(operands: &Operands) -> Decoded {
    let (name, compare) = (last(operands), comparison(operands)?);
    let combination = combination(operands)?;
    let packed = name.ends_with("x2");
    let (p, q) = match operands.operand(0)? {
        Operand::Pair(p, q) => (operands.predicate_destination(p)?, operands.predicate_destination(q)?),
        _ if packed => return operands.error("expected destinations `p|q`"),
        p => (operands.predicate_destination(p)?, None),
    };
    let ty = source_type(name);
    let (a, b) = (operands.source(1, ty)?, operands.source(2, ty)?);
    Ok(Some((
        class_of(name),
        Box::new(move |context| {
            let [low, high] = compare(context, [a, b]);
            let first = combine(context, low, combination);
            let second = combine(context, if packed { high } else { !low }, combination);
            for (target, bits) in [(p, first), (q, second)] {
                if let Some(target) = target {
                    context.write_predicate(target, bits);
                }
            }
            Ok(Outcome::Next)
        }),
    )))
}

/// `set` writes "true" as all ones, or as 1.0 of a floating-point type.
fn set(operands: &Operands) -> Decoded {
    let (name, compare) = (last(operands), comparison(operands)?);
    let combination = combination(operands)?;
    let types = operands.types();
    let [to, from] = types[..] else { return operands.error("expected two types") };
    let packed = name.ends_with("x2");
    if packed && to != from {
        return operands.error("packed comparisons have packed results of the same type");
    }
    let one: u64 = match to {
        Type::U16 | Type::S16 => 0xFFFF,
        Type::U32 | Type::S32 => 0xFFFF_FFFF,
        Type::F32 => 1f32.to_bits().into(),
        Type::F16 | Type::F16x2 => 0x3C00,
        Type::Bf16 | Type::Bf16x2 => 0x3F80,
        _ => return operands.error(format!("cannot set {to:?}")),
    };
    let target = operands.destination(0)?;
    let (a, b) = (operands.source(1, source_type(name))?, operands.source(2, source_type(name))?);
    Ok(Some((
        class_of(name),
        Box::new(move |context| {
            let [low, high] = compare(context, [a, b]);
            let low = combine(context, low, combination);
            let high = if packed { combine(context, high, combination) } else { 0 };
            let value = |bits: u32, lane: usize| if bits >> lane & 1 == 1 { one } else { 0 };
            write(context, target, from_fn(|lane| value(low, lane) | value(high, lane) << 16))
        }),
    )))
}

fn selp(operands: &Operands) -> Decoded {
    operands.only(&[])?;
    operands.count(4, 4)?;
    let ty = match operands.types()[..] {
        [ty] if !matches!(ty, Type::Pred | Type::B128) && ty.size() >= 2 => ty,
        _ => return operands.error("expected one type of 16 to 64 bits"),
    };
    let (target, a, b) = (operands.destination(0)?, operands.source(1, ty)?, operands.source(2, ty)?);
    let choice = match operands.source(3, Type::Pred)? {
        source @ (Source::Predicate { .. } | Source::Immediate(_)) => source,
        _ => return operands.error("expected a predicate"),
    };
    let sources = [a, b];
    let run: Run = match ty.size() {
        2 => Box::new(move |context| select::<u16>(context, target, sources, choice)),
        4 => Box::new(move |context| select::<u32>(context, target, sources, choice)),
        _ => Box::new(move |context| select::<u64>(context, target, sources, choice)),
    };
    Ok(Some((class_of(last(operands)), run)))
}

/// A selection as a loop over lanes.
struct Select<'a, 'b, T> {
    context: &'a mut Context<'b>,
    target: Option<usize>,
    sources: [Source; 2],
    choice: u32,
    ty: PhantomData<fn(T)>,
}

impl<T: Element> Kernel for Select<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vectors>(self) {
        let Some(target) = self.target else { return };
        let (mut room_a, mut room_b) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        let [a, b] = self.sources;
        let (a, b) = (self.context.view(a, &mut room_a), self.context.view(b, &mut room_b));
        let choose = |i: usize| T::load(if self.choice >> i & 1 == 1 { a[i] } else { b[i] }).store();
        let chosen: [T::Word; LANES] = from_fn(choose);
        self.context.write_typed(target, &chosen);
    }
}

fn select<T: Element>(
    context: &mut Context,
    target: Option<usize>,
    sources: [Source; 2],
    choice: Source,
) -> Result<Outcome, Fault> {
    let choice = predicate_bits(context, choice);
    run_vectors(Select::<T> { context, target, sources, choice, ty: PhantomData });
    Ok(Outcome::Next)
}

/// `c >= 0 ? a : b`; NaN takes `b` (PTX ISA 9.7.6.4).
fn slct(operands: &Operands) -> Decoded {
    operands.only(&["ftz"])?;
    let types = operands.types();
    let [ty, by] = types[..] else { return operands.error("expected two types") };
    // Only the width of what is selected matters, and how its constants are read.
    macro_rules! choose {
        ($ty:ty) => {
            match by {
                Type::S32 if !operands.has("ftz") => {
                    map3(operands, Class::Integer, |a: $ty, b: $ty, c: i32| if c >= 0 { a } else { b })
                }
                // Flushing to zero of the same sign changes a comparison of negative subnormals.
                Type::F32 if operands.has("ftz") => {
                    map3(operands, Class::Float, |a: $ty, b: $ty, c: f32| if c.flush() >= 0.0 { a } else { b })
                }
                Type::F32 => map3(operands, Class::Float, |a: $ty, b: $ty, c: f32| if c >= 0.0 { a } else { b }),
                _ => operands.error("selects by `.s32` or by `.f32`"),
            }
        };
    }
    match ty {
        Type::B16 | Type::U16 | Type::S16 => choose!(u16),
        Type::B32 | Type::U32 | Type::S32 => choose!(u32),
        Type::B64 | Type::U64 | Type::S64 => choose!(u64),
        Type::F32 => choose!(f32),
        Type::F64 => choose!(f64),
        _ => operands.error(format!("cannot select {ty:?}")),
    }
}

/// A property of a floating-point number (PTX ISA 9.7.3.1). Zero is normal.
fn testp(operands: &Operands) -> Decoded {
    operands.only(&["finite", "infinite", "number", "notanumber", "normal", "subnormal"])?;
    operands.count(2, 2)?;
    let target = operands.predicate_destination(operands.operand(0)?)?;
    macro_rules! tests {
        ($ty:ty) => {
            match operands.modifiers().next() {
                Some("finite") => one(|a: $ty| a.is_finite()),
                Some("infinite") => one(|a: $ty| a.is_infinite()),
                Some("number") => one(|a: $ty| !a.is_nan()),
                Some("notanumber") => one(|a: $ty| a.is_nan()),
                Some("normal") => one(|a: $ty| a.is_normal() | (a == 0.0)),
                Some("subnormal") => one(|a: $ty| a.is_subnormal()),
                _ => return operands.error("expected a property"),
            }
        };
    }
    let (test, ty) = match operands.types()[..] {
        [Type::F32] => (tests!(f32), Type::F32),
        [Type::F64] => (tests!(f64), Type::F64),
        _ => return operands.error("expected `.f32` or `.f64`"),
    };
    let a = operands.source(1, ty)?;
    Ok(Some((
        Class::Float,
        Box::new(move |context| {
            let bits = test(&context.read(a));
            if let Some(target) = target {
                context.write_predicate(target, bits);
            }
            Ok(Outcome::Next)
        }),
    )))
}

type Test = Box<dyn Fn(&Lanes) -> u32 + Send + Sync>;

fn one<T: Element>(test: impl Fn(T) -> bool + Send + Sync + 'static) -> Test {
    Box::new(move |a| mask_of(&from_fn(|i| test(T::of(a[i])))))
}
