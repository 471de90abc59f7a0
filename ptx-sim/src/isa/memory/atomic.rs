//! `atom` and `red`: lanes take their turns in ascending order (PTX ISA 9.7.13.5-6).

use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::fence;

use super::access::{Address, extend, space_of};
use super::memory::is_hint;
use super::policy::policy;
use super::reduction::{Operation, wide};
use super::traffic::{Kind, count};
use crate::ast::{Space, Type};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, LANES, Outcome, Source, Target};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::meter::Class;

/// Orders, scopes and roundings that change nothing here: every atomic is strong, and subnormals are kept.
const KNOWN: [&str; 10] =
    ["relaxed", "acquire", "release", "acq_rel", "cta", "cluster", "gpu", "sys", "noftz", "L2::cache_hint"];

struct Form {
    operation: Operation,
    ty: Type,
    vector: usize,
    address: Address,
    /// Old values: a register place per element, and bytes of the register.
    targets: Vec<Option<(usize, usize)>>,
    /// Register places of the operand, and of `cas`'s second one.
    operands: [Vec<Source>; 2],
}

pub(crate) fn decode(operands: &Operands) -> Decoded {
    let returns = match operands.root() {
        "atom" => true,
        "red" if operands.has("async") => return Ok(None),
        "red" => false,
        _ => return Ok(None),
    };
    let (mut space, mut vector, mut operation) = (None, 1, None);
    for part in operands.modifiers() {
        match part {
            "v2" => vector = 2,
            "v4" => vector = 4,
            "v8" => vector = 8,
            _ if space_of(part).is_some() => space = space_of(part),
            _ if Operation::from_name(part).is_some() => operation = Operation::from_name(part),
            _ if KNOWN.contains(&part) || is_hint(part) || Type::from_name(part).is_some() => {}
            _ => return operands.error(format!("unknown part `.{part}`")),
        }
    }
    let ([ty], Some(operation)) = (&operands.types()[..], operation) else {
        return operands.error("expected an operation and a type");
    };
    let in_space = matches!(space, None | Some(Space::Global | Space::Shared));
    let fits = ty.size() * vector <= 16 && (vector == 1 || space == Some(Space::Global) || space.is_none());
    if !operation.takes(*ty, vector) || !in_space || !fits {
        return operands.error("no such atomic");
    }
    let first = usize::from(returns);
    let values = if operation == Operation::Cas { 2 } else { 1 };
    let hinted = usize::from(operands.has("L2::cache_hint"));
    operands.count(first + 1 + values + hinted, first + 1 + values + hinted)?;
    policy(operands, first + 1 + values)?;
    let value = |index: usize| sources(operands, index, *ty, vector);
    let form = Form {
        operation,
        ty: *ty,
        vector,
        address: Address::decode(operands, first, space)?,
        targets: if returns { targets(operands, *ty, vector)? } else { Vec::new() },
        operands: [value(first + 1)?, if values == 2 { value(first + 2)? } else { Vec::new() }],
    };
    Ok(Some((Class::Atomic, Box::new(move |context| form.execute(context)))))
}

fn sources(operands: &Operands, index: usize, ty: Type, vector: usize) -> Result<Vec<Source>, DecodeError> {
    let elements = operands.elements(index)?;
    if elements.len() != vector {
        return operands.error(format!("expected {vector} values, found {}", elements.len()));
    }
    if ty == Type::B128 {
        return match operands.agreeing_value(&elements[0], ty)? {
            Source::Register(register) => Ok(vec![Source::Register(register), Source::Register(register + 1)]),
            _ => operands.error("expected a 128-bit register"),
        };
    }
    elements.iter().map(|element| operands.agreeing_value(element, ty)).collect()
}

fn targets(operands: &Operands, ty: Type, vector: usize) -> Result<Vec<Option<(usize, usize)>>, DecodeError> {
    let elements = operands.elements(0)?;
    if elements.len() != vector && elements.len() != 1 {
        return operands.error(format!("expected {vector} registers, found {}", elements.len()));
    }
    let mut targets = Vec::new();
    for element in elements {
        let width = operands.register_type(element).map_or(8, Type::size);
        let register = operands.result_of(element, ty)?;
        targets.push(register.map(|register| (register, width)));
        if ty == Type::B128 {
            targets.push(register.map(|register| (register + 1, width)));
        }
    }
    Ok(targets)
}

impl Form {
    fn execute(&self, context: &mut Context) -> Result<Outcome, Fault> {
        let places = self.address.resolve(context)?;
        let size = self.ty.size() * self.vector;
        count(context, Kind::Atomic, &places, size);
        let piece = size / self.operands[0].len();
        let values = [0, 1].map(|i| self.operands[i].iter().map(|s| context.read(*s)).collect::<Vec<_>>());
        if context.cluster.is_watched() {
            context.warp.note_look(context.at, context.mask, places[context.lane]);
        }
        // As strong stores and loads have them.
        fence(Release);
        let mut old = [[0; 16]; LANES];
        for lane in context.lanes() {
            let (space, address) = places[lane];
            let target = Target { lane, space, address, strong: true };
            let bytes = |operand: usize| {
                let mut bytes = [0; 16];
                for (i, lanes) in values[operand].iter().enumerate() {
                    bytes[i * piece..(i + 1) * piece].copy_from_slice(&lanes[lane].to_le_bytes()[..piece]);
                }
                bytes
            };
            let (a, b) = (bytes(0), bytes(1));
            old[lane] = target.update(context, size, |old| self.apply(old, &a, &b))?;
        }
        fence(Acquire);
        for (i, target) in self.targets.iter().enumerate() {
            if let Some((register, width)) = *target {
                let ty = if self.ty == Type::B128 { Type::B64 } else { self.ty };
                let value = |lane: usize| {
                    let mut bits = [0; 8];
                    bits[..piece].copy_from_slice(&old[lane][i * piece..(i + 1) * piece]);
                    extend(unsigned(ty), u64::from_le_bytes(bits), width.min(8))
                };
                context.write(register, &std::array::from_fn(value));
            }
        }
        Ok(Outcome::Next)
    }

    fn apply(&self, old: [u8; 16], a: &[u8; 16], b: &[u8; 16]) -> [u8; 16] {
        let size = self.ty.size();
        let mut new = [0; 16];
        for at in (0..size * self.vector).step_by(size) {
            let [old, a, b] = [&old, a, b].map(|bytes| wide(&bytes[at..at + size]));
            let result = self.operation.apply(self.ty, old, a, b);
            new[at..at + size].copy_from_slice(&result.to_le_bytes()[..size]);
        }
        new
    }
}

/// Old values keep their bits: they are as wide as their registers.
fn unsigned(ty: Type) -> Type {
    match ty.size() {
        2 => Type::B16,
        4 => Type::B32,
        _ => Type::B64,
    }
}
