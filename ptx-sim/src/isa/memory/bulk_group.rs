//! `cp.async.bulk.commit_group` and `cp.async.bulk.wait_group`: the bulk async-groups of each thread (PTX ISA
//! 9.7.9.25.6.1-2).
//!
//! Operations of a group are performed when it is waited for, the latest time that the ISA allows. A wait for `.read`
//! ends when their sources have been read: these may be written again, and the destinations still have old bytes.

use crate::ast::Operand;
use crate::decode::Operands;
use crate::exec::{Context, Outcome};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::meter::Class;

pub(crate) fn decode(operands: &Operands) -> Decoded {
    let read = match (operands.root(), operands.parts().as_slice()) {
        ("cp", ["async", "bulk", "commit_group"]) => {
            operands.count(0, 0)?;
            return Ok(Some((Class::Copy, Box::new(|context| Ok(commit(context))))));
        }
        ("cp", ["async", "bulk", "wait_group"]) => false,
        ("cp", ["async", "bulk", "wait_group", "read"]) => true,
        ("cp", ["async", "bulk", "commit_group" | "wait_group", rest @ ..]) => {
            return operands.error(format!("unknown part `.{}`", rest.last().copied().unwrap_or_default()));
        }
        _ => return Ok(None),
    };
    operands.count(1, 1)?;
    match *operands.operand(0)? {
        Operand::Integer(left) if i32::try_from(left).is_ok() => {
            Ok(Some((Class::Copy, Box::new(move |context| wait(context, left, read)))))
        }
        _ => operands.error("expected a number of groups"),
    }
}

fn commit(context: &mut Context) -> Outcome {
    context.lanes().for_each(|lane| context.warp.bulk.commit(lane));
    Outcome::Next
}

/// Waits until at most `left` of each lane's groups are in flight, or all others have read their sources.
fn wait(context: &mut Context, left: u64, read: bool) -> Result<Outcome, Fault> {
    for lane in context.lanes() {
        context.lane = lane;
        if read {
            let mut unread = context.warp.bulk.unread(lane, left).into_iter();
            unread.try_for_each(|operation| context.cluster.release_sources(operation))?;
        } else {
            let mut complete = context.warp.bulk.take_complete(lane, left).into_iter();
            complete.try_for_each(|operation| context.cluster.land(context.grid.memory, operation))?;
        }
    }
    Ok(Outcome::Next)
}
