//! Conversions between types: `cvt` (PTX ISA 9.7.9.21) and `cvt.pack` (9.7.9.22).

use super::numeric::{Bf16, Element, F16, Float, NAN32, Pair, map, map1, map2, map3};
use super::rounding::{Exact, Format, Round};
use crate::ast::Type;
use crate::decode::{DecodeError, Operands};
use crate::isa::Decoded;
use crate::meter::Class;

const CONVERT: Class = Class::Convert;

pub(crate) fn decode(operands: &Operands) -> Decoded {
    match operands.root() {
        "cvt" if operands.has("pack") => pack(operands),
        "cvt" if operands.modifiers().any(|m| fp8(m).is_some()) => convert_fp8(operands),
        "cvt" => convert(operands),
        _ => Ok(None),
    }
}

/// `.rni` and its like: rounding to an integer.
#[derive(Clone, Copy, PartialEq)]
enum Integral {
    Nearest,
    Zero,
    Down,
    Up,
}

impl Integral {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "rni" => Self::Nearest,
            "rzi" => Self::Zero,
            "rmi" => Self::Down,
            "rpi" => Self::Up,
            _ => return None,
        })
    }

    fn round(self, x: f64) -> f64 {
        match self {
            Self::Nearest => x.round_ties_even(),
            Self::Zero => x.trunc(),
            Self::Down => x.floor(),
            Self::Up => x.ceil(),
        }
    }
}

/// Modifiers other than types.
#[derive(Clone, Copy)]
struct Flags {
    round: Option<Round>,
    integral: Option<Integral>,
    ftz: bool,
    sat: bool,
    relu: bool,
    satfinite: bool,
}

impl Flags {
    fn of(operands: &Operands) -> Result<Self, DecodeError> {
        let mut rounds = operands.modifiers().filter_map(Round::from_name);
        let mut integrals = operands.modifiers().filter_map(Integral::from_name);
        let (round, integral) = (rounds.next(), integrals.next());
        if rounds.next().is_some() || integrals.next().is_some() || round.is_some() && integral.is_some() {
            return operands.error("expected at most one rounding mode");
        }
        let has = |name| operands.has(name);
        let (ftz, sat, relu, satfinite) = (has("ftz"), has("sat"), has("relu"), has("satfinite"));
        Ok(Self { round, integral, ftz, sat, relu, satfinite })
    }
}

const MODIFIERS: [&str; 13] =
    ["rn", "rna", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "ftz", "sat", "relu", "satfinite"];

/// Width and signedness of an integer type.
fn integer(ty: Type) -> Option<(u32, bool)> {
    Some(match ty {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => (8 * ty.size() as u32, false),
        Type::S8 | Type::S16 | Type::S32 | Type::S64 => (8 * ty.size() as u32, true),
        _ => return None,
    })
}

fn convert(operands: &Operands) -> Decoded {
    operands.only(&MODIFIERS)?;
    let flags = Flags::of(operands)?;
    let types = operands.types();
    let [to, from] = types[..] else { return operands.error("expected two types") };
    if (flags.relu || flags.satfinite) && (from != Type::F32 || flags.sat || flags.integral.is_some()) {
        return operands.error("`.relu` and `.satfinite` are for conversions of f32 to narrower types");
    }
    if flags.ftz && to != Type::F32 && from != Type::F32 {
        return operands.error("`.ftz` is for conversions of or to f32");
    }
    if flags.round == Some(Round::NearestAway) && to != Type::Tf32 {
        return operands.error("`.rna` is for conversions to tf32");
    }
    match (integer(to), integer(from)) {
        (Some(_), Some(_)) => between_integers(operands, to, from, flags),
        (Some(_), None) => match from {
            Type::F16 => to_integer::<F16>(operands, to, flags),
            Type::Bf16 => to_integer::<Bf16>(operands, to, flags),
            Type::F32 => to_integer::<f32>(operands, to, flags),
            Type::F64 => to_integer::<f64>(operands, to, flags),
            _ => operands.error("unknown conversion"),
        },
        (None, Some((bits, signed))) => from_integer(operands, to, bits, signed, flags),
        (None, None) => match from {
            Type::F16 => between_floats::<F16>(operands, to, from, flags),
            Type::Bf16 => between_floats::<Bf16>(operands, to, from, flags),
            Type::F32 => between_floats::<f32>(operands, to, from, flags),
            Type::F64 => between_floats::<f64>(operands, to, from, flags),
            _ => operands.error("unknown conversion"),
        },
    }
}

/// Fits an integer result to its type and, if the register is wider, extends it to that (PTX ISA 9.4.1).
fn placed(operands: &Operands, to: Type) -> Result<impl Fn(u64) -> u64 + Copy + Send + Sync + 'static, DecodeError> {
    let (bits, signed) = integer(to).unwrap_or((64, false));
    let register = operands.register_type(operands.operand(0)?).map_or(bits, |ty| 8 * ty.size().min(8) as u32);
    if register < bits {
        return operands.error("the destination is narrower than its type");
    }
    // Unsigned results are cut to their width, signed ones to the register's after their extension.
    let (unused, cut) = (64 - bits, 64 - if signed { register } else { bits });
    Ok(move |value: u64| {
        let extended = (value << unused).cast_signed() >> unused;
        extended.cast_unsigned() << cut >> cut
    })
}

fn between_integers(operands: &Operands, to: Type, from: Type, flags: Flags) -> Decoded {
    if flags.round.is_some() || flags.integral.is_some() {
        return operands.error("integers are not rounded");
    }
    let place = placed(operands, to)?;
    let ((from_bits, from_signed), (to_bits, to_signed)) =
        (integer(from).unwrap_or((64, false)), integer(to).unwrap_or((64, false)));
    let unused = 64 - from_bits;
    if !flags.sat {
        return if from_signed {
            map1(operands, CONVERT, move |a: u64| place(((a << unused).cast_signed() >> unused).cast_unsigned()))
        } else {
            map1(operands, CONVERT, move |a: u64| place(a << unused >> unused))
        };
    }
    let (least, most) =
        if to_signed { (-1i128 << (to_bits - 1), (1i128 << (to_bits - 1)) - 1) } else { (0, (1i128 << to_bits) - 1) };
    map1(operands, CONVERT, move |a: u64| {
        let signed = i128::from((a << unused).cast_signed() >> unused);
        let value = if from_signed { signed } else { i128::from(a << unused >> unused) };
        place(value.clamp(least, most) as u64)
    })
}

/// Out of range values go to the nearest end, always. NaN becomes 0, or 2^(width - 1) if either type has 64 bits.
fn to_integer<A: Float>(operands: &Operands, to: Type, flags: Flags) -> Decoded {
    let Some(integral) = flags.integral else {
        return operands.error("expected `.rni`, `.rzi`, `.rmi` or `.rpi`");
    };
    let place = placed(operands, to)?;
    let (bits, signed) = integer(to).unwrap_or((64, false));
    let nan = if bits == 64 || A::TYPE == Type::F64 { 1u64 << (bits - 1) } else { 0 };
    let flush = flags.ftz && A::TYPE == Type::F32;
    macro_rules! rounding {
        ($round:expr) => {
            match (bits, signed) {
                (64, false) => map1(operands, CONVERT, move |a: A| {
                    let x: f64 = $round(if flush { a.flush() } else { a }.wide());
                    if a.is_nan() { nan } else { x as u64 }
                }),
                _ => {
                    // Ends that are no doubles are those of 64 bits, where the cast takes care of them.
                    let (least, most) = if signed {
                        (-(2f64.powi(bits as i32 - 1)), 2f64.powi(bits as i32 - 1) - 1.0)
                    } else {
                        (0.0, 2f64.powi(bits as i32) - 1.0)
                    };
                    map1(operands, CONVERT, move |a: A| {
                        let x: f64 = $round(if flush { a.flush() } else { a }.wide());
                        let above = if x > least { x } else { least };
                        let limited = if above < most { above } else { most };
                        place(if a.is_nan() { nan } else { (limited as i64).cast_unsigned() })
                    })
                }
            }
        };
    }
    match integral {
        Integral::Nearest => rounding!(f64::round_ties_even),
        // The cast does it.
        Integral::Zero => rounding!(std::convert::identity),
        Integral::Down => rounding!(f64::floor),
        Integral::Up => rounding!(f64::ceil),
    }
}

fn from_integer(operands: &Operands, to: Type, bits: u32, signed: bool, flags: Flags) -> Decoded {
    let Some(round) = flags.round else { return operands.error("expected `.rn`, `.rz`, `.rm` or `.rp`") };
    let unused = 64 - bits;
    let sign_extend = move |a: u64| (a << unused).cast_signed() >> unused;
    if round == Round::Nearest && !flags.sat {
        match (to, signed) {
            (Type::F32, true) => return map1(operands, CONVERT, move |a: u64| sign_extend(a) as f32),
            (Type::F32, false) => return map1(operands, CONVERT, move |a: u64| (a << unused >> unused) as f32),
            (Type::F64, true) => return map1(operands, CONVERT, move |a: u64| sign_extend(a) as f64),
            (Type::F64, false) => return map1(operands, CONVERT, move |a: u64| (a << unused >> unused) as f64),
            _ => {}
        }
    }
    let Some(format) = format(to) else { return operands.error("unknown conversion") };
    map1(operands, CONVERT, move |a: u64| {
        let negative = signed && sign_extend(a) < 0;
        let magnitude = if signed { sign_extend(a).unsigned_abs() } else { a << unused >> unused };
        // `.sat` into 0..=1 can be done before rounding: the ends are integers.
        let (negative, magnitude) =
            if flags.sat { (false, if negative { 0 } else { magnitude.min(1) }) } else { (negative, magnitude) };
        Exact::integer(negative, magnitude).round(format, round)
    })
}

fn format(ty: Type) -> Option<Format> {
    Some(match ty {
        Type::F16 => Format::F16,
        Type::Bf16 => Format::BF16,
        Type::F32 => Format::F32,
        Type::F64 => Format::F64,
        _ => return None,
    })
}

/// The general conversion to a format; limits apply before rounding, as they are numbers of every format.
#[inline]
fn narrow(x: f64, format: Format, round: Round, flags: Flags) -> u64 {
    let x = match flags.integral {
        Some(integral) => integral.round(x),
        None => x,
    };
    let x = if flags.sat { x.saturate() } else { x };
    let x = if flags.relu { x.relu() } else { x };
    let bits = format.round(x, round);
    // Infinity is one more than the largest number; the 8-bit format without infinity has stopped there already.
    let infinite = !x.is_nan() && bits & !format.sign() > format.largest;
    if flags.satfinite && infinite { bits - 1 } else { bits }
}

fn between_floats<A: Float>(operands: &Operands, to: Type, from: Type, flags: Flags) -> Decoded {
    if let Type::F16x2 | Type::Bf16x2 = to {
        return packed(operands, to, from, flags);
    }
    let plain = !(flags.ftz || flags.sat || flags.relu || flags.satfinite) && flags.integral.is_none();
    let nearest = plain && flags.round == Some(Round::Nearest);
    match (to, from) {
        (Type::F16, Type::F32) if nearest => return map1(operands, CONVERT, |a: f32| F16(a)),
        (Type::Bf16, Type::F32) if nearest => return map1(operands, CONVERT, |a: f32| Bf16(a)),
        (Type::F32, Type::F64) if nearest => return map1(operands, CONVERT, |a: f64| (a as f32).settle([0.0; 0])),
        (Type::F32, Type::F16 | Type::Bf16) if plain && flags.round.is_none() => {
            return map1(operands, CONVERT, |a: A| (a.wide() as f32).settle([0.0; 0]));
        }
        (Type::F64, Type::F32) if plain && flags.round.is_none() => {
            return map1(operands, CONVERT, |a: A| a.wide());
        }
        _ => {}
    }
    if to == Type::Tf32 {
        return tf32(operands, from, flags);
    }
    let Some(format) = format(to) else { return operands.error("unknown conversion") };
    let widens =
        to == from || from != Type::F64 && to == Type::F64 || matches!(from, Type::F16 | Type::Bf16) && to == Type::F32;
    if !widens && flags.round.is_none() {
        return operands.error("expected `.rn`, `.rz`, `.rm` or `.rp`");
    }
    if to == from && flags.round.is_some() || to != from && flags.integral.is_some() {
        return operands.error("rounds to integers within a type, and otherwise to fewer bits");
    }
    let (flush_in, flush_out) = (flags.ftz && from == Type::F32, flags.ftz && to == Type::F32);
    let round = flags.round.unwrap_or(Round::Nearest);
    map1(operands, CONVERT, move |a: A| {
        let bits = narrow(if flush_in { a.flush() } else { a }.wide(), format, round, flags);
        if flush_out { f32::of(bits).flush().bits() } else { bits }
    })
}

/// tf32 is an f32 whose lowest 13 bits are zero.
fn tf32(operands: &Operands, from: Type, flags: Flags) -> Decoded {
    let (Type::F32, Some(round @ (Round::Nearest | Round::NearestAway | Round::Zero))) = (from, flags.round) else {
        return operands.error("expected `.rn`, `.rna` or `.rz`, and f32");
    };
    if flags.ftz || flags.sat || flags.relu && round == Round::NearestAway {
        return operands.error("conversions to tf32 have `.satfinite`, and with `.rn` and `.rz` `.relu`");
    }
    map1(operands, CONVERT, move |a: f32| {
        let bits = narrow(a.wide(), Format::TF32, round, flags) << 13;
        if a.is_nan() { NAN32.bits() } else { bits }
    })
}

/// Two f32 into one register, the first into its upper half.
fn packed(operands: &Operands, to: Type, from: Type, flags: Flags) -> Decoded {
    let (Type::F32, Some(round @ (Round::Nearest | Round::Zero))) = (from, flags.round) else {
        return operands.error("expected `.rn` or `.rz`, and f32");
    };
    if flags.ftz || flags.sat {
        return operands.error("packed conversions have `.relu` and `.satfinite` only");
    }
    let plain = round == Round::Nearest && !flags.relu && !flags.satfinite;
    let format = match to {
        Type::F16x2 if plain => return map2(operands, CONVERT, |a: f32, b: f32| Pair([F16(b), F16(a)])),
        Type::Bf16x2 if plain => return map2(operands, CONVERT, |a: f32, b: f32| Pair([Bf16(b), Bf16(a)])),
        Type::F16x2 => Format::F16,
        _ => Format::BF16,
    };
    map2(operands, CONVERT, move |a: f32, b: f32| {
        narrow(b.wide(), format, round, flags) | narrow(a.wide(), format, round, flags) << 16
    })
}

fn fp8(name: &str) -> Option<Format> {
    match name {
        "e4m3x2" => Some(Format::E4M3),
        "e5m2x2" => Some(Format::E5M2),
        _ => None,
    }
}

/// Pairs of 8-bit numbers, from two f32 or from f16x2, and to f16x2; 16 bits in all, the first f32 in the upper eight.
fn convert_fp8(operands: &Operands) -> Decoded {
    operands.only(&["rn", "satfinite", "relu", "e4m3x2", "e5m2x2"])?;
    let flags = Flags::of(operands)?;
    let named: Vec<&str> = operands.modifiers().filter(|m| !MODIFIERS.contains(m)).collect();
    let [to, from] = named[..] else { return operands.error("expected two types") };
    if flags.round.is_none() || fp8(to).is_some() != flags.satfinite {
        return operands.error("expected `.rn`, and `.satfinite` only to 8 bits");
    }
    let pair = move |a: f64, b: f64, format: Format| -> u16 {
        let byte = |x| narrow(x, format, Round::Nearest, flags) as u16;
        byte(a) << 8 | byte(b)
    };
    let relu = flags.relu;
    match (fp8(to), from, to) {
        (Some(format), "f32", _) => map2(operands, CONVERT, move |a: f32, b: f32| pair(a.wide(), b.wide(), format)),
        (Some(format), "f16x2", _) => {
            map1(operands, CONVERT, move |a: Pair<F16>| pair(a.0[1].wide(), a.0[0].wide(), format))
        }
        (None, "e4m3x2", "f16x2") => map1(operands, CONVERT, move |a: u16| widen(a, e4m3, relu)),
        (None, "e5m2x2", "f16x2") => map1(operands, CONVERT, move |a: u16| widen(a, e5m2, relu)),
        _ => operands.error("unknown conversion"),
    }
}

fn widen(pair: u16, decode: impl Fn(u8) -> F16, relu: bool) -> Pair<F16> {
    let half = |byte: u8| if relu { decode(byte).relu() } else { decode(byte) };
    Pair([half(pair as u8), half((pair >> 8) as u8)])
}

/// An f16 with fewer fraction bits.
fn e5m2(byte: u8) -> F16 {
    F16::of(u64::from(byte) << 8)
}

/// Shifted to where f16 has its exponent, which counts from 8 less.
fn e4m3(byte: u8) -> F16 {
    let magnitude = F16::of(u64::from(byte & 0x7F) << 7).0 * 256.0;
    let number = if byte & 0x7F == 0x7F { f32::NAN } else { magnitude };
    F16(if byte & 0x80 == 0 { number } else { -number })
}

/// Two integers, limited to a narrower type and put side by side, `a` above `b`; what is left of the register is filled
/// with the low bits of `c`.
fn pack(operands: &Operands) -> Decoded {
    let parts: Vec<&str> = operands.modifiers().collect();
    let (name, c) = match parts[..] {
        ["pack", "sat", name @ ("u16" | "s16"), "s32"] => (name, false),
        ["pack", "sat", name @ ("u8" | "s8" | "u4" | "s4" | "u2" | "s2"), "s32", "b32"] => (name, true),
        _ => return operands.error("expected `cvt.pack.sat` to 16 bits of s32, or to 2, 4 or 8 bits of s32 with b32"),
    };
    let bits: u32 = match &name[1..] {
        "16" => 16,
        "8" => 8,
        "4" => 4,
        _ => 2,
    };
    let (least, most) =
        if name.starts_with('s') { (-1i32 << (bits - 1), (1i32 << (bits - 1)) - 1) } else { (0, (1i32 << bits) - 1) };
    let limit = move |a: i32| a.clamp(least, most).cast_unsigned() & ((1 << bits) - 1);
    let join = move |a: i32, b: i32| limit(a) << bits | limit(b);
    if c {
        map3(operands, CONVERT, move |a: i32, b: i32, c: u32| c << (2 * bits) | join(a, b))
    } else {
        map(operands, CONVERT, move |[a, b]: [i32; 2]| join(a, b).cast_signed())
    }
}
