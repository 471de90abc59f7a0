//! Products of 4-bit codes by vectors of AVX-512 VNNI.
//!
//! The other operand's numbers are taken in parts of 8 bits, one product for each.

use std::arch::x86_64::{_mm512_dpbusd_epi32, _mm512_set1_epi32, _mm512_setzero_si512};

use super::avx512::{joined, load, store};
use super::codes::TILES;
use super::lanes::{LANES, Line};
use super::products::{QueryLines, Weights, joined_scores, store_transposed};

/// Heads whose outputs are summed at a time.
pub(super) const OUTPUT_HEADS: usize = 4;

/// As [`Products::scores`](super::products::Products::scores).
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn scores(query: &[QueryLines], rows: &[Line<u32>], stride: usize, scores: &mut [Line<f32>; LANES]) {
    let mut sums = [_mm512_setzero_si512(); LANES];
    for half in 0..2 {
        let mut parts = [[_mm512_setzero_si512(); 3]; 8];
        for (line, query) in query.as_chunks::<LANES>().0.iter().enumerate() {
            for (four, [high, middle, low]) in query.iter().enumerate() {
                let (high, middle, low) = (load(high), load(middle), load(low));
                for (token, parts) in parts.iter_mut().enumerate() {
                    let codes = _mm512_set1_epi32(rows[(8 * half + token) * stride + line].0[four] as i32);
                    parts[0] = _mm512_dpbusd_epi32(parts[0], codes, high);
                    parts[1] = _mm512_dpbusd_epi32(parts[1], middle, codes);
                    parts[2] = _mm512_dpbusd_epi32(parts[2], low, codes);
                }
            }
        }
        for (token, parts) in parts.into_iter().enumerate() {
            sums[8 * half + token] = joined_scores(parts);
        }
    }
    store_transposed(&mut sums, scores);
}

/// As [`Products::outputs`](super::products::Products::outputs), of four heads.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn outputs<const N: usize>(
    woven: &[Line<u32>],
    weights: &[Weights<N>; OUTPUT_HEADS],
    outputs: &mut [[Line<i32>; 2]; OUTPUT_HEADS],
) {
    let mut sums = [[[_mm512_setzero_si512(); 2]; 2]; OUTPUT_HEADS];
    for (four, tiles) in woven.chunks(TILES).take(N).enumerate() {
        let codes = [load(&tiles[0]), load(&tiles[1])];
        for (sums, weights) in sums.iter_mut().zip(weights) {
            for part in 0..2 {
                let weights = _mm512_set1_epi32(weights[part][four] as i32);
                for tile in 0..2 {
                    sums[tile][part] = _mm512_dpbusd_epi32(sums[tile][part], weights, codes[tile]);
                }
            }
        }
    }
    for (sums, outputs) in sums.iter().zip(outputs) {
        for tile in 0..2 {
            store(&mut outputs[tile], joined(sums[tile]));
        }
    }
}
