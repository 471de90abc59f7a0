//! `createpolicy`: cache eviction policies, which instructions with `.L2::cache_hint` take (PTX ISA 9.7.9.18).
//!
//! A policy changes nothing that a program could see, and its 64 bits are opaque: those made here say by which form and
//! with which priorities. Any 64 bits are accepted as one, since code in the field has those of a GPU as constants.
//! What the ISA gives no meaning is a fault, or an error where a constant shows it: a fraction outside of (0, 1], a
//! primary range longer than the whole, a range that is not in global memory.

use super::access::Address;
use crate::ast::{Space, Type};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, LANES, Outcome, Run, Source};
use crate::fault::{Fault, SpaceName};
use crate::isa::Decoded;
use crate::meter::Class;

/// Checks the cache policy, operand `index` if the opcode has `.L2::cache_hint`.
pub(super) fn policy(operands: &Operands, index: usize) -> Result<(), DecodeError> {
    if operands.has("L2::cache_hint") {
        operands.agreeing(index, Type::U64)?;
    }
    Ok(())
}

/// Priorities that a policy gives the primary part of the accesses. The others get one of the last two, without a word
/// the last.
const PRIORITIES: [&str; 4] = ["L2::evict_last", "L2::evict_normal", "L2::evict_first", "L2::evict_unchanged"];

/// What a policy is made of, in its bits.
#[derive(Clone, Copy)]
enum Form {
    Fractional = 1,
    Range = 2,
    Converted = 3,
}

/// The bits of a policy: never those of a number that a kernel is likely to have by mistake.
fn bits(form: Form, [primary, secondary]: [usize; 2]) -> u64 {
    0x1000_0000_0000_0000 | (form as u64) << 56 | (primary as u64) << 52 | (secondary as u64) << 48
}

pub(crate) fn decode(operands: &Operands) -> Decoded {
    if operands.root() != "createpolicy" {
        return Ok(None);
    }
    let run = match operands.parts().as_slice() {
        ["fractional", priorities @ .., "b64"] => fractional(operands, priorities),
        ["range", "global", priorities @ .., "b64"] => range(operands, Some(Space::Global), priorities),
        ["range", priorities @ .., "b64"] => range(operands, None, priorities),
        ["cvt", "L2", "b64"] => {
            operands.count(2, 2)?;
            let (target, _) = (operands.needed(0, Type::U64)?, operands.agreeing(1, Type::U64)?);
            Ok(made(target, bits(Form::Converted, [0, 0]), |_| Ok(())))
        }
        _ => operands.error("expected `.fractional`, `.range` or `.cvt.L2`, and `.b64` at the end"),
    };
    run.map(|run| Some((Class::Memory, run)))
}

/// An instruction that writes a policy, once `check` has found nothing wrong.
fn made(target: usize, policy: u64, check: impl Fn(&mut Context) -> Result<(), Fault> + Send + Sync + 'static) -> Run {
    Box::new(move |context| {
        check(context)?;
        context.write(target, &[policy; LANES]);
        Ok(Outcome::Next)
    })
}

/// The numbers of `.level::primary_priority{.level::secondary_priority}`.
fn priorities(operands: &Operands, parts: &[&str]) -> Result<[usize; 2], DecodeError> {
    let number = |part: &str| PRIORITIES.iter().position(|known| *known == part);
    let found = match *parts {
        [primary] => number(primary).zip(Some(PRIORITIES.len() - 1)),
        [primary, secondary] => number(primary).zip(number(secondary).filter(|&number| number >= 2)),
        _ => None,
    };
    match found {
        Some((primary, secondary)) => Ok([primary, secondary]),
        None => operands.error(
            "expected a primary priority, of L2::evict_last, evict_normal, evict_first and evict_unchanged, and perhaps \
             a secondary one, of the last two",
        ),
    }
}

/// `createpolicy.fractional.primary{.secondary}.b64 policy{, fraction}`.
fn fractional(operands: &Operands, parts: &[&str]) -> Result<Run, DecodeError> {
    let policy = bits(Form::Fractional, priorities(operands, parts)?);
    let written = operands.count(1, 2)? == 2;
    let target = operands.needed(0, Type::U64)?;
    if !written {
        return Ok(made(target, policy, |_| Ok(())));
    }
    let fraction = operands.agreeing(1, Type::F32)?;
    if let Source::Immediate(bits) = fraction
        && let Some(why) = wrong_fraction(bits)
    {
        return operands.error(why);
    }
    Ok(made(target, policy, move |context| {
        let fractions = context.read(fraction);
        each(context, |lane| wrong_fraction(fractions[lane]))
    }))
}

/// What is wrong with a fraction, given by the bits of an f32.
fn wrong_fraction(bits: u64) -> Option<String> {
    let fraction = f32::from_bits(bits as u32);
    let right = fraction > 0.0 && fraction <= 1.0;
    (!right).then(|| format!("a fraction of {fraction}, which is not more than 0 and at most 1"))
}

/// `createpolicy.range{.global}.primary{.secondary}.b64 policy, [a], primary-size, total-size`.
fn range(operands: &Operands, space: Option<Space>, parts: &[&str]) -> Result<Run, DecodeError> {
    let policy = bits(Form::Range, priorities(operands, parts)?);
    operands.count(4, 4)?;
    let target = operands.needed(0, Type::U64)?;
    let address = Address::decode(operands, 1, space)?;
    let sizes = [operands.agreeing(2, Type::U32)?, operands.agreeing(3, Type::U32)?];
    if let [Source::Immediate(primary), Source::Immediate(total)] = sizes
        && let Some(why) = wrong_sizes(primary, total)
    {
        return operands.error(why);
    }
    Ok(made(target, policy, move |context| {
        let ([primary, total], places) = (sizes.map(|size| context.read(size)), address.resolve(context)?);
        each(context, |lane| {
            let (space, address) = places[lane];
            let outside = (space != Space::Global)
                .then(|| format!("a range at {address:#x} of {} memory, where the ISA has global", SpaceName(space)));
            outside.or_else(|| wrong_sizes(primary[lane], total[lane]))
        })
    }))
}

/// What is wrong with the sizes of a range, in bytes.
fn wrong_sizes(primary: u64, total: u64) -> Option<String> {
    let (primary, total) = (primary as u32, total as u32);
    (primary > total).then(|| format!("a primary range of {primary} bytes in one of {total}"))
}

/// Returns the fault of the first lane that executes with something wrong.
fn each(context: &mut Context, wrong: impl Fn(usize) -> Option<String>) -> Result<(), Fault> {
    for lane in context.lanes() {
        if let Some(why) = wrong(lane) {
            context.lane = lane;
            return Err(Fault::Trap(format!("createpolicy: {why}")));
        }
    }
    Ok(())
}
