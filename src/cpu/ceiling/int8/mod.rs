//! Products of 8-bit integers in registers.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
use self::neon as instructions;
#[cfg(target_arch = "x86_64")]
use self::x86 as instructions;
use super::PRODUCTS;
use crate::cpu::level::{LANES, Level};

/// So many rounds of products in f32 are a round of these.
const ROUNDS: usize = 32;

/// Products of numbers in a round.
const OF_NUMBERS: usize = ROUNDS * PRODUCTS * LANES;

/// The sum of as many products of ones as there are in so many rounds.
///
/// # Safety
/// The machine has the level, which has such products.
pub(super) unsafe fn multiply(level: Level, rounds: u32) -> f64 {
    // SAFETY: promised by the caller.
    unsafe { instructions::multiply(level, rounds) }
}
