//! `combine`: merges attention over splits of a sequence; `csrc/combine.cu` says what becomes of partials that saw nothing,
//! and of NaN.
//!
//! A task has a row. Sums are taken in the order of the partials, that of their weights in f64.

use half::bf16;
use rayon::prelude::*;

use super::level::{Arithmetic, Level, Task};
use super::memory::{numbers, numbers_mut, optional_numbers};
use super::product::{add_scaled, round};
use crate::sys;

/// # Safety
/// As [`cpu`](super).
pub(super) unsafe fn combine(params: &sys::CombineParams, level: Level) {
    (0..params.rows as usize).into_par_iter().for_each(|row| level.run(Row { params, row }));
}

struct Row<'a> {
    params: &'a sys::CombineParams,
    row: usize,
}

impl Row<'_> {
    /// The row's partials, as rows of the tensors of partials.
    fn partials(&self) -> impl Iterator<Item = usize> + Clone + use<> {
        let (params, row) = (self.params, self.row);
        let heads = (params.heads as usize).max(1);
        // SAFETY: promised by the caller of `combine`.
        let starts = unsafe { optional_numbers::<i32>(params.split_starts, params.rows as usize / heads + 1) };
        let (range, stride, first) = match starts {
            Some(starts) => {
                let query = row / heads;
                (starts[query] as usize..starts[query + 1] as usize, heads, row % heads)
            }
            None => (0..params.splits as usize, params.rows as usize, row),
        };
        range.map(move |partial| partial * stride + first)
    }
}

impl Task for Row<'_> {
    #[inline(always)]
    fn run<A: Arithmetic>(self) {
        let (params, width) = (self.params, self.params.latent_rank as usize);
        let partials = self.partials();
        if partials.clone().next().is_none() {
            return; // Another kernel's.
        }
        // SAFETY: promised by the caller of `combine`; a row is one task's.
        let lse_of = |partial: usize| unsafe { numbers::<f32>(params.lse_partial + 4 * partial as u64, 1) }[0];
        // NaN is not the largest of anything: it comes into the sum, and through it everywhere.
        let seen = partials.map(|partial| (partial, lse_of(partial))).filter(|(_, lse)| !lse.is_infinite());
        let largest = seen.clone().map(|(_, lse)| lse).fold(f32::NEG_INFINITY, f32::max);
        let (mut sum, mut latents) = (0.0f64, vec![0.0f32; width]);
        for (partial, lse) in seen {
            let weight = (lse - largest).exp();
            sum += f64::from(weight);
            // SAFETY: as above.
            let o_partial = unsafe { numbers(params.o_partial + (4 * partial * width) as u64, width) };
            if weight != 0.0 {
                add_scaled::<A>(&mut latents, weight, o_partial);
            }
        }
        let normaliser = if sum == 0.0 { 0.0 } else { (1.0 / sum) as f32 };
        latents.iter_mut().for_each(|latent| *latent *= normaliser);
        // SAFETY: as above.
        unsafe {
            round(&latents, numbers_mut::<bf16>(params.o_latent + (2 * self.row * width) as u64, width));
            numbers_mut(params.lse + 4 * self.row as u64, 1)[0] = largest + sum.ln() as f32;
        }
    }
}
