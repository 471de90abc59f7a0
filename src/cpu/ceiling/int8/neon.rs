//! By vectors of NEON, with sums of four products.

use std::arch::aarch64::{vaddlvq_u32, vdupq_n_u32};
use std::hint::black_box;

use super::OF_NUMBERS;
use crate::cpu::level::{Level, add_unsigned_dots};

/// Products of two vectors in a round.
const OF_VECTORS: usize = OF_NUMBERS / 16;

/// Sums that do not wait for each other.
const CHAINS: usize = 16;

/// As [`int8::multiply`](super::multiply).
#[target_feature(enable = "neon,dotprod")]
pub(super) fn multiply(_level: Level, rounds: u32) -> f64 {
    // Numbers that the compiler does not know.
    let (a, b) = (vdupq_n_u32(black_box(0x0101_0101)), vdupq_n_u32(black_box(0x0101_0101)));
    let mut total = 0.0;
    for _ in 0..rounds {
        let mut sums = [vdupq_n_u32(0); CHAINS];
        for _ in 0..OF_VECTORS / CHAINS {
            for sum in &mut sums {
                *sum = add_unsigned_dots::<0>(*sum, a, b);
            }
        }
        total += sums.iter().map(|&sum| vaddlvq_u32(sum) as f64).sum::<f64>();
    }
    total
}
