//! The scores of a block's rotated keys: by vectors, or by tiles of bf16.
//!
//! For tiles, a key is taken in two parts of bf16, its upper 8 bits and the next ones, of which it keeps 2^-15 of itself at
//! most. The query is in bf16 already. A tile has 16 heads, which may have several rotated keys: the query is zero beside
//! the head's own.

use std::arch::x86_64::{
    _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_fmadd_ps, _mm512_fpclass_ps_mask,
    _mm512_loadu_ps, _mm512_mul_ps, _mm512_permutex2var_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_sub_ps,
};
use std::ops::Range;

use half::bf16;

use super::lanes::{LANES, Line, load, load_floats, store, store_floats, transpose, zeros};
use crate::cpu::decode::Split;
use crate::cpu::level::Tiles;

/// Numbers of a line in bf16.
const HALVES: usize = 2 * LANES;

/// Heads whose scores vectors sum at a time.
const HEADS: usize = 4;

/// Rotated keys of a block of tokens, and what they are multiplied by.
pub(super) struct Keys {
    rope_dim: usize,
    /// Numbers of a token's keys: whole lines in bf16.
    width: usize,
    /// `[tokens][width]`.
    numbers: Vec<f32>,
    /// Of each head, rounded up to a multiple of [`HEADS`]: where its key begins.
    firsts: Vec<usize>,
    /// Of as many heads: `[rope_dim]`.
    query: Vec<f32>,
    /// `[width]`: the keys of 16 tokens, by number.
    columns: Vec<Line<f32>>,
    /// Of every 16 heads: the lines of their keys, and the query as [`Tiles::key_scores`] has it.
    tiles: Vec<(Range<usize>, Vec<Line<u32>>)>,
    /// `[16 tokens][2][width / 32]`: the upper and the lower parts of keys.
    parts: Vec<Line<u32>>,
}

impl Keys {
    pub fn new(split: &Split, tokens: usize) -> Self {
        let g = &split.params.geometry;
        let (heads, rope_dim) = (g.query_heads as usize, g.rope_dim as usize);
        let width = split.rope_width().next_multiple_of(HALVES);
        let mut firsts: Vec<_> = (0..heads).map(|head| split.rope_head_of(head) * rope_dim).collect();
        let tile = |firsts: &[usize]| {
            let end = firsts.last().map_or(0, |last| last + rope_dim);
            let lines = firsts[0] / HALVES..end.div_ceil(HALVES);
            let query = zeros(lines.len() * LANES);
            (lines, query)
        };
        let tiles = firsts.chunks(LANES).map(tile).collect();
        firsts.resize(heads.next_multiple_of(HEADS), 0);
        Self {
            rope_dim,
            width,
            numbers: vec![0.0; tokens * width],
            query: vec![0.0; firsts.len() * rope_dim],
            firsts,
            columns: zeros(width),
            tiles,
            parts: zeros(LANES * 2 * width / HALVES),
        }
    }

    /// Takes the query of all heads: `[heads][rope_dim]`, numbers of bf16.
    pub fn set_query(&mut self, query: &[f32]) {
        self.query[..query.len()].copy_from_slice(query);
        for (head, query) in query.chunks_exact(self.rope_dim.max(1)).enumerate() {
            let (lines, tile) = &mut self.tiles[head / LANES];
            let first = self.firsts[head] - lines.start * HALVES;
            for (i, &q) in (first..).zip(query) {
                let bits = u32::from(bf16::from_f32(q).to_bits());
                let pair = &mut tile[i / 2].0[head % LANES];
                *pair = if i % 2 == 0 { *pair & !0xFFFF | bits } else { *pair & 0xFFFF | bits << 16 };
            }
        }
    }

    /// The keys of a token of the block, to be written.
    pub fn row(&mut self, token: usize, len: usize) -> &mut [f32] {
        &mut self.numbers[token * self.width..][..len]
    }

    /// The scores of 16 tokens, the `vector`th of the block: of each head, times `scale`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    pub fn score<const N: usize>(
        &mut self,
        vector: usize,
        tiles: Option<&Tiles>,
        scale: f32,
        scores: &mut [[Line<f32>; N]],
    ) {
        if self.width == 0 {
            scores.iter_mut().for_each(|scores| scores[vector] = Line::default());
            return;
        }
        match tiles {
            // A product with what is not finite would be none of another head's zeros.
            Some(tiles) if self.take_apart(vector) => self.score_by_tiles(tiles, vector, scale, scores),
            _ => self.score_by_vectors(vector, scale, scores),
        }
    }

    /// Makes the parts of 16 tokens' keys. Returns whether all of them are finite.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    fn take_apart(&mut self, vector: usize) -> bool {
        /// NaN, and both infinities.
        const NOT_FINITE: i32 = 0x99;
        /// The upper 16 bits of every number of two vectors.
        const UPPER: Line<u32> = {
            let mut line = Line([0; LANES]);
            let mut i = 0;
            while i < LANES {
                line.0[i] = (4 * i as u32 + 1) | (4 * i as u32 + 3) << 16;
                i += 1;
            }
            line
        };
        let (upper, mask) = (load(&UPPER), _mm512_set1_epi32(!0xFFFF));
        let lines = self.width / HALVES;
        let keys = self.numbers[vector * LANES * self.width..].as_chunks::<LANES>().0;
        let mut not_finite = 0;
        for (row, parts) in keys.chunks_exact(2 * lines).zip(self.parts.chunks_exact_mut(2 * lines)) {
            for (line, keys) in row.as_chunks::<2>().0.iter().enumerate() {
                let mut numbers = [_mm512_setzero_si512(); 2];
                let mut rests = [_mm512_setzero_si512(); 2];
                for i in 0..2 {
                    // SAFETY: there are 16 numbers.
                    let keys = unsafe { _mm512_loadu_ps(keys[i].as_ptr()) };
                    numbers[i] = _mm512_castps_si512(keys);
                    let rest = _mm512_sub_ps(keys, _mm512_castsi512_ps(_mm512_and_si512(numbers[i], mask)));
                    not_finite |= _mm512_fpclass_ps_mask::<NOT_FINITE>(rest);
                    rests[i] = _mm512_castps_si512(rest);
                }
                store(&mut parts[line], _mm512_permutex2var_epi16(numbers[0], upper, numbers[1]));
                store(&mut parts[lines + line], _mm512_permutex2var_epi16(rests[0], upper, rests[1]));
            }
        }
        not_finite == 0
    }

    #[target_feature(enable = "avx512f")]
    fn score_by_tiles<const N: usize>(&self, tiles: &Tiles, vector: usize, scale: f32, scores: &mut [[Line<f32>; N]]) {
        let (lines, scale) = (self.width / HALVES, _mm512_set1_ps(scale));
        let mut products = [Line::default(); LANES];
        for ((range, query), scores) in self.tiles.iter().zip(scores.chunks_mut(LANES)) {
            tiles.key_scores(query, (&self.parts[range.start..], lines, 2 * lines), &mut products);
            for (products, scores) in products.iter().zip(scores) {
                store_floats(&mut scores[vector], _mm512_mul_ps(load_floats(products), scale));
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    fn score_by_vectors<const N: usize>(&mut self, vector: usize, scale: f32, scores: &mut [[Line<f32>; N]]) {
        let (rows, scale) = (&self.numbers[vector * LANES * self.width..], _mm512_set1_ps(scale));
        for (i, columns) in self.columns.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut square = [_mm512_setzero_si512(); LANES];
            for (token, row) in square.iter_mut().enumerate() {
                let keys = &rows[token * self.width + i * LANES..][..LANES];
                // SAFETY: there are 16 numbers.
                *row = _mm512_castps_si512(unsafe { _mm512_loadu_ps(keys.as_ptr()) });
            }
            transpose(&mut square);
            for (column, row) in columns.iter_mut().zip(square) {
                store(column, row);
            }
        }
        for (group, scores) in scores.chunks_mut(HEADS).enumerate() {
            let firsts = &self.firsts[group * HEADS..][..HEADS];
            let query = &self.query[group * HEADS * self.rope_dim..][..HEADS * self.rope_dim];
            let mut sums = [_mm512_setzero_ps(); HEADS];
            for i in 0..self.rope_dim {
                for head in 0..HEADS {
                    let q = _mm512_set1_ps(query[head * self.rope_dim + i]);
                    sums[head] = _mm512_fmadd_ps(q, load_floats(&self.columns[firsts[head] + i]), sums[head]);
                }
            }
            for (scores, sum) in scores.iter_mut().zip(sums) {
                store_floats(&mut scores[vector], _mm512_mul_ps(sum, scale));
            }
        }
    }
}
