//! The running softmax of a head.

/// Terms of a polynomial for `exp` on -ln(2)/2 ..= ln(2)/2, beside 1 and the argument (Cephes' `expf`).
pub(super) const TERMS: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// ln(2) in two parts, the first of which has few digits, so that its multiples are exact.
pub(super) const LN_2_HIGH: f32 = 0.693_359_4;
pub(super) const LN_2_LOW: f32 = -2.121_944_4e-4;

/// Below it, and above -126 ln(2), results would be subnormal numbers soon: less is taken to be as much.
pub(super) const LEAST: f32 = -87.0;

/// 1.5 * 2^23: a small number added to it is rounded to an integer, which is in the lowest bits then.
const ROUNDER: f32 = 12_582_912.0;

/// `exp(x)` of numbers that are not positive, to about 2^-22 of it; of less than -87 that of -87, of NaN NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let x = if x < LEAST { LEAST } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = rounded - ROUNDER;
    let rest = x - n * LN_2_HIGH - n * LN_2_LOW;
    let polynomial = TERMS.iter().fold(0.0, |sum, term| sum * rest + term);
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    (polynomial * (rest * rest) + rest + 1.0) * power
}

/// Numbers that are compared, or summed, side by side.
const LANES: usize = 16;

/// Sums of weights relative to the largest score so far.
#[derive(Clone, Copy)]
pub(super) struct Softmax {
    largest: f32,
    sum: f32,
}

impl Softmax {
    /// Of no tokens.
    pub const NOTHING: Self = Self { largest: f32::NEG_INFINITY, sum: 0.0 };

    /// Makes weights of the scores of further tokens. Returns the factor of what was summed before.
    #[inline(always)]
    pub fn add(&mut self, scores: &mut [f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        for scores in scores.chunks(LANES) {
            lanes.iter_mut().zip(scores).for_each(|(most, score)| *most = most.max(*score));
        }
        let largest = lanes.into_iter().fold(self.largest, f32::max);
        let factor = self.raise(largest);
        let mut sums = [0.0f32; LANES];
        for scores in scores.chunks_mut(LANES) {
            for (score, sum) in scores.iter_mut().zip(&mut sums) {
                *score = exp(*score - largest);
                *sum += *score;
            }
        }
        self.sum += sums.iter().sum::<f32>();
        factor
    }

    /// Relates the sum to the largest of further scores too. Returns the factor of what was summed before.
    #[inline(always)]
    pub fn raise(&mut self, largest: f32) -> f32 {
        let largest = self.largest.max(largest);
        let factor = exp(self.largest - largest);
        *self = Self { largest, sum: self.sum * factor };
        factor
    }

    /// The score that weights are relative to.
    pub fn largest(&self) -> f32 {
        self.largest
    }

    /// Adds the sum of weights relative to it.
    pub fn add_weights(&mut self, sum: f32) {
        self.sum += sum;
    }

    /// One over the sum of the weights; 0 if there are none.
    pub fn normaliser(&self) -> f32 {
        if self.sum == 0.0 { 0.0 } else { 1.0 / self.sum }
    }

    /// The logarithm of the sum of `exp(score)`; minus infinity if there are none.
    pub fn lse(&self) -> f32 {
        self.largest + self.sum.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_close() {
        for i in 0..870_000 {
            let x = i as f32 * -1e-4;
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) / want - 1.0).abs();
            assert!(error < 4e-7, "exp({x}): {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), exp(-87.0));
        assert!(exp(f32::NAN).is_nan());
    }
}
