//! Where the conversion reads calibration text, and how its passes run over it.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::error::Result;

/// What one layer's projections read over a calibration text: its normed hidden states, sequence by sequence. Every
/// sequence begins at position 0, with the token that the model begins texts with.
///
/// The conversion reads each sequence several times and keeps none, so that its memory is that of a layer and of as many
/// sequences as there are threads. Where the states lie is the implementer's choice: in memory, in a file, or nowhere, to
/// be calculated anew.
pub trait LayerInputs: Sync {
    /// Number of sequences.
    fn sequences(&self) -> usize;

    /// One sequence's states, `[tokens, hidden]`.
    ///
    /// # Errors
    /// Whatever reading them may return.
    fn sequence(&self, index: usize) -> Result<Cow<'_, [f32]>>;
}

impl LayerInputs for &[Vec<f32>] {
    fn sequences(&self) -> usize {
        self.len()
    }

    fn sequence(&self, index: usize) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Borrowed(&self[index]))
    }
}

impl LayerInputs for Vec<Vec<f32>> {
    fn sequences(&self) -> usize {
        self.len()
    }

    fn sequence(&self, index: usize) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Borrowed(&self[index]))
    }
}

/// Makes something of every sequence, on all cores, and hands the results on in order: sums over sequences have the same
/// bits whatever the number of threads.
///
/// # Errors
/// The first error of `make`, by sequence.
pub(super) fn for_each_sequence<T: Send>(
    sequences: usize,
    make: impl Fn(usize) -> Result<T> + Sync,
    mut take: impl FnMut(usize, T),
) -> Result<()> {
    let at_once = 2 * rayon::current_num_threads();
    for start in (0..sequences).step_by(at_once) {
        let end = (start + at_once).min(sequences);
        let made: Vec<Result<T>> = (start..end).into_par_iter().map(&make).collect();
        for (offset, made) in made.into_iter().enumerate() {
            take(start + offset, made?);
        }
    }
    Ok(())
}
