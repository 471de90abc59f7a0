//! `decode`: attention over the cached latents themselves.
//!
//! A task has a split, with all query heads, so that every code is read and unpacked once. It takes a block of tokens at a
//! time: scores of all heads, an online softmax, and the outputs, of which each head has sums in f32 of its own.

mod float;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod integers;
mod softmax;

use std::ops::Range;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use std::sync::atomic::{AtomicUsize, Ordering};

use half::bf16;
use rayon::prelude::*;

use self::float::Float;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use self::integers::Attention;
use self::softmax::Softmax;
use super::cache::{Cache, Place};
use super::level::Level;
use super::memory::{Rows, numbers, numbers_mut};
use super::product::{round, widen};
use super::sequences::place_in_table;
use crate::sys;

/// Tokens of a block in f32. Balanced splits are multiples of it.
pub(super) const BLOCK: usize = 64;

/// # Safety
/// As [`cpu`](super).
pub(super) unsafe fn decode(params: &sys::DecodeParams, level: Level) {
    // SAFETY: promised by the caller.
    let splits = unsafe {
        let count = numbers::<u32>(params.split_count, 1)[0];
        numbers::<sys::DecodeSplit>(params.splits, count as usize)
    };
    match level {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        level if level.has_int8() && integers::serves(params) => {
            for_each_with_memory(splits, |attention, split| {
                let split = Split { params, split };
                // SAFETY: a device is made of a level that the machine has.
                unsafe { attention.get_or_insert_with(|| Attention::new(&split, level)).attend(&split) };
            });
        }
        _ => splits.par_iter().for_each(|split| level.run(Float(Split { params, split }))),
    }
}

/// Runs tasks with memory that serves all those which a thread takes, one after the other. Rayon's `for_each_init` makes it
/// anew for each part into which it cuts the tasks, which are several even for one thread, and making it costs as much as
/// some hundreds of tokens.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn for_each_with_memory<T: Sync, M>(tasks: &[T], run: impl Fn(&mut Option<M>, &T) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = rayon::current_num_threads().min(tasks.len());
    (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
        let mut memory = None;
        while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            run(&mut memory, task);
        }
    });
}

/// A split, and what it is attended to by. Its methods rely on what `decode` is promised, and on being one task's.
struct Split<'a> {
    params: &'a sys::DecodeParams,
    split: &'a sys::DecodeSplit,
}

impl Split<'_> {
    fn cache(&self) -> Cache<'_> {
        Cache(&self.params.cache)
    }

    /// The queries of all heads, widened: for the latents `[H, L]`, and for the rotated keys `[H, R]`.
    #[inline(always)]
    fn queries(&self) -> [Vec<f32>; 2] {
        let (p, g) = (self.params, &self.params.geometry);
        let q_latent = Rows::new(p.q_latent, [p.q_latent_token_stride, p.q_latent_head_stride], g.latent_rank);
        let q_rope = Rows::new(p.q_rope, [p.q_rope_token_stride, p.q_rope_head_stride], g.rope_dim);
        [(q_latent, g.latent_rank), (q_rope, g.rope_dim)].map(|(rows, width): (Rows<bf16>, u32)| {
            let mut query = vec![0.0; (g.query_heads * width) as usize];
            for (head, values) in query.chunks_exact_mut((width as usize).max(1)).enumerate() {
                // SAFETY: promised to `decode`.
                widen(unsafe { rows.row(self.split.query as usize, head) }, values);
            }
            query
        })
    }

    /// Numbers of a token's rotated keys.
    fn rope_width(&self) -> usize {
        (self.params.geometry.rope_heads * self.params.geometry.rope_dim) as usize
    }

    /// The rope head of a query head.
    fn rope_head_of(&self, head: usize) -> usize {
        let g = &self.params.geometry;
        head / (g.query_heads / g.rope_heads) as usize
    }

    /// The KV heads of a token.
    fn kv_heads(&self) -> usize {
        self.params.geometry.kv_heads as usize
    }

    /// The KV head of a query head.
    fn kv_head_of(&self, head: usize) -> usize {
        let g = &self.params.geometry;
        head / (g.query_heads / g.kv_heads) as usize
    }

    /// Its tokens, so many at a time.
    fn blocks(&self, tokens: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (first, end) = (self.split.first as usize, self.split.end as usize);
        (first..end).step_by(tokens).map(move |start| start..end.min(start + tokens))
    }

    /// The token behind its last one.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn end(&self) -> usize {
        self.split.end as usize
    }

    /// The places of some of its tokens.
    #[inline(always)]
    fn places(&self, tokens: Range<usize>) -> impl Iterator<Item = Place> {
        let (p, row) = (self.params, self.split.row as usize);
        let page_size = p.cache.page_size as usize;
        let mut place = Place { page: 0, offset: page_size };
        tokens.map(move |token| {
            place.offset += 1;
            if place.offset >= page_size {
                // SAFETY: promised to `decode`, of a split's tokens.
                place = unsafe { place_in_table(&p.cache, p.page_table, row, token) };
            }
            place
        })
    }

    /// Writes the results of a head: its latents' weighted sum, which it divides by the weights' own.
    #[inline(always)]
    fn store(&self, head: usize, softmax: &Softmax, sums: &mut [f32]) {
        let (p, width, heads) = (self.params, sums.len(), self.params.geometry.query_heads as usize);
        let normaliser = softmax.normaliser();
        sums.iter_mut().for_each(|sum| *sum *= normaliser);
        let address = |array: u64, row: usize, bytes: usize| array + ((row * heads + head) * bytes) as u64;
        // SAFETY: promised to `decode`; rows are one task's.
        unsafe {
            if let Ok(partial) = usize::try_from(self.split.partial) {
                numbers_mut(address(p.o_partial, partial, 4 * width), width).copy_from_slice(sums);
                numbers_mut(address(p.lse_partial, partial, 4), 1)[0] = softmax.lse();
            } else {
                let query = self.split.query as usize;
                round(sums, numbers_mut::<bf16>(address(p.o_latent, query, 2 * width), width));
                numbers_mut(address(p.lse, query, 4), 1)[0] = softmax.lse();
            }
        }
    }
}
