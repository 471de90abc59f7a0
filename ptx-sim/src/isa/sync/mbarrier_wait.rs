//! `mbarrier.test_wait` and `mbarrier.try_wait` (PTX ISA section 9.7.13.15.16).
//!
//! Whoever finds a phase unfinished lets the copies land that the object counts. If that does not finish it, `test_wait`
//! answers no, and other warps have their turn. `try_wait` suspends its lanes; hardware does so up to a time limit, which
//! here is over when no warp of the cluster could go on otherwise.

use super::object::{OWN, Object, Place, Qualifiers, check_order, object_at};
use crate::ast::{Operand, Type};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, Goal, LANES, Outcome, Run, Source, State, Wait};
use crate::fault::Fault;
use crate::meter::Event;

struct Form {
    target: usize,
    object: Object,
    /// A state, or the parity of a phase.
    phase: Source,
    parity: bool,
    /// Whether it suspends lanes.
    suspends: bool,
    relaxed: bool,
}

/// `mbarrier.{test_wait,try_wait}{.parity}{.sem.scope}{.shared{::cta}}.b64 waitComplete, [addr], phase{, time}`.
pub(super) fn decode(operands: &Operands, suspends: bool, parts: &[&str]) -> Result<Run, DecodeError> {
    let (parity, parts) = match parts {
        ["parity", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let qualifiers = Qualifiers::decode(operands, parts, &OWN, &["acquire", "relaxed"])?;
    let count = operands.count(3, if suspends { 4 } else { 3 })?;
    if count == 4 {
        operands.agreeing(3, Type::U32)?;
    }
    let Some(target) = operands.predicate_destination(operands.operand(0)?)? else {
        return operands.error("expected a predicate");
    };
    if parity && matches!(operands.operand(2)?, Operand::Integer(value) if *value > 1) {
        return operands.error("the parity of a phase is 0 or 1");
    }
    let form = Form {
        target,
        object: Object::decode(operands, 1, qualifiers.space, false)?,
        phase: operands.agreeing(2, if parity { Type::U32 } else { Type::U64 })?,
        parity,
        suspends,
        relaxed: qualifiers.relaxed(),
    };
    Ok(Box::new(move |context| form.execute(context)))
}

impl Form {
    fn execute(&self, context: &mut Context) -> Result<Outcome, Fault> {
        let places = self.object.places(context)?;
        let phases = context.read(self.phase);
        let (all, actor, at, line) = (context.mask, context.actor(), context.at, context.line);
        let mut ended = 0;
        // Lanes that look at one object together look for its copies once.
        let (mut seen, mut landed) = (None, None);
        for lane in context.lanes() {
            context.lane = lane;
            if landed != Some(places[lane]) && !self.has_ended(context, places[lane], phases[lane])? {
                let ((rank, offset), memory) = (places[lane], context.grid.memory);
                context.cluster.land_for(memory, rank, offset)?;
                landed = Some(places[lane]);
            }
            if !self.has_ended(context, places[lane], phases[lane])? {
                let ((rank, offset), lanes) = (places[lane], 1 << lane);
                context.warp.begin_wait(Wait { at, lanes, goal: Goal::Mbarrier { rank, offset } });
                continue;
            }
            ended |= 1 << lane;
            check_order(context, places[lane], lane)?;
            self.check_parity(context, places[lane], lane)?;
            if seen != Some(places[lane]) {
                self.observe(context, places[lane])?;
                seen = Some(places[lane]);
            }
        }
        context.warp.end_wait(ended);
        if ended != 0 {
            context.ledger.meter.event(Event::MbarrierWait);
        }
        let suspended = if self.suspends && !context.cluster.impatient { all & !ended } else { 0 };
        for lane in (0..LANES).filter(|lane| suspended >> lane & 1 == 1) {
            object_at(context.cluster, places[lane])?.blocked.insert(actor, line);
        }
        context.mask = all & !suspended;
        context.write_predicate(self.target, ended);
        context.mask = all;
        Ok(match suspended {
            0 if ended == all => Outcome::Next,
            0 => Outcome::Yield,
            _ => Outcome::Part(all & !suspended),
        })
    }

    fn has_ended(&self, context: &mut Context, place: Place, phase: u64) -> Result<bool, Fault> {
        let object = object_at(context.cluster, place)?;
        match phase {
            _ if !self.parity => object.state_has_ended(place.1, State(phase)),
            0 | 1 => Ok(object.parity_has_ended(phase)),
            _ => Err(Fault::Mbarrier(format!("a phase's parity of {phase}: it is 0 or 1"))),
        }
    }

    /// Reports a wait for a phase that the thread knows to have ended, and behind which it has arrived: it is over at
    /// once, and what the thread means to wait for is the next one.
    fn check_parity(&self, context: &mut Context, place: Place, lane: usize) -> Result<(), Fault> {
        if !self.parity || !context.grid.checked {
            return Ok(());
        }
        let thread = (context.actor() * LANES + lane) as u32;
        let object = object_at(context.cluster, place)?;
        let stale = object.note_wait(thread);
        context.cluster.weigh(place)?;
        if stale {
            let object = object_at(context.cluster, place)?;
            let (phase, parity) = (object.phase, object.phase & 1);
            let before = phase.checked_sub(1).map_or("before the first".into(), |before| before.to_string());
            let why = format!(
                "the wait is for phase {before} of the object at {:#x}, whose end the thread has seen before it arrived in \
                 phase {phase}: that has parity {parity}",
                place.1
            );
            context.find(Fault::Mbarrier(why), lane);
        }
        Ok(())
    }

    /// What happened before the phase's end is known to the warp; without `.acquire` behind its next fence.
    fn observe(&self, context: &mut Context, place: Place) -> Result<(), Fault> {
        let actor = context.actor();
        let (block, clocks) = context.cluster.block(place.0);
        let Some(object) = block.mbarriers.get_mut(&place.1) else { return Ok(()) };
        if self.relaxed {
            clocks.acquire_relaxed(actor, object.done());
        } else {
            clocks.acquire(actor, object.done());
        }
        object.blocked.remove(&actor);
        Ok(())
    }
}
