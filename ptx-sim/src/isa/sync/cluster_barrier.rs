//! `barrier.cluster`: all warps of a cluster arrive, and wait for each other (PTX ISA 9.7.13.3).
//!
//! Both instructions make the lanes of a warp that have not exited wait for each other, so the warp arrives and waits as
//! one. Warps that have exited are not waited for. What the ISA leaves undefined is a fault: to arrive twice without a wait
//! between, and to wait without having arrived.

use super::barrier::{check_place, meet, pass};
use super::converge::synchronise;
use crate::decode::Operands;
use crate::exec::{Context, Meeting, Outcome, Site};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::meter::Class;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Arrive {
        /// Without `.relaxed`: what the warp has done before happens before what others do behind their wait.
        releases: bool,
    },
    Wait,
}

pub(crate) fn decode(operands: &Operands) -> Decoded {
    let parts = operands.parts();
    let ("barrier", ["cluster", rest @ ..]) = (operands.root(), parts.as_slice()) else { return Ok(None) };
    let aligned = rest.contains(&"aligned");
    let semantics: Vec<&str> = rest.iter().skip(1).filter(|part| **part != "aligned").copied().collect();
    if rest.iter().filter(|part| **part == "aligned").count() > 1 {
        return operands.error("`.aligned` stands there twice");
    }
    let verb = match (rest.first(), semantics.as_slice()) {
        (Some(&"arrive"), [] | ["release"]) => Verb::Arrive { releases: true },
        (Some(&"arrive"), ["relaxed"]) => Verb::Arrive { releases: false },
        (Some(&"wait"), [] | ["acquire"]) => Verb::Wait,
        _ => return operands.error("expected .arrive{.release, .relaxed}{.aligned} or .wait{.acquire}{.aligned}"),
    };
    operands.count(0, 0)?;
    Ok(Some((Class::Barrier, Box::new(move |context| execute(context, verb, aligned)))))
}

fn execute(context: &mut Context, verb: Verb, aligned: bool) -> Result<Outcome, Fault> {
    let (site, name) = match verb {
        Verb::Arrive { .. } => (Site::ClusterArrive, "barrier.cluster.arrive"),
        Verb::Wait => (Site::ClusterWait, "barrier.cluster.wait"),
    };
    let (warp, live, actor, line) = (context.warp.index, context.warp.live, context.actor(), context.line);
    context.block().live[warp] = live;
    let index = meet(context, site);
    if aligned {
        check_place(context, index, name);
    }
    let Meeting { lanes, phase, .. } = context.warp.meetings[index];
    let complete = phase.is_none() && lanes & live == live;
    let cluster = &mut *context.cluster;
    let passes = match verb {
        _ if !complete => false,
        Verb::Arrive { releases } => {
            cluster.barrier.arrive(actor, line, releases, &mut cluster.clocks)?;
            true
        }
        Verb::Wait => {
            // Warps may have exited since the last one arrived.
            cluster.complete_barrier();
            cluster.barrier.wait(actor, &mut cluster.clocks)?
        }
    };
    if passes {
        context.warp.meetings[index].phase = Some(0);
        match verb {
            Verb::Arrive { .. } => context.cluster.complete_barrier(),
            Verb::Wait => synchronise(context),
        }
    }
    Ok(Outcome::Part(pass(context, site, |_| true)))
}
