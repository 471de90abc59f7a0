//! Instructions by which the lanes of a warp exchange values (PTX ISA 9.7.9.6 and 9.7.13): `shfl`, `vote`, `match`,
//! `redux`, `activemask`, `elect`.

use super::converge::{Members, members};
use crate::ast::{Operand, Type};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, LANES, Lanes, Outcome, Run, Source};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::meter::Class;

pub(crate) fn decode(operands: &Operands) -> Decoded {
    let run = match operands.root() {
        "shfl" => shfl(operands),
        "vote" => vote(operands),
        "match" => matching(operands),
        "redux" => super::redux::decode(operands),
        "activemask" => activemask(operands),
        "elect" => elect(operands),
        _ => return Ok(None),
    };
    run.map(|run| Some((Class::Warp, run)))
}

/// `d|p`, or `d` alone, of a type.
fn pair(operands: &Operands, ty: Type) -> Result<(Option<usize>, Option<usize>), DecodeError> {
    match operands.operand(0)? {
        Operand::Pair(value, predicate) => {
            Ok((operands.result_of(value, ty)?, operands.predicate_destination(predicate)?))
        }
        single => Ok((operands.result_of(single, ty)?, None)),
    }
}

/// The lanes that take part: those of a member mask, or without `.sync` whoever is there.
fn participants(context: &mut Context, what: &str, mask: Option<Source>) -> Result<Option<Members>, Fault> {
    match mask {
        Some(mask) => {
            let masks = context.read(mask);
            members(context, what, &masks)
        }
        None => Ok(Some([context.mask; LANES])),
    }
}

#[derive(Clone, Copy)]
enum Mode {
    Up,
    Down,
    Butterfly,
    Index,
}

/// `shfl{.sync}.mode.b32 d{|p}, a, b, c{, membermask}` (PTX ISA 9.7.9.5 and 9.7.9.6).
fn shfl(operands: &Operands) -> Result<Run, DecodeError> {
    let list = operands.parts_with(&["sync", "up", "down", "bfly", "idx"]);
    let (sync, mode) = match list[..] {
        ["sync", mode, "b32"] => (true, mode),
        [mode, "b32"] => (false, mode),
        _ => return operands.error("expected `shfl{.sync}.mode.b32`"),
    };
    let mode = match mode {
        "up" => Mode::Up,
        "down" => Mode::Down,
        "bfly" => Mode::Butterfly,
        "idx" => Mode::Index,
        _ => return operands.error(format!("unknown mode `.{mode}`")),
    };
    let count = 4 + usize::from(sync);
    operands.count(count, count)?;
    let (Some(target), valid) = pair(operands, Type::B32)? else {
        return operands.error("expected a register in place of `_`");
    };
    let [value, b, c] = [1, 2, 3].map(|index| operands.agreeing(index, Type::B32));
    let (value, b, c) = (value?, b?, c?);
    let mask = if sync { Some(operands.agreeing(4, Type::U32)?) } else { None };
    let what = operands.instruction.name();
    Ok(Box::new(move |context| {
        let Some(members) = participants(context, &what, mask)? else { return Ok(Outcome::Wait) };
        let (values, b, c) = (context.words(value), context.words(b), context.words(c));
        let mut out = values;
        let mut in_range = 0;
        for lane in context.lanes() {
            let (from, inside) = shuffle_source(mode, lane as i32, b[lane] as i32, c[lane] as i32);
            in_range |= u32::from(inside) << lane;
            if members[lane] >> from & 1 == 1 {
                out[lane] = values[from];
                continue;
            }
            // The value is unpredictable: the kernel may go on and must not use it.
            out[lane] = 0;
            let why = format!("`{what}`: lane {lane} reads lane {from}, which does not take part");
            context.find(Fault::Trap(why), lane);
        }
        context.write_typed(target, &out);
        if let Some(valid) = valid {
            context.write_predicate(valid, in_range);
        }
        Ok(Outcome::Next)
    }))
}

/// The lane that `lane` reads from, and whether that was the one it asked for: the ISA's pseudo-code.
fn shuffle_source(mode: Mode, lane: i32, b: i32, c: i32) -> (usize, bool) {
    let (b, clamp, segments) = (b & 31, c & 31, c >> 8 & 31);
    let first = lane & segments;
    let last = first | clamp & !segments;
    let (from, inside) = match mode {
        Mode::Up => (lane - b, lane - b >= last),
        Mode::Down => (lane + b, lane + b <= last),
        Mode::Butterfly => (lane ^ b, lane ^ b <= last),
        Mode::Index => {
            let from = first | b & !segments;
            (from, from <= last)
        }
    };
    (if inside { from } else { lane } as usize, inside)
}

/// `vote{.sync}.mode.pred d, {!}a{, membermask}` and `vote{.sync}.ballot.b32` (PTX ISA 9.7.13.8-9).
fn vote(operands: &Operands) -> Result<Run, DecodeError> {
    let list = operands.parts_with(&["sync", "ballot", "all", "any", "uni"]);
    let (sync, list) = match list[..] {
        ["sync", ref rest @ ..] => (true, rest),
        ref rest => (false, rest),
    };
    let count = 2 + usize::from(sync);
    operands.count(count, count)?;
    let condition = operands.source(1, Type::Pred)?;
    if !matches!(condition, Source::Predicate { .. }) {
        return operands.error("expected a predicate to vote with");
    }
    let mask = if sync { Some(operands.agreeing(2, Type::U32)?) } else { None };
    let what = operands.instruction.name();
    let bits = move |context: &Context| {
        let values = context.read(condition);
        (0..LANES).fold(0, |bits, lane| bits | (values[lane] as u32) << lane)
    };
    if *list == ["ballot", "b32"] {
        let target = operands.needed(0, Type::B32)?;
        return Ok(Box::new(move |context| {
            let Some(members) = participants(context, &what, mask)? else { return Ok(Outcome::Wait) };
            let bits = bits(context);
            context.write(target, &members.map(|members| u64::from(bits & members)));
            Ok(Outcome::Next)
        }));
    }
    let decide: fn(u32, u32) -> bool = match *list {
        ["all", "pred"] => |bits, members| bits & members == members,
        ["any", "pred"] => |bits, members| bits & members != 0,
        ["uni", "pred"] => |bits, members| bits & members == 0 || bits & members == members,
        _ => return operands.error("expected `.all.pred`, `.any.pred`, `.uni.pred` or `.ballot.b32`"),
    };
    let target = operands.needed_predicate(0)?;
    Ok(Box::new(move |context| {
        let Some(members) = participants(context, &what, mask)? else { return Ok(Outcome::Wait) };
        let bits = bits(context);
        let decided = (0..LANES).fold(0, |all, lane| all | u32::from(decide(bits, members[lane])) << lane);
        context.write_predicate(target, decided);
        Ok(Outcome::Next)
    }))
}

/// `match.any.sync.type d, a, membermask` and `match.all.sync.type d{|p}, a, membermask` (PTX ISA 9.7.13.10).
fn matching(operands: &Operands) -> Result<Run, DecodeError> {
    let (all, ty) = match operands.parts_with(&["sync", "any", "all"])[..] {
        ["sync", mode @ ("any" | "all"), ty @ ("b32" | "b64")] => {
            (mode == "all", if ty == "b64" { Type::B64 } else { Type::B32 })
        }
        _ => return operands.error("expected `match.any.sync` or `match.all.sync` with `.b32` or `.b64`"),
    };
    operands.count(3, 3)?;
    let (target, same) = if all { pair(operands, Type::U32)? } else { (Some(operands.needed(0, Type::U32)?), None) };
    let (value, mask) = (operands.agreeing(1, ty)?, operands.agreeing(2, Type::U32)?);
    let what = operands.instruction.name();
    Ok(Box::new(move |context| {
        let Some(members) = participants(context, &what, Some(mask))? else { return Ok(Outcome::Wait) };
        let values = context.read(value);
        let mut out: Lanes = [0; LANES];
        for lane in context.lanes() {
            let equal = (0..LANES).filter(|&other| values[other] == values[lane]);
            let equal = equal.fold(0, |bits, other| bits | 1 << other) & members[lane];
            out[lane] = if all && equal != members[lane] { 0 } else { equal.into() };
        }
        if let Some(target) = target {
            context.write(target, &out);
        }
        if let Some(same) = same {
            context.write_predicate(same, (0..LANES).fold(0, |bits, lane| bits | u32::from(out[lane] != 0) << lane));
        }
        Ok(Outcome::Next)
    }))
}

/// `activemask.b32 d`: the lanes that execute it now (PTX ISA 9.7.13.11).
fn activemask(operands: &Operands) -> Result<Run, DecodeError> {
    if operands.parts() != ["b32"] {
        return operands.error("expected `activemask.b32`");
    }
    operands.count(1, 1)?;
    let target = operands.needed(0, Type::B32)?;
    Ok(Box::new(move |context| {
        context.write(target, &[context.mask.into(); LANES]);
        Ok(Outcome::Next)
    }))
}

/// `elect.sync d|p, membermask`: one lane of the mask, always the same one (PTX ISA 9.7.13.14). Here it is the lowest.
fn elect(operands: &Operands) -> Result<Run, DecodeError> {
    if operands.parts() != ["sync"] {
        return operands.error("expected `elect.sync`");
    }
    operands.count(2, 2)?;
    let Operand::Pair(target, elected) = operands.operand(0)? else { return operands.error("expected `d|p`") };
    let target = operands.result_of(target, Type::U32)?;
    let Some(elected) = operands.predicate_destination(elected)? else {
        return operands.error("expected a predicate in place of `_`");
    };
    let mask = operands.agreeing(1, Type::U32)?;
    let what = operands.instruction.name();
    Ok(Box::new(move |context| {
        let Some(members) = participants(context, &what, Some(mask))? else { return Ok(Outcome::Wait) };
        let leaders = members.map(u32::trailing_zeros);
        if let Some(target) = target {
            context.write(target, &leaders.map(u64::from));
        }
        let bits = (0..LANES).fold(0, |bits, lane| bits | u32::from(leaders[lane] as usize == lane) << lane);
        context.write_predicate(elected, bits);
        Ok(Outcome::Next)
    }))
}
