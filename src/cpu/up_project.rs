//! `up_project`: keys and values of cached tokens, for prefill.
//!
//! A task has some tokens and a KV head. Latents are dequantised to f32 and not rounded further; the order of a sum depends
//! on the latent rank alone, so that a token has the same bits whatever its neighbours.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::cache::{Cache, Part};
use super::level::{Arithmetic, LANES, Level, Task};
use super::memory::{Rows, optional_numbers};
use super::product::{Matrix, project, round};
use super::sequences::TokenRows;
use crate::sys;

/// Tokens of a task.
const TOKENS: usize = 32;

/// # Safety
/// As [`cpu`](super).
pub(super) unsafe fn up_project(params: &sys::UpProjectParams, level: Level) {
    // SAFETY: promised by the caller.
    let tokens = unsafe { TokenRows::new(&params.cache, &params.batch, params.token_starts, 0) };
    let (rows, kv_heads) = (tokens.len(params.token_capacity), params.geometry.kv_heads as usize);
    (0..rows.div_ceil(TOKENS) * kv_heads).into_par_iter().for_each(|task| {
        let (tile, kv_head) = (task / kv_heads, task % kv_heads);
        level.run(Tile { params, tokens: &tokens, rows: tile * TOKENS..rows.min((tile + 1) * TOKENS), kv_head });
    });
}

struct Tile<'a> {
    params: &'a sys::UpProjectParams,
    tokens: &'a TokenRows<'a>,
    rows: Range<usize>,
    kv_head: usize,
}

/// What becomes of products: of keys, and of values.
#[derive(Clone, Copy)]
enum After<'a> {
    /// One for each row.
    Factors(&'a [f32]),
    Bias(Option<&'a [f32]>),
}

impl Task for Tile<'_> {
    #[inline(always)]
    fn run<A: Arithmetic>(self) {
        let (params, g) = (self.params, &self.params.geometry);
        let (cache, rank) = (Cache(&params.cache), g.latent_rank as usize);
        let [nope_dim, rope_dim, value_dim] = [g.nope_dim, g.rope_dim, g.value_dim].map(|width| width as usize);
        let key_strides = [params.key_token_stride, params.key_head_stride];
        let keys = Rows::<bf16>::new(params.keys, key_strides, g.nope_dim + g.rope_dim);
        let value_strides = [params.value_token_stride, params.value_head_stride];
        let values = Rows::<bf16>::new(params.values, value_strides, g.value_dim);
        let up_key_strides = [params.up_key_head_stride, params.up_key_row_stride];
        let up_key = Rows::<bf16>::new(params.up_key, up_key_strides, g.latent_rank);
        let up_value_strides = [params.up_value_head_stride, params.up_value_row_stride];
        let up_value = Rows::<bf16>::new(params.up_value, up_value_strides, g.latent_rank);
        // SAFETY: promised by the caller of `up_project`, in all of this function; tokens of a head are one task's.
        let bias = unsafe { optional_numbers::<f32>(params.value_bias, (g.kv_heads * g.value_dim) as usize) };

        let stride = rank.next_multiple_of(LANES);
        let mut latents = vec![0.0; self.rows.len() * stride];
        let mut rope = vec![0.0; (g.rope_heads * g.rope_dim) as usize];
        // Of normalised keys those of the KV head, with which the unrotated part is multiplied.
        let mut factors = vec![1.0; self.rows.len()];
        let first_rope = self.kv_head / (g.kv_heads / g.rope_heads) as usize * rope_dim;
        let first_row = self.rows.start;
        for (row, latent) in self.rows.clone().zip(latents.chunks_exact_mut(stride)) {
            // SAFETY: as above.
            unsafe {
                rope.fill(0.0);
                if let Some(place) = self.tokens.place(row) {
                    cache.read::<A>(place, Part::Latent, &mut latent[..rank]);
                    cache.read::<A>(place, Part::Rope, &mut rope);
                    if let Some(factor) = cache.factors(place).nth(self.kv_head) {
                        factors[row - first_row] = factor;
                    }
                }
                let key = keys.part_mut(row, self.kv_head, nope_dim..nope_dim + rope_dim);
                round(&rope[first_rope..][..rope_dim], key);
            }
        }
        let project_to = |up: &Rows<bf16>, width: usize, after: After, out: &Rows<bf16>| {
            // SAFETY: as above.
            let weights = |i: usize| unsafe { up.row(self.kv_head, i) };
            let latents = (Matrix { numbers: &latents, stride }, self.rows.len());
            project::<A>(latents, 0..width, weights, |four, row, mut sums| {
                for (i, sum) in four.clone().zip(&mut sums) {
                    match after {
                        After::Factors(factors) => *sum *= factors[row],
                        After::Bias(bias) => *sum += bias.map_or(0.0, |bias| bias[self.kv_head * width + i]),
                    }
                }
                // SAFETY: as above.
                let to = unsafe { out.part_mut(self.rows.start + row, self.kv_head, four.clone()) };
                round(&sums[..four.len()], to);
            });
        };
        project_to(&up_key, nope_dim, After::Factors(&factors), &keys);
        project_to(&up_value, value_dim, After::Bias(bias), &values);
    }
}
