//! Barriers of a block and of a warp (PTX ISA 9.7.13.1-2).
//!
//! A warp arrives at a block's barrier when all its lanes that have not exited are there. Lanes that arrive one group
//! after the other meet first; if they meet from different instructions, `.aligned` forbids it and it is reported.

use super::converge::synchronise;
use crate::ast::{Operand, Type};
use crate::decode::Operands;
use crate::exec::{Context, LANES, Meeting, Outcome, Site, Source, lanes_of};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::meter::Class;

/// Barriers of a block.
const BARRIERS: u32 = 16;

/// What happens at the barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Sync,
    Arrive,
    Red(Reduction),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reduction {
    Popc,
    And,
    Or,
}

/// `bar` and `barrier` of a block.
struct Form {
    verb: Verb,
    /// Written as `bar` or with `.aligned`.
    aligned: bool,
    number: Source,
    count: Option<Source>,
    /// The predicate of a reduction, and whether it is negated.
    predicate: Option<(usize, bool)>,
    /// Register or predicate of a reduction's result.
    target: Option<usize>,
}

pub(crate) fn decode(operands: &Operands) -> Decoded {
    match (operands.root(), operands.has("cluster")) {
        ("bar", _) if operands.has("warp") => warp_barrier(operands),
        ("bar" | "barrier", false) => block_barrier(operands),
        _ => Ok(None),
    }
}

fn block_barrier(operands: &Operands) -> Decoded {
    operands.only(&["cta", "sync", "arrive", "red", "aligned", "popc", "and", "or"])?;
    let has = |part: &str| operands.has(part);
    let verb = match (has("sync"), has("arrive"), has("red")) {
        (true, false, false) => Verb::Sync,
        (false, true, false) => Verb::Arrive,
        (false, false, true) => Verb::Red(match (has("popc"), has("and"), has("or"), operands.types().as_slice()) {
            (true, false, false, [Type::U32]) => Reduction::Popc,
            (false, true, false, [Type::Pred]) => Reduction::And,
            (false, false, true, [Type::Pred]) => Reduction::Or,
            _ => return operands.error("expected .popc.u32, .and.pred or .or.pred"),
        }),
        _ => return operands.error("expected .sync, .arrive or .red"),
    };
    let aligned = operands.root() == "bar" || has("aligned");
    let is_red = matches!(verb, Verb::Red(_));
    let (first, last) = (usize::from(is_red), if is_red { 4 } else { 2 });
    let written = operands.count(if is_red { 3 } else { 1 }, last)?;
    // The predicate stands last, and the count before it may be missing.
    let counted = written == last;
    if verb == Verb::Arrive && !counted {
        return operands.error("needs a thread count");
    }
    let target = match verb {
        Verb::Red(Reduction::Popc) => Some(operands.needed(0, Type::U32)?),
        Verb::Red(_) => Some(operands.needed_predicate(0)?),
        _ => None,
    };
    if let Some(number) = operands.constant(first).filter(|&number| number as u32 >= BARRIERS) {
        return operands.error(format!("barrier {}, where there are {BARRIERS}", number as i64));
    }
    if let Some(threads) = operands.constant(first + 1).filter(|_| counted) {
        let threads = threads as u32;
        if threads == 0 && verb == Verb::Arrive || !threads.is_multiple_of(LANES as u32) {
            return operands.error(format!("{threads} threads, which are no multiple of a warp's {LANES}"));
        }
    }
    let form = Form {
        verb,
        aligned,
        number: operands.agreeing(first, Type::U32)?,
        count: if counted { Some(operands.agreeing(first + 1, Type::U32)?) } else { None },
        predicate: if is_red { Some(operands.predicate(operands.operand(written - 1)?)?) } else { None },
        target,
    };
    Ok(Some((Class::Barrier, Box::new(move |context| form.execute(context)))))
}

/// The value of an operand that must be the same in all active lanes.
fn uniform(context: &mut Context, source: Source, what: &str) -> Result<u32, Fault> {
    let values = context.read(source);
    let first = context.mask.trailing_zeros() as usize;
    match context.lanes().find(|&lane| values[lane] as u32 != values[first] as u32) {
        Some(lane) => {
            context.lane = lane;
            Err(Fault::DivergentBarrier(format!("the lanes of a warp have different {what}")))
        }
        None => Ok(values[first] as u32),
    }
}

/// Adds the lanes that are new here to those that have arrived, and returns their meeting.
pub(super) fn meet(context: &mut Context, site: Site) -> usize {
    let (mask, at, line) = (context.mask, context.at, context.line);
    let meetings = &mut context.warp.meetings;
    let known = meetings.iter().filter(|m| m.site == site).fold(0, |lanes, m| lanes | m.lanes);
    let open = meetings.iter().position(|m| m.site == site && m.phase.is_none());
    match open {
        Some(index) => {
            meetings[index].lanes |= mask & !known;
            index
        }
        None if mask & !known == 0 => meetings.iter().position(|m| m.site == site && m.lanes & mask != 0).unwrap_or(0),
        None => {
            meetings.push(Meeting { site, lanes: mask & !known, phase: None, at, line, reported: false, holds: 0 });
            meetings.len() - 1
        }
    }
}

/// Lets go the lanes of the instruction whose meeting has ended.
pub(super) fn pass(context: &mut Context, site: Site, ended: impl Fn(u64) -> bool) -> u32 {
    let mask = context.mask;
    let mut done = 0;
    for meeting in context.warp.meetings.iter_mut().filter(|m| m.site == site && m.phase.is_some_and(&ended)) {
        done |= meeting.lanes & mask;
        meeting.lanes &= !mask;
    }
    context.warp.meetings.retain(|meeting| meeting.lanes != 0);
    done
}

/// All lanes of a warp must execute the same instruction if it is `.aligned`.
pub(super) fn check_place(context: &mut Context, index: usize, barrier: &str) {
    let at = context.at;
    let meeting = &mut context.warp.meetings[index];
    if meeting.at == at || meeting.reported || meeting.phase.is_some() {
        return;
    }
    meeting.reported = true;
    let why = format!("other lanes of the warp have come to {barrier} at PTX line {}", meeting.line);
    context.find(Fault::DivergentBarrier(why), context.mask.trailing_zeros() as usize);
}

impl Form {
    fn execute(&self, context: &mut Context) -> Result<Outcome, Fault> {
        let number = uniform(context, self.number, "barrier numbers")?;
        if number >= BARRIERS {
            return Err(Fault::Trap(format!("barrier {number} of {BARRIERS}")));
        }
        let warps = match self.count {
            None => None,
            Some(source) => Some(self.warps(context, source)?),
        };
        let site = Site::Block(number);
        let (warp, live) = (context.warp.index, context.warp.live);
        context.block().live[warp] = live;
        let index = meet(context, site);
        if self.aligned {
            check_place(context, index, &format!("barrier {number}"));
        }
        if let Some((predicate, negated)) = self.predicate {
            let holds = context.predicate(predicate, negated) & context.mask;
            context.warp.meetings[index].holds |= holds;
        }
        let Meeting { lanes, phase, holds, .. } = context.warp.meetings[index];
        if phase.is_none() && lanes & live == live {
            let generation = self.arrive(context, number, warps, lanes, holds)?;
            context.warp.meetings[index].phase = Some(generation);
        }
        complete(context, number);
        let generation = context.block().barriers.entry(number).or_default().generation;
        let done = pass(context, site, |phase| self.verb == Verb::Arrive || generation > phase);
        self.answer(context, number, done);
        Ok(Outcome::Part(done))
    }

    fn warps(&self, context: &mut Context, source: Source) -> Result<usize, Fault> {
        let count = uniform(context, source, "thread counts")? as usize;
        let all = context.grid.threads().next_multiple_of(LANES);
        if count > 0 && count.is_multiple_of(LANES) && count <= all {
            Ok(count / LANES)
        } else {
            Err(Fault::Trap(format!("a barrier of {count} threads in a block of {all}")))
        }
    }

    /// The whole warp has arrived. Returns the phase it has arrived in.
    fn arrive(
        &self,
        context: &mut Context,
        number: u32,
        warps: Option<usize>,
        lanes: u32,
        holds: u32,
    ) -> Result<u64, Fault> {
        let gone = lanes_of(context.grid.threads(), context.warp.index) & !lanes;
        if gone != 0 && warps.is_none() {
            let why = format!("{} lanes of the warp have exited without coming to barrier {number}", gone.count_ones());
            context.find(Fault::DivergentBarrier(why), lanes.trailing_zeros() as usize);
        }
        let (warp, line, waits) = (context.warp.index, context.line, self.verb != Verb::Arrive);
        let actor = context.actor();
        let (block, clocks) = context.cluster.block(context.rank);
        let barrier = block.barriers.entry(number).or_default();
        if barrier.arrived.is_empty() {
            (barrier.expected, barrier.line) = (warps, line);
            barrier.reduction = (0, true, false);
        }
        if barrier.expected != warps {
            let threads = |warps: Option<usize>| warps.map_or("all".into(), |warps| (warps * LANES).to_string());
            let (mine, theirs) = (threads(warps), threads(barrier.expected));
            let why = format!("barrier {number} for {mine} threads, but PTX line {} says {theirs}", barrier.line);
            return Err(Fault::DivergentBarrier(why));
        }
        barrier.arrived.push(warp);
        let (popc, and, or) = barrier.reduction;
        barrier.reduction = (popc + holds.count_ones(), and && holds == lanes, or || holds != 0);
        clocks.release(actor, &mut barrier.clock);
        if waits {
            barrier.waiting.push(warp);
            clocks.synchronise_lanes(actor);
        }
        Ok(barrier.generation)
    }

    /// Writes a reduction's result to the lanes that go on.
    fn answer(&self, context: &mut Context, number: u32, done: u32) {
        let (Verb::Red(reduction), Some(target)) = (self.verb, self.target) else { return };
        let (popc, and, or) = context.block().barriers.entry(number).or_default().result;
        let all = std::mem::replace(&mut context.mask, done);
        let bits = |holds: bool| if holds { u32::MAX } else { 0 };
        match reduction {
            Reduction::Popc => context.write(target, &[popc.into(); LANES]),
            Reduction::And => context.write_predicate(target, bits(and)),
            Reduction::Or => context.write_predicate(target, bits(or)),
        }
        context.mask = all;
    }
}

/// Ends the barrier's phase if everybody is there. Without a thread count everybody is the block's threads; those
/// that have exited can no longer come, which hardware forgives and the ISA does not.
fn complete(context: &mut Context, number: u32) {
    let first = context.cluster.actor(context.rank, 0);
    let (block, clocks) = context.cluster.block(context.rank);
    let barrier = block.barriers.entry(number).or_default();
    let missing = |warp: usize| !barrier.arrived.contains(&warp);
    let gone = (0..block.live.len()).filter(|&warp| block.live[warp] == 0 && missing(warp)).count();
    let (full, gone) = match barrier.expected {
        Some(warps) => (barrier.arrived.len() >= warps, 0),
        None => ((0..block.live.len()).all(|warp| block.live[warp] == 0 || !missing(warp)), gone),
    };
    if !full || barrier.arrived.is_empty() {
        return;
    }
    for &warp in &barrier.waiting {
        clocks.acquire(first + warp, &barrier.clock);
    }
    barrier.generation += 1;
    barrier.result = barrier.reduction;
    barrier.clock.clear();
    barrier.arrived.clear();
    barrier.waiting.clear();
    if gone > 0 {
        let why = format!("{gone} warps have exited without coming to barrier {number}");
        context.find(Fault::DivergentBarrier(why), context.mask.trailing_zeros() as usize);
    }
}

/// `bar.warp.sync`: lanes may come from different instructions, if only their masks are the same.
fn warp_barrier(operands: &Operands) -> Decoded {
    operands.only(&["warp", "sync"])?;
    operands.count(1, 1)?;
    if matches!(operands.operand(0)?, Operand::Sink) {
        return operands.error("expected a member mask");
    }
    let members = operands.agreeing(0, Type::U32)?;
    Ok(Some((
        Class::Barrier,
        Box::new(move |context| {
            let masks = context.read(members).map(|mask| mask as u32);
            let (all, live) = (context.mask, context.warp.live);
            let (mut left, mut done) = (all, 0);
            while left != 0 {
                let lane = left.trailing_zeros() as usize;
                let mask = masks[lane];
                let same = context.lanes().filter(|&l| masks[l] == mask).fold(0, |lanes, l| lanes | 1 << l);
                if same & !mask != 0 {
                    let lane = (same & !mask).trailing_zeros() as usize;
                    context.lane = lane;
                    let why = format!("bar.warp.sync of lanes {mask:#010x} by lane {lane}, which is none of them");
                    return Err(Fault::Trap(why));
                }
                left &= !same;
                context.mask = same;
                let index = meet(context, Site::Warp(mask));
                let meeting = &mut context.warp.meetings[index];
                if meeting.phase.is_none() && meeting.lanes & live & mask == mask & live {
                    meeting.phase = Some(0);
                    synchronise(context);
                }
                done |= pass(context, Site::Warp(mask), |_| true);
                context.mask = all;
            }
            Ok(Outcome::Part(done))
        }),
    )))
}
