//! A split in f32: of every format, for every level.
//!
//! A block of tokens is dequantised once, and then two products of matrices are taken: of queries and tokens, and of weights
//! and tokens. Rows have room for whole registers, which holds zeros.

use std::ops::Range;

use super::super::cache::Part;
use super::super::level::{Arithmetic, LANES, Task};
use super::super::product::{Matrix, SUM_COLUMNS, add_dots, add_weighted, padded, parts};
use super::{BLOCK, Softmax, Split};

/// Latents of which scores are summed at a time, and heads that they are summed for meanwhile: their queries and those of
/// four tokens stay in the first cache.
const RUN: usize = 512;
const HEADS: usize = 9;

/// Heads whose scores are summed in registers, with four tokens.
const TILE: usize = 3;

/// Tokens of a block, and the longest latents with which it has as many, so that the block stays in the second cache.
const TOKENS: usize = BLOCK;
const LONGEST: usize = 1024;

pub(super) struct Float<'a>(pub Split<'a>);

impl Task for Float<'_> {
    #[inline(always)]
    fn run<A: Arithmetic>(self) {
        let mut block = Block::new(&self.0);
        let tokens = if block.rank > LONGEST { TOKENS / 2 } else { TOKENS };
        for tokens in self.0.blocks(tokens) {
            block.read::<A>(tokens);
            block.score::<A>();
            block.weigh();
            block.sum::<A>();
        }
        block.store();
    }
}

/// A split's state, and a block of its tokens.
struct Block<'a> {
    split: &'a Split<'a>,
    heads: usize,
    rank: usize,
    rope_dim: usize,
    /// Where a row's rotated keys begin, and how far they are from each other.
    first_key: usize,
    key_width: usize,
    /// `[heads]`, times the scale: for the latents, and from `first_key` on for the head's rotated key.
    query: Vec<f32>,
    query_stride: usize,
    /// Tokens of the block.
    count: usize,
    /// `[TOKENS]`: latents, and from `first_key` on rotated keys.
    tokens: Vec<f32>,
    token_stride: usize,
    /// One token's rotated keys, as they are stored.
    keys: Vec<f32>,
    /// `[TOKENS]`: of normalised keys the factors of each KV head; else none.
    key_factors: Vec<f32>,
    /// Of each head: scores, then weights.
    scores: Vec<[f32; TOKENS]>,
    softmax: Vec<Softmax>,
    /// Of each head: the factor of what was summed before.
    factors: Vec<f32>,
    /// `[heads]`: sums of weighted latents.
    sums: Vec<f32>,
    sum_stride: usize,
}

impl<'a> Block<'a> {
    #[inline(always)]
    fn new(split: &'a Split<'a>) -> Self {
        let g = &split.params.geometry;
        let [heads, rank, rope_dim] = [g.query_heads, g.latent_rank, g.rope_dim].map(|size| size as usize);
        let (first_key, key_width) = (rank.next_multiple_of(SUM_COLUMNS), rope_dim.next_multiple_of(LANES));
        let (query_stride, sum_stride) = (padded(first_key + key_width), padded(first_key));
        let token_stride = padded(first_key + g.rope_heads as usize * key_width);
        let mut query = vec![0.0; heads * query_stride];
        let [q_latent, q_rope] = split.queries();
        for (head, query) in query.chunks_exact_mut(query_stride).enumerate() {
            query[..rank].copy_from_slice(&q_latent[head * rank..][..rank]);
            query[first_key..][..rope_dim].copy_from_slice(&q_rope[head * rope_dim..][..rope_dim]);
            query.iter_mut().for_each(|q| *q *= split.params.scale);
        }
        Self {
            split,
            heads,
            rank,
            rope_dim,
            first_key,
            key_width,
            query,
            query_stride,
            count: 0,
            tokens: vec![0.0; TOKENS * token_stride],
            token_stride,
            keys: vec![0.0; split.rope_width()],
            key_factors: vec![0.0; TOKENS * split.params.cache.key_factors as usize],
            scores: vec![[0.0; TOKENS]; heads],
            softmax: vec![Softmax::NOTHING; heads],
            factors: vec![0.0; heads],
            sums: vec![0.0; heads * sum_stride],
            sum_stride,
        }
    }

    fn query(&self) -> Matrix<'_> {
        Matrix { numbers: &self.query, stride: self.query_stride }
    }

    fn tokens(&self) -> Matrix<'_> {
        Matrix { numbers: &self.tokens, stride: self.token_stride }
    }

    /// Dequantises a block of tokens.
    #[inline(always)]
    fn read<A: Arithmetic>(&mut self, tokens: Range<usize>) {
        self.count = tokens.len();
        let key_factors = self.split.params.cache.key_factors as usize;
        if key_factors > 0 {
            for (place, factors) in
                self.split.places(tokens.clone()).zip(self.key_factors.chunks_exact_mut(key_factors))
            {
                // SAFETY: promised to `decode`.
                let stored = unsafe { self.split.cache().factors(place) };
                factors.iter_mut().zip(stored).for_each(|(factor, stored)| *factor = stored);
            }
        }
        for (place, row) in self.split.places(tokens).zip(self.tokens.chunks_exact_mut(self.token_stride)) {
            let (latent, keys) = row.split_at_mut(self.first_key);
            // SAFETY: promised to `decode`.
            unsafe {
                self.split.cache().read::<A>(place, Part::Latent, &mut latent[..self.rank]);
                self.split.cache().read::<A>(place, Part::Rope, &mut self.keys);
            }
            let stored = self.keys.chunks_exact(self.rope_dim.max(1));
            for (key, stored) in keys.chunks_mut(self.key_width.max(1)).zip(stored) {
                key[..stored.len()].copy_from_slice(stored);
            }
        }
    }

    /// Leaves the scores. Those behind the last token are of no token.
    #[inline(always)]
    fn score<A: Arithmetic>(&mut self) {
        for (run, start) in (0..self.first_key).step_by(RUN).enumerate() {
            let columns = start..self.first_key.min(start + RUN);
            for heads in parts(0..self.heads, HEADS) {
                for token in (0..self.count).step_by(4) {
                    for heads in parts(heads.clone(), TILE) {
                        match heads.len() {
                            1 => self.score_tile::<A, 1>(heads.start, token, run, &columns),
                            2 => self.score_tile::<A, 2>(heads.start, token, run, &columns),
                            _ => self.score_tile::<A, TILE>(heads.start, token, run, &columns),
                        }
                    }
                }
            }
        }
        if !self.key_factors.is_empty() {
            self.score_normalised::<A>();
        }
    }

    /// Normalised keys: multiplies what the latents gave by the tokens' factors, and adds what the rotated keys give.
    #[inline(always)]
    fn score_normalised<A: Arithmetic>(&mut self) {
        let (columns, kv_heads) = (self.first_key..self.first_key + self.key_width, self.split.kv_heads());
        for head in 0..self.heads {
            for token in (0..self.count).step_by(4) {
                let mut sums = [[A::splat(0.0); 4]];
                add_dots::<A, 1>(&mut sums, self.query().rows::<1>(head, &columns), self.keys_of(head, token));
                let [sums] = sums;
                let factors = self.key_factors[self.split.kv_head_of(head)..].iter().step_by(kv_heads).skip(token);
                let scores = self.scores[head][token..][..4].iter_mut().zip(A::sums(sums)).zip(factors);
                scores.for_each(|((score, sum), factor)| *score = *score * factor + sum);
            }
        }
    }

    /// Scores of a run of latents, and with the first of the rotated keys, unless these are normalised, of `M` heads and four
    /// tokens.
    #[inline(always)]
    fn score_tile<A: Arithmetic, const M: usize>(
        &mut self,
        head: usize,
        token: usize,
        run: usize,
        columns: &Range<usize>,
    ) {
        let mut sums = [[A::splat(0.0); 4]; M];
        let tokens = self.tokens().rows(token, columns);
        add_dots::<A, M>(&mut sums, self.query().rows::<M>(head, columns), tokens);
        if run == 0 && self.key_factors.is_empty() {
            let columns = self.first_key..self.first_key + self.key_width;
            let query = self.query().rows::<M>(head, &columns);
            if self.split.rope_head_of(head) == self.split.rope_head_of(head + M - 1) {
                add_dots::<A, M>(&mut sums, query, self.keys_of(head, token));
            } else {
                for i in 0..M {
                    let mut own = [sums[i]];
                    add_dots::<A, 1>(&mut own, [query[i]], self.keys_of(head + i, token));
                    sums[i] = own[0];
                }
            }
        }
        for (scores, sums) in self.scores[head..].iter_mut().zip(sums) {
            let scores = &mut scores[token..][..4];
            for (score, sum) in scores.iter_mut().zip(A::sums(sums)) {
                *score = if run == 0 { sum } else { *score + sum };
            }
        }
    }

    /// Four tokens' rotated keys of the rope head that a query head has.
    #[inline(always)]
    fn keys_of(&self, head: usize, token: usize) -> [&[f32]; 4] {
        let first = self.first_key + self.split.rope_head_of(head) * self.key_width;
        self.tokens().rows(token, &(first..first + self.key_width))
    }

    /// Makes weights of the scores.
    #[inline(always)]
    fn weigh(&mut self) {
        for ((scores, softmax), factor) in self.scores.iter_mut().zip(&mut self.softmax).zip(&mut self.factors) {
            *factor = softmax.add(&mut scores[..self.count]);
        }
    }

    /// Adds the weighted latents to what was summed before.
    #[inline(always)]
    fn sum<A: Arithmetic>(&mut self) {
        let weights = Matrix { numbers: self.scores.as_flattened(), stride: TOKENS };
        let tokens = Matrix { numbers: &self.tokens, stride: self.token_stride };
        let sums = (self.sums.as_mut_slice(), self.sum_stride);
        add_weighted::<A>(sums, &self.factors, weights, tokens, self.count, self.first_key);
    }

    /// Writes the results.
    #[inline(always)]
    fn store(&mut self) {
        for (head, sums) in self.sums.chunks_exact_mut(self.sum_stride).enumerate() {
            self.split.store(head, &self.softmax[head], &mut sums[..self.rank]);
        }
    }
}
