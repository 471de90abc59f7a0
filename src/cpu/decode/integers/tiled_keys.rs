//! The scores of a block's rotated keys by tiles of bf16.
//!
//! A key is taken in two parts of bf16, its upper 8 bits and the next ones, of which it keeps 2^-15 of itself at most. The
//! query is in bf16 already. A tile has 16 heads, which may have several rotated keys: the query is zero beside the head's
//! own.

use std::arch::x86_64::{
    _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_fpclass_ps_mask, _mm512_loadu_ps, _mm512_mul_ps,
    _mm512_permutex2var_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512, _mm512_sub_ps,
};
use std::ops::Range;

use half::bf16;

use super::avx512::{load, load_floats, store, store_floats};
use super::keys::WIDTH;
use super::lanes::{LANES, Line, zeros};
use crate::cpu::level::Tiles;

/// Numbers of a line in bf16.
const HALVES: usize = 2 * LANES;
const _: () = assert!(WIDTH.is_multiple_of(HALVES));

/// Keys of 16 tokens, and what they are multiplied by.
pub(super) struct TiledKeys {
    /// Lines of a part of a token's keys.
    lines: usize,
    /// Of every 16 heads: the lines of their keys, and the query as [`Tiles::key_scores`] has it.
    tiles: Vec<(Range<usize>, Vec<Line<u32>>)>,
    /// `[16 tokens][2][lines]`: the upper and the lower parts of keys.
    parts: Vec<Line<u32>>,
}

impl TiledKeys {
    /// For heads' keys of `rope_dim` numbers, which begin at `firsts`, of the `width` that a token has.
    pub fn new(firsts: &[usize], rope_dim: usize, width: usize) -> Self {
        let lines = width / HALVES;
        let tile = |firsts: &[usize]| {
            let end = firsts.last().map_or(0, |last| last + rope_dim);
            let lines = firsts[0] / HALVES..end.div_ceil(HALVES);
            let query = zeros(lines.len() * LANES);
            (lines, query)
        };
        Self { lines, tiles: firsts.chunks(LANES).map(tile).collect(), parts: zeros(LANES * 2 * lines) }
    }

    /// Takes the queries of all heads, whose keys begin at `firsts`: `[heads][rope_dim]`, numbers of bf16.
    pub fn set_query(&mut self, firsts: &[usize], query: &[f32], rope_dim: usize) {
        for (head, query) in query.chunks_exact(rope_dim.max(1)).enumerate() {
            let (lines, tile) = &mut self.tiles[head / LANES];
            let first = firsts[head] - lines.start * HALVES;
            for (i, &q) in (first..).zip(query) {
                let bits = u32::from(bf16::from_f32(q).to_bits());
                let pair = &mut tile[i / 2].0[head % LANES];
                *pair = if i % 2 == 0 { *pair & !0xFFFF | bits } else { *pair & 0xFFFF | bits << 16 };
            }
        }
    }

    /// Makes the parts of 16 tokens' keys, `[tokens][width]`. Returns whether all of them are finite.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    pub fn take_apart(&mut self, keys: &[f32]) -> bool {
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
        let (lines, keys) = (self.lines, keys.as_chunks::<LANES>().0);
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

    /// The scores of the 16 tokens, the `vector`th of a block: of each head, times `scale`.
    #[target_feature(enable = "avx512f")]
    pub fn score<const N: usize>(&self, tiles: &Tiles, vector: usize, scale: f32, scores: &mut [[Line<f32>; N]]) {
        let (lines, scale) = (self.lines, _mm512_set1_ps(scale));
        let mut products = [Line::default(); LANES];
        for ((range, query), scores) in self.tiles.iter().zip(scores.chunks_mut(LANES)) {
            tiles.key_scores(query, (&self.parts[range.start..], lines, 2 * lines), &mut products);
            for (products, scores) in products.iter().zip(scores) {
                store_floats(&mut scores[vector], _mm512_mul_ps(load_floats(products), scale));
            }
        }
    }
}
