//! A split in f32: of every format, for every level.

use super::super::cache::Part;
use super::super::level::{Arithmetic, Task};
use super::super::product::{add_scaled, dot};
use super::{BLOCK, Softmax, Split};

pub(super) struct Float<'a>(pub Split<'a>);

impl Task for Float<'_> {
    #[inline(always)]
    fn run<A: Arithmetic>(self) {
        let Self(split) = self;
        let (g, cache, scale) = (&split.params.geometry, split.cache(), split.params.scale);
        let [heads, rank, rope_dim] = [g.query_heads, g.latent_rank, g.rope_dim].map(|size| size as usize);
        let rope_width = split.rope_width();
        let [q_latent, q_rope] = split.queries();
        let (mut softmax, mut outputs) = (vec![Softmax::NOTHING; heads], vec![0.0; heads * rank]);
        let (mut latents, mut keys) = (vec![0.0; BLOCK * rank], vec![0.0; BLOCK * rope_width]);
        let mut scores = [0.0; BLOCK];
        for tokens in split.blocks(BLOCK) {
            for (i, token) in tokens.clone().enumerate() {
                let place = split.place(token);
                // SAFETY: promised to `decode`.
                unsafe {
                    cache.read(place, Part::Latent, &mut latents[i * rank..][..rank]);
                    cache.read(place, Part::Rope, &mut keys[i * rope_width..][..rope_width]);
                }
            }
            for head in 0..heads {
                let (q_latent, q_rope) = (&q_latent[head * rank..][..rank], &q_rope[head * rope_dim..][..rope_dim]);
                let first_rope = split.rope_head_of(head) * rope_dim;
                let scores = &mut scores[..tokens.len()];
                for (i, score) in scores.iter_mut().enumerate() {
                    let key = &keys[i * rope_width + first_rope..][..rope_dim];
                    *score = scale * (dot::<A>(q_latent, &latents[i * rank..][..rank]) + dot::<A>(q_rope, key));
                }
                let factor = softmax[head].add(scores);
                accumulate::<A>(&mut outputs[head * rank..][..rank], factor, scores, &latents);
            }
        }
        for (head, (softmax, sums)) in softmax.iter().zip(outputs.chunks_exact_mut(rank)).enumerate() {
            split.store(head, softmax, sums);
        }
    }
}

/// Latents that are summed at a time, in registers.
const COLUMNS: usize = 32;

/// `sums = sums * factor + sum_i weights[i] rows[i]`, rows being as wide as `sums`.
#[inline(always)]
fn accumulate<A: Arithmetic>(sums: &mut [f32], factor: f32, weights: &[f32], rows: &[f32]) {
    let width = sums.len();
    let (whole, rest) = sums.as_chunks_mut::<COLUMNS>();
    for (chunk, sums) in whole.iter_mut().enumerate() {
        let mut own = sums.map(|sum| sum * factor);
        for (weight, row) in weights.iter().zip(rows.chunks_exact(width)) {
            let row = &row[chunk * COLUMNS..][..COLUMNS];
            for column in 0..COLUMNS {
                own[column] = A::multiply_add(*weight, row[column], own[column]);
            }
        }
        *sums = own;
    }
    let first = width - rest.len();
    rest.iter_mut().for_each(|sum| *sum *= factor);
    for (weight, row) in weights.iter().zip(rows.chunks_exact(width)) {
        add_scaled::<A>(rest, *weight, &row[first..]);
    }
}
