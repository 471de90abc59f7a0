//! What `mma` and `wgmma` make of an accumulator and the exact sum of an instruction's products: one rounding, to nearest
//! even.

use super::mma_formats::{F16, Format};
use crate::isa::arithmetic::rounding::{f32_to_odd, sum_to_odd};

/// The sum with an accumulator's f32, as bits.
pub(super) fn add_f32(c: u32, sum: f64) -> u32 {
    let d = sum_to_odd(sum, f32::from_bits(c).into()) as f32;
    if d.is_nan() { 0x7fff_ffff } else { d.to_bits() }
}

/// The sum with the accumulator's f16 in the lower half of `c`, as bits.
pub(super) fn add_f16(c: u32, sum: f64) -> u32 {
    // Through a f32 rounded to odd, because `from_f64` ignores the lowest bits.
    let d = half::f16::from_f32(f32_to_odd(sum_to_odd(sum, F16::element(c & 0xffff).into())));
    if d.is_nan() { 0x7fff } else { d.to_bits().into() }
}
