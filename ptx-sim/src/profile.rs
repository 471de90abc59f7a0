//! How often each instruction was issued: what a model of time needs, and what shows where a kernel spends its
//! instructions.

use std::collections::BTreeMap;

/// One instruction that a launch issued, of all blocks together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Executed {
    /// The kernel or device function that it stands in.
    pub function: String,
    /// Line in the PTX.
    pub ptx_line: u32,
    /// The instruction as PTX.
    pub instruction: String,
    /// File and line in CUDA, if the PTX has line information (`nvcc -lineinfo`).
    pub source: Option<(String, u32)>,
    /// How often the warps issued it, whether or not its guard let a lane execute it: by the warp's index in its block,
    /// up to the last one that did.
    pub issued: Vec<u64>,
}

impl Executed {
    /// How often all warps together issued it.
    #[must_use]
    pub fn warps(&self) -> u64 {
        self.issued.iter().sum()
    }
}

/// Counts while a launch runs, by function and step, and there by warp.
#[derive(Debug, Default)]
pub(crate) struct Profile(BTreeMap<(usize, usize), Vec<u64>>);

impl Profile {
    /// A warp issues an instruction.
    pub fn issue(&mut self, at: (usize, usize), warp: usize) {
        let counts = self.0.entry(at).or_default();
        if counts.len() <= warp {
            counts.resize(warp + 1, 0);
        }
        counts[warp] += 1;
    }

    /// Adds what another core counted.
    pub fn add(&mut self, other: &Self) {
        for (at, more) in &other.0 {
            let counts = self.0.entry(*at).or_default();
            counts.resize(counts.len().max(more.len()), 0);
            counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        }
    }

    /// The counts, in the order of functions and steps.
    pub fn into_counts(self) -> impl Iterator<Item = ((usize, usize), Vec<u64>)> {
        self.0.into_iter()
    }
}
