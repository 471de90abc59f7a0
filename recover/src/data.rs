//! Text as training reads it: windows of equal length, in an order that follows from a seed.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::step::Batch;

/// Texts that share so many tokens in a row are not independent.
pub const OVERLAP: usize = 32;

/// Training text, cut into windows.
pub struct Windows {
    windows: Vec<Vec<u32>>,
    sequence: usize,
    seed: u64,
}

impl Windows {
    /// Cuts `tokens` into windows of `sequence` tokens, each of which begins with `begin`, the token that begins a text, if
    /// the model has one. What is left at the end is dropped.
    ///
    /// # Errors
    /// If there is not one whole window, or `sequence` is less than 2.
    pub fn new(tokens: &[u32], begin: Option<u32>, sequence: usize, seed: u64) -> Result<Self> {
        ensure!(sequence >= 2, "a sequence must have at least 2 tokens, not {sequence}");
        let own = sequence - usize::from(begin.is_some());
        let windows: Vec<Vec<u32>> =
            tokens.chunks_exact(own).map(|chunk| begin.into_iter().chain(chunk.iter().copied()).collect()).collect();
        ensure!(
            !windows.is_empty(),
            "the training text has {} tokens, too few for one sequence of {sequence}",
            tokens.len()
        );
        Ok(Self { windows, sequence, seed })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.windows.len()
    }

    /// What step number `step` learns from: the next `batch` windows of an endless row of shuffled texts, and `positions`
    /// random tokens of each, the first left out, whose predictions are compared. It depends on nothing but the seed and
    /// the step, so a resumed run sees the same.
    #[must_use]
    pub fn batch(&self, step: u64, batch: usize, positions: usize) -> Batch {
        let count = self.windows.len() as u64;
        let mut tokens = Vec::with_capacity(batch * self.sequence);
        let mut order = (u64::MAX, Vec::new());
        for i in 0..batch as u64 {
            let index = step * batch as u64 + i;
            let epoch = index / count;
            if order.0 != epoch {
                let mut shuffled: Vec<usize> = (0..self.windows.len()).collect();
                shuffled.shuffle(&mut self.random(epoch, 0));
                order = (epoch, shuffled);
            }
            tokens.extend(&self.windows[order.1[(index % count) as usize]]);
        }
        let mut random = self.random(step, 1);
        let positions = (0..batch * positions)
            .map(|i| (i / positions * self.sequence + random.random_range(1..self.sequence)) as u32)
            .collect();
        Batch { tokens, sequence: self.sequence, positions }
    }

    /// Random numbers for one purpose at one time.
    fn random(&self, time: u64, purpose: u64) -> ChaCha8Rng {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(2 * time + purpose);
        random
    }
}

/// Refuses training text that shares [`OVERLAP`] tokens in a row with the evaluation text; the message says where.
///
/// # Errors
/// If they do, or the evaluation is shorter than that and stands in the training text as a whole.
pub fn refuse_overlap(training: &[u32], evaluation: &[u32]) -> Result<()> {
    let run = OVERLAP.min(evaluation.len()).max(1);
    let known: HashMap<&[u32], usize> = evaluation.windows(run).enumerate().map(|(at, tokens)| (tokens, at)).collect();
    for (at, tokens) in training.windows(run).enumerate() {
        if let Some(there) = known.get(tokens) {
            anyhow::bail!(
                "the training text overlaps the evaluation: tokens {at} to {} of the former are tokens {there} to {} of \
                 the latter",
                at + run - 1,
                there + run - 1
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_begin_as_texts_do_and_every_epoch_has_all() {
        let tokens: Vec<u32> = (10..10 + 7 * 4 + 3).collect();
        let windows = Windows::new(&tokens, Some(1), 8, 5).unwrap();
        assert_eq!(windows.count(), 4);
        let firsts = |step| -> Vec<u32> {
            let batch = windows.batch(step, 2, 3);
            assert!(batch.tokens.chunks(8).all(|window| window[0] == 1 && window[7] == window[1] + 6));
            assert_eq!(batch.positions.len(), 6);
            let inside = |(i, &p): (usize, &u32)| p as usize / 8 == i / 3 && p % 8 != 0;
            assert!(batch.positions.iter().enumerate().all(inside), "{:?}", batch.positions);
            batch.tokens.chunks(8).map(|window| window[1]).collect()
        };
        for epoch in 0..3 {
            let mut seen = [firsts(2 * epoch), firsts(2 * epoch + 1)].concat();
            seen.sort_unstable();
            assert_eq!(seen, [10, 17, 24, 31]);
        }
        assert_eq!(windows.batch(3, 2, 3).positions, windows.batch(3, 2, 3).positions);
        assert_ne!(windows.batch(3, 2, 3).positions, windows.batch(4, 2, 3).positions);
        assert_eq!(Windows::new(&tokens, None, 8, 5).unwrap().count(), 3);
        assert!(Windows::new(&tokens[..6], Some(1), 8, 5).is_err());
        assert!(Windows::new(&tokens, None, 1, 5).is_err());
    }

    #[test]
    fn overlaps_are_found_and_named() {
        let text = |from: u32, count: u32| -> Vec<u32> { (from..from + count).collect() };
        let training = [text(0, 50), text(1000, 40), text(0, 20)].concat();
        assert!(refuse_overlap(&training, &[text(2000, 90), text(1000, 31), text(3000, 5)].concat()).is_ok());
        let error = refuse_overlap(&training, &[text(2000, 90), text(1003, 32)].concat()).unwrap_err().to_string();
        assert!(error.contains("tokens 53 to 84") && error.contains("tokens 90 to 121"), "{error}");
        assert!(refuse_overlap(&training, &text(1005, 4)).is_err());
        assert!(refuse_overlap(&[], &text(0, 50)).is_ok() && refuse_overlap(&training, &[]).is_ok());
    }
}
