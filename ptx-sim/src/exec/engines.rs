//! The engines in whose name copies write shared memory: who gets one, and when one that was another's can be used
//! again.

use super::cluster::Cluster;
use crate::clocks::FIRST_ENGINE;
use crate::fault::Fault;

/// Bytes that each warp may come to take for its knowledge of an engine: what it has seen and what has passed a fence,
/// of itself and at its fences.
const KNOWN_BYTES: usize = 4 * size_of::<(u32, u32)>();

impl Cluster {
    /// An engine that nobody uses. Only the checker has use for one.
    ///
    /// # Errors
    /// If there are more already than can be held.
    pub(super) fn new_engine(&mut self) -> Result<usize, Fault> {
        if self.clocks.engines_are_worn() {
            self.recycle_engines();
        }
        let before = self.clocks.engines();
        let engine = self.clocks.new_engine();
        if self.clocks.engines() > before {
            self.held.take(KNOWN_BYTES * self.clocks.warps())?;
        }
        Ok(engine)
    }

    /// Looks which engines somebody may yet race with, by their last accesses to each byte of shared memory and to each
    /// block that is another's.
    fn recycle_engines(&mut self) {
        let mut remembered = vec![false; self.clocks.engines()];
        let mut note = |actor: usize| {
            if let Some(remembered) = actor.checked_sub(FIRST_ENGINE).and_then(|index| remembered.get_mut(index)) {
                *remembered = true;
            }
        };
        for rank in 0..self.blocks.len() {
            self.forget_known_visits(rank);
            let block = &self.blocks[rank];
            block.visits.keys().for_each(|actor| note(*actor));
            block.shared.engines(&mut note);
        }
        self.clocks.recycle(&remembered);
    }
}
