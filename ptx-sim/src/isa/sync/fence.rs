//! Fences (PTX ISA section 9.7.13.4).
//!
//! Warps of a block run in turn on one core; blocks on other cores want the same fence of this computer. The checker
//! orders accesses of shared memory by barriers and `mbarrier`s; a fence counts where one of these is used with
//! `.relaxed`. Between the proxies it wants one, where ordinary writes are read asynchronously.

use std::sync::atomic::Ordering::SeqCst;

use crate::ast::{Operand, Space, Type};
use crate::clocks::Scope;
use crate::decode::Operands;
use crate::exec::{Context, Outcome, Run};
use crate::fault::{Fault, SpaceName};
use crate::isa::Decoded;
use crate::isa::memory::access::from_generic;
use crate::meter::{Class, Event};

/// Bytes of a tensor map, the only size that a fence for one may have.
const TENSOR_MAP: usize = 128;

pub(crate) fn decode(operands: &Operands) -> Decoded {
    let parts = operands.parts();
    let run: Run = match (operands.root(), parts.as_slice()) {
        ("membar", [scope @ ("cta" | "gl" | "sys")])
        | ("fence", [scope @ ("cta" | "cluster" | "gpu" | "sys")])
        | ("fence", ["sc" | "acq_rel", scope @ ("cta" | "cluster" | "gpu" | "sys")]) => order(true, true, scope),
        ("fence", ["acquire", scope @ ("cta" | "cluster" | "gpu" | "sys")])
        | ("fence", ["acquire", "sync_restrict::shared::cluster", scope @ "cluster"]) => order(true, false, scope),
        ("fence", ["release", scope @ ("cta" | "cluster" | "gpu" | "sys")])
        | ("fence", ["release", "sync_restrict::shared::cta", scope @ "cluster"]) => order(false, true, scope),
        ("fence", ["mbarrier_init", "release", "cluster"]) => Box::new(|context| Ok(publish_objects(context))),
        ("membar" | "fence", ["proxy", "alias"]) => Box::new(|_| Ok(Outcome::Next)),
        ("membar" | "fence", ["proxy", "async"])
        | ("fence", ["proxy", "async", "shared::cta" | "shared::cluster"])
        | ("fence", ["proxy", "async::generic", "acquire", "sync_restrict::shared::cluster", "cluster"])
        | ("fence", ["proxy", "async::generic", "release", "sync_restrict::shared::cta", "cluster"]) => {
            Box::new(|context| {
                let (actor, mask, live) = (context.actor(), context.mask, context.warp.live);
                context.cluster.clocks.fence_proxy(actor, mask, live);
                context.ledger.meter.event(Event::ProxyFence);
                Ok(Outcome::Next)
            })
        }
        // Only shared memory is checked for it.
        ("fence", ["proxy", "async", "global"]) => Box::new(|context| {
            context.ledger.meter.event(Event::ProxyFence);
            Ok(Outcome::Next)
        }),
        ("fence", ["proxy", "tensormap::generic", "release", "cta" | "cluster" | "gpu" | "sys"]) => {
            Box::new(|_| Ok(Outcome::Next))
        }
        ("fence", ["proxy", "tensormap::generic", "acquire", "cta" | "cluster" | "gpu" | "sys"]) => {
            return tensor_map(operands);
        }
        ("membar" | "fence", _) => return operands.error("no such fence"),
        _ => return Ok(None),
    };
    operands.count(0, 0)?;
    Ok(Some((Class::Barrier, run)))
}

/// A fence between threads of a scope.
fn order(acquires: bool, releases: bool, scope: &str) -> Run {
    let scope = if scope == "cta" { Scope::Block } else { Scope::Cluster };
    Box::new(move |context| {
        std::sync::atomic::fence(SeqCst);
        let (actor, clocks) = (context.actor(), &mut context.cluster.clocks);
        if acquires {
            clocks.fence_acquire(actor);
        }
        if releases {
            clocks.fence_release(actor, scope);
        }
        Ok(Outcome::Next)
    })
}

/// The initialisations of `mbarrier`s by the warp are before what follows, and nothing else is.
fn publish_objects(context: &mut Context) -> Outcome {
    let actor = context.actor();
    context.cluster.clocks.fence_objects(actor);
    Outcome::Next
}

/// `fence.proxy.tensormap::generic.acquire.scope [addr], 128`: the address is generic, and of global memory.
fn tensor_map(operands: &Operands) -> Decoded {
    operands.count(2, 2)?;
    let (base, offset) = operands.address(0)?;
    operands.source(1, Type::U32)?;
    if !matches!(operands.operand(1)?, Operand::Integer(size) if *size == TENSOR_MAP as u64) {
        return operands.error(format!("the size is {TENSOR_MAP}"));
    }
    Ok(Some((
        Class::Barrier,
        Box::new(move |context| {
            let addresses = context.read(base);
            for lane in context.lanes() {
                context.lane = lane;
                let (space, address) = from_generic(addresses[lane].wrapping_add_signed(offset));
                if space != Space::Global {
                    let space = SpaceName(space);
                    return Err(Fault::Trap(format!("a fence for the tensor map at {address:#x} in {space} memory")));
                }
                context.grid.memory.find("fence", address, TENSOR_MAP)?;
            }
            Ok(Outcome::Next)
        }),
    )))
}
