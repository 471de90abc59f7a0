//! Addresses of every state space, and the values that are read there.
//!
//! A generic address (PTX ISA section 6.4.1.1) is a global address unless it lies in one of the windows
//! below, which stand for the other spaces. Global allocations lie far above all windows.

use crate::ast::{Operand, Space, Type};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, LANES, Lanes, Source, named_rank};
use crate::fault::Fault;

/// Bytes of each window of the generic space.
const WINDOW: u64 = 1 << 32;

/// The spaces that have a window, with its beginning.
const WINDOWS: [(Space, u64); 4] = [
    (Space::Shared, 0x0100_0000_0000),
    (Space::Local, 0x0200_0000_0000),
    (Space::Param, 0x0300_0000_0000),
    (Space::Const, 0x0400_0000_0000),
];

/// The generic address of `address` in `space`.
pub(super) fn to_generic(space: Space, address: u64) -> u64 {
    WINDOWS.iter().find(|(of, _)| *of == space).map_or(address, |(_, base)| base.wrapping_add(address))
}

/// Space of a generic address, and the address in that space.
pub(crate) fn from_generic(address: u64) -> (Space, u64) {
    let inside = WINDOWS.iter().find(|(_, base)| address.checked_sub(*base).is_some_and(|offset| offset < WINDOW));
    inside.map_or((Space::Global, address), |(space, base)| (*space, address - base))
}

/// The state space of an opcode's part.
pub(super) fn space_of(part: &str) -> Option<Space> {
    Some(match part {
        "global" => Space::Global,
        "shared" | "shared::cta" | "shared::cluster" => Space::Shared,
        "local" => Space::Local,
        "param" | "param::entry" | "param::func" => Space::Param,
        "const" => Space::Const,
        _ => return None,
    })
}

/// The address operand of an instruction.
pub(crate) struct Address {
    base: Source,
    offset: i64,
    /// Whether the base is a 32-bit register, so that the sum wraps there.
    narrow: bool,
    /// `None` for generic addresses.
    pub space: Option<Space>,
    /// Whether it is in the window `.shared::cta`, which `.shared` stands for as well: no other block's memory.
    own: bool,
}

impl Address {
    /// Operand `index`, in the space that the opcode names; a variable that is named without one brings its own.
    pub fn decode(operands: &Operands, index: usize, space: Option<Space>) -> Result<Self, DecodeError> {
        let (base, offset) = operands.address(index)?;
        let narrow = match operands.operand(index)? {
            Operand::Address { base, .. } => {
                operands.check_address(base)?;
                operands.register_type(base).is_some_and(|ty| ty.size() <= 4)
            }
            _ => false,
        };
        let space = space.or_else(|| operands.named_space(index));
        let own = space == Some(Space::Shared) && !operands.has("shared::cluster");
        Ok(Self { base, offset, narrow, space, own })
    }

    /// Every lane's address as written.
    pub fn lanes(&self, context: &Context) -> Lanes {
        let sum = |base: u64| {
            if self.narrow {
                u64::from((base as u32).wrapping_add(self.offset as u32))
            } else {
                base.wrapping_add_signed(self.offset)
            }
        };
        context.read(self.base).map(sum)
    }

    /// Every active lane's space and address in that space.
    pub fn resolve(&self, context: &mut Context) -> Result<[(Space, u64); LANES], Fault> {
        let lanes = self.lanes(context);
        if self.own && context.cluster.blocks.len() > 1 {
            only_own(context, &lanes)?;
        }
        Ok(match self.space {
            Some(space) => lanes.map(|address| (space, address)),
            None => lanes.map(from_generic),
        })
    }
}

/// A fault if a shared address of an active lane is another block's.
fn only_own(context: &mut Context, addresses: &Lanes) -> Result<(), Fault> {
    let (own, blocks) = (context.rank, context.cluster.blocks.len());
    for lane in context.lanes() {
        if let Some(rank) = named_rank(addresses[lane]).filter(|&rank| rank != own && rank < blocks) {
            context.lane = lane;
            let address = addresses[lane];
            let why = format!("address {address:#x} of the cluster's block {rank} is not in `.shared::cta`");
            return Err(Fault::Trap(why));
        }
    }
    Ok(())
}

/// A value of `ty`, given by its bits, extended to a register of `register` bytes (PTX ISA section 9.4.1).
#[inline(always)]
pub(super) fn extend(ty: Type, value: u64, register: usize) -> u64 {
    let signed = match ty {
        Type::S8 => value as i8 as u64,
        Type::S16 => value as i16 as u64,
        Type::S32 => value as i32 as u64,
        _ => value,
    };
    if register >= 8 { signed } else { signed & ((1 << (8 * register)) - 1) }
}
