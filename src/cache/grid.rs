//! The numbers that a group's codes stand for.

use half::f16;

/// Largest magnitude that scale and min, both f16, can carry.
pub(super) const F16_MAX: f32 = 65504.0;

/// The numbers that codes stand for, and the range that they cover.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    /// The range, within +-65504, neither end -0.
    pub lo: f32,
    pub hi: f32,
    pub max_code: f32,
    pub scale: f16,
    pub min: f16,
    inverse: f32,
}

impl Grid {
    pub fn new(lo: f32, hi: f32, max_code: f32) -> Self {
        let min = f16_down(lo);
        let scale = f16_up((hi - min.to_f32()) / max_code);
        let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
        Self { lo, hi, max_code, scale, min, inverse }
    }

    /// Whether all codes stand for the same number.
    pub fn is_point(&self) -> bool {
        self.scale == f16::ZERO
    }

    /// A value moved into the range.
    pub fn clamped(&self, value: f32) -> f32 {
        if value.is_nan() { self.lo } else { value.clamp(self.lo, self.hi) }
    }

    /// Where a finite value stands, in steps from code 0.
    pub fn steps(&self, value: f32) -> f32 {
        (value - self.min.to_f32()) * self.inverse
    }

    pub fn nearest_code(&self, steps: f32) -> f32 {
        steps.round_ties_even().clamp(0.0, self.max_code)
    }
}

/// The largest f16 that is not above `x`; `|x| <= 65504`, not -0.
fn f16_down(x: f32) -> f16 {
    let nearest = f16::from_f32(x);
    if nearest.to_f32() <= x {
        return nearest;
    }
    // One step towards minus infinity: away from zero for negative numbers, whose bits count upwards. A negative x
    // too small for f16 was rounded to -0, whose successor is the smallest negative subnormal.
    if nearest.is_sign_negative() {
        f16::from_bits(nearest.to_bits() + 1)
    } else {
        f16::from_bits(nearest.to_bits() - 1)
    }
}

/// The smallest f16 that is not below `x`; `0 <= x <= 65504`.
fn f16_up(x: f32) -> f16 {
    let nearest = f16::from_f32(x);
    if nearest.to_f32() < x { f16::from_bits(nearest.to_bits() + 1) } else { nearest }
}
