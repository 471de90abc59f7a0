//! What a piece of work costs: issue slots, pipes, a lone warp's path; sums over basic blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Add, Mul, Sub};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::counts::{Evidence, Gap, Matcher, Runs, gaps, slots_by_evidence};
use crate::lone::block_cycles;
use crate::sass::blocks::Graph;
use crate::sass::parse::Function;
use crate::sass::pipes::{Pipe, occupies, products};

/// Schedulers of a multiprocessor: each issues one instruction per cycle. Warps are dealt out to them in turn.
pub const SCHEDULERS: f64 = 4.0;

/// What a block of threads costs, in cycles if nothing else is said; of one scheduler, as if its warps were spread evenly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Issue slots of a scheduler.
    pub issue: f64,
    /// Integer and logic pipe of a scheduler.
    pub alu: f64,
    /// Multiply-add pipe of a scheduler.
    pub fma: f64,
    /// Special functions of a scheduler.
    pub mufu: f64,
    /// Tensor cores of a scheduler: multiplications and additions, whose rate depends on the instruction.
    pub products: f64,
    /// Tensor-core instructions of all warps.
    pub mma: f64,
    /// Wavefronts of shared memory, bank conflicts included, as the simulator counts them.
    pub lsu: f64,
    /// Bytes of global memory that its lanes and copies read and write.
    pub bytes: f64,
    /// The path of a warp that is alone: of each phase between barriers that of the slowest warp.
    pub lone: f64,
}

impl Work {
    /// Field by field.
    fn zip(self, other: Self, op: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            issue: op(self.issue, other.issue),
            alu: op(self.alu, other.alu),
            fma: op(self.fma, other.fma),
            mufu: op(self.mufu, other.mufu),
            products: op(self.products, other.products),
            mma: op(self.mma, other.mma),
            lsu: op(self.lsu, other.lsu),
            bytes: op(self.bytes, other.bytes),
            lone: op(self.lone, other.lone),
        }
    }

    /// Whether each count differs from another's by no more than a fraction of the other's, or of 1.
    #[must_use]
    pub fn is_close(&self, other: &Self, fraction: f64) -> bool {
        let Self { issue, alu, fma, mufu, products, mma, lsu, bytes, lone } =
            self.zip(*other, |a, b| (a - b).abs() / b.abs().max(1.0));
        [issue, alu, fma, mufu, products, mma, lsu, bytes, lone].into_iter().all(|apart| apart <= fraction)
    }
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl Sub for Work {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl Mul<f64> for Work {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        self.zip(self, |a, _| a * factor)
    }
}

/// What the simulator says of a launch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Launch {
    /// Blocks of threads that did something.
    pub blocks: f64,
    /// How often each warp of a block issued each line of PTX, by all blocks.
    pub issued: Vec<BTreeMap<u32, u64>>,
    /// Wavefronts of shared memory, of all blocks.
    pub wavefronts: u64,
    /// Bytes of global memory, of all blocks.
    pub bytes: u64,
    /// Tensor-core products, of all warps.
    pub mma: u64,
}

/// Of the issue slots, those that each kind of evidence stands for, or their share.
pub type Shares = BTreeMap<Evidence, f64>;

/// What a launch cost per block of threads, and how its counts were found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// The cost.
    pub work: Work,
    /// Issue slots of all schedulers by evidence.
    pub slots: Shares,
    /// Code that runs an unknown number of times; its slots are those of all schedulers too.
    pub gaps: Vec<Gap>,
}

/// Slots as shares of their sum.
#[must_use]
pub fn shares(slots: &Shares) -> Shares {
    let sum: f64 = slots.values().sum();
    slots.iter().map(|(&evidence, &slots)| (evidence, if sum > 0.0 { slots / sum } else { 0.0 })).collect()
}

/// Slots of one kind of evidence of two launches, combined. The same block may be found in another way in each of the two,
/// so that a difference may be negative: there is then nothing of the kind.
#[must_use]
pub fn combine(a: &Shares, b: &Shares, op: impl Fn(f64, f64) -> f64) -> Shares {
    let of = |slots: &Shares, evidence: Evidence| slots.get(&evidence).copied().unwrap_or(0.0);
    let kinds: BTreeSet<Evidence> = a.keys().chain(b.keys()).copied().collect();
    kinds.into_iter().map(|evidence| (evidence, op(of(a, evidence), of(b, evidence)).max(0.0))).collect()
}

/// Counts a launch.
///
/// # Errors
/// If the machine code has an instruction whose cost is not known, or if its tensor-core instructions do not add up to
/// those that the simulator executed: then blocks were matched wrongly, and nothing else can be trusted.
pub fn measure(function: &Function, launch: &Launch) -> Result<Measured> {
    let graph = Graph::new(function);
    let mut issued = BTreeMap::new();
    for (line, count) in launch.issued.iter().flatten() {
        *issued.entry(*line).or_insert(0) += count;
    }
    let matcher = Matcher::new(function, &graph);
    let all = matcher.runs(&issued);
    let mut work = Work::default();
    for (range, runs) in graph.blocks.iter().zip(&all) {
        for instruction in &function.instructions[range.clone()] {
            let times = runs.count / SCHEDULERS;
            work.issue += times;
            let pipe = Pipe::of(instruction).with_context(|| function.name.clone())?;
            let busy = f64::from(occupies(instruction, pipe)) * times;
            match pipe {
                Pipe::Alu => work.alu += busy,
                Pipe::Fma => work.fma += busy,
                Pipe::Special => work.mufu += busy,
                Pipe::Tensor => {
                    work.mma += runs.count;
                    work.products += products(instruction).with_context(|| function.name.clone())? as f64 * times;
                }
                // Counted by the simulator, in wavefronts.
                Pipe::LoadStore | Pipe::Uniform | Pipe::Constant | Pipe::Control => {}
            }
        }
    }
    ensure!(
        (work.mma - launch.mma as f64).abs() <= MMA_TOLERANCE * launch.mma as f64,
        "{}: basic blocks were matched to {} tensor-core instructions, and the simulator executed {}",
        function.name,
        work.mma,
        launch.mma
    );
    let cycles = block_cycles(function, &graph, &all);
    // Most warps do what others do.
    let different: BTreeSet<&BTreeMap<u32, u64>> = launch.issued.iter().collect();
    let warps: Vec<Vec<Runs>> = different.into_iter().map(|issued| matcher.runs(issued)).collect();
    work.lone = slowest(&graph.phases(function), &warps, &cycles);
    (work.lsu, work.bytes) = (launch.wavefronts as f64, launch.bytes as f64);
    let mut slots = slots_by_evidence(&graph, &all);
    slots.values_mut().for_each(|slots| *slots /= launch.blocks);
    let mut gaps = gaps(function, &graph, &all);
    gaps.iter_mut().for_each(|gap| gap.slots /= launch.blocks);
    Ok(Measured { work: work * (1.0 / launch.blocks), slots, gaps })
}

/// By how much tensor-core instructions may differ from the simulator's before matching has failed.
const MMA_TOLERANCE: f64 = 0.02;

/// Between two barriers all wait for the slowest: of each phase the longest path of a warp.
fn slowest(phases: &[usize], warps: &[Vec<Runs>], cycles: &[f64]) -> f64 {
    let mut longest = vec![0.0f64; phases.len()];
    for runs in warps {
        let mut ways = vec![0.0; phases.len()];
        for (block, phase) in phases.iter().enumerate() {
            ways[*phase] += runs[block].count * cycles[block];
        }
        longest.iter_mut().zip(ways).for_each(|(longest, way)| *longest = longest.max(way));
    }
    longest.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_phase_the_slowest_warp_counts() {
        let runs = |counts: [f64; 3]| counts.map(|count| Runs { count, evidence: Evidence::Lines }).to_vec();
        // The first two blocks are one phase: 2 * 10 + 1 * 1 for the first warp, 1 * 10 + 30 * 1 for the second.
        let warps = [runs([2.0, 1.0, 4.0]), runs([1.0, 30.0, 3.0])];
        assert_eq!(slowest(&[0, 0, 2], &warps, &[10.0, 1.0, 5.0]), 40.0 + 20.0);
    }
}
