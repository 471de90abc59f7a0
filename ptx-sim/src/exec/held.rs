//! How much of this computer's memory a cluster may hold for what it has begun and not ended.

use std::collections::VecDeque;

use crate::fault::Fault;

/// What a cluster's asynchronous operations take of this computer's memory, with the objects that they complete on. All
/// of it is given back when somebody waits for it, and hardware has little of it; a kernel that waits for nothing would
/// have this computer's memory otherwise.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: u64,
    most: u64,
}

impl Held {
    /// Nothing is held, and at most `most` bytes will be.
    pub fn new(most: u64) -> Self {
        Self { bytes: 0, most }
    }

    /// `bytes` more are held.
    ///
    /// # Errors
    /// [`Fault::OutOfMemory`] if they would be too many.
    pub fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        let sum = self.bytes.saturating_add(bytes as u64);
        if sum > self.most {
            let why = format!(
                "the cluster's asynchronous operations and the mbarriers that they complete on hold {} of at most {} \
                 bytes (`Limits::held_bytes`), which is far more than kernels need that wait for them",
                self.bytes, self.most
            );
            return Err(Fault::OutOfMemory { bytes, why });
        }
        self.bytes = sum;
        Ok(())
    }

    /// Something that held `before` bytes holds `after` bytes now.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn change(&mut self, before: usize, after: usize) -> Result<(), Fault> {
        self.give_back(before.saturating_sub(after));
        self.take(after.saturating_sub(before))
    }

    /// `bytes` that were held are no more.
    pub fn give_back(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }
}

/// Elements that an empty queue keeps room for.
const KEPT: usize = 64;

/// Gives room back that an empty queue has from longer days: many queues, each of them long once, would hold it for
/// ever.
pub(crate) fn shrink<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > KEPT {
        queue.shrink_to(KEPT);
    }
}
