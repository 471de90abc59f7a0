//! `gather`: cached tokens as the cache decodes them, for prefill.

use half::bf16;
use rayon::prelude::*;

use super::cache::{Cache, Part};
use super::level::{Arithmetic, Level, Task};
use super::memory::Rows;
use super::product::round;
use super::sequences::TokenRows;
use crate::sys;

/// Tokens of a task.
const TOKENS: usize = 16;

/// # Safety
/// As [`cpu`](super).
pub(super) unsafe fn gather(params: &sys::GatherParams, level: Level) {
    // SAFETY: promised by the caller.
    let tokens = unsafe { TokenRows::new(&params.cache, &params.batch, params.token_starts, params.first_tokens) };
    let rows = tokens.len(params.token_capacity);
    (0..rows.div_ceil(TOKENS)).into_par_iter().for_each(|task| {
        level.run(Tile { params, tokens: &tokens, rows: task * TOKENS..rows.min((task + 1) * TOKENS) });
    });
}

struct Tile<'a> {
    params: &'a sys::GatherParams,
    tokens: &'a TokenRows<'a>,
    rows: std::ops::Range<usize>,
}

impl Task for Tile<'_> {
    #[inline(always)]
    fn run<A: Arithmetic>(self) {
        let params = self.params;
        let (cache, rank) = (Cache(&params.cache), params.latent_rank as usize);
        let width = params.latent_rank + params.rope_width;
        let output = Rows::<bf16>::new(params.output, [params.output_token_stride, 0], width);
        let mut values = vec![0.0; width as usize];
        for row in self.rows {
            // SAFETY: promised by the caller of `gather`; a row is one task's.
            unsafe {
                match self.tokens.place(row) {
                    Some(place) => {
                        cache.read::<A>(place, Part::Latent, &mut values[..rank]);
                        cache.read::<A>(place, Part::Rope, &mut values[rank..]);
                    }
                    None => values.fill(0.0),
                }
                round(&values, output.row_mut(row, 0));
            }
        }
    }
}
