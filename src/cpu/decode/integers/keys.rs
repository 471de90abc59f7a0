//! The scores of a block's rotated keys, in f32.

use super::lanes::{LANES, Line, zeros};
#[cfg(target_arch = "x86_64")]
use super::tiled_keys::TiledKeys;
use super::vectors::{
    bits, load_floats, load_numbers, multiply, multiply_add, no_words, splat, store, store_floats, transpose,
};
use crate::cpu::decode::Split;
#[cfg(target_arch = "x86_64")]
use crate::cpu::level::Tiles;

/// Numbers that a token's keys are a multiple of.
pub(super) const WIDTH: usize = 2 * LANES;

/// Heads whose scores vectors sum at a time.
const HEADS: usize = 4;

/// Rotated keys of a block of tokens, and what they are multiplied by.
pub(super) struct Keys {
    rope_dim: usize,
    /// Numbers of a token's keys: a multiple of [`WIDTH`].
    width: usize,
    /// `[tokens][width]`.
    numbers: Vec<f32>,
    /// Of each head, rounded up to a multiple of [`HEADS`]: where its key begins.
    firsts: Vec<usize>,
    /// Of as many heads: `[rope_dim]`.
    query: Vec<f32>,
    /// `[width]`: the keys of 16 tokens, by number.
    columns: Vec<Line<f32>>,
    /// What tiles need beside.
    #[cfg(target_arch = "x86_64")]
    tiled: TiledKeys,
}

impl Keys {
    pub fn new(split: &Split, tokens: usize) -> Self {
        let g = &split.params.geometry;
        let (heads, rope_dim) = (g.query_heads as usize, g.rope_dim as usize);
        let width = split.rope_width().next_multiple_of(WIDTH);
        let mut firsts: Vec<_> = (0..heads).map(|head| split.rope_head_of(head) * rope_dim).collect();
        #[cfg(target_arch = "x86_64")]
        let tiled = TiledKeys::new(&firsts, rope_dim, width);
        firsts.resize(heads.next_multiple_of(HEADS), 0);
        Self {
            rope_dim,
            width,
            numbers: vec![0.0; tokens * width],
            query: vec![0.0; firsts.len() * rope_dim],
            firsts,
            columns: zeros(width),
            #[cfg(target_arch = "x86_64")]
            tiled,
        }
    }

    /// Takes the query of all heads: `[heads][rope_dim]`, numbers of bf16.
    pub fn set_query(&mut self, query: &[f32]) {
        self.query[..query.len()].copy_from_slice(query);
        #[cfg(target_arch = "x86_64")]
        self.tiled.set_query(&self.firsts, query, self.rope_dim);
    }

    /// The keys of a token of the block, to be written.
    pub fn row(&mut self, token: usize, len: usize) -> &mut [f32] {
        &mut self.numbers[token * self.width..][..len]
    }

    /// The scores of 16 tokens, the `vector`th of the block: of each head, times `scale`.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512f"))]
    #[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
    pub fn score<const N: usize>(&mut self, vector: usize, scale: f32, scores: &mut [[Line<f32>; N]]) {
        let (rows, scale) = (&self.numbers[vector * LANES * self.width..], splat(scale));
        for (i, columns) in self.columns.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut square = [no_words(); LANES];
            for (row, keys) in square.iter_mut().zip(rows.chunks_exact(self.width)) {
                *row = bits(load_numbers(&keys.as_chunks().0[i]));
            }
            transpose(&mut square);
            for (column, row) in columns.iter_mut().zip(square) {
                store(column, row);
            }
        }
        for (group, scores) in scores.chunks_mut(HEADS).enumerate() {
            let firsts = &self.firsts[group * HEADS..][..HEADS];
            let query = &self.query[group * HEADS * self.rope_dim..][..HEADS * self.rope_dim];
            let mut sums = [splat(0.0); HEADS];
            for i in 0..self.rope_dim {
                for head in 0..HEADS {
                    let q = splat(query[head * self.rope_dim + i]);
                    sums[head] = multiply_add(q, load_floats(&self.columns[firsts[head] + i]), sums[head]);
                }
            }
            for (scores, sum) in scores.iter_mut().zip(sums) {
                store_floats(&mut scores[vector], multiply(sum, scale));
            }
        }
    }

    /// The same by tiles. Returns whether it could: where there are keys, all of them finite. A product with what is not
    /// finite would be none of another head's zeros.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    pub fn score_by_tiles<const N: usize>(
        &mut self,
        tiles: &Tiles,
        vector: usize,
        scale: f32,
        scores: &mut [[Line<f32>; N]],
    ) -> bool {
        let are_finite = self.width > 0 && self.tiled.take_apart(&self.numbers[vector * LANES * self.width..]);
        if are_finite {
            self.tiled.score(tiles, vector, scale, scores);
        }
        are_finite
    }
}
