//! What one level of calls has of its own: registers, predicates, local memory and call parameters.
//!
//! A call finds its registers and predicates zero where it reads them before it writes them. Its local memory and call
//! parameters hold what an earlier call of the level left there, and zeros before the first.

use super::lanes::LANES;
use super::ledger::Ledger;
use super::register_file::RegisterFile;
use crate::fault::Fault;
use crate::memory::grow;

/// Call parameters of a frame begin at a multiple of this, so that they cannot be mistaken for kernel parameters.
pub(crate) const FRAME_PARAMS: usize = 1 << 20;

/// Distance between the local variables of two levels of calls; a lane has at most half a megabyte.
pub(crate) const FRAME_LOCAL: usize = 1 << 20;

/// What a call of a function needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FrameSize {
    /// Registers of up to 32 bits.
    pub narrow_registers: usize,
    /// Registers of 64 bits; those of 128 take two.
    pub wide_registers: usize,
    pub predicates: usize,
    /// Bytes of `.local` variables of one lane.
    pub local_bytes: usize,
    /// Bytes of `.param` variables of one lane: its own parameters and results first, then those it passes on.
    pub param_bytes: usize,
}

/// Where a parameter lies.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub offset: usize,
    pub size: usize,
}

/// Registers and memory of one level of calls.
#[derive(Debug)]
pub(crate) struct Frame {
    pub registers: RegisterFile,
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

impl Frame {
    /// The frame of a level of calls, empty.
    pub fn new(depth: usize) -> Self {
        Self {
            registers: RegisterFile::default(),
            predicates: Vec::new(),
            local_base: depth * FRAME_LOCAL,
            param_base: (depth + 1) * FRAME_PARAMS,
            params: vec![Vec::new(); LANES],
            local: vec![Vec::new(); LANES],
        }
    }

    /// Forgets everything; the room stays.
    pub fn clear(&mut self) {
        self.registers.clear();
        self.predicates.clear();
        self.params.iter_mut().chain(&mut self.local).for_each(Vec::clear);
    }

    /// Makes room for a call, if earlier ones left less.
    pub fn reserve(&mut self, size: &FrameSize, ledger: &mut Ledger) -> Result<(), Fault> {
        let more = |len: usize, wanted: usize| wanted.saturating_sub(len);
        let bytes = LANES * more(self.local[0].len(), size.local_bytes)
            + LANES * more(self.params[0].len(), size.param_bytes)
            + self.registers.missing(size.narrow_registers, size.wide_registers);
        ledger.take(bytes)?;
        self.registers.reserve(size.narrow_registers, size.wide_registers)?;
        grow(&mut self.predicates, size.predicates, 0)?;
        for lane in 0..LANES {
            grow(&mut self.params[lane], size.param_bytes, 0)?;
            grow(&mut self.local[lane], size.local_bytes, 0)?;
        }
        Ok(())
    }

    /// The lanes of `mask` begin a call, which has room already: what it may read of registers and of its first
    /// `predicates` predicates before it writes them is zero. Other lanes may be in calls of the same level.
    pub fn begin(&mut self, mask: u32, unwritten: &[usize], predicates: usize) {
        unwritten.iter().for_each(|&register| self.registers.zero(register, mask));
        self.predicates[..predicates].iter_mut().for_each(|predicate| *predicate &= !mask);
    }
}
