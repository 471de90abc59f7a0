//! Which lanes take part in a warp-wide instruction, and what to do about those that are not there.

use std::fmt::Display;

use crate::exec::{Context, LANES, Lanes};
use crate::fault::Fault;

/// The lanes that take part, as each lane sees it.
pub(super) type Members = [u32; LANES];

/// Resolves the member masks of a `.sync` instruction: for each active lane, the lanes that take part together with
/// it. Returns `None` if some of them have yet to arrive; the instruction then waits ([`Outcome::Wait`]), as hardware
/// does, and is executed again when other groups of the warp have moved on and joined it. If they never come, that
/// ends as a deadlock at this instruction.
///
/// A mask may name lanes that have exited: the ISA counts "non-exited threads" only. Different lanes may have
/// different masks as long as the masks do not overlap, as after `match.any.sync`. What the ISA leaves undefined is a
/// fault: a lane that does not name itself, and lanes that name each other with different masks.
///
/// The lanes meet here, and code in the field relies on that between a store to shared memory and a read by another
/// lane. The ISA promises memory order for `bar.warp.sync` alone; the checker nevertheless takes the meeting for an
/// order, so that it does not report such code.
///
/// [`Outcome::Wait`]: crate::exec::Outcome::Wait
pub(super) fn members(context: &mut Context, what: &str, masks: &Lanes) -> Result<Option<Members>, Fault> {
    let (active, live) = (context.mask, context.warp.live);
    let mut members = [0; LANES];
    for lane in context.lanes() {
        let mask = masks[lane] as u32;
        if mask >> lane & 1 == 0 {
            let why = format!("member mask {mask:#010x} does not name lane {lane}, which executes");
            return Err(trap(what, why, active));
        }
        if mask & live & !active != 0 {
            return Ok(None);
        }
        members[lane] = mask & active;
    }
    for lane in context.lanes() {
        let differs = context.lanes().find(|&other| members[lane] >> other & 1 == 1 && masks[other] != masks[lane]);
        if let Some(other) = differs {
            let (mask, theirs) = (masks[lane], masks[other]);
            let why =
                format!("lane {lane} has member mask {mask:#010x}, but lane {other}, which it names, {theirs:#010x}");
            return Err(trap(what, why, active));
        }
        // One mask for all, as nearly always.
        if members[lane] == active {
            break;
        }
    }
    synchronise(context);
    Ok(Some(members))
}

/// Whether the whole warp is there, as `.aligned` instructions require. Lanes that live may still arrive: the
/// instruction waits. If some have exited, or never were, the instruction is undefined: a fault.
pub(crate) fn whole_warp(context: &Context, what: &str) -> Result<bool, Fault> {
    let (active, live) = (context.mask, context.warp.live);
    if active == u32::MAX {
        return Ok(true);
    }
    if live == u32::MAX {
        return Ok(false);
    }
    Err(trap(what, format!("needs all 32 lanes, but only {live:#010x} have not exited"), active))
}

/// The lanes' accesses to shared memory so far are before those that follow; see [`members`].
pub(crate) fn synchronise(context: &mut Context) {
    let actor = context.actor();
    context.cluster.clocks.synchronise_lanes(actor);
}

fn trap(what: &str, why: impl Display, active: u32) -> Fault {
    Fault::Trap(format!("`{what}`: {why} (active lanes {active:#010x})"))
}
