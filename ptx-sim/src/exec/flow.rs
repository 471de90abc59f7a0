//! What instructions do with registers, and which registers decide where a loop goes on.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use super::frame::Frame;
use super::program::{Effect, Program};

/// Set in the numbers of predicates, which are among those of registers here.
pub(crate) const PREDICATE: u32 = 1 << 30;

/// Registers and predicates that an instruction writes and reads, its guard's included. What is not known is in both.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub writes: Box<[u32]>,
    pub reads: Box<[u32]>,
    /// Whether nothing else can be told of it than by what it writes.
    pub pure: bool,
}

/// The registers and predicates on which it depends what some instructions do, as long as no others are executed: those
/// by which they jump, which they read to access memory or to exchange values, and everything that these are made of. A
/// register that counts and is looked at by nobody is none of them.
#[derive(Debug, Default)]
pub(super) struct Relevant {
    registers: Vec<usize>,
    predicates: Vec<usize>,
    /// Whether some of them are made of the time.
    pub timed: bool,
}

impl Relevant {
    /// Those of the instructions at `places`: functions and steps, and whether any lane executes them. Of those that
    /// none does the guard alone matters.
    pub fn of(program: &Program, places: &HashMap<(usize, usize), bool>) -> Self {
        let step = |(function, step): (usize, usize)| (function, &program.functions[function].steps[step]);
        let steps = || places.iter().map(|(&at, executed)| (step(at), *executed));
        let mut found: HashSet<(usize, u32)> = HashSet::new();
        let mut timed = false;
        loop {
            let before = found.len();
            for ((function, step), executed) in steps() {
                let matters =
                    !step.flow.pure || step.flow.writes.iter().any(|&place| found.contains(&(function, place)));
                if matters && !executed {
                    found.extend(step.guard.map(|guard| (function, guard.predicate as u32 | PREDICATE)));
                } else if matters {
                    found.extend(step.flow.reads.iter().map(|&place| (function, place)));
                    timed |= step.effect == Effect::Times;
                }
            }
            if found.len() == before {
                break;
            }
        }
        // The same numbers are other registers in other functions; a few too many do no harm.
        let mut all: Vec<u32> = found.into_iter().map(|(_, place)| place).collect();
        all.sort_unstable();
        all.dedup();
        let (predicates, registers): (Vec<u32>, Vec<u32>) = all.into_iter().partition(|place| place & PREDICATE != 0);
        Self {
            registers: registers.into_iter().map(|register| register as usize).collect(),
            predicates: predicates.into_iter().map(|place| (place & !PREDICATE) as usize).collect(),
            timed,
        }
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.registers.len() + self.predicates.len()
    }

    /// Hashes their values in a level of calls, and the memory that the level has of its own.
    pub fn hash(&self, frame: &Frame, hasher: &mut impl std::hash::Hasher) {
        for &register in &self.registers {
            frame.registers.hash_register(register, hasher);
        }
        for &predicate in &self.predicates {
            frame.predicates.get(predicate).hash(hasher);
        }
        (&frame.params, &frame.local).hash(hasher);
    }
}
