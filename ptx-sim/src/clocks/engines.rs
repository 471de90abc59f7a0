//! The engines of a cluster: who they are, when they may be used again, and their times.

use super::FIRST_ENGINE;

/// Engines that nobody writes in the name of any more before somebody looks which of them can be used again. Looking
/// takes about as long as some hundred of them take to be used up.
const RETIRED: usize = 1024;

/// The engines of a cluster.
///
/// An engine whose `mbarrier` is gone can be another's from then on, once no byte of shared memory remembers an access
/// of its old life: accesses of its new life have later times than all that anybody knows of it, and a race with its
/// old life can no longer be found, nor be overlooked because somebody knows of its new one.
#[derive(Debug, Default)]
pub(super) struct Engines {
    times: Vec<u32>,
    /// Those that can be used again.
    spare: Vec<usize>,
    /// Those that are gone, and may still be remembered.
    retired: Vec<usize>,
    /// How many of them were remembered when somebody looked last.
    remembered: usize,
}

impl Engines {
    /// Number of engines that there are, or were.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    pub fn time(&self, engine: usize) -> u32 {
        self.times[engine - FIRST_ENGINE]
    }

    /// Its next access comes later than this one.
    pub fn advance(&mut self, engine: usize) {
        self.times[engine - FIRST_ENGINE] += 1;
    }

    /// An engine that nobody uses, if possible one that was used before.
    pub fn take(&mut self) -> usize {
        self.spare.pop().unwrap_or_else(|| {
            self.times.push(1);
            FIRST_ENGINE + self.times.len() - 1
        })
    }

    /// Nobody accesses in its name any more.
    pub fn retire(&mut self, engine: usize) {
        self.advance(engine);
        self.retired.push(engine);
    }

    /// Whether it is time to look which engines are remembered, by [`Self::recycle`]: twice as many are gone as were
    /// remembered before, so that looking takes no more than a fixed time for each.
    pub fn are_worn(&self) -> bool {
        self.spare.is_empty() && self.retired.len() >= RETIRED.max(2 * self.remembered)
    }

    /// Those of them that are gone and not `remembered`, by number from [`FIRST_ENGINE`] on, can be used again.
    pub fn recycle(&mut self, remembered: &[bool]) {
        let Self { spare, retired, .. } = self;
        retired.retain(|&engine| {
            let kept = remembered.get(engine - FIRST_ENGINE).is_some_and(|remembered| *remembered);
            if !kept {
                spare.push(engine);
            }
            kept
        });
        self.remembered = self.retired.len();
    }
}
