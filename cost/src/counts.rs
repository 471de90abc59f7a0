//! How often each basic block of the machine code runs, found from how often the simulator issued each line of PTX.
//!
//! The compiler moves, merges, copies and drops instructions, so that no single line can be trusted. In this order:
//!
//! 1. *Lines.* Of the instructions whose line of PTX stands in this block alone, most say how often it runs. Memory
//!    accesses, tensor-core products, shuffles and barriers have more of a say: the compiler does not make them up, and of
//!    several from one line it has copied the line (an unrolled loop), each of which then runs its share. A block all of
//!    whose products stand in other blocks too is a copy: its own lines are asked last.
//! 2. *Sums.* A line that stands in several blocks runs as often as all of them together; the last unknown one follows, and
//!    where most lines were never issued, nothing runs.
//! 3. *Flow.* A block runs as often as it is entered and as it is left.
//!
//! What is left is *unmatched*, counted as never run, and reported with the issue slots that it would have had if it ran as
//! often as the busiest block next to it.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::sass::blocks::Graph;
use crate::sass::parse::{Function, Instruction};

/// How the number of a block's runs was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Lines of PTX that stand in it alone.
    Lines,
    /// Lines of PTX that it shares with blocks that are known.
    Sums,
    /// What enters and leaves the blocks around it.
    Flow,
    /// Only warps whose lanes have diverged would run it, or nothing enters it.
    Unreachable,
    /// None: counted as never run.
    Unmatched,
}

/// How often a block runs, by all warps together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Runs {
    /// How often.
    pub count: f64,
    /// Why.
    pub evidence: Evidence,
}

/// Say of an instruction that the compiler does not make up, beside one for the others.
const ANCHOR: usize = 8;

/// Whether the compiler makes exactly one of it for one of PTX. Not if it has a guard: that may be what a branch has
/// become, and then it is there more often than its line was issued.
fn is_anchor(instruction: &Instruction) -> bool {
    let counted = matches!(
        instruction.mnemonic(),
        "LDS"
            | "STS"
            | "LDSM"
            | "STSM"
            | "LDG"
            | "STG"
            | "LDGSTS"
            | "SHFL"
            | "BAR"
            | "HMMA"
            | "IMMA"
            | "ATOMG"
            | "LDGDEPBAR"
    ) || instruction.opcode.starts_with("MUFU.EX2");
    counted && instruction.is_unconditional()
}

/// What of a kernel's machine code the counts of its PTX are matched with, whatever warp they are of.
#[derive(Debug)]
pub struct Matcher<'a> {
    function: &'a Function,
    graph: &'a Graph,
    places: Places,
    previous: Vec<Vec<usize>>,
}

/// The reachable blocks that each line of PTX stands in, and how often its anchors stand there; without anchors once.
type Places = HashMap<u32, BTreeMap<usize, usize>>;

impl<'a> Matcher<'a> {
    /// For a kernel and its graph.
    #[must_use]
    pub fn new(function: &'a Function, graph: &'a Graph) -> Self {
        Self { function, graph, places: places(function, graph), previous: graph.previous() }
    }

    /// How often each block runs, given how often each line of PTX was issued.
    #[must_use]
    pub fn runs(&self, issued: &BTreeMap<u32, u64>) -> Vec<Runs> {
        let Self { function, graph, places, previous } = self;
        let mut found: Vec<Option<Runs>> = (0..graph.blocks.len())
            .map(|block| {
                if !graph.reachable[block] {
                    return Some(Runs { count: 0.0, evidence: Evidence::Unreachable });
                }
                let code = &function.instructions[graph.blocks[block].clone()];
                let lines =
                    (!only_shares_products(code, places)).then(|| by_lines(code, places, issued, block)).flatten();
                lines.or_else(|| never(code, issued))
            })
            .collect();
        let settle = |found: &mut [_]| while by_sums(places, issued, found) || by_flow(graph, previous, found) {};
        settle(&mut found);
        for (block, runs) in found.iter_mut().enumerate().filter(|(_, runs)| runs.is_none()) {
            *runs = by_lines(&function.instructions[graph.blocks[block].clone()], places, issued, block);
        }
        settle(&mut found);
        found.into_iter().map(|runs| runs.unwrap_or(Runs { count: 0.0, evidence: Evidence::Unmatched })).collect()
    }
}

fn places(function: &Function, graph: &Graph) -> Places {
    let (mut anchors, mut all) = (Places::new(), Places::new());
    for (block, range) in graph.blocks.iter().enumerate().filter(|&(block, _)| graph.reachable[block]) {
        for instruction in &function.instructions[range.clone()] {
            let Some(line) = instruction.ptx_line else { continue };
            all.entry(line).or_default().insert(block, 1);
            if is_anchor(instruction) {
                *anchors.entry(line).or_default().entry(block).or_default() += 1;
            }
        }
    }
    all.extend(anchors);
    all
}

/// Whether a block has products, and shares all of their lines with other blocks: a copy of another one, such as a loop whose
/// first round the compiler has taken out. The lines that it has alone, of its counter and its branch, were issued in the
/// other one's rounds too.
fn only_shares_products(code: &[Instruction], places: &Places) -> bool {
    let products = code.iter().filter(|instruction| matches!(instruction.mnemonic(), "HMMA" | "IMMA"));
    let mut lines = products.filter_map(|product| product.ptx_line).peekable();
    lines.peek().is_some() && lines.all(|line| places[&line].len() > 1)
}

/// What the lines say that stand in a block alone.
fn by_lines(code: &[Instruction], places: &Places, issued: &BTreeMap<u32, u64>, block: usize) -> Option<Runs> {
    let mut copies: HashMap<u32, (usize, bool)> = HashMap::new();
    for instruction in code {
        let Some(line) = instruction.ptx_line else { continue };
        let anchor = is_anchor(instruction);
        if places[&line].len() == 1 && places[&line].contains_key(&block) {
            let entry = copies.entry(line).or_insert((0, false));
            *entry = match (anchor, entry.1) {
                (true, false) => (1, true),
                (false, true) => *entry,
                _ => (entry.0 + 1, entry.1),
            };
        }
    }
    let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
    for (line, (copies, anchor)) in copies {
        // A line that was never issued has no count.
        let count = issued.get(&line).copied().unwrap_or(0);
        if anchor {
            *votes.entry(count / copies as u64).or_default() += ANCHOR;
        } else {
            *votes.entry(count).or_default() += 1;
        }
    }
    // Of equal ones the larger: what was moved here from a rarer place was moved by mistake.
    let (count, _) = votes.into_iter().max_by_key(|&(count, votes)| (votes, count))?;
    Some(Runs { count: count as f64, evidence: Evidence::Lines })
}

/// A block most of whose lines were never issued, whatever other blocks they stand in.
fn never(code: &[Instruction], issued: &BTreeMap<u32, u64>) -> Option<Runs> {
    let lines = code.iter().filter_map(|instruction| instruction.ptx_line);
    let (with, without): (Vec<u32>, Vec<u32>) = lines.partition(|line| issued.contains_key(line));
    (without.len() > with.len()).then_some(Runs { count: 0.0, evidence: Evidence::Sums })
}

/// Blocks that alone are unknown of those that share a line. Whether there were any.
fn by_sums(places: &Places, issued: &BTreeMap<u32, u64>, found: &mut [Option<Runs>]) -> bool {
    let mut sums: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (line, blocks) in places.iter().filter(|(_, blocks)| blocks.len() > 1) {
        let mut unknown = blocks.iter().filter(|(block, _)| found[**block].is_none());
        let (Some((&block, &copies)), None) = (unknown.next(), unknown.next()) else { continue };
        let known: f64 =
            blocks.iter().filter_map(|(block, &copies)| found[*block].map(|runs| runs.count * copies as f64)).sum();
        let rest = issued.get(line).copied().unwrap_or(0) as f64 - known;
        sums.entry(block).or_default().push((rest / copies as f64).max(0.0));
    }
    for (&block, values) in &mut sums {
        values.sort_by(f64::total_cmp);
        found[block] = Some(Runs { count: values[values.len() / 2], evidence: Evidence::Sums });
    }
    !sums.is_empty()
}

/// One block that runs as often as others show. Whether there was one.
fn by_flow(graph: &Graph, previous: &[Vec<usize>], found: &mut [Option<Runs>]) -> bool {
    for block in 0..found.len() {
        if found[block].is_some() {
            continue;
        }
        let through = |from: &[usize], back: &dyn Fn(usize) -> Vec<usize>| flow(block, from, back, found);
        let entered = through(&previous[block], &|other| graph.next[other].clone());
        let left = || through(&graph.next[block], &|other| previous[other].clone());
        if let Some(count) = entered.or_else(left) {
            found[block] = Some(Runs { count, evidence: Evidence::Flow });
            return true;
        }
    }
    false
}

/// How often a block is entered from (or left to) its neighbours: from each as often as it runs, less what it has to do
/// with its other neighbours, which must have to do with no other.
fn flow(block: usize, neighbours: &[usize], back: &dyn Fn(usize) -> Vec<usize>, found: &[Option<Runs>]) -> Option<f64> {
    if neighbours.is_empty() {
        return None;
    }
    let share = |&neighbour: &usize| {
        let mut rest = found[neighbour]?.count;
        for other in back(neighbour).into_iter().filter(|&other| other != block) {
            rest -= found[other]?.count;
        }
        Some(rest.max(0.0))
    };
    match neighbours {
        [only] => share(only),
        several => {
            // Exact only if each of them has to do with this block alone.
            let alone = several.iter().all(|&neighbour| back(neighbour) == [block]);
            alone.then(|| several.iter().map(share).sum::<Option<f64>>()).flatten()
        }
    }
}

/// A block that runs an unknown number of times.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    /// Bytes from the function's start.
    pub address: u32,
    /// Its instructions.
    pub instructions: usize,
    /// The first and the last line of PTX that it was made of.
    pub lines: Option<(u32, u32)>,
    /// The issue slots that it would have if it ran as often as the busiest block next to it.
    pub slots: f64,
}

/// Unmatched blocks that may run, in the order of addresses.
#[must_use]
pub fn gaps(function: &Function, graph: &Graph, runs: &[Runs]) -> Vec<Gap> {
    let previous = graph.previous();
    let unmatched = (0..graph.blocks.len()).filter(|&block| runs[block].evidence == Evidence::Unmatched);
    let gap = |block: usize| {
        let code = &function.instructions[graph.blocks[block].clone()];
        let lines = || code.iter().filter_map(|instruction| instruction.ptx_line);
        Gap {
            address: code.first().map_or(0, |first| first.address),
            instructions: code.len(),
            lines: lines().min().zip(lines().max()),
            slots: busiest_neighbour(graph, &previous, runs, block) * code.len() as f64,
        }
    };
    unmatched.map(gap).filter(|gap| gap.slots > 0.0).collect()
}

/// How often the busiest block runs that may come before or after a block.
fn busiest_neighbour(graph: &Graph, previous: &[Vec<usize>], runs: &[Runs], block: usize) -> f64 {
    previous[block].iter().chain(&graph.next[block]).map(|&other| runs[other].count).fold(0.0, f64::max)
}

/// Of the issue slots of all blocks, those that each kind of evidence stands for; of unmatched blocks, those that they
/// would have if they ran as often as the busiest block next to them.
#[must_use]
pub fn slots_by_evidence(graph: &Graph, runs: &[Runs]) -> BTreeMap<Evidence, f64> {
    let previous = graph.previous();
    let mut slots = BTreeMap::new();
    for (block, range) in graph.blocks.iter().enumerate() {
        let count = match runs[block].evidence {
            Evidence::Unmatched => busiest_neighbour(graph, &previous, runs, block),
            _ => runs[block].count,
        };
        *slots.entry(runs[block].evidence).or_insert(0.0) += count * range.len() as f64;
    }
    slots
}
