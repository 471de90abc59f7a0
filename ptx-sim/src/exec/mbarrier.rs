//! The `mbarrier` object (PTX ISA section 9.7.13.15): counts arrivals and bytes, and completes phase after phase.
//!
//! It lies in shared memory as 8 opaque bytes. What it counts is kept here, by its offset in the block's memory; the
//! bytes themselves say nothing.

use crate::clocks::{Clocks, Knowledge};
use crate::fault::Fault;

/// Greatest number of arrivals of a phase, and of bytes that may be pending in either direction: 2^20 - 1.
pub(crate) const GREATEST_COUNT: u32 = (1 << 20) - 1;

/// An initialised object.
#[derive(Debug)]
pub(crate) struct Mbarrier {
    /// Completed phases: the number of the current one.
    pub phase: u64,
    /// Arrivals that complete a phase, from the next one on.
    pub expected: u32,
    /// Arrivals that the current phase still waits for.
    pub pending: u32,
    /// Bytes that the current phase still waits for; negative if more have come than were announced.
    pub bytes: i64,
    /// What those know that have arrived in the current phase.
    joint: Knowledge,
    /// What happened before the last completed phase's end.
    done: Knowledge,
    /// The actor on whose behalf copies that complete here write.
    pub engine: usize,
    /// Where it was initialised.
    pub line: u32,
}

impl Mbarrier {
    /// An object whose phases take `count` arrivals; between 1 and [`GREATEST_COUNT`].
    pub fn new(count: u32, clocks: &mut Clocks, line: u32) -> Result<Self, Fault> {
        if !(1..=GREATEST_COUNT).contains(&count) {
            return Err(Fault::Mbarrier(format!("a count of {count}, which is not between 1 and {GREATEST_COUNT}")));
        }
        Ok(Self {
            phase: 0,
            expected: count,
            pending: count,
            bytes: 0,
            joint: Knowledge::default(),
            done: Knowledge::default(),
            engine: clocks.new_engine(),
            line,
        })
    }

    /// An actor arrives `count` times. Where it only signals, what it has done is not ordered before the phase's end.
    pub fn arrive(&mut self, count: u32, actor: usize, clocks: &mut Clocks) -> Result<(), Fault> {
        if count == 0 || count > self.pending {
            let (pending, phase) = (self.pending, self.phase);
            return Err(Fault::Mbarrier(format!("{count} arrivals in phase {phase}, which waits for {pending} more")));
        }
        clocks.release(actor, &mut self.joint);
        self.pending -= count;
        self.advance();
        Ok(())
    }

    /// Announces `bytes` more of the current phase.
    pub fn expect(&mut self, bytes: u32) -> Result<(), Fault> {
        self.count(i64::from(bytes))
    }

    /// `bytes` have come, written by this object's engine, or in its name; what happened before is in `before`.
    pub fn complete(&mut self, bytes: u32, before: &Knowledge, clocks: &mut Clocks) -> Result<(), Fault> {
        self.joint.join(before);
        clocks.release(self.engine, &mut self.joint);
        self.count(-i64::from(bytes))?;
        self.advance();
        Ok(())
    }

    fn count(&mut self, bytes: i64) -> Result<(), Fault> {
        let sum = self.bytes + bytes;
        if sum.abs() > i64::from(GREATEST_COUNT) {
            return Err(Fault::Mbarrier(format!("{sum} pending bytes, more than {GREATEST_COUNT}")));
        }
        self.bytes = sum;
        Ok(())
    }

    /// Ends the phase if nothing is missing.
    pub fn advance(&mut self) {
        if self.pending == 0 && self.bytes == 0 {
            self.phase += 1;
            self.pending = self.expected;
            self.done = std::mem::take(&mut self.joint);
        }
    }

    /// Whether the phase of the number `phase` has ended.
    pub fn has_ended(&self, phase: u64) -> bool {
        self.phase > phase
    }

    /// Whether the last phase of the parity, the current one or the one before it, has ended.
    pub fn parity_has_ended(&self, parity: u64) -> bool {
        self.phase & 1 != parity & 1
    }

    /// An actor has seen that a phase has ended: what happened before that is known to it.
    pub fn observe(&self, actor: usize, clocks: &mut Clocks) {
        clocks.acquire(actor, &self.done);
    }
}
