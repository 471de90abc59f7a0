//! Products of 4-bit codes by vectors of AVX-512 VNNI.
//!
//! The other operand's numbers are taken in parts of 8 bits, one product for each.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_castps_si512, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512, _mm512_slli_epi32,
};

use super::codes::TILES;
use super::lanes::{LANES, Line, load, store, transpose};

/// Heads whose outputs are summed at a time.
pub(super) const OUTPUT_HEADS: usize = 4;

/// Of four positions, the upper (signed), the middle and the lower 8 bits of 16 heads' four numbers.
pub(super) type QueryLines = [Line<u32>; 3];

/// Sums of products of codes and the queries of 16 heads, for 16 tokens, by head. Rows of codes are `stride` lines from each
/// other, and the query has [`QueryLines`] for each four positions.
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

/// The scores of the three parts' sums, which stand by token, by head.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn scores_of_parts(parts: &[[Line<u32>; LANES]; 3], scores: &mut [Line<f32>; LANES]) {
    let mut sums = [_mm512_setzero_si512(); LANES];
    for (token, sum) in sums.iter_mut().enumerate() {
        *sum = joined_scores([load(&parts[0][token]), load(&parts[1][token]), load(&parts[2][token])]);
    }
    store_transposed(&mut sums, scores);
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_transposed(rows: &mut [__m512i; LANES], to: &mut [Line<f32>; LANES]) {
    transpose(rows);
    for (row, to) in rows.iter().zip(to) {
        store(to, *row);
    }
}

/// The number, as f32, of which these are the sums of the upper, the middle and the lower 8 bits. Each has less than 24 bits,
/// which f32 holds.
#[inline]
#[target_feature(enable = "avx512f")]
fn joined_scores([high, middle, low]: [__m512i; 3]) -> __m512i {
    let (high, middle, low) = (_mm512_cvtepi32_ps(high), _mm512_cvtepi32_ps(middle), _mm512_cvtepi32_ps(low));
    let upper = _mm512_fmadd_ps(high, _mm512_set1_ps(256.0), middle);
    _mm512_castps_si512(_mm512_fmadd_ps(upper, _mm512_set1_ps(256.0), low))
}

/// Sums of products of woven codes, of [two tiles](super::codes::Codes::woven_tiles), and of weights of four heads, by head and
/// tile. Weights have an upper and a lower part (unsigned) of each four tokens.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn outputs<const N: usize>(
    woven: &[Line<u32>],
    weights: &[[[u32; N]; 2]; OUTPUT_HEADS],
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
            store(&mut outputs[tile], joined_outputs(sums[tile]));
        }
    }
}

/// The number of which these are the sums of the upper and the lower 8 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn joined_outputs([high, low]: [__m512i; 2]) -> __m512i {
    _mm512_add_epi32(_mm512_slli_epi32::<8>(high), low)
}
