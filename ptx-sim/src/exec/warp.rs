//! A warp: lanes that diverge and meet again.
//!
//! Lanes at the same instruction form a group. The group that is deepest in calls, and there the one at the lowest
//! instruction, runs first: lanes that jumped ahead wait, so that groups meet at the end of a branch, as they do on
//! hardware that reconverges at the immediate post-dominator.

use super::block::Block;
use super::context::{Context, LANES, Lanes, Outcome};
use super::grid::{Grid, Ledger};
use crate::families::builtin;
use crate::fault::Fault;
use crate::memory::grow;
use crate::program::{Action, Call, Program, Slot, Target, function_index};

/// Call parameters of a frame begin at a multiple of this, so that they cannot be mistaken for kernel parameters.
pub(crate) const FRAME_PARAMS: usize = 1 << 20;

/// Distance between the local variables of two levels of calls; a lane has at most half a megabyte.
pub(crate) const FRAME_LOCAL: usize = 1 << 20;

/// Most levels of calls: a kernel that recurses deeper has no end.
const DEEPEST: usize = 1000;

/// Registers and memory of one level of calls.
#[derive(Debug)]
pub(crate) struct Frame {
    pub registers: Vec<Lanes>,
    pub predicates: Vec<u32>,
    /// Where the call's `.local` variables begin.
    pub local_base: usize,
    /// Where the call's `.param` variables begin.
    pub param_base: usize,
    /// Call parameters, lane after lane.
    pub params: Vec<Vec<u8>>,
    /// Local memory, lane after lane.
    pub local: Vec<Vec<u8>>,
}

/// Where a lane goes on: the calls it is in, and the function and step of each.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    mask: u32,
    /// Callers' positions, outermost first: the step after the call.
    callers: Vec<(usize, usize)>,
    function: usize,
    step: usize,
    /// The instruction was executed and could not complete.
    waiting: bool,
}

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

/// Executes an action as far as it does not move lanes.
fn evaluate<'a>(context: &mut Context, action: &'a Action) -> Result<Next<'a>, Fault> {
    Ok(match action {
        Action::Run(run) => match run(context)? {
            Outcome::Next => Next::Step,
            Outcome::Wait => Next::Wait { done: 0 },
            Outcome::Part(done) if done & context.mask == context.mask => Next::Step,
            Outcome::Part(done) => Next::Wait { done },
            Outcome::Yield => Next::Yield,
        },
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
                Target::Direct(target) => (target, context.mask),
                Target::Indirect(source) => {
                    let addresses = context.read(source);
                    let first = addresses[context.lane];
                    let same =
                        context.lanes().filter(|&lane| addresses[lane] == first).fold(0, |m, lane| m | 1 << lane);
                    match function_index(first) {
                        Some(index) if index < context.grid.program.functions.len() => (index, same),
                        _ => return Err(Fault::Trap(format!("indirect call of {first:#x}, which is no function"))),
                    }
                }
            };
            let code = &context.grid.program.functions[target];
            if code.steps.is_empty() {
                let all = context.mask;
                context.mask = lanes;
                builtin::call(context, &code.name, call)?;
                if lanes == all { Next::Step } else { Next::Wait { done: lanes } }
            } else {
                Next::Call { call, target, lanes }
            }
        }
        Action::Return => Next::Leave,
        Action::Exit => Next::Exit,
    })
}

/// The warp's state.
#[derive(Debug)]
pub(crate) struct Warp {
    /// `%warpid`.
    pub index: usize,
    pub frames: Vec<Frame>,
    /// Instructions issued so far.
    pub steps: u64,
    /// Lanes that have not exited.
    pub live: u32,
    /// Lanes that have arrived at barriers and have not passed them.
    pub meetings: Vec<crate::families::barrier::Meeting>,
    /// Asynchronous copies of `cp.async`, per lane.
    pub copies: crate::families::cp_async::Copies,
    /// The carry flag, one bit per lane.
    pub carry: u32,
    groups: Vec<Group>,
}

impl Warp {
    pub fn new(index: usize, live: u32, function: usize) -> Self {
        let group = Group { mask: live, callers: Vec::new(), function, step: 0, waiting: false };
        Self {
            index,
            frames: Vec::new(),
            steps: 0,
            live,
            meetings: Vec::new(),
            copies: Default::default(),
            carry: 0,
            groups: vec![group],
        }
    }

    /// Makes room for a call of `function` at `depth`, above the frames below it.
    pub fn enter(
        &mut self,
        program: &Program,
        depth: usize,
        function: usize,
        ledger: &mut Ledger,
    ) -> Result<(), Fault> {
        let code = &program.functions[function];
        if self.frames.len() <= depth {
            self.frames.push(Frame {
                registers: Vec::new(),
                predicates: Vec::new(),
                local_base: depth * FRAME_LOCAL,
                param_base: (depth + 1) * FRAME_PARAMS,
                params: vec![Vec::new(); LANES],
                local: vec![Vec::new(); LANES],
            });
        }
        let frame = &mut self.frames[depth];
        let more = |len: usize, wanted: usize| wanted.saturating_sub(len);
        let bytes = LANES * more(frame.local[0].len(), code.local_bytes)
            + LANES * more(frame.params[0].len(), code.param_bytes)
            + size_of::<Lanes>() * more(frame.registers.len(), code.registers);
        ledger.take(bytes)?;
        grow(&mut frame.registers, code.registers, [0; LANES])?;
        grow(&mut frame.predicates, code.predicates, 0)?;
        for lane in 0..LANES {
            grow(&mut frame.params[lane], code.param_bytes, 0)?;
            grow(&mut frame.local[lane], code.local_bytes, 0)?;
        }
        Ok(())
    }

    /// Runs up to `budget` instructions.
    pub fn run(
        &mut self,
        grid: &Grid,
        cluster: &mut [Block],
        rank: usize,
        ledger: &mut Ledger,
        budget: u64,
    ) -> Result<Stop, Failure> {
        self.groups.iter_mut().for_each(|group| group.waiting = false);
        let end = self.steps + budget;
        while self.steps < end {
            let Some(current) = self.next_group() else {
                return Ok(if self.live == 0 { Stop::Done } else { Stop::Waiting });
            };
            let at = (self.groups[current].function, self.groups[current].step);
            let step = &grid.program.functions[at.0].steps[at.1];
            let depth = self.groups[current].callers.len();
            let guard = step.guard.map_or(u32::MAX, |guard| {
                self.frames[depth].predicates[guard.predicate] ^ if guard.negated { u32::MAX } else { 0 }
            });
            let mask = self.groups[current].mask & guard;
            if self.steps == grid.step_limit {
                let lane = self.groups[current].mask.trailing_zeros() as usize;
                return Err(Failure { fault: Fault::StepLimit(grid.step_limit), lane, at });
            }
            let next = if mask == 0 {
                Next::Step
            } else {
                let lane = mask.trailing_zeros() as usize;
                let line = step.line;
                let mut context = Context { grid, cluster, rank, mask, lane, depth, ledger, line, at, warp: self };
                let next = evaluate(&mut context, &step.action);
                next.map_err(|fault| Failure { fault, lane: context.lane, at })?
            };
            // Waiting is not issuing: how often a warp looks at a barrier is no property of the kernel.
            if let Next::Wait { done: 0 } = next {
                let waiting = self.split(current, mask);
                self.groups[waiting].waiting = true;
                continue;
            }
            self.steps += 1;
            ledger.meter.issue(step.class, mask);
            match next {
                Next::Step => self.groups[current].step += 1,
                Next::Yield => {
                    self.groups[current].step += 1;
                    return Ok(Stop::TurnOver);
                }
                Next::Wait { done } => {
                    let waiting = self.split(current, mask & !done);
                    self.groups[waiting].waiting = true;
                }
                Next::Jump(target) => self.jump(current, mask, target),
                Next::JumpIndexed { indices, targets } => self.jump_indexed(current, mask, &indices, targets),
                Next::Call { call, target, lanes } => {
                    self.set_aside(current, mask & !lanes);
                    let lane = lanes.trailing_zeros() as usize;
                    let called = self.call(grid.program, current, lanes, call, target, ledger);
                    called.map_err(|fault| Failure { fault, lane, at })?;
                }
                Next::Leave if depth > 0 => self.leave(grid.program, current, mask),
                Next::Leave | Next::Exit => self.exit(current, mask),
            }
        }
        Ok(Stop::TurnOver)
    }

    /// The group to run next; groups at the same place become one.
    fn next_group(&mut self) -> Option<usize> {
        if let [group] = self.groups.as_slice() {
            return (!group.waiting).then_some(0);
        }
        self.merge();
        let ready = self.groups.iter().enumerate().filter(|(_, group)| !group.waiting);
        let first = ready.min_by_key(|(_, group)| (usize::MAX - group.callers.len(), group.function, group.step));
        first.map(|(index, _)| index)
    }

    fn merge(&mut self) {
        let mut index = 0;
        while index < self.groups.len() {
            let same = |other: &Group, this: &Group| {
                (other.function, other.step, &other.callers) == (this.function, this.step, &this.callers)
            };
            let twin = (index + 1..self.groups.len()).find(|&other| same(&self.groups[other], &self.groups[index]));
            match twin {
                Some(other) => {
                    let merged = self.groups.swap_remove(other);
                    self.groups[index].mask |= merged.mask;
                    self.groups[index].waiting &= merged.waiting;
                }
                None => index += 1,
            }
        }
    }

    /// Takes `mask` out of a group as a group of its own, and returns its index. The rest goes on behind the
    /// instruction.
    fn split(&mut self, index: usize, mask: u32) -> usize {
        if self.groups[index].mask == mask {
            return index;
        }
        let mut taken = self.groups[index].clone();
        taken.mask = mask;
        self.groups[index].mask &= !mask;
        self.groups[index].step += 1;
        self.groups.push(taken);
        self.groups.len() - 1
    }

    /// Takes `mask` out of a group as a group that comes to the same instruction again.
    fn set_aside(&mut self, index: usize, mask: u32) {
        if mask != 0 {
            let group = Group { mask, ..self.groups[index].clone() };
            self.groups[index].mask &= !mask;
            self.groups.push(group);
        }
    }

    fn jump(&mut self, index: usize, mask: u32, target: usize) {
        let taken = self.split(index, mask);
        self.groups[taken].step = target;
    }

    fn jump_indexed(&mut self, index: usize, mask: u32, indices: &Lanes, targets: &[usize]) {
        let mut left = mask;
        let mut group = self.split(index, mask);
        while left != 0 {
            let choice = indices[left.trailing_zeros() as usize];
            let same = (0..LANES).filter(|&l| left >> l & 1 == 1 && indices[l] == choice).fold(0, |m, l| m | 1 << l);
            left &= !same;
            self.groups[group].mask = same;
            self.groups[group].step = targets[choice as usize];
            if left != 0 {
                self.groups.push(Group { mask: left, ..self.groups[group].clone() });
                group = self.groups.len() - 1;
            }
        }
    }

    fn call(
        &mut self,
        program: &Program,
        index: usize,
        mask: u32,
        call: &Call,
        target: usize,
        ledger: &mut Ledger,
    ) -> Result<(), Fault> {
        let group = self.split(index, mask);
        let depth = self.groups[group].callers.len();
        self.enter(program, depth + 1, target, ledger)?;
        let code = &program.functions[target];
        self.copy_params(depth, depth + 1, mask, &call.arguments, &code.params);
        let group = &mut self.groups[group];
        group.callers.push((group.function, group.step + 1));
        (group.function, group.step) = (target, 0);
        Ok(())
    }

    fn leave(&mut self, program: &Program, index: usize, mask: u32) {
        let group = self.split(index, mask);
        let depth = self.groups[group].callers.len();
        let Some((function, step)) = self.groups[group].callers.pop() else { return };
        let returns = &program.functions[self.groups[group].function].returns;
        if let Action::Call(call) = &program.functions[function].steps[step - 1].action {
            self.copy_params(depth, depth - 1, mask, returns, &call.results);
        }
        (self.groups[group].function, self.groups[group].step) = (function, step);
    }

    /// Copies call parameters between two levels, in the order of the lists.
    fn copy_params(&mut self, from: usize, to: usize, mask: u32, sources: &[Slot], targets: &[Slot]) {
        for lane in (0..LANES).filter(|lane| mask >> lane & 1 == 1) {
            for (source, target) in sources.iter().zip(targets) {
                let size = source.size.min(target.size);
                let bytes = self.frames[from].params[lane][source.offset..source.offset + size].to_vec();
                self.frames[to].params[lane][target.offset..target.offset + size].copy_from_slice(&bytes);
            }
        }
    }

    /// Function and step of a group that has not exited, and one of its lanes.
    pub fn position(&self) -> ((usize, usize), usize) {
        self.groups.first().map_or(((0, 0), 0), |g| ((g.function, g.step), g.mask.trailing_zeros() as usize))
    }

    fn exit(&mut self, index: usize, mask: u32) {
        let group = self.split(index, mask);
        self.groups.swap_remove(group);
        self.live &= !mask;
    }
}
