//! Which registers may share a place.
//!
//! A compiler gives every value of PTX a register of its own: thousands, of which a hundred are in use at any instruction.
//! Simulated, each of them takes 32 lanes' words, and so many do not fit a cache. So registers share places here, as
//! ptxas has them do: two may if no instruction lies in the lives of both. A register lives from where it is written to
//! where it is last read on any way through the function; one that may be read before it is written lives from the
//! beginning, when it is zero: a kernel's registers are made so, and a call clears those that may be read so, which are
//! few of a compiler's. Every lane goes its own way with registers of its own, so divergence changes nothing.

use std::collections::BTreeSet;

use crate::ast::{Instruction, Operand};

/// Instructions that write their first operand in all lanes that execute them, and read the others. Of every other
/// instruction all operands count as read, which makes lives longer than they are and never too short.
const WRITERS: [&str; 61] = [
    "abs",
    "activemask",
    "add",
    "addc",
    "and",
    "atom",
    "bfe",
    "bfi",
    "bfind",
    "bmsk",
    "brev",
    "clz",
    "cnot",
    "copysign",
    "cos",
    "cvt",
    "cvta",
    "div",
    "dp2a",
    "dp4a",
    "elect",
    "ex2",
    "fma",
    "fns",
    "ld",
    "ldmatrix",
    "ldu",
    "lg2",
    "lop3",
    "mad",
    "mad24",
    "madc",
    "match",
    "max",
    "min",
    "mma",
    "mov",
    "movmatrix",
    "mul",
    "mul24",
    "neg",
    "not",
    "or",
    "popc",
    "prmt",
    "rcp",
    "redux",
    "rem",
    "rsqrt",
    "sad",
    "selp",
    "set",
    "shf",
    "shfl",
    "shl",
    "shr",
    "sin",
    "slct",
    "sqrt",
    "sub",
    "xor",
];

/// Instructions that read their operands while they are executed, and write none of them that matters here. Registers
/// of instructions in neither list keep a place to themselves: something asynchronous may read or write them later.
const READERS: [&str; 19] = [
    "bar",
    "barrier",
    "bra",
    "brx",
    "exit",
    "fence",
    "isspacep",
    "membar",
    "nanosleep",
    "prefetch",
    "prefetchu",
    "red",
    "ret",
    "setp",
    "st",
    "stmatrix",
    "testp",
    "trap",
    "vote",
];

/// A declared register.
#[derive(Clone, Copy, Debug)]
pub(super) struct Declared {
    pub is_wide: bool,
    /// Whether its place has to be the one behind that of the register declared before it.
    pub fixed: bool,
}

/// What an instruction does to registers, by their numbers in the order of declaration.
#[derive(Debug, Default)]
pub(super) struct Uses {
    reads: Vec<usize>,
    writes: Vec<usize>,
    /// Registers that keep a place to themselves.
    keeps: Vec<usize>,
    /// Whether it is executed by some lanes only.
    guarded: bool,
    /// Where lanes may go on other than behind it.
    pub targets: Vec<usize>,
    /// Whether lanes that execute it go on behind it.
    ends: bool,
}

impl Uses {
    /// The effect of an instruction, whose register operands `find` knows the numbers of.
    pub fn of(instruction: &Instruction, find: &impl Fn(&str) -> Option<usize>) -> Self {
        let root = instruction.opcode.first().map_or("", String::as_str);
        let is_copy =
            root == "cp" && instruction.opcode.len() > 2 && !instruction.opcode.iter().any(|part| part == "bulk");
        let (writes, reads) = (WRITERS.contains(&root), READERS.contains(&root) || is_copy);
        let mut effect = Self { guarded: instruction.guard.is_some(), ..Self::default() };
        effect.ends = matches!(root, "bra" | "brx" | "ret" | "exit");
        for (index, operand) in instruction.operands.iter().enumerate() {
            let list = match (writes, reads) {
                (true, _) if index == 0 => &mut effect.writes,
                (true, _) | (_, true) => &mut effect.reads,
                _ => &mut effect.keeps,
            };
            registers(operand, find, list);
        }
        effect
    }
}

/// Adds the numbers of an operand's registers to a list.
fn registers(operand: &Operand, find: &impl Fn(&str) -> Option<usize>, list: &mut Vec<usize>) {
    match operand {
        Operand::Name(name) | Operand::Sum { name, .. } => list.extend(find(name)),
        Operand::Address { base, .. } => registers(base, find, list),
        Operand::Not(inner) | Operand::Negative(inner) => registers(inner, find, list),
        Operand::Pair(first, second) => {
            registers(first, find, list);
            registers(second, find, list);
        }
        Operand::Vector(all) | Operand::List(all) | Operand::TensorAddress(all) => {
            all.iter().for_each(|operand| registers(operand, find, list));
        }
        Operand::Integer(_) | Operand::F32(_) | Operand::F64(_) | Operand::Sink => {}
    }
}

/// A set of registers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Set(Vec<u64>);

impl Set {
    fn new(registers: usize) -> Self {
        Self(vec![0; registers.div_ceil(64)])
    }

    fn insert(&mut self, register: usize) {
        self.0[register / 64] |= 1 << (register % 64);
    }

    fn contains(&self, register: usize) -> bool {
        self.0[register / 64] >> (register % 64) & 1 == 1
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(index, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(64 * index + bit)
            })
        })
    }
}

/// Instructions between which lanes stay together.
struct Stretch {
    first: usize,
    /// Behind the last one.
    end: usize,
    /// Registers that are read before they are written, and those that are written.
    reads: Set,
    writes: Set,
    /// Registers that live at the beginning.
    live: Set,
    /// The stretches that lanes may go on to.
    next: Vec<usize>,
}

fn stretches(effects: &[Uses], registers: usize) -> Vec<Stretch> {
    let mut firsts: BTreeSet<usize> = [0].into();
    for (step, effect) in effects.iter().enumerate().filter(|(_, effect)| effect.ends || !effect.targets.is_empty()) {
        firsts.insert(step + 1);
        firsts.extend(effect.targets.iter().copied());
    }
    let firsts: Vec<usize> = firsts.into_iter().filter(|first| *first < effects.len()).collect();
    let index_of = |step: usize| firsts.binary_search(&step).ok();
    let ends = firsts.iter().skip(1).copied().chain([effects.len()]);
    let stretch = |(&first, end): (&usize, usize)| {
        let (mut reads, mut writes) = (Set::new(registers), Set::new(registers));
        for effect in &effects[first..end] {
            let read = effect.reads.iter().chain(&effect.keeps);
            read.filter(|&&register| !writes.contains(register)).for_each(|&r| reads.insert(r));
            // Where only some lanes write, the others keep what was there.
            if !effect.guarded {
                effect.writes.iter().for_each(|&register| writes.insert(register));
            } else {
                effect.writes.iter().filter(|&&register| !writes.contains(register)).for_each(|&r| reads.insert(r));
            }
        }
        let last = &effects[end - 1];
        let behind = if last.ends && !last.guarded { None } else { index_of(end) };
        let next = last.targets.iter().filter_map(|&target| index_of(target)).chain(behind).collect();
        Stretch { first, end, live: reads.clone(), reads, writes, next }
    };
    firsts.iter().zip(ends).map(stretch).collect()
}

/// First and last point at which each register lives, and those that may be read before they are written. Instruction `i`
/// reads at point `2 * i`, and writes at the one behind; what it reads lives on until it has written. `None` if that is
/// not known after [`MOST_PASSES`].
fn lives(effects: &[Uses], registers: usize) -> Option<(Vec<Life>, Vec<usize>)> {
    let mut stretches = stretches(effects, registers);
    let (mut changed, mut passes) = (true, 0);
    while changed {
        changed = false;
        passes += 1;
        if passes > MOST_PASSES {
            return None;
        }
        for index in (0..stretches.len()).rev() {
            let mut live = stretches[index].reads.clone();
            for &next in &stretches[index].next {
                let (behind, writes) = (&stretches[next].live.0, &stretches[index].writes.0);
                live.0.iter_mut().zip(behind.iter().zip(writes)).for_each(|(live, (b, w))| *live |= b & !w);
            }
            if live != stretches[index].live {
                stretches[index].live = live;
                changed = true;
            }
        }
    }
    let mut lives: Vec<Life> = vec![None; registers];
    let mut touch = |register: usize, from: usize, to: usize| {
        let life = lives[register].get_or_insert((from, to));
        *life = (life.0.min(from), life.1.max(to));
    };
    for stretch in &stretches {
        stretch.live.iter().for_each(|register| touch(register, 2 * stretch.first, 2 * stretch.first));
        let end = 2 * stretch.end;
        for next in stretch.next.iter().map(|&next| &stretches[next]) {
            next.live.iter().for_each(|register| touch(register, end - 1, end - 1));
        }
        for (step, effect) in (stretch.first..stretch.end).zip(&effects[stretch.first..stretch.end]) {
            effect.reads.iter().for_each(|&register| touch(register, 2 * step, 2 * step + 1));
            effect.writes.iter().for_each(|&register| touch(register, 2 * step + 1, 2 * step + 1));
        }
    }
    let unwritten = stretches.first().map_or_else(Vec::new, |first| first.live.iter().collect());
    Some((lives, unwritten))
}

/// First and last point at which a register lives; `None` if it has a place to itself, or is not in use.
type Life = Option<(usize, usize)>;

/// Most passes over a function. Compilers' loops need a few more than they are deep; a function that jumps backwards from
/// stretch to stretch would need as many as it has stretches.
const MOST_PASSES: usize = 64;

/// Most sets of registers of all stretches, in bits: a function with more, which no compiler writes, does not share.
const MOST_BITS: usize = 1 << 28;

/// Where the registers of a function lie.
#[derive(Debug)]
pub(super) struct Places {
    /// The place of each declared register among those of its width.
    pub of: Vec<usize>,
    /// How many places of up to 32 bits there are, and how many of 64.
    pub used: [usize; 2],
    /// The declared registers that may be read before they are written.
    pub unwritten: Vec<usize>,
}

/// A place for each declared register.
pub(super) fn places(declared: &[Declared], effects: &[Uses]) -> Places {
    let jumps = effects.iter().map(|effect| usize::from(effect.ends) + effect.targets.len()).sum::<usize>();
    let known = match jumps.saturating_mul(declared.len()) {
        0..=MOST_BITS => lives(effects, declared.len()),
        _ => None,
    };
    let (mut lives, mut unwritten) =
        known.unwrap_or_else(|| (vec![None; declared.len()], (0..declared.len()).collect()));
    for (register, declared) in declared.iter().enumerate() {
        if declared.fixed {
            lives[register] = None;
            // Instructions name the first part only, so nothing is known of the others.
            unwritten.push(register);
        }
    }
    unwritten.sort_unstable();
    unwritten.dedup();
    for &register in effects.iter().flat_map(|effect| &effect.keeps) {
        lives[register] = None;
    }
    let (mut places, mut used) = (vec![0; declared.len()], [0; 2]);
    let mut order = Vec::new();
    for (register, declared) in declared.iter().enumerate() {
        match lives[register] {
            Some((from, to)) => order.push((from, to, register)),
            None => {
                let used = &mut used[usize::from(declared.is_wide)];
                places[register] = *used;
                *used += 1;
            }
        }
    }
    order.sort_unstable();
    // Places in use, by the point of their last use, and places free again, the last one first.
    let mut busy: [BTreeSet<(usize, usize)>; 2] = Default::default();
    let mut free: [Vec<usize>; 2] = Default::default();
    for (from, to, register) in order {
        let width = usize::from(declared[register].is_wide);
        while let Some(&(last, place)) = busy[width].first().filter(|(last, _)| *last < from) {
            busy[width].remove(&(last, place));
            free[width].push(place);
        }
        let place = free[width].pop().unwrap_or_else(|| {
            used[width] += 1;
            used[width] - 1
        });
        places[register] = place;
        busy[width].insert((to, place));
    }
    Places { of: places, used, unwritten }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An instruction that reads and writes registers, by their numbers.
    fn uses(reads: &[usize], writes: &[usize]) -> Uses {
        Uses { reads: reads.to_vec(), writes: writes.to_vec(), ..Uses::default() }
    }

    /// A branch under a condition.
    fn branch(target: usize) -> Uses {
        Uses { guarded: true, ends: true, targets: vec![target], ..Uses::default() }
    }

    fn placed(registers: usize, effects: &[Uses]) -> Places {
        places(&vec![Declared { is_wide: false, fixed: false }; registers], effects)
    }

    #[test]
    fn registers_that_do_not_live_at_the_same_time_share_a_place() {
        let chain: Vec<Uses> = (0..9).map(|i| uses(&[i], &[i + 1])).collect();
        let Places { of, used, unwritten } = placed(10, &chain);
        assert_eq!((used, &unwritten[..]), ([2, 0], &[0][..]));
        assert!(of.windows(2).all(|pair| pair[0] != pair[1]), "{of:?}");
    }

    #[test]
    fn a_register_is_unwritten_if_any_way_reads_it_before_it_is_written() {
        // 0 is written and read; 1 is read first; 2 is written by some lanes only; 3 is written on one of two ways.
        let some = Uses { guarded: true, ..uses(&[], &[2]) };
        let ways = [uses(&[], &[0]), uses(&[0, 1], &[]), some, branch(5), uses(&[], &[3]), uses(&[2, 3], &[])];
        assert_eq!(placed(4, &ways).unwritten, [1, 2, 3]);
        // 1 is read in the second round what the first has written, and what was there before it in the first.
        let ring = [uses(&[], &[0]), uses(&[1], &[]), uses(&[0], &[1]), branch(1)];
        assert_eq!(placed(2, &ring).unwritten, [1]);
    }

    #[test]
    fn a_register_of_which_little_is_known_counts_as_unwritten() {
        // An instruction in neither list may read what it names.
        let kept = [Uses { keeps: vec![0, 1], ..Uses::default() }];
        assert_eq!(placed(2, &kept).unwritten, [0, 1]);
        assert_eq!(placed(2, &[uses(&[], &[0]), Uses { keeps: vec![0], ..Uses::default() }]).unwritten, [0; 0]);
        // Of several parts side by side only the first is named.
        let parts = [Declared { is_wide: true, fixed: true }; 2];
        assert_eq!(places(&parts, &[uses(&[], &[0]), uses(&[0], &[])]).unwritten, [0, 1]);
    }
}
