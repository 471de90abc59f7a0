//! `mbarrier`: objects in shared memory at which threads arrive and wait, and which count the bytes of asynchronous
//! copies (PTX ISA section 9.7.13.15). The waits are in `mbarrier_wait`.
//!
//! Arrivals release: what a thread did before one is known to whoever has waited for the phase's end; the checker takes
//! that for an order, as it does with barriers. `.relaxed` arrivals release what a fence before them has seen.
//!
//! What the ISA leaves undefined ends the launch where the object would be in no state that could be named: an address
//! where there is none, more arrivals than a phase takes, counts out of range. The rest is noted and goes on.

use std::ops::RangeInclusive;

use super::mbarrier_wait;
use super::object::{ANY, OWN, Object, Place, Qualifiers, check_order, object_at};
use crate::ast::{Operand, Space, Type};
use crate::clocks::{Access, Knowledge, Scope};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, GREATEST_COUNT, LANES, MBARRIER_BYTES, Mbarrier, Outcome, Run, Source, State, Target};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::meter::Class;

/// Arrivals that one operation may count for (PTX ISA section 9.7.13.15.2).
const COUNTS: RangeInclusive<u64> = 1..=GREATEST_COUNT as u64;

pub(crate) fn decode(operands: &Operands) -> Decoded {
    let parts = operands.parts();
    let run = match (operands.root(), parts.as_slice()) {
        ("mbarrier", ["init", rest @ ..]) => init(operands, rest),
        ("mbarrier", ["inval", rest @ ..]) => invalidate(operands, rest),
        ("mbarrier", [verb @ ("expect_tx" | "complete_tx"), rest @ ..]) => {
            count_bytes(operands, *verb == "expect_tx", rest)
        }
        ("mbarrier", [verb @ ("arrive" | "arrive_drop"), rest @ ..]) => arrive(operands, *verb == "arrive_drop", rest),
        ("mbarrier", ["pending_count", rest @ ..]) => pending_count(operands, rest),
        ("mbarrier", [verb @ ("test_wait" | "try_wait"), rest @ ..]) => {
            mbarrier_wait::decode(operands, *verb == "try_wait", rest)
        }
        ("mbarrier", _) => operands.error("unknown operation"),
        ("cp", ["async", "mbarrier", "arrive", rest @ ..]) => {
            return arrive_behind_copies(operands, rest).map(|run| Some((Class::Copy, run)));
        }
        _ => return Ok(None),
    };
    run.map(|run| Some((Class::Barrier, run)))
}

/// `mbarrier.init{.shared{::cta}}.b64 [addr], count` (PTX ISA section 9.7.13.15.9).
fn init(operands: &Operands, parts: &[&str]) -> Result<Run, DecodeError> {
    let qualifiers = Qualifiers::decode(operands, parts, &OWN, &[])?;
    operands.count(2, 2)?;
    let object = Object::decode(operands, 0, qualifiers.space, false)?;
    let count = operands.agreeing(1, Type::U32)?;
    Ok(Box::new(move |context| {
        let (places, counts) = (object.places(context)?, context.read(count));
        for lane in context.lanes() {
            context.lane = lane;
            initialise(context, lane, places[lane], counts[lane] as u32)?;
        }
        Ok(Outcome::Next)
    }))
}

fn initialise(context: &mut Context, lane: usize, (rank, offset): Place, count: u32) -> Result<(), Fault> {
    let (access, actor, line) = (access(context, lane, offset), context.actor(), context.line);
    if let Some(old) = context.cluster.blocks[rank].mbarriers.get(&offset) {
        let before = format!("the object of PTX line {} at {offset:#x}", old.line);
        if let Some((_, line)) = old.blocked.first_key_value() {
            return Err(Fault::Mbarrier(format!("{before} is initialised again while PTX line {line} waits there")));
        }
        context.find(Fault::Mbarrier(format!("{before} is initialised again without `mbarrier.inval`")), lane);
        context.cluster.remove_object((rank, offset));
        let (shared, clocks) = context.cluster.shared(rank);
        shared.end_object(clocks, access, offset, MBARRIER_BYTES)?;
    }
    let checked = context.grid.checked;
    let (block, clocks) = context.cluster.block(rank);
    let born = if checked { clocks.initialise(actor) } else { 0 };
    let object = Mbarrier::new(count, access.thread, born, line)?;
    let found = block.shared.begin_object(clocks, access, offset, MBARRIER_BYTES)?;
    block.mbarriers.insert(offset, object);
    context.cluster.weigh((rank, offset))?;
    if let Some(fault) = found {
        context.find(fault, lane);
    }
    Ok(())
}

/// A lane's access to an object's bytes.
fn access(context: &Context, lane: usize, address: u64) -> Access {
    Target { lane, space: Space::Shared, address, strong: true }.access(context)
}

/// `mbarrier.inval{.shared{::cta}}.b64 [addr]` (PTX ISA section 9.7.13.15.10).
fn invalidate(operands: &Operands, parts: &[&str]) -> Result<Run, DecodeError> {
    let qualifiers = Qualifiers::decode(operands, parts, &OWN, &[])?;
    operands.count(1, 1)?;
    let object = Object::decode(operands, 0, qualifiers.space, false)?;
    Ok(Box::new(move |context| {
        let places = object.places(context)?;
        for lane in context.lanes() {
            context.lane = lane;
            let (rank, offset) = places[lane];
            check_order(context, places[lane], lane)?;
            let access = access(context, lane, offset);
            let object = object_at(context.cluster, places[lane])?;
            if let Some((_, line)) = object.blocked.first_key_value() {
                let why = format!("the object at {offset:#x} is invalidated while PTX line {line} waits there");
                return Err(Fault::Mbarrier(why));
            }
            context.cluster.remove_object((rank, offset));
            let (shared, clocks) = context.cluster.shared(rank);
            shared.end_object(clocks, access, offset, MBARRIER_BYTES)?;
        }
        Ok(Outcome::Next)
    }))
}

/// `mbarrier.{expect_tx,complete_tx}{.relaxed.scope}{.space}.b64 [addr], txCount` (PTX ISA sections 9.7.13.15.11 and
/// 9.7.13.15.12).
fn count_bytes(operands: &Operands, expect: bool, parts: &[&str]) -> Result<Run, DecodeError> {
    let qualifiers = Qualifiers::decode(operands, parts, &ANY, &["relaxed"])?;
    operands.count(2, 2)?;
    let object = Object::decode(operands, 0, qualifiers.space, true)?;
    let bytes = operands.agreeing(1, Type::U32)?;
    Ok(Box::new(move |context| {
        let (places, bytes) = (object.places(context)?, context.read(bytes));
        for lane in context.lanes() {
            context.lane = lane;
            object_at(context.cluster, places[lane])?;
            check_order(context, places[lane], lane)?;
            let object = object_at(context.cluster, places[lane])?;
            let bytes = bytes[lane] as u32;
            if expect { object.expect(bytes)? } else { object.complete(bytes)? }
        }
        Ok(Outcome::Next)
    }))
}

/// An arrival.
struct Arrive {
    object: Object,
    /// Where the state goes; `None` for `_`.
    target: Option<usize>,
    /// Whether the state goes nowhere, as it must for objects of other blocks.
    sink: bool,
    /// Arrivals, or with `expects` bytes that are announced before one; 1 without an operand.
    count: Option<Source>,
    expects: bool,
    /// Whether later phases have so many arrivals fewer.
    drops: bool,
    no_complete: bool,
    relaxed: bool,
    scope: Scope,
}

/// `mbarrier.{arrive,arrive_drop}{.expect_tx}{.sem.scope}{.space}.b64 state, [addr]{, count}` and `.noComplete` (PTX ISA
/// sections 9.7.13.15.13 and 9.7.13.15.14).
fn arrive(operands: &Operands, drops: bool, parts: &[&str]) -> Result<Run, DecodeError> {
    let (expects, no_complete, parts) = match parts {
        ["expect_tx", rest @ ..] => (true, false, rest),
        ["noComplete", rest @ ..] => (false, true, rest),
        rest => (false, false, rest),
    };
    let orders: &[&str] = if no_complete { &["release"] } else { &["release", "relaxed"] };
    let spaces: &[&str] = if no_complete { &OWN } else { &ANY };
    let qualifiers = Qualifiers::decode(operands, parts, spaces, orders)?;
    if no_complete && qualifiers.scope == Some("cluster") {
        return operands.error("`.noComplete` is for `.cta` scope");
    }
    // What `.noComplete` counts, and `.expect_tx` announces, has to be said.
    let count = operands.count(if expects || no_complete { 3 } else { 2 }, 3)?;
    let sink = matches!(operands.operand(0)?, Operand::Sink);
    if qualifiers.space == Some("shared::cluster") && !sink {
        return operands.error("an arrival in `.shared::cluster` returns no state: expected `_`");
    }
    if let Some(arrivals) = operands.constant(2).filter(|arrivals| !expects && !COUNTS.contains(arrivals)) {
        let [least, greatest] = [COUNTS.start(), COUNTS.end()];
        return operands.error(format!("{} arrivals, which are not between {least} and {greatest}", arrivals as i64));
    }
    let form = Arrive {
        object: Object::decode(operands, 1, qualifiers.space, !no_complete)?,
        target: operands.result(0, Type::U64)?,
        sink,
        count: if count == 3 { Some(operands.agreeing(2, Type::U32)?) } else { None },
        expects,
        drops,
        no_complete,
        relaxed: qualifiers.relaxed(),
        scope: if qualifiers.scope == Some("cluster") { Scope::Cluster } else { Scope::Block },
    };
    Ok(Box::new(move |context| form.execute(context)))
}

impl Arrive {
    fn execute(&self, context: &mut Context) -> Result<Outcome, Fault> {
        let places = self.object.places(context)?;
        let counts = self.count.map_or([1; LANES], |count| context.read(count));
        let actor = context.actor();
        let mut states = [0; LANES];
        // Lanes that arrive at one object together release what the warp has done once.
        let mut released = None;
        for lane in context.lanes() {
            context.lane = lane;
            let (rank, offset) = places[lane];
            if rank != context.rank && !self.sink {
                let why = format!("an arrival at an object of the cluster's block {rank} returns no state");
                return Err(Fault::Mbarrier(why));
            }
            object_at(context.cluster, places[lane])?;
            check_order(context, places[lane], lane)?;
            let checked = context.grid.checked;
            let phase = object_at(context.cluster, places[lane])?.phase;
            let releases = !self.relaxed && released != Some((places[lane], phase));
            if checked && rank != context.rank && releases {
                let access = access(context, lane, offset);
                context.cluster.remember_visit(rank, "mbarrier.arrive", actor, access);
            }
            let (block, clocks) = context.cluster.block(rank);
            let Some(object) = block.mbarriers.get_mut(&offset) else { continue };
            let value = counts[lane] as u32;
            let count = if self.expects { 1 } else { value };
            if self.expects {
                object.expect(value)?;
            }
            states[lane] = object.state(offset, self.no_complete).0;
            if self.no_complete && object.would_end(count) {
                return Err(Fault::Mbarrier(format!("an arrival with `.noComplete` that completes phase {phase}")));
            }
            if checked {
                object.note_arrival((actor * LANES + lane) as u32);
            }
            if self.relaxed {
                let mut fenced = Knowledge::default();
                clocks.release_fenced(actor, self.scope, &mut fenced);
                object.learn(&fenced);
            } else if releases {
                object.release(actor, clocks);
                released = Some((places[lane], phase));
            }
            if self.drops {
                object.expect_fewer(count)?;
            }
            object.arrive(count)?;
            context.cluster.weigh(places[lane])?;
        }
        if let Some(target) = self.target {
            context.write(target, &states);
        }
        Ok(Outcome::Next)
    }
}

/// `mbarrier.pending_count.b64 count, state` (PTX ISA section 9.7.13.15.17).
fn pending_count(operands: &Operands, parts: &[&str]) -> Result<Run, DecodeError> {
    if parts != ["b64"] {
        return operands.error("expected `mbarrier.pending_count.b64`");
    }
    operands.count(2, 2)?;
    let (target, state) = (operands.needed(0, Type::U32)?, operands.agreeing(1, Type::U64)?);
    Ok(Box::new(move |context| {
        let mut counts = context.read(state);
        for lane in context.lanes() {
            context.lane = lane;
            let Some(count) = State(counts[lane]).pending_count() else {
                return Err(Fault::Mbarrier(
                    "a pending count of a state that no arrival with `.noComplete` returned".into(),
                ));
            };
            counts[lane] = count;
        }
        context.write(target, &counts);
        Ok(Outcome::Next)
    }))
}

/// `cp.async.mbarrier.arrive{.noinc}{.shared{::cta}}.b64 [addr]` (PTX ISA section 9.7.13.15.15): an arrival when all
/// copies have completed that the thread has issued by `cp.async`. Here that is when somebody waits for it.
fn arrive_behind_copies(operands: &Operands, parts: &[&str]) -> Result<Run, DecodeError> {
    let (space, counted) = match *parts {
        ["b64"] => (None, false),
        ["noinc", "b64"] => (None, true),
        [space @ ("shared" | "shared::cta"), "b64"] => (Some(space), false),
        ["noinc", space @ ("shared" | "shared::cta"), "b64"] | [space @ ("shared" | "shared::cta"), "noinc", "b64"] => {
            (Some(space), true)
        }
        _ => return operands.error("expected `cp.async.mbarrier.arrive{.noinc}{.shared{::cta}}.b64`"),
    };
    operands.count(1, 1)?;
    let object = Object::decode(operands, 0, space, false)?;
    Ok(Box::new(move |context| {
        let (places, actor, line) = (object.places(context)?, context.actor(), context.line);
        for lane in context.lanes() {
            context.lane = lane;
            object_at(context.cluster, places[lane])?;
            check_order(context, places[lane], lane)?;
            if !counted {
                object_at(context.cluster, places[lane])?.expect_another()?;
            }
            context.cluster.arrive_behind_copies(actor, lane, places[lane], line)?;
        }
        Ok(Outcome::Next)
    }))
}
