//! Loads, stores and conversions of addresses (PTX ISA 9.7.9).

use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::fence;

use super::access::{Address, extend, from_generic, space_of, to_generic};
use super::lanes::{Data, WIDEST, piece, read, write};
use super::policy::policy;
use super::traffic::{Kind, count};
use crate::ast::{Operand, Space, Type};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, LANES, Outcome, Source, named_rank};
use crate::isa::Decoded;
use crate::meter::Class;

/// Parts of `ld` and `st` that say how caches or the memory model treat an access. Only strength matters here.
const STRONG: [&str; 5] = ["volatile", "relaxed", "acquire", "release", "mmio"];
const SCOPES: [&str; 4] = ["cta", "cluster", "gpu", "sys"];
const CACHING: [&str; 10] = ["weak", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "unified"];

pub(crate) fn decode(operands: &Operands) -> Decoded {
    match operands.root() {
        "ld" | "ldu" => load(operands),
        "st" if operands.has("async") => Ok(None),
        "st" => store(operands),
        "cvta" => convert(operands),
        "isspacep" => is_space(operands),
        _ => Ok(None),
    }
}

/// Whether a part is a hint for a cache level: `L1::evict_last`, `L2::128B`, `L2::cache_hint`.
pub(super) fn is_hint(part: &str) -> bool {
    let rest = part.strip_prefix("L1::").or_else(|| part.strip_prefix("L2::")).or_else(|| part.strip_prefix("level::"));
    let known = [
        "evict_normal",
        "evict_unchanged",
        "evict_first",
        "evict_last",
        "no_allocate",
        "cache_hint",
        "64B",
        "128B",
        "256B",
    ];
    rest.is_some_and(|rest| known.contains(&rest))
}

/// What the opcode of a load or store says.
struct Form {
    space: Option<Space>,
    ty: Type,
    /// Elements per lane.
    vector: usize,
    strong: bool,
}

impl Form {
    fn decode(operands: &Operands) -> Result<Self, DecodeError> {
        let (mut space, mut vector) = (None, 1);
        for part in operands.modifiers() {
            match part {
                "v2" => vector = 2,
                "v4" => vector = 4,
                "v8" => vector = 8,
                _ if space_of(part).is_some() => space = space_of(part),
                _ => {
                    let known = STRONG.contains(&part) || SCOPES.contains(&part) || CACHING.contains(&part);
                    if !known && !is_hint(part) && Type::from_name(part).is_none() {
                        return operands.error(format!("unknown part `.{part}`"));
                    }
                }
            }
        }
        let [ty] = operands.types()[..] else { return operands.error("expected one type") };
        if ty == Type::Pred || ty.size() * vector > WIDEST {
            return operands.error("no such access");
        }
        let hinted = usize::from(operands.has("L2::cache_hint"));
        operands.count(2 + hinted, 2 + hinted)?;
        policy(operands, 2)?;
        let strong = operands.modifiers().any(|part| STRONG.contains(&part));
        Ok(Self { space, ty, vector, strong })
    }

    fn size(&self) -> usize {
        self.ty.size() * self.vector
    }

    /// The registers of a vector operand; a register declared as a vector stands for its elements.
    fn registers(&self, operands: &Operands, index: usize) -> Result<Vec<Option<(usize, usize)>>, DecodeError> {
        let elements = operands.elements(index)?;
        let width = |operand: &Operand| operands.register_type(operand).map_or(8, Type::size);
        let declared = self.vector > 1 && elements.len() == 1;
        if !declared && elements.len() != self.vector {
            return operands.error(format!("expected {} registers, found {}", self.vector, elements.len()));
        }
        if let (true, Operand::Name(name)) = (declared, &elements[0]) {
            let last = ["x", "y", "z", "w"].get(self.vector - 1);
            if last.is_none_or(|last| operands.names.find(&format!("{name}.{last}")).is_none()) {
                return operands.error(format!("`{name}` has less than {} elements", self.vector));
            }
        }
        let register = |i: usize| {
            let element = &elements[if declared { 0 } else { i }];
            let first = operands.register(element)?;
            let behind = if declared { i * self.pieces() } else { 0 };
            Ok(first.map(|register| (register + behind, width(element))))
        };
        (0..self.vector).map(register).collect()
    }

    /// Register places per element: a 128-bit register takes two.
    fn pieces(&self) -> usize {
        self.ty.size().div_ceil(8)
    }
}

fn load(operands: &Operands) -> Decoded {
    let form = Form::decode(operands)?;
    let elements = operands.elements(0)?;
    if matches!(elements, [Operand::Sink]) {
        return operands.error("expected a register in place of `_`");
    }
    operands.check_vector(elements)?;
    elements.iter().try_for_each(|element| operands.check_loaded(element, form.ty))?;
    let registers = form.registers(operands, 0)?;
    let address = Address::decode(operands, 1, form.space)?;
    Ok(Some((
        Class::Memory,
        Box::new(move |context| {
            let places = address.resolve(context)?;
            count(context, Kind::Read, &places, form.size());
            let mut data = [[0; LANES]; WIDEST / 4];
            read(context, &places, form.strong, form.size(), &mut data)?;
            if form.strong {
                // On this computer, too, what the writer did before comes before what follows: blocks on other cores.
                fence(Acquire);
            }
            for (element, register) in registers.iter().enumerate() {
                let Some((register, width)) = *register else { continue };
                for part in 0..form.pieces() {
                    let at = element * form.ty.size() + part * 8;
                    match form.ty.size() {
                        4 if width == 4 => context.write_typed(register, &data[at / 4]),
                        size => {
                            let wide = |lane: usize| extend(form.ty, piece(&data, lane, at, size.min(8)), width);
                            context.write(register + part, &std::array::from_fn(wide));
                        }
                    }
                }
            }
            Ok(Outcome::Next)
        }),
    )))
}

fn store(operands: &Operands) -> Decoded {
    let form = Form::decode(operands)?;
    let address = Address::decode(operands, 0, form.space)?;
    let elements = operands.elements(1)?;
    operands.check_vector(elements)?;
    elements.iter().try_for_each(|element| operands.check_stored(element, form.ty))?;
    let is_register = |operand: &Operand| operands.register_type(operand).is_some();
    let mut sources = Vec::new();
    if elements.iter().all(is_register) {
        for (register, _) in form.registers(operands, 1)?.into_iter().flatten() {
            sources.extend((0..form.pieces()).map(|part| Source::Register(register + part)));
        }
    } else {
        if elements.len() != form.vector || form.pieces() > 1 {
            return operands.error(format!("expected {} values, found {}", form.vector, elements.len()));
        }
        for element in elements {
            sources.push(operands.value(element, form.ty)?);
        }
    }
    Ok(Some((
        Class::Memory,
        Box::new(move |context| {
            let places = address.resolve(context)?;
            count(context, Kind::Write, &places, form.size());
            let mut data = [[0; LANES]; WIDEST / 4];
            let size = form.ty.size().min(8);
            for (i, source) in sources.iter().enumerate() {
                put_pieces(context, *source, size, i * size, &mut data);
            }
            if form.strong {
                fence(Release);
            }
            write(context, &places, form.strong, form.size(), &data)?;
            Ok(Outcome::Next)
        }),
    )))
}

/// Puts the lowest `size` bytes of a source's values at byte `at` of every lane's data.
fn put_pieces(context: &Context, source: Source, size: usize, at: usize, data: &mut Data) {
    let shift = 8 * (at % 4);
    match size {
        4 => data[at / 4] = context.words(source),
        8 => {
            let values = context.read(source);
            data[at / 4] = values.map(|value| value as u32);
            data[at / 4 + 1] = values.map(|value| (value >> 32) as u32);
        }
        _ => {
            let mask = (1 << (8 * size)) - 1;
            let words = context.words(source);
            data[at / 4].iter_mut().zip(&words).for_each(|(data, word)| *data |= (word & mask) << shift);
        }
    }
}

/// `cvta` and `cvta.to` (PTX ISA 9.7.9.20). The address of another block's memory keeps its block in both directions,
/// whether `.shared` says `::cluster` or not: the ISA leaves the result without it undefined, hardware does the same, and
/// the access says whether the address is right.
fn convert(operands: &Operands) -> Decoded {
    let is_known = |part: &str| part == "to" || matches!(part, "u32" | "u64") || space_of(part).is_some();
    if let Some(unknown) = operands.modifiers().find(|part| !is_known(part)) {
        return operands.error(format!("unknown part `.{unknown}`"));
    }
    operands.count(2, 2)?;
    let [ty] = operands.types()[..] else { return operands.error("expected one type") };
    let Some(space) = operands.modifiers().find_map(space_of) else { return operands.error("expected a state space") };
    let (target, source) = (operands.needed(0, ty)?, operands.agreeing(1, ty)?);
    let to = operands.has("to");
    // The windows lie beyond 32 bits, so an address that is no global one cannot be generic in a 32-bit register.
    if ty == Type::U32 && space != Space::Global {
        return operands.error("generic addresses need 64 bits");
    }
    Ok(Some((
        Class::Memory,
        Box::new(move |context| {
            let mut values = context.read(source);
            for lane in context.lanes() {
                values[lane] = if to {
                    let (found, address) = from_generic(values[lane]);
                    // An address of another space has no meaning in this one; it stays, and an access will fail.
                    if found == space { address } else { values[lane] }
                } else {
                    to_generic(space, values[lane])
                };
            }
            context.write(target, &values);
            Ok(Outcome::Next)
        }),
    )))
}

fn is_space(operands: &Operands) -> Decoded {
    let [part] = operands.modifiers().collect::<Vec<_>>()[..] else { return operands.error("expected a state space") };
    let Some(space) = space_of(part) else { return operands.error(format!("unknown part `.{part}`")) };
    // `.shared` is `.shared::cta`: the window of the own block, as opposed to that of the cluster.
    let cluster = part == "shared::cluster";
    operands.count(2, 2)?;
    let target = operands.needed_predicate(0)?;
    let narrow = operands.register_type(operands.operand(1)?).is_some_and(|ty| ty.size() == 4);
    let source = operands.agreeing(1, if narrow { Type::U32 } else { Type::U64 })?;
    Ok(Some((
        Class::Memory,
        Box::new(move |context| {
            let addresses = context.read(source);
            let (own, blocks) = (context.rank, context.cluster.blocks.len());
            let inside = |lane: usize| match from_generic(addresses[lane]) {
                (Space::Shared, address) if space == Space::Shared => {
                    named_rank(address).is_none_or(|rank| rank == own || cluster && rank < blocks)
                }
                (found, _) => found == space,
            };
            let bits = (0..LANES).fold(0, |bits, lane| bits | u32::from(inside(lane)) << lane);
            context.write_predicate(target, bits);
            Ok(Outcome::Next)
        }),
    )))
}
