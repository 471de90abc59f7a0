//! Hints for the caches: `prefetch`, `prefetchu`, `applypriority` and `discard` (PTX ISA 9.7.9.15-17).
//!
//! They change nothing that a program could see, and an address out of bounds is no fault in them; but for `discard`,
//! which is a write of values that nobody knows: the checker finds who reads them.

use super::access::{Address, from_generic};
use crate::ast::{Operand, Space};
use crate::decode::Operands;
use crate::exec::{Context, Outcome};
use crate::fault::{Fault, SpaceName};
use crate::isa::Decoded;
use crate::meter::Class;

/// Bytes of the only range that `applypriority` and `discard` take, and its alignment.
const LINE: u64 = 128;

pub(crate) fn decode(operands: &Operands) -> Decoded {
    let (space, discards) = match (operands.root(), operands.parts().as_slice()) {
        ("prefetch", ["global", "L1" | "L2" | "L2::evict_last" | "L2::evict_normal"]) => (Some(Space::Global), None),
        ("prefetch", ["local", "L1" | "L2"]) => (Some(Space::Local), None),
        // Generic addresses; ptxas takes the eviction priorities there too.
        ("prefetch", ["L1" | "L2" | "L2::evict_last" | "L2::evict_normal" | "tensormap"]) | ("prefetchu", ["L1"]) => {
            (None, None)
        }
        ("prefetch", ["const", "tensormap"]) => (Some(Space::Const), None),
        ("prefetch", ["param", "tensormap"]) => (Some(Space::Param), None),
        ("applypriority", ["L2::evict_normal"]) => (None, Some(false)),
        ("applypriority", ["global", "L2::evict_normal"]) => (Some(Space::Global), Some(false)),
        ("discard", ["L2"]) => (None, Some(true)),
        ("discard", ["global", "L2"]) => (Some(Space::Global), Some(true)),
        ("prefetch" | "prefetchu" | "applypriority" | "discard", _) => return operands.error("no such hint"),
        _ => return Ok(None),
    };
    let count = 1 + usize::from(discards.is_some());
    operands.count(count, count)?;
    let address = Address::decode(operands, 0, space)?;
    let Some(discards) = discards else {
        return Ok(Some((Class::Memory, Box::new(|_| Ok(Outcome::Next)))));
    };
    if !matches!(operands.operand(1)?, Operand::Integer(LINE)) {
        return operands.error(format!("the size is {LINE}"));
    }
    let action = if discards { "discard" } else { "applypriority" };
    Ok(Some((
        Class::Memory,
        Box::new(move |context| {
            let addresses = address.lanes(context);
            for lane in context.lanes() {
                context.lane = lane;
                range(context, action, space, addresses[lane], discards)?;
            }
            Ok(Outcome::Next)
        }),
    )))
}

/// A lane's range of global memory.
fn range(
    context: &Context,
    action: &'static str,
    space: Option<Space>,
    address: u64,
    discards: bool,
) -> Result<(), Fault> {
    let (space, address) = space.map_or_else(|| from_generic(address), |space| (space, address));
    if space != Space::Global {
        let space = SpaceName(space);
        return Err(Fault::Trap(format!("{action} of {space} memory, where the ISA has it for global memory alone")));
    }
    if !address.is_multiple_of(LINE) {
        let (space, size) = (SpaceName(space), LINE as usize);
        return Err(Fault::Misaligned { action, space, address, size, alignment: size });
    }
    if discards { context.grid.memory.forget(address, LINE as usize) } else { Ok(()) }
}
