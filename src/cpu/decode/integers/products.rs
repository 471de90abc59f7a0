//! Products of codes with queries and with weights, by the instructions of a level.
//!
//! All sums are exact, and their parts are joined in one way, so that every level gives the same bits.

#[cfg(target_arch = "x86_64")]
use super::amx;
#[cfg(target_arch = "aarch64")]
use super::dotprod as dots;
use super::lanes::{LANES, Line};
use super::vectors::{Words, bits, floats, multiply_add, splat, store, transpose};
#[cfg(target_arch = "x86_64")]
use super::vnni as dots;
use crate::cpu::level::Level;
#[cfg(target_arch = "x86_64")]
use crate::cpu::level::Tiles;

/// Of four positions, the upper (signed), the middle and the lower 8 bits of 16 heads' four numbers.
pub(super) type QueryLines = [Line<u32>; 3];

/// Heads' weights are there for a multiple of as many.
pub(super) const OUTPUT_HEADS: usize = LANES;

/// Of each four tokens, the upper and the lower 8 bits (unsigned) of a head's weights.
pub(super) type Weights<const N: usize> = [[u32; N]; 2];

/// The instructions.
pub(super) struct Products {
    #[cfg(target_arch = "x86_64")]
    pub tiles: Option<Tiles>,
}

impl Products {
    /// # Safety
    /// The machine has the level.
    pub unsafe fn new(level: Level) -> Self {
        debug_assert!(level.has_int8());
        Self {
            // SAFETY: promised by the caller.
            #[cfg(target_arch = "x86_64")]
            tiles: (level == Level::Amx).then(|| unsafe { Tiles::new() }),
        }
    }

    /// Sums of products of codes and the queries of 16 heads, for 16 tokens, by head. Rows of codes are `stride` lines from
    /// each other, and the query has [`QueryLines`] for each four positions.
    #[inline]
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512vnni"))]
    #[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon,dotprod"))]
    pub fn scores(&self, query: &[QueryLines], rows: &[Line<u32>], stride: usize, scores: &mut [Line<f32>; LANES]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(tiles) = &self.tiles {
            return tiles.scores(query, rows, stride, scores);
        }
        dots::scores(query, rows, stride, scores);
    }

    /// Hands on sums of products of woven codes, of [two tiles](super::codes::Codes::woven_tiles), and of weights: a first
    /// head, and of it and the next ones the sums of both tiles.
    #[inline]
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512vnni"))]
    #[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon,dotprod"))]
    pub fn outputs<const N: usize>(
        &self,
        woven: &[Line<u32>],
        weights: &[Weights<N>],
        mut take: impl FnMut(usize, &[[Line<i32>; 2]]),
    ) {
        #[cfg(target_arch = "x86_64")]
        if let Some(tiles) = &self.tiles {
            let mut outputs = [Default::default(); amx::OUTPUT_HEADS];
            for (group, weights) in weights.as_chunks().0.iter().enumerate() {
                tiles.outputs(woven, weights, &mut outputs);
                take(group * amx::OUTPUT_HEADS, &outputs);
            }
            return;
        }
        let mut outputs = [Default::default(); dots::OUTPUT_HEADS];
        for (group, weights) in weights.as_chunks().0.iter().enumerate() {
            dots::outputs(woven, weights, &mut outputs);
            take(group * dots::OUTPUT_HEADS, &outputs);
        }
    }
}

/// Scores of 16 tokens, which stand by token, by head.
#[inline]
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512f"))]
#[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
pub(super) fn store_transposed(rows: &mut [Words; LANES], to: &mut [Line<f32>; LANES]) {
    transpose(rows);
    for (row, to) in rows.iter().zip(to) {
        store(to, *row);
    }
}

/// The bits of the numbers, as f32, of which these are the sums of the upper, the middle and the lower 8 bits. Each has less
/// than 24 bits, which f32 holds.
#[inline]
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512f"))]
#[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
pub(super) fn joined_scores([high, middle, low]: [Words; 3]) -> Words {
    let upper = multiply_add(floats(high), splat(256.0), floats(middle));
    bits(multiply_add(upper, splat(256.0), floats(low)))
}

#[cfg(test)]
mod tests {
    use super::super::codes::TILES;
    use super::*;

    /// Numbers that look random.
    fn numbers(seed: u32) -> impl Iterator<Item = u32> {
        (0..).map(move |i: u32| {
            let number = (i.wrapping_mul(0x9E37_79B9) ^ seed.wrapping_mul(0x85EB_CA6B)).wrapping_mul(0xC2B2_AE35) >> 11;
            number.wrapping_mul(0x0101_4701)
        })
    }

    fn lines(count: usize, seed: u32, mask: u32) -> Vec<Line<u32>> {
        let mut numbers = numbers(seed).map(|number| number & mask);
        (0..count).map(|_| Line(std::array::from_fn(|_| numbers.next().unwrap_or_default()))).collect()
    }

    const CODES: u32 = 0x0F0F_0F0F;

    /// Words of four numbers that products of 64 have.
    const FOURS: usize = 16;

    /// The product of four bytes with four others.
    fn product(a: u32, b: u32, number: impl Fn(u8) -> i64) -> i64 {
        a.to_le_bytes().into_iter().zip(b.to_le_bytes()).map(|(a, b)| i64::from(a) * number(b)).sum()
    }

    #[test]
    fn products_are_those_of_the_formula_to_the_bit() {
        const TOKENS: usize = 512;
        let heads = 2 * OUTPUT_HEADS;
        for level in Level::available().filter(|level| level.has_int8()) {
            // SAFETY: the machine has the level.
            let products = unsafe { Products::new(level) };
            for steps in [0, 1, 2, 8] {
                let stride = steps + 3;
                let rows = lines(LANES * stride, 1, CODES);
                let query: Vec<QueryLines> = lines(3 * FOURS * steps, 2, u32::MAX).as_chunks().0.to_vec();
                let mut scores = [Line([f32::NAN; LANES]); LANES];
                // SAFETY: as above.
                unsafe { products.scores(&query, &rows, stride, &mut scores) };
                for (head, scores) in scores.iter().enumerate() {
                    for (token, got) in scores.0.into_iter().enumerate() {
                        let mut parts = [0; 3];
                        for (four, query) in query.iter().enumerate() {
                            let codes = rows[token * stride + four / LANES].0[four % LANES];
                            parts[0] += product(codes, query[0].0[head], |byte| i64::from(byte.cast_signed()));
                            parts[1] += product(codes, query[1].0[head], i64::from);
                            parts[2] += product(codes, query[2].0[head], i64::from);
                        }
                        let [high, middle, low] = parts.map(|part| part as f32);
                        let want = high.mul_add(256.0, middle).mul_add(256.0, low);
                        assert_eq!(got, want, "{level}, {steps} steps: head {head}, token {token}");
                    }
                }

                let woven = lines((FOURS * steps * TILES).saturating_sub(TILES - 2), 3, CODES);
                let mut numbers = numbers(5);
                let weights: Vec<Weights<{ TOKENS / 4 }>> = (0..heads)
                    .map(|_| [(); 2].map(|()| std::array::from_fn(|_| numbers.next().unwrap_or_default())))
                    .collect();
                let mut outputs = vec![[Line([-1; LANES]); 2]; heads];
                // SAFETY: as above.
                unsafe {
                    products
                        .outputs(&woven, &weights, |first, some| outputs[first..][..some.len()].copy_from_slice(some));
                }
                for (head, outputs) in outputs.iter().enumerate() {
                    for (tile, output) in outputs.iter().enumerate() {
                        for (lane, got) in output.0.into_iter().enumerate() {
                            let of_part = |part: usize| -> i64 {
                                let fours = weights[head][part].iter().take(FOURS * steps).enumerate();
                                fours.map(|(i, four)| product(woven[i * TILES + tile].0[lane], *four, i64::from)).sum()
                            };
                            let want = 256 * of_part(0) + of_part(1);
                            assert_eq!(
                                i64::from(got),
                                want,
                                "{level}, {steps} steps: head {head}, tile {tile}, {lane}"
                            );
                        }
                    }
                }
            }
        }
    }
}
