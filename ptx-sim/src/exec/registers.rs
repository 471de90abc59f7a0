//! The registers that a block's warps own, and its pool of free ones (`setmaxnreg`, PTX ISA section 9.7.19.5).
//!
//! Counts are registers per thread, of one warp: hardware gives them in units of 8 per thread, 256 per warp.

use std::collections::VecDeque;

use super::lanes::LANES;
use super::program::Code;
use crate::clocks::Clocks;
use crate::fault::Fault;

/// Registers of a multiprocessor.
const FILE: u64 = 65536;

/// Registers per thread are given in units of so many.
const UNIT: u64 = 8;

/// Most registers that a thread owns: 255 that have names, in units.
const MOST: u64 = 256;

/// Warps of a warpgroup: four in a row, the first of a rank that is a multiple of 4 (PTX ISA section 9.7.15.1).
pub(crate) const WARPGROUP: usize = 4;

/// The registers of a block.
#[derive(Debug)]
pub(crate) struct Registers {
    warps: Vec<Owner>,
    /// Free registers.
    pub pool: u64,
    /// Whether the compiler knows how many registers a thread has at entry. Of a kernel for which it does not, ptxas
    /// leaves every `setmaxnreg` out.
    pub bounded: bool,
    /// Where each warpgroup's warps have changed their number, by warpgroup.
    changes: Vec<Changes>,
}

/// One warp's registers.
#[derive(Clone, Copy, Debug)]
struct Owner {
    registers: u64,
    /// How often the number was changed.
    changes: usize,
    /// The warp's own time of the last change.
    clock: u32,
    /// Whether it stands at the next change and waits.
    entered: bool,
}

/// Where the warps of a warpgroup have changed the number of their registers: from the last change that all of them have
/// made on. What came before, nobody asks for.
#[derive(Clone, Debug, Default)]
struct Changes {
    /// How many came before.
    forgotten: usize,
    kept: VecDeque<Change>,
}

impl Changes {
    /// The one that so many came before.
    fn get(&self, number: usize) -> Option<Change> {
        self.kept.get(number.checked_sub(self.forgotten)?).copied()
    }

    /// Forgets those that so many others come behind.
    fn forget(&mut self, number: usize) {
        while self.forgotten < number && self.kept.pop_front().is_some() {
            self.forgotten += 1;
        }
    }
}

/// A change that all warps of a warpgroup make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// Function and step.
    pub at: (usize, usize),
    pub line: u32,
}

/// A change to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// At least as many as now.
    Increase(u64),
    /// At most as many as now.
    Decrease(u64),
}

impl Registers {
    /// The registers of a block of `threads` threads that runs a kernel.
    pub fn new(code: &Code, threads: usize) -> Self {
        let bound = bound(code);
        // Without a bound they are as many as a block of that size could have.
        let registers = bound.unwrap_or_else(|| fitting(threads as u64, 1));
        let warps = threads.div_ceil(LANES);
        let owner = Owner { registers, changes: 0, clock: 0, entered: false };
        let changes = vec![Changes::default(); warps.div_ceil(WARPGROUP)];
        Self { warps: vec![owner; warps], pool: 0, bounded: bound.is_some(), changes }
    }

    /// Registers that a warp owns.
    pub fn owned(&self, warp: usize) -> u64 {
        self.warps[warp].registers
    }

    /// A warp comes to a change, at a place. `first` is the actor that the block's first warp is. The result is what
    /// the checker has to say.
    pub fn enter(
        &mut self,
        warp: usize,
        (at, line): ((usize, usize), u32),
        clocks: &Clocks,
        first: usize,
    ) -> Result<Option<Fault>, Fault> {
        if std::mem::replace(&mut self.warps[warp].entered, true) {
            return Ok(None);
        }
        let group = warp / WARPGROUP;
        let members = group * WARPGROUP..((group + 1) * WARPGROUP).min(self.warps.len());
        if members.len() < WARPGROUP {
            let (number, why) =
                (members.len(), "the four warps of a warpgroup execute it, but here the block has only");
            return Err(Fault::Trap(format!("setmaxnreg: {why} {number}")));
        }
        let number = self.warps[warp].changes;
        match self.changes[group].get(number) {
            Some(change) if change.at != at => {
                let why = format!("another warp of the warpgroup is at that of PTX line {} instead", change.line);
                return Err(Fault::Trap(format!("setmaxnreg: {why}")));
            }
            Some(_) => {}
            None => self.changes[group].kept.push_back(Change { at, line }),
        }
        // Those that have already come to this change have passed a synchronisation of their own.
        let behind = |other: usize| {
            let owner = self.warps[other];
            owner.changes < number || owner.changes == number && !clocks.knows(first + warp, first + other, owner.clock)
        };
        let least = members.clone().map(|warp| self.warps[warp].changes).min().unwrap_or_default();
        self.changes[group].forget(least.saturating_sub(1));
        let late = members.filter(|&other| other != warp && number > 0).find(|&other| behind(other));
        Ok(late.zip(self.changes[group].get(number.wrapping_sub(1))).map(|(other, before)| {
            let why = "the warpgroup has not synchronised since that of PTX line";
            Fault::Trap(format!("setmaxnreg: {why} {}: warp {other} may still be there", before.line))
        }))
    }

    /// Changes the number of registers of a warp that has entered. The result is whether there were enough.
    pub fn change(&mut self, warp: usize, request: Request, now: u32) -> Result<bool, Fault> {
        let owned = self.owned(warp);
        match request {
            Request::Decrease(count) if count > owned => {
                Err(Fault::Trap(format!("setmaxnreg.dec to {count} registers of a warp that has {owned}")))
            }
            Request::Increase(count) if count < owned => {
                Err(Fault::Trap(format!("setmaxnreg.inc to {count} registers of a warp that has {owned}")))
            }
            Request::Increase(count) if count - owned > self.pool => Ok(false),
            Request::Increase(count) | Request::Decrease(count) => {
                self.pool = self.pool + owned - count;
                let owner = &mut self.warps[warp];
                *owner = Owner { registers: count, changes: owner.changes + 1, clock: now, entered: false };
                Ok(true)
            }
        }
    }

    /// A change that some warp of a warpgroup has not made: the place and such a warp.
    pub(super) fn left_out(&self) -> Option<(Change, usize)> {
        let changes = |warp: usize| self.changes[warp / WARPGROUP].get(self.warps[warp].changes);
        (0..self.warps.len()).find_map(|warp| Some((changes(warp)?, warp)))
    }
}

/// Registers per thread of the largest block of so many threads of which so many run on a multiprocessor at once.
fn fitting(threads: u64, blocks: u64) -> u64 {
    let threads = threads.max(1).next_multiple_of(LANES as u64);
    (FILE / threads.saturating_mul(blocks) / UNIT * UNIT).min(MOST)
}

/// Registers per thread that a kernel is launched with, if its directives bound them: by `.maxnreg`, or by
/// `.minnctapersm` beside `.maxntid` or `.reqntid`. Then the compiler gives every thread as many as fit. No option of
/// ptxas stands for them: it leaves `setmaxnreg` out under `--maxrregcount`, too.
fn bound(code: &Code) -> Option<u64> {
    let product = |name: &str| {
        let (_, numbers) = code.directives.iter().find(|(own, _)| own == name)?;
        Some(numbers.iter().fold(1, |product: u64, n| product.saturating_mul(u64::from(*n))).max(1))
    };
    let named = product("maxnreg").map(|registers| registers.min(MOST).next_multiple_of(UNIT));
    let resident = product("maxntid").or(product("reqntid")).zip(product("minnctapersm"));
    let shared = resident.map(|(threads, blocks)| fitting(threads, blocks));
    named.into_iter().chain(shared).min()
}
