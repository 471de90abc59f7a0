//! Sums of four products of 8-bit integers: NEON's `dotprod`. Rust has no stable intrinsics of it yet.

use std::arch::aarch64::uint32x4_t;
use std::arch::asm;

/// An instruction that adds four products to each of four sums.
macro_rules! dot {
    ($instruction:literal, $sums:expr, $a:expr, $b:expr, $lane:ident) => {{
        let mut sums = $sums;
        // SAFETY: the instruction, which the function's feature has, computes one register from three.
        unsafe {
            asm!(
                concat!($instruction, " {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]"),
                inout(vreg) sums,
                in(vreg) $a,
                in(vreg) $b,
                const $lane,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }};
}

/// `sums[i] + a[4 i ..] . b[4 LANE ..]`, of signed numbers.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(in crate::cpu) fn add_signed_dots<const LANE: i32>(sums: uint32x4_t, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
    dot!("sdot", sums, a, b, LANE)
}

/// The same of unsigned ones.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(in crate::cpu) fn add_unsigned_dots<const LANE: i32>(sums: uint32x4_t, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
    dot!("udot", sums, a, b, LANE)
}
