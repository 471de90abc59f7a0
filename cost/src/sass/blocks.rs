//! Basic blocks: runs of instructions that are entered at their first and left at their last, and how they follow each
//! other.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::parse::{Function, Instruction};

/// The control-flow graph of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// Indices of each block's instructions, in the order of addresses; the kernel begins with the first block.
    pub blocks: Vec<Range<usize>>,
    /// The blocks that may follow each block.
    pub next: Vec<Vec<usize>>,
    /// Whether converged warps reach a block: code behind `BRA.DIV` alone serves warps whose lanes have diverged.
    pub reachable: Vec<bool>,
}

/// Whether control may go elsewhere than on.
fn ends_block(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), "BRA" | "EXIT" | "RET" | "BRX" | "JMX" | "CALL" | "KILL" | "JMP")
}

/// Whether the warps of a block wait for each other.
fn is_barrier(instruction: &Instruction) -> bool {
    instruction.mnemonic() == "BAR"
}

/// Whether it is there for warps whose lanes have diverged.
fn is_divergent(instruction: &Instruction) -> bool {
    instruction.mnemonic() == "BRA" && instruction.has("DIV")
}

impl Graph {
    /// The graph of a kernel's machine code.
    #[must_use]
    pub fn new(function: &Function) -> Self {
        let code = &function.instructions;
        let at: HashMap<u32, usize> =
            code.iter().enumerate().map(|(i, instruction)| (instruction.address, i)).collect();
        let target = |i: usize| code[i].target.and_then(|address| at.get(&address).copied());
        let mut leaders = BTreeSet::from([0, code.len()]);
        for (i, instruction) in code.iter().enumerate() {
            if ends_block(instruction) || is_barrier(instruction) {
                leaders.insert(i + 1);
            }
            // `BSSY` names the place where lanes meet again, which is a block's beginning anyway.
            leaders.extend(target(i));
        }
        let leaders: Vec<usize> = leaders.into_iter().collect();
        let blocks: Vec<Range<usize>> = leaders.windows(2).map(|pair| pair[0]..pair[1]).collect();
        let block_at: HashMap<usize, usize> = blocks.iter().enumerate().map(|(i, block)| (block.start, i)).collect();
        let successors = |block: &Range<usize>| {
            let last = block.end - 1;
            let instruction = &code[last];
            let on = block_at.get(&block.end).copied();
            let away = target(last).and_then(|i| block_at.get(&i).copied());
            let mut next = Vec::new();
            match instruction.mnemonic() {
                "BRA" | "JMP" if is_divergent(instruction) => next.extend(on),
                "BRA" | "JMP" => {
                    next.extend(away);
                    // `BRA P1, target` and `@P1 BRA target` may both not jump.
                    let uniform = instruction.operands.starts_with(['U', 'P', '!']);
                    if instruction.guard.is_some() || uniform {
                        next.extend(on);
                    }
                }
                "EXIT" | "RET" | "KILL" | "BRX" | "JMX" => {
                    if instruction.guard.is_some() {
                        next.extend(on);
                    }
                }
                // A subroutine comes back.
                _ => next.extend(on),
            }
            next.dedup();
            next
        };
        let next: Vec<Vec<usize>> = blocks.iter().map(successors).collect();
        let mut reachable = vec![false; blocks.len()];
        let mut stack = Vec::from_iter((!blocks.is_empty()).then_some(0));
        while let Some(block) = stack.pop() {
            if !std::mem::replace(&mut reachable[block], true) {
                stack.extend(&next[block]);
            }
        }
        Self { blocks, next, reachable }
    }

    /// The phase of each block, a number: blocks are of one phase if control passes between them without a barrier.
    #[must_use]
    pub fn phases(&self, function: &Function) -> Vec<usize> {
        let mut phases: Vec<usize> = (0..self.blocks.len()).collect();
        // The least number of those that touch goes round until all have it.
        let mut changed = true;
        while std::mem::take(&mut changed) {
            for (from, next) in self.next.iter().enumerate() {
                if is_barrier(&function.instructions[self.blocks[from].end - 1]) {
                    continue;
                }
                for &to in next {
                    let least = phases[from].min(phases[to]);
                    changed |= phases[from] != phases[to];
                    (phases[from], phases[to]) = (least, least);
                }
            }
        }
        phases
    }

    /// The blocks that each block may follow.
    #[must_use]
    pub fn previous(&self) -> Vec<Vec<usize>> {
        let mut previous = vec![Vec::new(); self.blocks.len()];
        for (from, next) in self.next.iter().enumerate() {
            next.iter().for_each(|&to| previous[to].push(from));
        }
        previous
    }
}
