//! The weights of a head and a block of tokens: of its scores, and as integers.

use super::lanes::{LANES, Line};
use super::products::Weights;
use super::vectors::{
    add, exp, first_of, integers, larger, largest, load_floats, multiply, multiply_add, splat, store_floats,
    store_parts, subtract, sum,
};
use crate::cpu::decode::softmax::Softmax;

/// The largest weight.
const LARGEST_WEIGHT: f32 = 65535.0;

/// What is smaller has no inverse; nothing is lost of sums in which it is the largest.
const SMALLEST: f32 = 1e-30;

/// Makes weights of the scores of `count` tokens, and zeros of what is behind them in the last vector. Returns the factor of
/// what was summed before.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512f"))]
#[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
pub(super) fn weigh<const N: usize>(scores: &mut [Line<f32>; N], count: usize, softmax: &mut Softmax) -> f32 {
    let scores = &mut scores[..count.div_ceil(LANES)];
    let mut most = splat(f32::NEG_INFINITY);
    for (vector, scores) in scores.iter().enumerate() {
        most = first_of(tokens_of(vector, count), larger(load_floats(scores), most), most);
    }
    let factor = softmax.raise(largest(most));
    let mut sums = splat(0.0);
    let most = splat(softmax.largest());
    for (vector, scores) in scores.iter_mut().enumerate() {
        let weights = exp(subtract(load_floats(scores), most));
        let weights = first_of(tokens_of(vector, count), weights, splat(0.0));
        sums = add(sums, weights);
        store_floats(scores, weights);
    }
    softmax.add_weights(sum(sums));
    factor
}

/// The tokens of a vector.
fn tokens_of(vector: usize, count: usize) -> usize {
    (count - vector * LANES).min(LANES)
}

/// Takes weights times scales as integers, in an upper and a lower part of 8 bits. Returns what one of them is, and the sum of
/// weights times mins.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512f"))]
#[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
pub(super) fn round<const N: usize, const FOURS: usize>(
    weights: &[Line<f32>; N],
    [scales, mins]: [&[Line<f32>; N]; 2],
    parts: &mut Weights<FOURS>,
    vectors: usize,
) -> [f32; 2] {
    let (mut most, mut sums) = (splat(0.0), splat(0.0));
    for vector in 0..vectors {
        let weights = load_floats(&weights[vector]);
        most = larger(multiply(weights, load_floats(&scales[vector])), most);
        sums = multiply_add(weights, load_floats(&mins[vector]), sums);
    }
    let largest = largest(most);
    let inverse = splat(if largest > SMALLEST { LARGEST_WEIGHT / largest } else { 0.0 });
    let [high, low] = parts;
    let (high, low) = (high.as_chunks_mut::<4>().0, low.as_chunks_mut::<4>().0);
    for vector in 0..vectors {
        let scaled = multiply(load_floats(&weights[vector]), load_floats(&scales[vector]));
        store_parts([&mut high[vector], &mut low[vector]], integers(multiply(scaled, inverse)));
    }
    high[vectors..].as_flattened_mut().fill(0);
    low[vectors..].as_flattened_mut().fill(0);
    [largest / LARGEST_WEIGHT, sum(sums)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::level::Level;

    const VECTORS: usize = 4;

    fn floats(of: impl Fn(usize) -> f32) -> [Line<f32>; VECTORS] {
        std::array::from_fn(|vector| Line(std::array::from_fn(|lane| of(vector * LANES + lane))))
    }

    #[test]
    fn weights_are_those_of_a_running_softmax_and_integers_are_close_to_them() {
        if !Level::available().any(Level::has_int8) {
            return;
        }
        for count in [1, 15, 16, 17, 63, 64] {
            let (mut by_vectors, mut one_by_one) = (Softmax::NOTHING, Softmax::NOTHING);
            for block in 0..3 {
                let score = |token: usize| ((token * 7 + block * 31) as f32).sin() * 9.0;
                // What is behind the last token is large, and not seen.
                let mut scores = floats(|token| if token < count { score(token) } else { 100.0 });
                let mut want: Vec<f32> = (0..count).map(score).collect();
                // SAFETY: there are the vectors.
                let factor = unsafe { weigh(&mut scores, count, &mut by_vectors) };
                assert!((factor - one_by_one.add(&mut want)).abs() < 1e-6);
                want.resize(count.next_multiple_of(LANES), 0.0);
                let got: Vec<f32> = scores.iter().flat_map(|line| line.0).take(want.len()).collect();
                assert!(got.iter().zip(&want).all(|(got, want)| (got - want).abs() < 1e-6), "{got:?} is not {want:?}");

                let (scales, mins) = (floats(|token| 0.1 + token as f32), floats(|token| token as f32 - 30.0));
                let mut parts = [[u32::MAX; 4 * VECTORS]; 2];
                // SAFETY: as above.
                let [step, min_sum] = unsafe { round(&scores, [&scales, &mins], &mut parts, count.div_ceil(LANES)) };
                let byte = |part: usize, token: usize| parts[part][token / 4].to_le_bytes()[token % 4];
                want.resize(VECTORS * LANES, 0.0);
                let scaled = |token: usize| want[token] * scales[token / LANES].0[token % LANES];
                let largest = (0..count).map(scaled).fold(0.0, f32::max);
                for token in 0..VECTORS * LANES {
                    let number = f32::from(byte(0, token)) * 256.0 + f32::from(byte(1, token));
                    assert!((number * step - scaled(token)).abs() < largest * 1e-5, "token {token} of {count}");
                }
                let sum: f32 = want.iter().enumerate().map(|(token, weight)| weight * (token as f32 - 30.0)).sum();
                assert!((min_sum - sum).abs() < 1e-4);
            }
            assert!((by_vectors.lse() - one_by_one.lse()).abs() < 1e-6);
        }
    }

    #[test]
    fn a_score_that_is_no_number_makes_the_sum_none() {
        if !Level::available().any(Level::has_int8) {
            return;
        }
        let mut softmax = Softmax::NOTHING;
        let mut scores = floats(|token| if token == 20 { f32::NAN } else { 1.0 });
        // SAFETY: there are the vectors.
        unsafe { weigh(&mut scores, 60, &mut softmax) };
        assert!(softmax.lse().is_nan() && softmax.normaliser().is_nan());
    }
}
