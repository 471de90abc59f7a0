//! Products of 4-bit codes by vectors of NEON, with sums of four products of 8-bit integers.
//!
//! The other operand's numbers are taken in parts of 8 bits, one product for each. A line has four registers; as many sums
//! are taken at a time as stay, with what is multiplied, in the 32 registers there are. Loops have no closures, which would
//! be calls: they are compiled with `dotprod`, and what takes them, as an array's `map`, without.

use std::arch::aarch64::{uint32x4_t, vdupq_n_u32};

use super::codes::TILES;
use super::lanes::{LANES, Line};
use super::products::{QueryLines, Weights, joined_scores, store_transposed};
use super::vectors::{joined, load_register, no_words, store};
use crate::cpu::level::{add_signed_dots, add_unsigned_dots};

/// Heads whose outputs are summed at a time.
pub(super) const OUTPUT_HEADS: usize = 4;

/// Numbers of a register, and so its words of codes.
const WORDS: usize = 4;

/// Tokens whose scores are summed at a time, and registers of a line that they are summed of.
const TOKENS: usize = 4;
const REGISTERS: usize = 2;

/// Runs a block for each of a register's words, of which instructions name one.
macro_rules! each_word {
    ($word:ident => $block:block) => {
        each_word!(0, $word => $block);
        each_word!(1, $word => $block);
        each_word!(2, $word => $block);
        each_word!(3, $word => $block);
    };
    ($which:literal, $word:ident => $block:block) => {{
        const $word: i32 = $which;
        $block
    }};
}

/// As [`Products::scores`](super::products::Products::scores).
#[target_feature(enable = "neon,dotprod")]
pub(super) fn scores(query: &[QueryLines], rows: &[Line<u32>], stride: usize, scores: &mut [Line<f32>; LANES]) {
    let mut sums = [no_words(); LANES];
    for (group, sums) in sums.as_chunks_mut::<TOKENS>().0.iter_mut().enumerate() {
        let mut parts = [[no_words(); 3]; TOKENS];
        for first in (0..LANES / WORDS).step_by(REGISTERS) {
            let of_registers = sums_of_parts(query, &rows[group * TOKENS * stride..], stride, first);
            for (parts, of_registers) in parts.iter_mut().zip(of_registers) {
                for (part, of_registers) in parts.iter_mut().zip(of_registers) {
                    part[first..][..REGISTERS].copy_from_slice(&of_registers);
                }
            }
        }
        for (sum, parts) in sums.iter_mut().zip(parts) {
            *sum = joined_scores(parts);
        }
    }
    store_transposed(&mut sums, scores);
}

/// Sums of products of four tokens' codes and the three parts of a query, of which some registers of a line are taken.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sums_of_parts(
    query: &[QueryLines],
    rows: &[Line<u32>],
    stride: usize,
    first: usize,
) -> [[[uint32x4_t; REGISTERS]; 3]; TOKENS] {
    let mut sums = [[[vdupq_n_u32(0); REGISTERS]; 3]; TOKENS];
    for (line, query) in query.as_chunks::<LANES>().0.iter().enumerate() {
        for (word, query) in query.as_chunks::<WORDS>().0.iter().enumerate() {
            let mut codes = [vdupq_n_u32(0); TOKENS];
            for (token, codes) in codes.iter_mut().enumerate() {
                *codes = load_register(&rows[token * stride + line].0.as_chunks().0[word]);
            }
            each_word!(WORD => {
                let [high, middle, low] = &query[WORD as usize];
                for register in 0..REGISTERS {
                    let high = load_register(&high.0.as_chunks().0[first + register]);
                    let middle = load_register(&middle.0.as_chunks().0[first + register]);
                    let low = load_register(&low.0.as_chunks().0[first + register]);
                    for (sums, &codes) in sums.iter_mut().zip(&codes) {
                        sums[0][register] = add_signed_dots::<WORD>(sums[0][register], high, codes);
                        sums[1][register] = add_unsigned_dots::<WORD>(sums[1][register], middle, codes);
                        sums[2][register] = add_unsigned_dots::<WORD>(sums[2][register], low, codes);
                    }
                }
            });
        }
    }
    sums
}

/// As [`Products::outputs`](super::products::Products::outputs), of four heads.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn outputs<const N: usize>(
    woven: &[Line<u32>],
    weights: &[Weights<N>; OUTPUT_HEADS],
    outputs: &mut [[Line<i32>; 2]; OUTPUT_HEADS],
) {
    for tile in 0..2 {
        let mut sums = [[no_words(); 2]; OUTPUT_HEADS];
        for first in (0..LANES / WORDS).step_by(REGISTERS) {
            let of_registers = sums_of_outputs(&woven[tile.min(woven.len())..], weights, first);
            for (sums, of_registers) in sums.iter_mut().zip(of_registers) {
                for (sum, of_registers) in sums.iter_mut().zip(of_registers) {
                    sum[first..][..REGISTERS].copy_from_slice(&of_registers);
                }
            }
        }
        for (sums, outputs) in sums.into_iter().zip(outputs.iter_mut()) {
            store(&mut outputs[tile], joined(sums));
        }
    }
}

/// Sums of products of a tile's woven codes, of which some registers of a line are taken, and both parts of weights.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sums_of_outputs<const N: usize>(
    woven: &[Line<u32>],
    weights: &[Weights<N>; OUTPUT_HEADS],
    first: usize,
) -> [[[uint32x4_t; REGISTERS]; 2]; OUTPUT_HEADS] {
    let mut sums = [[[vdupq_n_u32(0); REGISTERS]; 2]; OUTPUT_HEADS];
    for (word, lines) in woven.chunks(WORDS * TILES).take(N / WORDS).enumerate() {
        let mut of_words = [[vdupq_n_u32(0); 2]; OUTPUT_HEADS];
        for (of_words, parts) in of_words.iter_mut().zip(weights) {
            for (of_words, part) in of_words.iter_mut().zip(parts) {
                *of_words = load_register(&part.as_chunks().0[word]);
            }
        }
        each_word!(WORD => {
            // Four tokens, if there are as many.
            let Some(codes) = lines.get(WORD as usize * TILES) else { return sums };
            for register in 0..REGISTERS {
                let codes = load_register(&codes.0.as_chunks().0[first + register]);
                for (sums, weights) in sums.iter_mut().zip(&of_words) {
                    for (sum, &weights) in sums.iter_mut().zip(weights) {
                        sum[register] = add_unsigned_dots::<WORD>(sum[register], codes, weights);
                    }
                }
            }
        });
    }
    sums
}
