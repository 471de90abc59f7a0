//! Products of 4-bit codes by AMX's tiles of 8-bit integers.
//!
//! A product has 16 rows, which stand in memory as far from each other as `stride` says, 16 columns, and 64 numbers to sum;
//! of the second operand, a row of a tile has four numbers of each column. That is how [`vnni`](super::vnni) has queries and
//! woven codes.
//!
//! Rust has no stable intrinsics of AMX yet.

use std::arch::asm;
use std::arch::x86_64::{_mm512_add_ps, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_setzero_si512};

use super::avx512::{joined, load, store};
use super::codes::TILES;
use super::lanes::{LANES, Line};
use super::products::{QueryLines, Weights, joined_scores, store_transposed};
use crate::cpu::level::Tiles;

/// Numbers that a product of two tiles sums.
const DEPTH: usize = 64;

/// Rows of a tile's second operand, each of four numbers of 16 columns.
const FOURS: usize = DEPTH / 4;

/// What a tile holds of 32-bit numbers.
type Tile = [Line<u32>; LANES];

/// Heads whose outputs are summed at a time.
pub(super) const OUTPUT_HEADS: usize = LANES;

impl Tiles {
    /// As [`Products::scores`](super::products::Products::scores).
    #[target_feature(enable = "avx512f")]
    pub(super) fn scores(
        &self,
        query: &[QueryLines],
        rows: &[Line<u32>],
        stride: usize,
        scores: &mut [Line<f32>; LANES],
    ) {
        let steps = query.len() / FOURS;
        assert!(
            rows.len() >= (LANES - 1) * stride + steps && query.len() == steps * FOURS,
            "rows hold the query's positions"
        );
        let mut sums: [Tile; 3] = Default::default();
        if steps > 0 {
            // SAFETY: `Tiles` are configured. A step reads a line of each of 16 rows, and 16 times three lines of the query,
            // which the assertion has counted; three tiles are written, to as many.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "2:",
                    "tileloadd tmm3, [{codes} + {stride}]",
                    "tileloadd tmm4, [{query} + {query_stride}]",
                    "tileloadd tmm5, [{query} + {query_stride} + 64]",
                    "tileloadd tmm6, [{query} + {query_stride} + 128]",
                    "tdpbusd tmm0, tmm3, tmm4",
                    "tdpbuud tmm1, tmm3, tmm5",
                    "tdpbuud tmm2, tmm3, tmm6",
                    "add {codes}, 64",
                    "add {query}, 16 * 192",
                    "dec {steps}",
                    "jnz 2b",
                    "mov {stride}, 64",
                    "tilestored [{sums} + {stride}], tmm0",
                    "tilestored [{sums} + {stride} + 1024], tmm1",
                    "tilestored [{sums} + {stride} + 2048], tmm2",
                    codes = inout(reg) rows.as_ptr() => _,
                    stride = inout(reg) size_of::<Line<u32>>() * stride => _,
                    query = inout(reg) query.as_ptr() => _,
                    query_stride = in(reg) size_of::<QueryLines>(),
                    steps = inout(reg) steps => _,
                    sums = in(reg) sums.as_mut_ptr(),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
                    options(nostack),
                );
            }
        }
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (token, row) in rows.iter_mut().enumerate() {
            *row = joined_scores([load(&sums[0][token]), load(&sums[1][token]), load(&sums[2][token])]);
        }
        store_transposed(&mut rows, scores);
    }

    /// As [`Products::outputs`](super::products::Products::outputs), of 16 heads, whose weights are of a multiple of 64 tokens.
    #[target_feature(enable = "avx512f")]
    pub(super) fn outputs<const N: usize>(
        &self,
        woven: &[Line<u32>],
        weights: &[Weights<N>; OUTPUT_HEADS],
        outputs: &mut [[Line<i32>; 2]; OUTPUT_HEADS],
    ) {
        let fours = woven.len().div_ceil(TILES);
        let steps = fours / FOURS;
        assert!(
            fours <= N && fours.is_multiple_of(FOURS) && woven.len() == (fours * TILES).saturating_sub(TILES - 2),
            "weights are of the tokens of codes"
        );
        let mut sums: [Tile; 4] = Default::default();
        if steps > 0 {
            // SAFETY: `Tiles` are configured. A step reads 64 bytes of both parts of 16 heads, and 16 lines of both tiles of
            // codes, which the assertion has counted; four tiles are written, to as many.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tileloadd tmm4, [{high} + {weights_stride}]",
                    "tileloadd tmm5, [{low} + {weights_stride}]",
                    "tileloadd tmm6, [{woven} + {woven_stride}]",
                    "tileloadd tmm7, [{woven} + {woven_stride} + 64]",
                    "tdpbuud tmm0, tmm4, tmm6",
                    "tdpbuud tmm1, tmm5, tmm6",
                    "tdpbuud tmm2, tmm4, tmm7",
                    "tdpbuud tmm3, tmm5, tmm7",
                    "add {high}, 64",
                    "add {low}, 64",
                    "add {woven}, 16 * 512",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {line}], tmm0",
                    "tilestored [{sums} + {line} + 1024], tmm1",
                    "tilestored [{sums} + {line} + 2048], tmm2",
                    "tilestored [{sums} + {line} + 3072], tmm3",
                    high = inout(reg) weights[0][0].as_ptr() => _,
                    low = inout(reg) weights[0][1].as_ptr() => _,
                    weights_stride = in(reg) size_of::<Weights<N>>(),
                    woven = inout(reg) woven.as_ptr() => _,
                    woven_stride = in(reg) size_of::<[Line<u32>; TILES]>(),
                    line = in(reg) size_of::<Line<u32>>(),
                    steps = inout(reg) steps => _,
                    sums = in(reg) sums.as_mut_ptr(),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
        for (head, outputs) in outputs.iter_mut().enumerate() {
            for tile in 0..2 {
                let parts = [load(&sums[2 * tile][head]), load(&sums[2 * tile + 1][head])];
                store(&mut outputs[tile], joined(parts));
            }
        }
    }

    /// Sums of products of the rotated keys of 16 tokens and the queries of 16 heads, by head. Rows of keys, in bf16, are
    /// `stride` lines from each other, and begin with the upper parts of the keys; the lower ones are `lower` lines behind.
    /// The query has a line for each two numbers of a key: the two, in bf16, of 16 heads.
    #[target_feature(enable = "avx512f")]
    pub(super) fn key_scores(
        &self,
        query: &[Line<u32>],
        (keys, lower, stride): (&[Line<u32>], usize, usize),
        scores: &mut [Line<f32>; LANES],
    ) {
        let steps = query.len() / LANES;
        assert!(keys.len() >= (LANES - 1) * stride + lower + steps && query.len() == steps * LANES, "keys are as long");
        let mut sums: [Tile; 2] = Default::default();
        if steps > 0 {
            // SAFETY: `Tiles` are configured, and AMX's products of bf16 are there. A step reads a line of both parts of 16
            // rows, and 16 lines of the query, which the assertion has counted; two tiles are written, to as many.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "2:",
                    "tileloadd tmm2, [{high} + {stride}]",
                    "tileloadd tmm3, [{low} + {stride}]",
                    "tileloadd tmm4, [{query} + {line}]",
                    "tdpbf16ps tmm0, tmm2, tmm4",
                    "tdpbf16ps tmm1, tmm3, tmm4",
                    "add {high}, 64",
                    "add {low}, 64",
                    "add {query}, 1024",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {line}], tmm0",
                    "tilestored [{sums} + {line} + 1024], tmm1",
                    high = inout(reg) keys.as_ptr() => _,
                    low = inout(reg) keys[lower..].as_ptr() => _,
                    stride = in(reg) size_of::<Line<u32>>() * stride,
                    query = inout(reg) query.as_ptr() => _,
                    line = in(reg) size_of::<Line<u32>>(),
                    steps = inout(reg) steps => _,
                    sums = in(reg) sums.as_mut_ptr(),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _,
                    options(nostack),
                );
            }
        }
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (token, row) in rows.iter_mut().enumerate() {
            let (high, low) = (_mm512_castsi512_ps(load(&sums[0][token])), _mm512_castsi512_ps(load(&sums[1][token])));
            *row = _mm512_castps_si512(_mm512_add_ps(high, low));
        }
        store_transposed(&mut rows, scores);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::level::Level;

    /// Lines of numbers that look random.
    fn lines(count: usize, seed: u32, mask: u32) -> Vec<Line<u32>> {
        let mut numbers = (0..).map(|i: u32| {
            let number = (i.wrapping_mul(0x9E37_79B9) ^ seed.wrapping_mul(0x85EB_CA6B)).wrapping_mul(0xC2B2_AE35) >> 11;
            number.wrapping_mul(0x0101_4701) & mask
        });
        (0..count).map(|_| Line(std::array::from_fn(|_| numbers.next().unwrap_or_default()))).collect()
    }

    #[test]
    fn key_scores_are_the_products_of_both_parts() {
        if !Level::Amx.is_available() {
            return;
        }
        // SAFETY: there are tiles.
        let tiles = unsafe { Tiles::new() };
        for steps in [0, 1, 3] {
            let (lower, stride) = (steps + 1, 2 * steps + 2);
            // Numbers of bf16 in 0.5..2, of either sign.
            let [keys, query] = [(LANES * stride, 6), (LANES * steps, 7)].map(|(count, seed)| {
                let mut lines = lines(count, seed, 0x80FF_80FF);
                lines.iter_mut().flat_map(|line| &mut line.0).for_each(|pair| *pair |= 0x3F00_3F00);
                lines
            });
            let pair = |pair: u32| [pair << 16, pair & 0xFFFF_0000].map(|bits| f64::from(f32::from_bits(bits)));
            let mut scores = [Line([f32::NAN; LANES]); LANES];
            // SAFETY: there is AVX-512.
            unsafe { tiles.key_scores(&query, (&keys, lower, stride), &mut scores) };
            for (head, scores) in scores.iter().enumerate() {
                for (token, &score) in scores.0.iter().enumerate() {
                    let mut want = 0.0;
                    for i in 0..LANES * steps {
                        let query = pair(query[i].0[head]);
                        for part in [0, lower] {
                            let key = pair(keys[token * stride + part + i / LANES].0[i % LANES]);
                            want += query[0] * key[0] + query[1] * key[1];
                        }
                    }
                    assert!((f64::from(score) - want).abs() < 1e-4, "head {head}, token {token}: {score}, not {want}");
                }
            }
        }
    }
}
