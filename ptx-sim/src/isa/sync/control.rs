//! Fences, pauses and traps (PTX ISA 9.7.13.4, 9.7.19).
//!
//! Warps of a block run in turn on one core, and accesses to global memory of other blocks are atomic, so fences have
//! nothing to do. The checker orders accesses by barriers alone, not by fences; it wants a fence only in front of a
//! relaxed arrival at the cluster's barrier, and between the proxies, where ordinary writes of shared memory are read asynchronously.

use crate::ast::Type;
use crate::decode::Operands;
use crate::exec::Outcome;
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::meter::{Class, Event};

/// Whether a fence orders ordinary accesses of shared memory with asynchronous ones.
fn orders_proxies(operands: &Operands) -> bool {
    operands.has("proxy") && operands.has("async") && !operands.has("global")
}

/// Whether a fence is a part of a release pattern of the cluster's scope or a wider one (PTX ISA section 8.8).
fn releases_to_cluster(operands: &Operands) -> bool {
    let narrow = ["proxy", "mbarrier_init", "acquire", "cta"];
    !narrow.into_iter().any(|part| operands.has(part))
}

pub(crate) fn decode(operands: &Operands) -> Decoded {
    let (known, class, operand_count): (&[&str], _, _) = match operands.root() {
        "membar" => (&["cta", "gl", "sys", "proxy", "alias", "async", "async.global", "tensormap"], Class::Barrier, 0),
        "fence" => (
            &[
                "sc",
                "acq_rel",
                "acquire",
                "release",
                "cta",
                "cluster",
                "gpu",
                "sys",
                "proxy",
                "alias",
                "async",
                "global",
                "shared::cta",
                "shared::cluster",
                "mbarrier_init",
                "tensormap::generic",
                "generic",
                "sync_restrict::shared::cta",
                "sync_restrict::shared::cluster",
            ],
            Class::Barrier,
            0,
        ),
        "nanosleep" => (&[], Class::Control, 1),
        "griddepcontrol" => (&["launch_dependents", "wait"], Class::Control, 0),
        "trap" | "brkpt" => (&[], Class::Control, 0),
        _ => return Ok(None),
    };
    operands.only(known)?;
    operands.count(operand_count, operand_count)?;
    if operand_count == 1 {
        operands.source(0, Type::U32)?;
    }
    Ok(Some((
        class,
        match operands.root() {
            // A pause is for others to get on.
            "nanosleep" => Box::new(|_| Ok(Outcome::Yield)),
            "trap" => Box::new(|_| Err(Fault::Trap("trap".into()))),
            "brkpt" => Box::new(|_| Err(Fault::Trap("brkpt".into()))),
            "fence" | "membar" if orders_proxies(operands) => Box::new(|context| {
                let (actor, mask, live) = (context.actor(), context.mask, context.warp.live);
                context.cluster.clocks.fence_proxy(actor, mask, live);
                context.ledger.meter.event(Event::ProxyFence);
                Ok(Outcome::Next)
            }),
            "fence" | "membar" if releases_to_cluster(operands) => Box::new(|context| {
                if context.cluster.blocks.len() > 1 {
                    let actor = context.actor();
                    context.cluster.clocks.fence(actor);
                }
                Ok(Outcome::Next)
            }),
            // One launch runs at a time: what `griddepcontrol.wait` waits for is done.
            _ => Box::new(|_| Ok(Outcome::Next)),
        },
    )))
}
