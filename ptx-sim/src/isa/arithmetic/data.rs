//! Moves: `mov`, `cvta`, and packing with `mov.b64 {a, b}, c`.

use std::mem::MaybeUninit;

use super::numeric::apply;
use crate::ast::{Operand, Type};
use crate::decode::Operands;
use crate::exec::{Context, Kernel, LANES, Lanes, Outcome, Run, Source, Vectors, Words, run_vectors};
use crate::isa::Decoded;
use crate::meter::Class;

pub(crate) fn decode(operands: &Operands) -> Decoded {
    match operands.root() {
        "mov" => mov(operands),
        _ => Ok(None),
    }
}

/// `mov` copies a value, a special register or an address; with braces it packs and unpacks (PTX ISA 9.7.9.3-4).
fn mov(operands: &Operands) -> Decoded {
    operands.only(&[])?;
    operands.count(2, 2)?;
    let [ty] = operands.types()[..] else { return operands.error("expected one type") };
    if ty == Type::Pred {
        let target = operands.predicate_destination(operands.operand(0)?)?;
        let source = operands.source(1, ty)?;
        return Ok(Some((
            Class::Move,
            Box::new(move |context| {
                let values = context.read(source);
                let bits = (0..LANES).fold(0, |bits, lane| bits | u32::from(values[lane] != 0) << lane);
                if let Some(target) = target {
                    context.write_predicate(target, bits);
                }
                Ok(Outcome::Next)
            }),
        )));
    }
    if ty == Type::B128 {
        return wide(operands);
    }
    match (operands.operand(0)?, operands.operand(1)?) {
        (Operand::Vector(targets), _) => {
            let Some(width) = part_bits(ty, targets.len()) else { return operands.error("cannot be unpacked so") };
            let targets = targets.iter().map(|t| operands.register(t)).collect::<Result<Vec<_>, _>>()?;
            let source = operands.source(1, ty)?;
            Ok(Some((
                Class::Move,
                Box::new(move |context| {
                    run_vectors(Unpack { context, targets: &targets, source, width });
                    Ok(Outcome::Next)
                }),
            )))
        }
        (_, Operand::Vector(sources)) => {
            let Some(width) = part_bits(ty, sources.len()) else { return operands.error("cannot be packed so") };
            let part = match width {
                8 => Type::B8,
                16 => Type::B16,
                _ => Type::B32,
            };
            let sources = sources.iter().map(|s| operands.value(s, part)).collect::<Result<Vec<Source>, _>>()?;
            let target = operands.destination(0)?;
            Ok(Some((
                Class::Move,
                Box::new(move |context| {
                    run_vectors(Pack { context, target, sources: &sources, width });
                    Ok(Outcome::Next)
                }),
            )))
        }
        _ => {
            let (target, source) = (operands.destination(0)?, operands.source(1, ty)?);
            let run: Run = match ty.size() {
                1 => Box::new(move |context| apply(context, target, [source], &|[a]: [u8; 1]| a)),
                2 => Box::new(move |context| apply(context, target, [source], &|[a]: [u16; 1]| a)),
                4 => Box::new(move |context| apply(context, target, [source], &|[a]: [u32; 1]| a)),
                _ => Box::new(move |context| apply(context, target, [source], &|[a]: [u64; 1]| a)),
            };
            Ok(Some((Class::Move, run)))
        }
    }
}

/// A value cut into parts of `width` bits.
struct Unpack<'a, 'b> {
    context: &'a mut Context<'b>,
    targets: &'a [Option<usize>],
    source: Source,
    width: usize,
}

impl Kernel for Unpack<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vectors>(self) {
        // A target may be the source: it is read first.
        let values: Lanes = *self.context.view(self.source, &mut MaybeUninit::uninit());
        for (i, target) in self.targets.iter().enumerate() {
            if let Some(target) = *target {
                let parts: Words = values.map(|value| cut(value >> (self.width * i), self.width) as u32);
                self.context.write_typed(target, &parts);
            }
        }
    }
}

/// Parts of `width` bits put together.
struct Pack<'a, 'b> {
    context: &'a mut Context<'b>,
    target: Option<usize>,
    sources: &'a [Source],
    width: usize,
}

impl Kernel for Pack<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vectors>(self) {
        let Some(target) = self.target else { return };
        let mut packed = [0; LANES];
        for (i, source) in self.sources.iter().enumerate() {
            let mut room = MaybeUninit::uninit();
            let parts: &Words = self.context.view(*source, &mut room);
            for (packed, part) in packed.iter_mut().zip(parts) {
                *packed |= cut(u64::from(*part), self.width) << (self.width * i);
            }
        }
        self.context.write_typed::<u64>(target, &packed);
    }
}

/// `mov.b128`, whole or to and from two halves: a 128-bit register takes two places, the low half first.
fn wide(operands: &Operands) -> Decoded {
    let targets = match operands.operand(0)? {
        Operand::Vector(parts) => parts.iter().map(|part| operands.register(part)).collect::<Result<Vec<_>, _>>()?,
        _ => {
            let low = operands.destination(0)?;
            vec![low, low.map(|low| low + 1)]
        }
    };
    let sources = match operands.operand(1)? {
        Operand::Vector(parts) => {
            parts.iter().map(|part| operands.value(part, Type::B64)).collect::<Result<Vec<_>, _>>()?
        }
        _ => match operands.source(1, Type::B128)? {
            Source::Register(low) => vec![Source::Register(low), Source::Register(low + 1)],
            _ => return operands.error("expected a 128-bit register"),
        },
    };
    let is_wide = |index| Ok(operands.register_type(operands.operand(index)?) == Some(Type::B128));
    let halves = |index| Ok(matches!(operands.operand(index)?, Operand::Vector(parts) if parts.len() == 2));
    if !(is_wide(0)? && (is_wide(1)? || halves(1)?) || is_wide(1)? && halves(0)?) {
        return operands.error("expected a 128-bit register, and another or two of 64 bits");
    }
    Ok(Some((
        Class::Move,
        Box::new(move |context| {
            // A source may be a target: both are read first.
            let values = [context.read(sources[0]), context.read(sources[1])];
            for (target, values) in targets.iter().zip(&values) {
                if let Some(target) = *target {
                    context.write(target, values);
                }
            }
            Ok(Outcome::Next)
        }),
    )))
}

/// Bits of each part if a value of `ty` is cut into `parts`.
fn part_bits(ty: Type, parts: usize) -> Option<usize> {
    let bits = 8 * ty.size();
    (bits <= 64 && matches!(parts, 2 | 4) && bits / parts >= 8).then_some(bits / parts)
}

fn cut(value: u64, bits: usize) -> u64 {
    if bits >= 64 { value } else { value & ((1 << bits) - 1) }
}
