//! A lone warp's path through its code: what it would take if no other warp were there.
//!
//! Instructions are issued in order. Each waits until the scoreboards are free that it names, and until the products of
//! tensor cores that it reads are there, which the hardware sees to; then for as many cycles as its predecessor's stall
//! count says. A block is entered with scoreboards as the blocks before it leave them on average, each weighted by how
//! often it comes before.

use std::collections::HashMap;

use crate::counts::Runs;
use crate::sass::blocks::Graph;
use crate::sass::control::SCOREBOARDS;
use crate::sass::parse::{Function, Instruction};
use crate::sass::pipes::{GLOBAL, OPERANDS_READ, latency};

/// Cycles until each scoreboard is free, and behind them until asynchronous copies have landed.
type Boards = [f64; SCOREBOARDS + 1];

/// Where copies stand.
const COPIES: usize = SCOREBOARDS;

/// Passes after which averages have settled: as many blocks deep a scoreboard is seen.
const PASSES: usize = 12;

/// Passes that make the numbers of jumps agree with the numbers of runs.
const FITS: usize = 40;

/// Registers of a tensor-core product's accumulator.
const ACCUMULATOR: u32 = 4;

/// Cycles that a warp spends in each block whenever it comes there, on average.
#[must_use]
pub fn block_cycles(function: &Function, graph: &Graph, runs: &[Runs]) -> Vec<f64> {
    let edges = edges(graph, runs);
    let mut leaves: Vec<Boards> = vec![[0.0; SCOREBOARDS + 1]; graph.blocks.len()];
    let mut cycles = vec![0.0; graph.blocks.len()];
    for _ in 0..PASSES {
        for block in 0..graph.blocks.len() {
            let mut enters = [0.0; SCOREBOARDS + 1];
            for &(from, share) in &edges[block] {
                for board in 0..enters.len() {
                    enters[board] += share * leaves[from][board];
                }
            }
            let code = &function.instructions[graph.blocks[block].clone()];
            (cycles[block], leaves[block]) = walk(code, enters);
        }
    }
    cycles
}

/// Walks one block. Returns its cycles and what its scoreboards still have to wait for.
fn walk(code: &[Instruction], mut boards: Boards) -> (f64, Boards) {
    let mut now = 0.0;
    let mut products: HashMap<u32, f64> = HashMap::new();
    for instruction in code {
        let control = instruction.control;
        let mut issue = control.waits().fold(now, |time: f64, board| time.max(boards[board]));
        if instruction.mnemonic() == "DEPBAR" {
            issue = issue.max(boards[COPIES]);
        }
        if !products.is_empty() {
            issue = registers(instruction).filter_map(|register| products.get(&register)).fold(issue, |t, r| t.max(*r));
        }
        let done = issue + f64::from(latency(instruction));
        if instruction.mnemonic().ends_with("MMA") {
            let first = first_register(&instruction.operands);
            products.extend(
                first.into_iter().flat_map(|first| first..first + ACCUMULATOR).map(|register| (register, done)),
            );
        }
        if instruction.mnemonic() == "LDGSTS" {
            boards[COPIES] = boards[COPIES].max(issue + f64::from(GLOBAL));
        }
        if let Some(board) = control.write {
            let board = &mut boards[usize::from(board)];
            *board = board.max(done);
        }
        if let Some(board) = control.read {
            let board = &mut boards[usize::from(board)];
            *board = board.max(issue + f64::from(OPERANDS_READ));
        }
        now = issue + f64::from(control.stall.max(1));
    }
    (now, boards.map(|free| (free - now).max(0.0)))
}

/// The first register that is named.
fn first_register(operands: &str) -> Option<u32> {
    let digits = operands.strip_prefix('R')?;
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

/// The registers that an instruction names.
fn registers(instruction: &Instruction) -> impl Iterator<Item = u32> {
    instruction.operands.split(|c: char| !c.is_ascii_alphanumeric()).filter_map(first_register)
}

/// For each block, those that come before it and their shares of its runs.
fn edges(graph: &Graph, runs: &[Runs]) -> Vec<Vec<(usize, f64)>> {
    let mut jumps: Vec<(usize, usize, f64)> = Vec::new();
    for (from, next) in graph.next.iter().enumerate() {
        jumps.extend(next.iter().map(|&to| (from, to, 1.0)));
    }
    let scale = |jumps: &mut Vec<(usize, usize, f64)>, end: fn(&(usize, usize, f64)) -> usize| {
        let mut sums = vec![0.0; graph.blocks.len()];
        jumps.iter().for_each(|jump| sums[end(jump)] += jump.2);
        for jump in jumps {
            let sum = sums[end(jump)];
            jump.2 = if sum > 0.0 { jump.2 * runs[end(jump)].count / sum } else { 0.0 };
        }
    };
    for _ in 0..FITS {
        scale(&mut jumps, |jump| jump.0);
        scale(&mut jumps, |jump| jump.1);
    }
    let mut before = vec![Vec::new(); graph.blocks.len()];
    for (from, to, times) in jumps.into_iter().filter(|jump| jump.2 > 0.0) {
        before[to].push((from, times / runs[to].count));
    }
    before
}
