//! A split in integers: of latents in int4 with one scale for each run of 512.
//!
//! With codes n, a scale s and a min m for each token, and a query q:
//!
//! ```text
//! score = s (q . n) + m sum(q) + the rotated key's
//! output = sum_t (p_t s_t) n_t + sum_t p_t m_t
//! ```
//!
//! Both products are of integers: of codes with the query, of 24 bits, and with the weights p s, of 16. A query's are
//! multiples of a power of two: of its numbers in bf16, those of at least 2^-15 of the largest are exact, and others are
//! rounded to 2^-23 of it. Weights are rounded to 2^-17 of the largest of a head and [`TOKENS`] tokens. All else is f32. What
//! is 0 past the ends, of latents, heads and tokens, adds nothing.

use std::ops::Range;

use super::super::cache::Part;
use super::super::level::Avx2;
use super::Split;
use super::softmax::{ROUNDER, Softmax};
use super::vnni::{
    self, CHUNK, LANES, Line, latent_of_position, outputs, position_of_lane, scores, transposed_numbers,
};
use crate::cache::{AFFINE_BYTES, Affine, Group};
use crate::sys;

/// Tokens of a block. Products of a weight's part and 4-bit codes, summed over them, are far from overflow.
const TOKENS: usize = 256;

/// Latents of a run.
const RUN: usize = Group::Whole.size();

/// Lines from one tile of woven codes to the next: one more than it has, as a power of two would keep a cache's sets busy.
const TILE_LINES: usize = TOKENS / 4 + 1;

/// Heads whose outputs are summed at a time.
const OUTPUT_HEADS: usize = 4;

/// What the power of two in a query's largest number is taken as: bf16 numbers are below twice of it, 24 bits with the sign.
const QUERY_UNIT: f32 = 4_194_304.0;

/// The largest weight.
const LARGEST_WEIGHT: f32 = 65535.0;

/// What is smaller has no inverse; nothing is lost of sums in which it is the largest.
const SMALLEST: f32 = 1e-30;

/// Whether latents are stored so.
pub(super) fn serves(params: &sys::DecodeParams) -> bool {
    params.cache.latent_kind == sys::ROW_INT4 && params.cache.latent_group as usize == RUN
}

/// Attends.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn attend(split: &Split) {
    let mut block = Block::new(split);
    for tokens in split.blocks(TOKENS) {
        block.read(tokens);
        block.score_keys();
        block.score_latents();
        block.weigh();
        for run in 0..block.runs() {
            block.round_weights(run);
            block.sum_outputs(run);
        }
    }
    block.store();
}

/// A split's state, and a block of its tokens.
struct Block<'a> {
    split: &'a Split<'a>,
    heads: usize,
    rank: usize,
    rope_dim: usize,
    /// Positions of a latent: whole chunks.
    width: usize,

    /// `[tiles of 16 heads][width / 4]`, as [`vnni::scores`] has it.
    query: Vec<[Line; 3]>,
    /// Of each head: the factor on its sums of products.
    query_steps: Vec<f32>,
    /// `[runs][heads]`: sums of the query, times the scale.
    query_sums: Vec<f32>,
    /// `[heads][rope_dim]`: the query for the rotated key, times the scale.
    q_rope: Vec<f32>,

    /// Tokens of the block.
    count: usize,
    /// `[TOKENS][width / 64]`: codes by token.
    codes: Vec<Line>,
    /// `[width / 16][TILE_LINES]`: codes by tile of 16 positions and by four tokens.
    woven: Vec<Line>,
    /// Of each run, the tokens' scales and mins.
    scales: Vec<[f32; TOKENS]>,
    mins: Vec<[f32; TOKENS]>,
    /// `[TOKENS][key_width]`.
    keys: Vec<f32>,
    /// Numbers of a token's rotated keys, rounded up to a multiple of 16.
    key_width: usize,

    /// Of each head: scores, then weights.
    scores: Vec<[f32; TOKENS]>,
    softmax: Vec<Softmax>,
    /// Of each head: the factor of what was summed before.
    factors: Vec<f32>,
    /// Of each head, rounded up to a multiple of [`OUTPUT_HEADS`]: the parts of weights times scales.
    weights: Vec<[[u32; TOKENS / 4]; 2]>,
    /// Of each head: what one of its weights is.
    weight_steps: Vec<f32>,
    /// `[heads][width]`: sums of weights times codes, by tile of positions.
    sums: Vec<f32>,
    /// `[runs][heads]`: sums of weights times mins.
    min_sums: Vec<f32>,
}

impl<'a> Block<'a> {
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn new(split: &'a Split<'a>) -> Self {
        let g = &split.params.geometry;
        let [heads, rank, rope_dim] = [g.query_heads, g.latent_rank, g.rope_dim].map(|size| size as usize);
        let (width, runs) = (rank.next_multiple_of(CHUNK), rank.div_ceil(RUN));
        let key_width = (g.rope_heads as usize * rope_dim).next_multiple_of(LANES);
        let scale = split.params.scale;
        let [q_latent, mut q_rope] = split.queries();
        q_rope.iter_mut().for_each(|q| *q *= scale);
        let mut block = Self {
            split,
            heads,
            rank,
            rope_dim,
            width,
            query: vec![[Line::ZERO; 3]; heads.div_ceil(LANES) * width / 4],
            query_steps: vec![0.0; heads],
            query_sums: vec![0.0; runs * heads],
            q_rope,
            count: 0,
            codes: vec![Line::ZERO; TOKENS * width / 64],
            woven: vec![Line::ZERO; width / LANES * TILE_LINES],
            scales: vec![[0.0; TOKENS]; runs],
            mins: vec![[0.0; TOKENS]; runs],
            keys: vec![0.0; TOKENS * key_width],
            key_width,
            scores: vec![[0.0; TOKENS]; heads],
            softmax: vec![Softmax::NOTHING; heads],
            factors: vec![0.0; heads],
            weights: vec![[[0; TOKENS / 4]; 2]; heads.next_multiple_of(OUTPUT_HEADS)],
            weight_steps: vec![0.0; heads],
            sums: vec![0.0; heads * width],
            min_sums: vec![0.0; runs * heads],
        };
        for (head, query) in q_latent.chunks_exact(rank).enumerate() {
            block.round_query(head, query, scale);
        }
        block
    }

    fn runs(&self) -> usize {
        self.scales.len()
    }

    /// The positions of a run.
    fn positions(&self, run: usize) -> Range<usize> {
        run * RUN..self.width.min((run + 1) * RUN)
    }

    /// Takes the query of a head as integers.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn round_query(&mut self, head: usize, query: &[f32], scale: f32) {
        let largest = query.iter().fold(0.0f32, |largest, q| largest.max(q.abs()));
        let power = f32::from_bits(largest.to_bits() & f32::INFINITY.to_bits());
        let (step, inverse) = if power > SMALLEST { (power / QUERY_UNIT, QUERY_UNIT / power) } else { (0.0, 0.0) };
        self.query_steps[head] = step * scale;
        for (run, query) in query.chunks(RUN).enumerate() {
            self.query_sums[run * self.heads + head] = query.iter().sum::<f32>() * scale;
        }
        let (tile, lane) = (head / LANES, head % LANES);
        let lines = &mut self.query[tile * self.width / 4..][..self.width / 4];
        for (word, values) in query.chunks(8).enumerate() {
            let mut numbers = [0i32; 8];
            for (number, value) in numbers.iter_mut().zip(values) {
                *number = (value * inverse).round_ties_even() as i32;
            }
            let position = word / 16 * CHUNK + word % 16 * 4;
            for position in [position, position + CHUNK / 2] {
                let four: [i32; 4] = std::array::from_fn(|i| numbers[latent_of_position(position + i) % 8]);
                for (part, line) in lines[position / 4].iter_mut().enumerate() {
                    line.0[lane] = u32::from_le_bytes(four.map(|number| (number >> (16 - 8 * part)) as u8));
                }
            }
        }
    }

    /// Reads and unpacks a block of tokens.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn read(&mut self, tokens: Range<usize>) {
        let (cache, rope_width) = (self.split.cache(), self.split.rope_width());
        self.count = tokens.len();
        for numbers in self.scales.iter_mut().chain(&mut self.mins) {
            numbers.fill(0.0);
        }
        let mut rows: [&[u8]; TOKENS] = [&[]; TOKENS];
        for (i, token) in tokens.enumerate() {
            let place = self.split.place(token);
            // SAFETY: promised to `decode`.
            let [row, affines] = unsafe { cache.bytes(place, Part::Latent) };
            rows[i] = row;
            for (run, bytes) in affines.chunks_exact(AFFINE_BYTES).enumerate() {
                let affine = Affine::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                (self.scales[run][i], self.mins[run][i]) = (affine.scale.to_f32(), affine.min.to_f32());
            }
            // SAFETY: as above.
            unsafe { cache.read::<Avx2>(place, Part::Rope, &mut self.keys[i * self.key_width..][..rope_width]) };
        }
        let row_lines = self.width / 64;
        for (four, rows) in rows.as_chunks::<4>().0[..self.vectors() * 4].iter().enumerate() {
            for chunk in 0..self.width / CHUNK {
                let part = rows.map(|row| row.get(chunk * CHUNK / 2..).unwrap_or_default());
                let to_rows = (&mut self.codes[4 * four * row_lines + 2 * chunk..], row_lines);
                let to_tiles = (&mut self.woven[CHUNK / LANES * chunk * TILE_LINES + four..], TILE_LINES);
                vnni::unpack(part, to_rows, to_tiles);
            }
        }
    }

    /// Vectors of tokens in the block.
    fn vectors(&self) -> usize {
        self.count.div_ceil(LANES)
    }

    /// Leaves the scores of the rotated keys.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn score_keys(&mut self) {
        let mut columns = vec![[0.0; LANES]; self.key_width];
        for (vector, keys) in self.keys.chunks_exact(LANES * self.key_width.max(1)).take(self.vectors()).enumerate() {
            for (i, columns) in columns.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let row = |token: usize| &keys[token * self.key_width + i * LANES..][..LANES];
                let rows = std::array::from_fn(|token| std::array::from_fn(|column| row(token)[column]));
                *columns = transposed_numbers(rows);
            }
            for (head, scores) in self.scores.iter_mut().enumerate() {
                let first = self.split.rope_head_of(head) * self.rope_dim;
                let query = &self.q_rope[head * self.rope_dim..][..self.rope_dim];
                let mut sums = [0.0f32; LANES];
                for (q, keys) in query.iter().zip(&columns[first..]) {
                    for lane in 0..LANES {
                        sums[lane] = q.mul_add(keys[lane], sums[lane]);
                    }
                }
                scores[vector * LANES..][..LANES].copy_from_slice(&sums);
            }
        }
        if self.key_width == 0 {
            self.scores.iter_mut().for_each(|scores| scores.fill(0.0));
        }
    }

    /// Adds the scores of the latents.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn score_latents(&mut self) {
        let (row_lines, fours) = (self.width / 64, self.width / 4);
        for vector in 0..self.vectors() {
            let tokens = vector * LANES..(vector + 1) * LANES;
            for run in 0..self.runs() {
                let (scales, mins) = (&self.scales[run][tokens.clone()], &self.mins[run][tokens.clone()]);
                let positions = self.positions(run);
                let row = |token: usize| &self.codes[token * row_lines..][positions.start / 64..positions.end / 64];
                let rows = std::array::from_fn(|i| row(tokens.start + i));
                for (tile, heads) in self.scores.chunks_mut(LANES).enumerate() {
                    let query = &self.query[tile * fours..][positions.start / 4..positions.end / 4];
                    let products = scores(query, rows);
                    for (i, (scores, products)) in heads.iter_mut().zip(products).enumerate() {
                        let head = tile * LANES + i;
                        let (step, sum) = (self.query_steps[head], self.query_sums[run * self.heads + head]);
                        let scores = &mut scores[tokens.clone()];
                        for lane in 0..LANES {
                            let of_codes = products[lane] * step;
                            scores[lane] = of_codes.mul_add(scales[lane], mins[lane].mul_add(sum, scores[lane]));
                        }
                    }
                }
            }
        }
    }

    /// Makes weights of the scores.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn weigh(&mut self) {
        for ((scores, softmax), factor) in self.scores.iter_mut().zip(&mut self.softmax).zip(&mut self.factors) {
            let (scores, rest) = scores.split_at_mut(self.count);
            *factor = softmax.add(scores);
            rest.fill(0.0);
        }
    }

    /// Takes the weights times the scales of a run as integers, and sums weights times mins.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn round_weights(&mut self, run: usize) {
        let (scales, mins) = (&self.scales[run], &self.mins[run]);
        for (head, scores) in self.scores.iter().enumerate() {
            let (mut largest, mut sums) = ([0.0f32; LANES], [0.0f32; LANES]);
            let mut scaled = [0.0f32; TOKENS];
            for first in (0..self.count).step_by(LANES) {
                for lane in 0..LANES {
                    let (token, weight) = (first + lane, scores[first + lane]);
                    scaled[token] = weight * scales[token];
                    largest[lane] = largest[lane].max(scaled[token]);
                    sums[lane] = weight.mul_add(mins[token], sums[lane]);
                }
            }
            let min_sum = &mut self.min_sums[run * self.heads + head];
            *min_sum = min_sum.mul_add(self.factors[head], sums.iter().sum());
            let largest = largest.into_iter().fold(0.0, f32::max);
            let inverse = if largest > SMALLEST { LARGEST_WEIGHT / largest } else { 0.0 };
            self.weight_steps[head] = largest / LARGEST_WEIGHT;
            let [high, low] = &mut self.weights[head];
            for ((scaled, high), low) in scaled.as_chunks::<4>().0.iter().zip(high).zip(low) {
                let numbers = scaled.map(|weight| weight.mul_add(inverse, ROUNDER).to_bits());
                *high = u32::from_le_bytes(numbers.map(|number| (number >> 8) as u8));
                *low = u32::from_le_bytes(numbers.map(|number| number as u8));
            }
        }
    }

    /// Adds the weighted codes of a run to what was summed before.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn sum_outputs(&mut self, run: usize) {
        let fours = self.vectors() * LANES / 4;
        let positions = self.positions(run);
        for tile in (positions.start / LANES..positions.end / LANES).step_by(2) {
            let woven = [tile, tile + 1].map(|tile| &self.woven[tile * TILE_LINES..][..fours]);
            for (group, weights) in self.weights.as_chunks::<OUTPUT_HEADS>().0.iter().enumerate() {
                let parts = std::array::from_fn(|i| std::array::from_fn(|part| &weights[i][part][..fours]));
                let first = group * OUTPUT_HEADS;
                for (head, products) in (first..self.heads).zip(outputs(woven, parts)) {
                    let (step, factor) = (self.weight_steps[head], self.factors[head]);
                    let sums = &mut self.sums[head * self.width + tile * LANES..][..2 * LANES];
                    for (sum, product) in sums.iter_mut().zip(products.as_flattened()) {
                        *sum = (*product as f32).mul_add(step, *sum * factor);
                    }
                }
            }
        }
    }

    /// Writes the results, latents in their own order.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn store(&self) {
        let mut places = vec![0; self.width];
        for place in 0..self.width {
            places[latent_of_position(position_of_lane(place / LANES, place % LANES))] = place;
        }
        let mut latents = vec![0.0; self.rank];
        for (head, sums) in self.sums.chunks_exact(self.width).enumerate() {
            for (run, (latents, places)) in latents.chunks_mut(RUN).zip(places.chunks(RUN)).enumerate() {
                let min_sum = self.min_sums[run * self.heads + head];
                latents.iter_mut().zip(places).for_each(|(latent, &place)| *latent = sums[place] + min_sum);
            }
            self.split.store(head, &self.softmax[head], &mut latents);
        }
    }
}
