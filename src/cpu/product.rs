//! Sums of products in f32, and conversions between bf16 and f32, compiled for every level.

use half::bf16;

use super::level::Arithmetic;

/// Sums that a dot product keeps, so that additions need not wait for each other.
const LANES: usize = 32;

/// `a . b`, in an order that depends on their length alone.
#[inline(always)]
pub(super) fn dot<A: Arithmetic>(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] = A::multiply_add(a[lane], b[lane], sums[lane]);
        }
    }
    // Loops of known lengths keep the sums in registers.
    for lane in 0..LANES / 2 {
        sums[lane] += sums[lane + LANES / 2];
    }
    for lane in 0..LANES / 4 {
        sums[lane] += sums[lane + LANES / 4];
    }
    let [a0, a1, a2, a3, a4, a5, a6, a7, ..] = sums;
    let sum = ((a0 + a4) + (a2 + a6)) + ((a1 + a5) + (a3 + a7));
    a_rest.iter().zip(b_rest).fold(sum, |sum, (a, b)| A::multiply_add(*a, *b, sum))
}

/// `y += a * x`.
#[inline(always)]
pub(super) fn add_scaled<A: Arithmetic>(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = A::multiply_add(a, *x, *y);
    }
}

/// A bf16 number as f32, exactly.
#[inline(always)]
pub(super) fn widened(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

/// bf16 numbers as f32, exactly.
#[inline(always)]
pub(super) fn widen(from: &[bf16], to: &mut [f32]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = widened(from);
    }
}

/// f32 numbers rounded to bf16.
#[inline(always)]
pub(super) fn round(from: &[f32], to: &mut [bf16]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = bf16::from_f32(from);
    }
}
