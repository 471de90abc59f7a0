//! Eight numbers in two registers of NEON, which every CPU of 64-bit Arm has.

use std::arch::aarch64::{
    float32x4_t, uint16x4_t, vaddq_f32, vandq_u32, vcreate_u16, vcvtq_f32_u32, vdupq_laneq_f32, vdupq_n_f32,
    vdupq_n_u32, vfmaq_f32, vget_high_u16, vget_low_u16, vld1_u8, vld1q_f32, vld1q_s32, vmovl_u8, vmovl_u16, vmulq_f32,
    vpaddq_f32, vshlq_u32, vst1q_f32,
};
use std::arch::asm;

use super::{Arithmetic, LANES};
use crate::cache::AFFINE_BYTES;

/// Rounded once.
pub(in crate::cpu) struct Neon;

/// Runs instructions.
macro_rules! neon {
    ($($body:tt)*) => {
        // SAFETY: there is NEON, and arrays have the sizes that the instructions read and write.
        unsafe { $($body)* }
    };
}

impl Arithmetic for Neon {
    type Eight = [float32x4_t; 2];

    #[inline(always)]
    fn splat(number: f32) -> Self::Eight {
        neon!([vdupq_n_f32(number); 2])
    }

    #[inline(always)]
    fn load(numbers: &[f32; LANES]) -> Self::Eight {
        neon!([vld1q_f32(numbers.as_ptr()), vld1q_f32(numbers[4..].as_ptr())])
    }

    #[inline(always)]
    fn store([low, high]: Self::Eight, to: &mut [f32; LANES]) {
        neon! {
            vst1q_f32(to.as_mut_ptr(), low);
            vst1q_f32(to[4..].as_mut_ptr(), high);
        }
    }

    #[inline(always)]
    fn multiply(a: Self::Eight, b: Self::Eight) -> Self::Eight {
        neon!([vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])])
    }

    #[inline(always)]
    fn multiply_add(a: Self::Eight, b: Self::Eight, c: Self::Eight) -> Self::Eight {
        neon!([vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])])
    }

    #[inline(always)]
    fn sums(four: [Self::Eight; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        neon! {
            let [a, b, c, d] = four.map(|[low, high]| vaddq_f32(low, high));
            vst1q_f32(sums.as_mut_ptr(), vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)));
        }
        sums
    }

    #[inline(always)]
    fn nibbles(word: u32) -> Self::Eight {
        /// To the left: of what is shifted to the right the negative.
        const SHIFTS: [[i32; 4]; 2] = [[0, -16, -4, -20], [-8, -24, -12, -28]];
        SHIFTS.map(|shifts| {
            neon! {
                let shifted = vshlq_u32(vdupq_n_u32(word), vld1q_s32(shifts.as_ptr()));
                vcvtq_f32_u32(vandq_u32(shifted, vdupq_n_u32(15)))
            }
        })
    }

    #[inline(always)]
    fn bytes(codes: &[u8; LANES]) -> Self::Eight {
        neon! {
            let codes = vmovl_u8(vld1_u8(codes.as_ptr()));
            [vget_low_u16(codes), vget_high_u16(codes)].map(|codes| vcvtq_f32_u32(vmovl_u16(codes)))
        }
    }

    #[inline(always)]
    fn affine(bytes: [u8; AFFINE_BYTES]) -> [Self::Eight; 2] {
        neon! {
            let both = floats_of_halves(vcreate_u16(u64::from(u32::from_le_bytes(bytes))));
            [[vdupq_laneq_f32::<0>(both); 2], [vdupq_laneq_f32::<1>(both); 2]]
        }
    }
}

/// Numbers of f16, whose bits these are, as f32. Rust has no stable intrinsic of it yet.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::cpu) fn floats_of_halves(halves: uint16x4_t) -> float32x4_t {
    let floats;
    // SAFETY: the instruction, which NEON has, computes one register from another.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) floats, in(vreg) halves, options(pure, nomem, nostack, preserves_flags));
    }
    floats
}
