//! Splits in integers: of latents in int4 with one scale for each run of 512.
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
//!
//! All is written once, over the `vectors` of an architecture and over [`Products`].

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod codes;
#[cfg(target_arch = "aarch64")]
mod dotprod;
mod keys;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod products;
#[cfg(target_arch = "x86_64")]
mod tiled_keys;
#[cfg(target_arch = "x86_64")]
mod vnni;
mod weights;

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use self::avx512 as vectors;
use self::codes::{CHUNK, Codes, LATENTS_OF_WORD, in_order};
use self::keys::Keys;
use self::lanes::{LANES, Line, zeros};
#[cfg(target_arch = "aarch64")]
use self::neon as vectors;
use self::products::{OUTPUT_HEADS, Products, QueryLines, Weights};
use self::vectors::{
    floats, load, load_floats, multiply, multiply_add, pairs_of_halves, prefetch, splat, store_floats,
};
use super::Split;
use super::softmax::Softmax;
use crate::cache::{AFFINE_BYTES, Group};
use crate::cpu::cache::Part;
use crate::cpu::level::{Level, WithInt8};
use crate::sys;

/// Tokens of a block. Products of a weight's part and 4-bit codes, summed over them, are far from overflow.
const TOKENS: usize = 256;

/// Vectors of a block's tokens.
const VECTORS: usize = TOKENS / LANES;

/// Latents of a run.
const RUN: usize = Group::Whole.size();

/// Tokens of which a product by tiles sums weighted codes.
const TOKENS_OF_TILE: usize = 64;

/// What the power of two in a query's largest number is taken as: bf16 numbers are below twice of it, 24 bits with the sign.
const QUERY_UNIT: f32 = 4_194_304.0;

/// What is smaller has no inverse; queries so small have no effect.
const SMALLEST: f32 = 1e-30;

/// Whether latents are stored so.
pub(super) fn serves(params: &sys::DecodeParams) -> bool {
    let cache = &params.cache;
    cache.latent_kind == sys::ROW_INT4 && cache.latent_group as usize == RUN && cache.key_factors == 0
}

/// The state of a split, and a block of its tokens. It serves one split after the other.
pub(super) struct Attention {
    products: Products,
    heads: usize,
    rank: usize,
    scale: f32,

    /// The query token whose numbers these are.
    query_token: Option<u32>,
    /// `[tiles of 16 heads][width / 4]`.
    query: Vec<QueryLines>,
    /// Of each head: the factor on its sums of products.
    query_steps: Vec<f32>,
    /// `[runs][heads]`: sums of the query, times the scale.
    query_sums: Vec<f32>,

    /// Tokens of the block.
    count: usize,
    codes: Codes,
    keys: Keys,
    /// Of each run, the tokens' pairs of scale and min, as they are stored.
    affines: Vec<[Line<u32>; VECTORS]>,
    /// Of each run, the tokens' scales and mins.
    scales: Vec<[Line<f32>; VECTORS]>,
    mins: Vec<[Line<f32>; VECTORS]>,

    /// Of each head: scores, then weights.
    scores: Vec<[Line<f32>; VECTORS]>,
    softmax: Vec<Softmax>,
    /// Of each head: the factor of what was summed before.
    factors: Vec<f32>,
    /// Of each head, rounded up to whole tiles: the parts of weights times scales.
    weights: Vec<Weights<{ TOKENS / 4 }>>,
    /// Of each head: what one of its weights is.
    weight_steps: Vec<f32>,
    /// `[heads][width / 16]`: sums of weights times codes, by tile of positions.
    sums: Vec<Line<f32>>,
    /// `[runs][heads]`: sums of weights times mins.
    min_sums: Vec<f32>,
    /// The latents of a head, in their order.
    latents: Vec<f32>,
}

impl Attention {
    /// For splits of the parameter block of this one.
    ///
    /// # Safety
    /// The machine has the level, which has products of 8-bit integers.
    pub unsafe fn new(split: &Split, level: Level) -> Self {
        let g = &split.params.geometry;
        let [heads, rank] = [g.query_heads, g.latent_rank].map(|size| size as usize);
        let (codes, runs) = (Codes::new(rank, TOKENS), rank.div_ceil(RUN));
        Self {
            // SAFETY: promised by the caller.
            products: unsafe { Products::new(level) },
            heads,
            rank,
            scale: split.params.scale,
            query_token: None,
            query: vec![Default::default(); heads.div_ceil(LANES) * codes.width / 4],
            query_steps: vec![0.0; heads],
            query_sums: vec![0.0; runs * heads],
            count: 0,
            keys: Keys::new(split, TOKENS),
            affines: vec![Default::default(); runs],
            scales: vec![Default::default(); runs],
            mins: vec![Default::default(); runs],
            scores: vec![Default::default(); heads],
            softmax: vec![Softmax::NOTHING; heads],
            factors: vec![0.0; heads],
            weights: vec![[[0; TOKENS / 4]; 2]; heads.next_multiple_of(OUTPUT_HEADS)],
            weight_steps: vec![0.0; heads],
            sums: zeros(heads * codes.width / LANES),
            min_sums: vec![0.0; runs * heads],
            latents: vec![0.0; codes.width],
            codes,
        }
    }

    /// Attends to a split's tokens.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512vnni"))]
    #[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon,dotprod"))]
    pub fn attend(&mut self, split: &Split) {
        self.begin(split);
        for tokens in split.blocks(TOKENS) {
            self.read(split, tokens.clone());
            for vector in 0..self.vectors() {
                prefetch_rows(split, tokens.end + vector * LANES);
                self.score_keys(vector);
            }
            for run in 0..self.runs() {
                self.score_latents(run);
            }
            for head in 0..self.heads {
                self.factors[head] = weights::weigh(&mut self.scores[head], self.count, &mut self.softmax[head]);
            }
            for run in 0..self.runs() {
                self.round_weights(run);
                self.sum_outputs(run);
            }
        }
        self.store(split);
    }

    fn runs(&self) -> usize {
        self.scales.len()
    }

    /// The positions of a run.
    fn positions(&self, run: usize) -> Range<usize> {
        run * RUN..self.codes.width.min((run + 1) * RUN)
    }

    /// Vectors of tokens in the block.
    fn vectors(&self) -> usize {
        self.count.div_ceil(LANES)
    }

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512vnni"))]
    #[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
    fn begin(&mut self, split: &Split) {
        self.softmax.fill(Softmax::NOTHING);
        self.sums.fill(Line::default());
        self.min_sums.fill(0.0);
        // Splits of a query token follow each other.
        if self.query_token != Some(split.split.query) {
            let [q_latent, q_rope] = split.queries();
            self.keys.set_query(&q_rope);
            for (head, query) in q_latent.chunks_exact(self.rank).enumerate() {
                self.round_query(head, query);
            }
            self.query_token = Some(split.split.query);
        }
    }

    /// Takes the query of a head as integers.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512vnni"))]
    #[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
    fn round_query(&mut self, head: usize, query: &[f32]) {
        let mut most = [0.0f32; LANES];
        for query in query.chunks(LANES) {
            most.iter_mut().zip(query).for_each(|(most, q)| *most = most.max(q.abs()));
        }
        let largest = most.into_iter().fold(0.0, f32::max);
        let power = f32::from_bits(largest.to_bits() & f32::INFINITY.to_bits());
        let (step, inverse) = if power > SMALLEST { (power / QUERY_UNIT, QUERY_UNIT / power) } else { (0.0, 0.0) };
        self.query_steps[head] = step * self.scale;
        for (run, query) in query.chunks(RUN).enumerate() {
            let mut sums = [0.0f32; LANES];
            for query in query.chunks(LANES) {
                sums.iter_mut().zip(query).for_each(|(sum, q)| *sum += q);
            }
            self.query_sums[run * self.heads + head] = sums.iter().sum::<f32>() * self.scale;
        }
        let (tile, lane) = (head / LANES, head % LANES);
        let lines = &mut self.query[tile * self.codes.width / 4..][..self.codes.width / 4];
        for (word, values) in query.chunks(8).enumerate() {
            let mut numbers = [0i32; 8];
            for (number, value) in numbers.iter_mut().zip(values) {
                *number = (value * inverse).round_ties_even() as i32;
            }
            for (half, latents) in LATENTS_OF_WORD.iter().enumerate() {
                let position = word / 16 * CHUNK + half * CHUNK / 2 + word % 16 * 4;
                for (part, line) in lines[position / 4].iter_mut().enumerate() {
                    line.0[lane] = u32::from_le_bytes(latents.map(|latent| (numbers[latent] >> (16 - 8 * part)) as u8));
                }
            }
        }
    }

    /// Reads and unpacks a block of tokens.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512vnni"))]
    #[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
    fn read(&mut self, split: &Split, tokens: Range<usize>) {
        let (cache, rope_width) = (split.cache(), split.rope_width());
        self.count = tokens.len();
        // What is behind the last token is zeros: its codes, its scale and its min.
        for affines in &mut self.affines {
            affines[self.count / LANES..].fill(Line::default());
        }
        let mut rows: [&[u8]; TOKENS] = [&[]; TOKENS];
        for (i, place) in split.places(tokens).enumerate() {
            // SAFETY: promised to `decode`.
            let [row, affines] = unsafe { cache.bytes(place, Part::Latent) };
            rows[i] = row;
            for (run, affine) in affines.as_chunks::<AFFINE_BYTES>().0.iter().take(self.affines.len()).enumerate() {
                self.affines[run][i / LANES].0[i % LANES] = u32::from_le_bytes(*affine);
            }
            // SAFETY: as above.
            unsafe { cache.read::<WithInt8>(place, Part::Rope, self.keys.row(i, rope_width)) };
        }
        for (four, rows) in rows.as_chunks::<4>().0[..self.vectors() * 4].iter().enumerate() {
            self.codes.unpack(four, *rows);
        }
        for ((affines, scales), mins) in self.affines.iter().zip(&mut self.scales).zip(&mut self.mins) {
            for ((affines, scales), mins) in affines.iter().zip(scales).zip(mins) {
                let [of_scales, of_mins] = pairs_of_halves(load(affines));
                store_floats(scales, of_scales);
                store_floats(mins, of_mins);
            }
        }
    }

    /// Leaves the scores of the rotated keys of a vector's tokens.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512vnni"))]
    #[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
    fn score_keys(&mut self, vector: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(tiles) = &self.products.tiles
            && self.keys.score_by_tiles(tiles, vector, self.scale, &mut self.scores)
        {
            return;
        }
        self.keys.score(vector, self.scale, &mut self.scores);
    }

    /// Adds the scores of a run of latents.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512vnni"))]
    #[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon,dotprod"))]
    fn score_latents(&mut self, run: usize) {
        let (row_lines, fours) = (self.codes.width / 64, self.codes.width / 4);
        let positions = self.positions(run);
        let mut products = [Line::default(); LANES];
        for tile in 0..self.heads.div_ceil(LANES) {
            let heads = tile * LANES..self.heads.min((tile + 1) * LANES);
            let query = &self.query[tile * fours..][positions.start / 4..positions.end / 4];
            for vector in 0..self.vectors() {
                let rows = &self.codes.rows[vector * LANES * row_lines + positions.start / 64..];
                self.products.scores(query, rows, row_lines, &mut products);
                let (scales, mins) = (load_floats(&self.scales[run][vector]), load_floats(&self.mins[run][vector]));
                for (head, products) in heads.clone().zip(&products) {
                    let step = splat(self.query_steps[head]);
                    let query_sum = splat(self.query_sums[run * self.heads + head]);
                    let scores = &mut self.scores[head][vector];
                    let of_codes = multiply(load_floats(products), step);
                    let of_mins = multiply_add(mins, query_sum, load_floats(scores));
                    store_floats(scores, multiply_add(of_codes, scales, of_mins));
                }
            }
        }
    }

    /// Takes the weights times the scales of a run as integers, and sums weights times mins.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512vnni"))]
    #[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
    fn round_weights(&mut self, run: usize) {
        let affines = [&self.scales[run], &self.mins[run]];
        for head in 0..self.heads {
            let (weights, parts) = (&self.scores[head], &mut self.weights[head]);
            let [step, min_sum] = weights::round(weights, affines, parts, self.count.div_ceil(LANES));
            self.weight_steps[head] = step;
            let sum = &mut self.min_sums[run * self.heads + head];
            *sum = sum.mul_add(self.factors[head], min_sum);
        }
    }

    /// Adds the weighted codes of a run to what was summed before.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512vnni"))]
    #[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon,dotprod"))]
    fn sum_outputs(&mut self, run: usize) {
        let fours = self.count.next_multiple_of(TOKENS_OF_TILE) / 4;
        let positions = self.positions(run);
        for tile in (positions.start / LANES..positions.end / LANES).step_by(2) {
            let woven = self.codes.woven_tiles(tile, fours);
            // Adds the products of the tile and the next one, of the heads from one on, to what was summed before.
            self.products.outputs(woven, &self.weights, |first, outputs| {
                for (head, outputs) in (first..self.heads).zip(outputs) {
                    let (step, factor) = (splat(self.weight_steps[head]), splat(self.factors[head]));
                    let sums = &mut self.sums[head * self.codes.width / LANES + tile..];
                    for (output, sum) in outputs.iter().zip(sums) {
                        let before = multiply(load_floats(sum), factor);
                        store_floats(sum, multiply_add(floats(load(output)), step, before));
                    }
                }
            });
        }
    }

    /// Writes the results, latents in their own order.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512vnni"))]
    #[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
    fn store(&mut self, split: &Split) {
        for head in 0..self.heads {
            let sums = &self.sums[head * self.codes.width / LANES..][..self.codes.width / LANES];
            for (sums, latents) in sums.as_chunks().0.iter().zip(self.latents.as_chunks_mut().0) {
                in_order(sums, latents);
            }
            for (run, latents) in self.latents.chunks_mut(RUN).enumerate() {
                let min_sum = self.min_sums[run * self.heads + head];
                latents.iter_mut().for_each(|latent| *latent += min_sum);
            }
            split.store(head, &self.softmax[head], &mut self.latents[..self.rank]);
        }
    }
}

/// Asks for the rows of a vector's tokens that are read next, from memory to the second cache.
fn prefetch_rows(split: &Split, first: usize) {
    for place in split.places(first..split.end().min(first + LANES)) {
        for part in [Part::Latent, Part::Rope] {
            // SAFETY: promised to `decode`.
            let bytes = unsafe { split.cache().bytes(place, part) };
            bytes.into_iter().flat_map(|bytes| bytes.chunks(64)).for_each(prefetch);
        }
    }
}
