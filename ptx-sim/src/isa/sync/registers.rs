//! `setmaxnreg`: warps of a warpgroup give registers to their block's pool, or take some (PTX ISA 9.7.19.5).
//!
//! Registers of the kernel that would be lost are the compiler's business, which assigns them; here the numbers are
//! held against each other. What is undefined is a fault: a number on the wrong side of the warp's own, and different
//! instructions in the warps of a warpgroup. Two changes without a synchronisation between, and a warp that leaves one
//! out, are noted. So is an instruction of a kernel whose registers at entry nothing bounds: ptxas leaves it out and
//! says so in a line of class info alone.

use super::converge::whole_warp;
use crate::ast::Operand;
use crate::decode::Operands;
use crate::exec::{Goal, Outcome, Request, Wait};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::meter::Class;

/// What is wrong with every `setmaxnreg` of a kernel without a bound.
const UNBOUNDED: &str = "setmaxnreg: ptxas leaves it out, so that no registers move: nothing bounds the kernel's \
     registers at entry. `.minnctapersm` (the second number of `__launch_bounds__`) beside `.maxntid` or `.reqntid` \
     does, and so does `.maxnreg`";

pub(crate) fn decode(operands: &Operands) -> Decoded {
    if operands.root() != "setmaxnreg" {
        return Ok(None);
    }
    let increase = match operands.parts().as_slice() {
        ["inc", "sync", "aligned", "u32"] => true,
        ["dec", "sync", "aligned", "u32"] => false,
        _ => return operands.error("expected `setmaxnreg.{inc,dec}.sync.aligned.u32`"),
    };
    operands.count(1, 1)?;
    let count = match operands.operand(0)? {
        Operand::Integer(count) if (24..=256).contains(count) && count % 8 == 0 => *count,
        _ => return operands.error("expected a number between 24 and 256 that is a multiple of 8"),
    };
    let request = if increase { Request::Increase(count) } else { Request::Decrease(count) };
    let what = operands.instruction.name();
    Ok(Some((
        Class::Control,
        Box::new(move |context| {
            if !whole_warp(context, &what)? {
                return Ok(Outcome::Wait);
            }
            let (warp, actor, at, line) = (context.warp.index, context.actor(), context.at, context.line);
            let first = context.cluster.actor(context.rank, 0);
            let (block, clocks) = context.cluster.block(context.rank);
            let unbounded = (!block.registers.bounded).then(|| Fault::Trap(UNBOUNDED.into()));
            let found = block.registers.enter(warp, (at, line), clocks, first)?;
            let now = clocks.now(actor);
            let changed = block.registers.change(warp, request, now)?;
            if let Some(fault) = found.or(unbounded) {
                context.find(fault, 0);
            }
            if changed {
                context.warp.end_wait(u32::MAX);
                return Ok(Outcome::Next);
            }
            let goal = Goal::Registers { count };
            context.warp.begin_wait(Wait { at, lanes: u32::MAX, goal });
            Ok(Outcome::Wait)
        }),
    )))
}
