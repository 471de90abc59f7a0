//! A warp's turn: it executes instructions until it has had its share, has to wait, or is done.

use super::cluster::Cluster;
use super::context::{Context, Outcome};
use super::job::Job;
use super::lanes::{LANES, Lanes};
use super::ledger::Ledger;
use super::program::{Action, Call, Callee, Program};
use super::source::function_index;
use super::warp::{Group, Warp};
use crate::fault::Fault;

#[cfg(test)]
mod tests;
#[cfg(test)]
use tests::single_steps;

/// Most levels of calls: a kernel that recurses deeper has no end.
const DEEPEST: usize = 1000;

/// Why a warp stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Every lane has exited.
    Done,
    /// Every group waits for another warp.
    Waiting,
    /// Its turn is over.
    TurnOver,
}

/// A fault that ends the launch, with its lane, and its function and step.
#[derive(Debug)]
pub(crate) struct Failure {
    pub fault: Fault,
    pub lane: usize,
    pub at: (usize, usize),
}

/// What becomes of the lanes that execute an instruction.
enum Next<'a> {
    Step,
    /// The lanes of `done` go on, the others wait.
    Wait {
        done: u32,
    },
    Yield,
    Jump(usize),
    JumpIndexed {
        indices: Box<Lanes>,
        targets: &'a [usize],
    },
    /// The lanes of `lanes` enter the function, the others come to the call again: they call another one.
    Call {
        call: &'a Call,
        target: usize,
        lanes: u32,
    },
    Leave,
    Exit,
}

impl Next<'_> {
    /// What becomes of the lanes of `mask`, which an instruction was executed for.
    fn of(outcome: Outcome, mask: u32) -> Self {
        match outcome {
            Outcome::Next => Next::Step,
            Outcome::Wait => Next::Wait { done: 0 },
            Outcome::Part(done) if done & mask == mask => Next::Step,
            Outcome::Part(done) => Next::Wait { done },
            Outcome::Yield => Next::Yield,
        }
    }
}

/// Executes an action as far as it does not move lanes.
fn evaluate<'a>(context: &mut Context, program: &Program, action: &'a Action) -> Result<Next<'a>, Fault> {
    Ok(match action {
        Action::Run(run) => Next::of(run(context)?, context.mask),
        Action::Branch { target } => Next::Jump(*target),
        Action::BranchIndexed { index, targets } => {
            let indices = context.read(*index);
            if let Some(lane) = context.lanes().find(|&lane| indices[lane] as usize >= targets.len()) {
                context.lane = lane;
                return Err(Fault::Trap(format!("brx.idx index {} of {} targets", indices[lane], targets.len())));
            }
            Next::JumpIndexed { indices: Box::new(indices), targets }
        }
        Action::Call(call) => {
            if context.depth == DEEPEST {
                return Err(Fault::Trap(format!("more than {DEEPEST} nested calls")));
            }
            // Without `.uni` lanes may call different functions (PTX ISA 9.7.12.5): one after the other.
            let (target, lanes) = match call.target {
                Callee::Direct(target) => (target, context.mask),
                Callee::Indirect(source) => {
                    let addresses = context.read(source);
                    let first = addresses[context.lane];
                    let same =
                        context.lanes().filter(|&lane| addresses[lane] == first).fold(0, |m, lane| m | 1 << lane);
                    match function_index(first) {
                        Some(index) if index < program.functions.len() => (index, same),
                        _ => return Err(Fault::Trap(format!("indirect call of {first:#x}, which is no function"))),
                    }
                }
            };
            let code = &program.functions[target];
            if code.steps.is_empty() {
                let Some(builtin) = code.builtin else {
                    return Err(Fault::Trap(format!("call of `{}`, which has no body", code.name)));
                };
                let all = context.mask;
                context.mask = lanes;
                builtin(context, call)?;
                if lanes == all { Next::Step } else { Next::Wait { done: lanes } }
            } else {
                Next::Call { call, target, lanes }
            }
        }
        Action::Return => Next::Leave,
        Action::Exit => Next::Exit,
    })
}

/// Runs up to `budget` instructions of a warp of the block `rank` of a cluster.
pub(super) fn take_turn(
    warp: &mut Warp,
    job: &Job,
    cluster: &mut Cluster,
    rank: usize,
    ledger: &mut Ledger,
    budget: u64,
) -> Result<Stop, Failure> {
    let (program, grid, watched) = (job.program, job.grid, cluster.is_watched());
    warp.groups.iter_mut().for_each(|group| (group.waiting, group.yields) = (false, false));
    let end = warp.steps + budget;
    while warp.steps < end {
        let Some(current) = warp.next_group() else {
            return Ok(if warp.live == 0 { Stop::Done } else { Stop::Waiting });
        };
        let before = warp.steps;
        // In a watch every instruction is noted.
        let singly = watched || single_steps();
        let begun = if singly { None } else { run_straight(warp, job, cluster, rank, ledger, end, current)? };
        if begun.is_none() && warp.steps > before {
            continue;
        }
        let at = (warp.groups[current].function, warp.groups[current].step);
        let step = &program.functions[at.0].steps[at.1];
        let depth = warp.groups[current].callers.len();
        let (next, mask) = match begun {
            Some(begun) => begun,
            None => {
                if warp.steps == grid.step_limit {
                    let lane = warp.groups[current].mask.trailing_zeros() as usize;
                    return Err(Failure { fault: Fault::StepLimit(grid.step_limit), lane, at });
                }
                let mask = warp.groups[current].mask & step.guard.map_or(u32::MAX, |guard| warp.holds(depth, guard));
                if let Some(watch) = &mut cluster.watch {
                    watch.note(at, mask != 0);
                }
                if mask == 0 {
                    (Next::Step, mask)
                } else {
                    let (lane, line) = (mask.trailing_zeros() as usize, step.line);
                    let mut context = Context { grid, cluster, rank, mask, lane, depth, ledger, line, at, warp };
                    if !step.product_registers.is_empty() {
                        context.touch(&step.product_registers);
                    }
                    let next = evaluate(&mut context, program, &step.action);
                    (next.map_err(|fault| Failure { fault, lane: context.lane, at })?, mask)
                }
            }
        };
        // Waiting is not issuing: how often a warp looks at a barrier is no property of the kernel.
        if let Next::Wait { done: 0 } = next {
            let waiting = warp.split(current, mask);
            warp.groups[waiting].waiting = true;
            continue;
        }
        warp.steps += 1;
        ledger.issue(step.class, mask, at, warp.index);
        // Nobody notices what no lane executes.
        if mask != 0 {
            cluster.notice(step.effect);
        }
        match next {
            Next::Step => warp.groups[current].step += 1,
            // The lanes have had their share; the warp's other lanes have not, and may be those that they wait for.
            Next::Yield => {
                warp.groups[current].step += 1;
                (warp.groups[current].waiting, warp.groups[current].yields) = (true, true);
            }
            Next::Wait { done } => {
                let waiting = warp.split(current, mask & !done);
                warp.groups[waiting].waiting = true;
            }
            Next::Jump(target) => {
                let taken = warp.jump(current, mask, target);
                // In a watch a round of a loop is what each of the warp's groups has in a turn.
                if watched && target <= at.1 {
                    (warp.groups[taken].waiting, warp.groups[taken].yields) = (true, true);
                }
            }
            Next::JumpIndexed { indices, targets } => warp.jump_indexed(current, mask, &indices, targets),
            Next::Call { call, target, lanes } => {
                warp.set_aside(current, mask & !lanes);
                let lane = lanes.trailing_zeros() as usize;
                let called = enter(warp, program, current, lanes, call, target, ledger);
                called.map_err(|fault| Failure { fault, lane, at })?;
            }
            Next::Leave if depth > 0 => leave(warp, program, current, mask),
            Next::Leave | Next::Exit => {
                warp.exit(current, mask);
                cluster.noticed.stirred = true;
                if warp.live == 0
                    && grid.checked
                    && let Some(fault) = warp.products.unfinished()
                {
                    let thread = warp.index * LANES + mask.trailing_zeros() as usize;
                    ledger.find(fault, cluster.blocks[rank].index, thread, at);
                }
            }
        }
    }
    Ok(Stop::TurnOver)
}

/// Whether groups are looked at between any two instructions, which is what running straight must not differ from.
#[cfg(not(test))]
const fn single_steps() -> bool {
    false
}

/// Runs instructions of a group as long as they move all of its lanes alike, it does not come to where another group
/// is, and the warp has issued less than `end` instructions: nothing has to be looked up between two of them. Returns
/// what becomes of the lanes that execute the instruction at which it stops, and these lanes, if it has begun that one.
fn run_straight<'a>(
    warp: &mut Warp,
    job: &Job<'a>,
    cluster: &mut Cluster,
    rank: usize,
    ledger: &mut Ledger,
    end: u64,
    current: usize,
) -> Result<Option<(Next<'a>, u32)>, Failure> {
    let grid = job.grid;
    let end = end.min(grid.step_limit);
    let Group { mask: all, function, mut step, .. } = warp.groups[current];
    let depth = warp.groups[current].callers.len();
    // The group is the lowest that can run. It meets others, which may wait, only at steps above or where it jumps to; one at the same step
    // in another call has its turn after each instruction.
    let others =
        warp.groups.iter().enumerate().filter(|(index, other)| *index != current && other.function == function);
    let ahead = others.map(|(_, other)| other.step).filter(|&other| other >= step).min().unwrap_or(usize::MAX);
    let alone = warp.groups.len() == 1;
    let steps = &job.program.functions[function].steps;
    let at = (function, step);
    let mut context = Context { grid, cluster, rank, mask: all, lane: 0, depth, ledger, line: 0, at, warp };
    let mut begun = Ok(None);
    while step < ahead
        && context.warp.steps < end
        && let Some(next) = steps.get(step)
    {
        let mask = all & next.guard.map_or(u32::MAX, |guard| context.warp.holds(depth, guard));
        let mut target = step + 1;
        match &next.action {
            _ if mask == 0 => {}
            Action::Run(run) => {
                (context.mask, context.lane) = (mask, mask.trailing_zeros() as usize);
                (context.line, context.at) = (next.line, (function, step));
                if !next.product_registers.is_empty() {
                    context.touch(&next.product_registers);
                }
                let outcome = run(&mut context);
                match outcome.map(|outcome| Next::of(outcome, mask)) {
                    Ok(Next::Step) => {}
                    Ok(next) => {
                        begun = Ok(Some((next, mask)));
                        break;
                    }
                    Err(fault) => {
                        begun = Err(Failure { fault, lane: context.lane, at: (function, step) });
                        break;
                    }
                }
            }
            // A jump back may lead to where another group is.
            Action::Branch { target: to } if mask == all && (alone || *to > step) => target = *to,
            _ => break,
        }
        context.warp.steps += 1;
        context.ledger.issue(next.class, mask, (function, step), context.warp.index);
        if mask != 0 {
            context.cluster.notice(next.effect);
        }
        step = target;
    }
    warp.groups[current].step = step;
    begun
}

/// The lanes of `mask` enter function `target`.
fn enter(
    warp: &mut Warp,
    program: &Program,
    index: usize,
    mask: u32,
    call: &Call,
    target: usize,
    ledger: &mut Ledger,
) -> Result<(), Fault> {
    let group = warp.split(index, mask);
    let depth = warp.groups[group].callers.len();
    let code = &program.functions[target];
    warp.enter(depth + 1, &code.frame, ledger)?;
    warp.frames[depth + 1].begin(mask, &code.unwritten, code.frame.predicates);
    warp.copy_params(depth, depth + 1, mask, &call.arguments, &code.params);
    let group = &mut warp.groups[group];
    group.callers.push((group.function, group.step + 1));
    (group.function, group.step) = (target, 0);
    Ok(())
}

/// The lanes of `mask` return to their caller.
fn leave(warp: &mut Warp, program: &Program, index: usize, mask: u32) {
    let group = warp.split(index, mask);
    let depth = warp.groups[group].callers.len();
    let Some((function, step)) = warp.groups[group].callers.pop() else { return };
    let returns = &program.functions[warp.groups[group].function].returns;
    if let Action::Call(call) = &program.functions[function].steps[step - 1].action {
        warp.copy_params(depth, depth - 1, mask, returns, &call.results);
    }
    (warp.groups[group].function, warp.groups[group].step) = (function, step);
}
