//! Addresses of the shared memory of a cluster's blocks: `mapa` and `getctarank` (PTX ISA 9.7.9.23-24).
//!
//! A shared address has the rank of its block, plus 1, in the bits from 24 on; an address without one, as variables have
//! it, means the memory of the block that executes. Hardware has the rank there too, also in the addresses of variables,
//! so there they can be handed to another block; here it must be an address that `mapa` made. What the ISA leaves
//! undefined is a fault: a rank that the cluster does not have, an address that is none of shared memory.

use super::access::{from_generic, to_generic};
use crate::ast::{Space, Type};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, Outcome, Source, address_in, named_rank};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::meter::Class;

/// What both instructions say.
struct Form {
    /// Without `.shared::cluster`.
    generic: bool,
    ty: Type,
    source: Source,
    name: String,
}

pub(crate) fn decode(operands: &Operands) -> Decoded {
    match operands.root() {
        "mapa" => map(operands),
        "getctarank" => rank(operands),
        _ => Ok(None),
    }
}

impl Form {
    fn decode(operands: &Operands, count: usize) -> Result<Self, DecodeError> {
        let (generic, ty) = match operands.parts().as_slice() {
            ["shared::cluster", "u32"] => (false, Type::U32),
            ["shared::cluster", "u64"] => (false, Type::U64),
            ["u64"] => (true, Type::U64),
            ["u32"] => return operands.error("generic addresses need 64 bits"),
            _ => return operands.error("expected {.shared::cluster}.u32 or .u64"),
        };
        operands.count(count, count)?;
        let source = operands.agreeing(1, ty)?;
        if generic && !matches!(source, Source::Register(_)) {
            return operands.error("a generic address is in a register");
        }
        Ok(Self { generic, ty, source, name: operands.instruction.name() })
    }

    /// The shared address of an operand's value.
    fn shared(&self, context: &Context, value: u64) -> Result<u64, Fault> {
        let address = match (self.generic, from_generic(value)) {
            (false, _) => Some(value),
            (true, (Space::Shared, address)) => Some(address),
            (true, _) => None,
        };
        let known = |address: &u64| named_rank(*address).is_none_or(|rank| rank < context.cluster.blocks.len());
        let why = || Fault::Trap(format!("`{}`: {value:#x} is no address of shared memory", self.name));
        address.filter(known).ok_or_else(why)
    }
}

fn map(operands: &Operands) -> Decoded {
    let form = Form::decode(operands, 3)?;
    let (target, block) = (operands.needed(0, form.ty)?, operands.agreeing(2, Type::U32)?);
    Ok(Some((
        Class::Memory,
        Box::new(move |context| {
            let (mut values, ranks) = (context.read(form.source), context.read(block));
            for lane in context.lanes() {
                context.lane = lane;
                let (address, rank) = (form.shared(context, values[lane])?, ranks[lane] as u32 as usize);
                let blocks = context.cluster.blocks.len();
                if rank >= blocks {
                    let why = format!("`{}`: block {} of a cluster of {blocks}", form.name, ranks[lane] as u32);
                    return Err(Fault::Trap(why));
                }
                let address = address_in(rank, address);
                values[lane] = if form.generic { to_generic(Space::Shared, address) } else { address };
            }
            context.write(target, &values);
            Ok(Outcome::Next)
        }),
    )))
}

fn rank(operands: &Operands) -> Decoded {
    let form = Form::decode(operands, 2)?;
    let target = operands.needed(0, Type::U32)?;
    Ok(Some((
        Class::Memory,
        Box::new(move |context| {
            let mut values = context.read(form.source);
            for lane in context.lanes() {
                context.lane = lane;
                let address = form.shared(context, values[lane])?;
                values[lane] = named_rank(address).unwrap_or(context.rank) as u64;
            }
            context.write(target, &values);
            Ok(Outcome::Next)
        }),
    )))
}
