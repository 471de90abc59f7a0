//! Vectors of NEON: 16 numbers of 32 bits in four registers.

use std::arch::aarch64::{
    float32x4_t, uint32x4_t, uint64x2_t, vadd_f32, vaddq_f32, vaddq_s32, vaddq_u32, vaddv_f32, vandq_u8, vbslq_f32,
    vcltq_u32, vcvtnq_s32_f32, vcvtq_f32_s32, vcvtq_s32_f32, vdupq_n_f32, vdupq_n_s32, vdupq_n_u8, vdupq_n_u32,
    vfmaq_f32, vfmsq_f32, vget_high_f32, vget_low_f32, vld1q_f32, vld1q_u8, vld1q_u32, vmaxnmq_f32, vmaxnmvq_f32,
    vmaxq_f32, vmovn_u32, vmulq_f32, vreinterpretq_f32_s32, vreinterpretq_s32_u32, vreinterpretq_u8_u16,
    vreinterpretq_u8_u32, vreinterpretq_u16_u8, vreinterpretq_u16_u32, vreinterpretq_u32_f32, vreinterpretq_u32_s32,
    vreinterpretq_u32_u8, vreinterpretq_u32_u16, vreinterpretq_u32_u64, vreinterpretq_u64_u32, vrndnq_f32, vshlq_n_s32,
    vshlq_n_u32, vshrn_n_u32, vshrq_n_u8, vst1q_u8, vst1q_u32, vsubq_f32, vtrn1q_u32, vtrn1q_u64, vtrn2q_u32,
    vtrn2q_u64, vuzp1q_u8, vuzp1q_u16, vuzp2q_u8, vzip1q_u8, vzip1q_u16, vzip2q_u8, vzip2q_u16,
};
use std::arch::asm;
use std::array::from_fn;

use super::lanes::{LANES, Line, Number};
use crate::cpu::decode::softmax::{LEAST, LN_2_HIGH, LN_2_LOW, TERMS};
use crate::cpu::level::floats_of_halves;

/// Registers of a vector.
const REGISTERS: usize = 4;

/// Integers, or bits.
pub(super) type Words = [uint32x4_t; REGISTERS];

pub(super) type Floats = [float32x4_t; REGISTERS];

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn no_words() -> Words {
    [vdupq_n_u32(0); REGISTERS]
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_register(words: &[u32; 4]) -> uint32x4_t {
    // SAFETY: there are four numbers.
    unsafe { vld1q_u32(words.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load<T: Number>(line: &Line<T>) -> Words {
    // SAFETY: a line has the numbers of four registers, and every pattern is a number.
    from_fn(|i| unsafe { vld1q_u32((&raw const line.0[4 * i]).cast()) })
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store<T: Number>(line: &mut Line<T>, vector: Words) {
    for (to, register) in line.0.as_chunks_mut::<4>().0.iter_mut().zip(vector) {
        // SAFETY: there are four numbers of 32 bits, of which every pattern is one.
        unsafe { vst1q_u32(to.as_mut_ptr().cast(), register) }
    }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_floats(line: &Line<f32>) -> Floats {
    load_numbers(&line.0)
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_floats(line: &mut Line<f32>, vector: Floats) {
    store(line, bits(vector));
}

/// The bits of numbers.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn bits(numbers: Floats) -> Words {
    numbers.map(|numbers| vreinterpretq_u32_f32(numbers))
}

/// Numbers that lie anywhere.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_numbers(numbers: &[f32; LANES]) -> Floats {
    // SAFETY: there are the numbers of four registers.
    from_fn(|i| unsafe { vld1q_f32(&raw const numbers[4 * i]) })
}

/// Up to 64 bytes, and zeros.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_bytes(bytes: &[u8]) -> Words {
    let mut all = [0; 64];
    let bytes = bytes.first_chunk().unwrap_or_else(|| {
        all[..bytes.len()].copy_from_slice(bytes);
        &all
    });
    // SAFETY: there are the bytes of four registers.
    from_fn(|i| vreinterpretq_u32_u8(unsafe { vld1q_u8(&raw const bytes[16 * i]) }))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn splat(number: f32) -> Floats {
    [vdupq_n_f32(number); REGISTERS]
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn add(a: Floats, b: Floats) -> Floats {
    from_fn(|i| vaddq_f32(a[i], b[i]))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn subtract(a: Floats, b: Floats) -> Floats {
    from_fn(|i| vsubq_f32(a[i], b[i]))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn multiply(a: Floats, b: Floats) -> Floats {
    from_fn(|i| vmulq_f32(a[i], b[i]))
}

/// `a * b + c`, rounded once.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn multiply_add(a: Floats, b: Floats, c: Floats) -> Floats {
    from_fn(|i| vfmaq_f32(c[i], a[i], b[i]))
}

/// The larger ones: `b` where `a` is no number.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn larger(a: Floats, b: Floats) -> Floats {
    from_fn(|i| vmaxnmq_f32(a[i], b[i]))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn largest([a, b, c, d]: Floats) -> f32 {
    vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(a, b), vmaxnmq_f32(c, d)))
}

/// The sum, of halves that are added to each other again and again.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn sum([a, b, c, d]: Floats) -> f32 {
    let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
    vaddv_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
}

/// The first `count` numbers of one vector, from 1 to 16, and the others of another.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn first_of(count: usize, numbers: Floats, others: Floats) -> Floats {
    const PLACES: Line<u32> = {
        let (mut line, mut i) = (Line([0; LANES]), 0);
        while i < LANES {
            line.0[i] = i as u32;
            i += 1;
        }
        line
    };
    let (places, count) = (load(&PLACES), vdupq_n_u32(count as u32));
    from_fn(|i| vbslq_f32(vcltq_u32(places[i], count), numbers[i], others[i]))
}

/// Of two vectors' 32 numbers those at these places.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn picked(a: Floats, places: &Line<u32>, b: Floats) -> Floats {
    let mut numbers = [Line::default(); 2];
    store_floats(&mut numbers[0], a);
    store_floats(&mut numbers[1], b);
    load_numbers(&places.0.map(|place| numbers[place as usize / LANES].0[place as usize % LANES]))
}

/// The floats of integers.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn floats(integers: Words) -> Floats {
    integers.map(|integers| vcvtq_f32_s32(vreinterpretq_s32_u32(integers)))
}

/// The closest integers, of two as close the even ones.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn integers(numbers: Floats) -> Words {
    numbers.map(|numbers| vreinterpretq_u32_s32(vcvtnq_s32_f32(numbers)))
}

/// The integers of which these are the sums of the upper and of the lower 8 bits.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn joined([high, low]: [Words; 2]) -> Words {
    from_fn(|i| vaddq_u32(vshlq_n_u32::<8>(high[i]), low[i]))
}

/// The lower 16 bits as numbers of f16, and the upper ones.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn pairs_of_halves(pairs: Words) -> [Floats; 2] {
    [
        pairs.map(|pairs| floats_of_halves(vmovn_u32(pairs))),
        pairs.map(|pairs| floats_of_halves(vshrn_n_u32::<16>(pairs))),
    ]
}

/// Stores bits 8 to 15 of each integer, and bits 0 to 7.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_parts([high, low]: [&mut [u32; 4]; 2], numbers: Words) {
    let [a, b, c, d] = numbers.map(|numbers| vreinterpretq_u16_u32(numbers));
    let (ab, cd) = (vreinterpretq_u8_u16(vuzp1q_u16(a, b)), vreinterpretq_u8_u16(vuzp1q_u16(c, d)));
    // SAFETY: both have 16 bytes.
    unsafe {
        vst1q_u8(high.as_mut_ptr().cast(), vuzp2q_u8(ab, cd));
        vst1q_u8(low.as_mut_ptr().cast(), vuzp1q_u8(ab, cd));
    }
}

/// The lower four bits of each byte, and the upper ones.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn nibbles(bytes: Words) -> [Words; 2] {
    let (bytes, mask) = (bytes.map(|bytes| vreinterpretq_u8_u32(bytes)), vdupq_n_u8(15));
    [
        bytes.map(|bytes| vreinterpretq_u32_u8(vandq_u8(bytes, mask))),
        bytes.map(|bytes| vreinterpretq_u32_u8(vshrq_n_u8::<4>(bytes))),
    ]
}

/// The bytes of four vectors side by side: of each 16 bytes the first four, the next four, and so on.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn woven(four: [Words; 4]) -> [Words; 4] {
    let mut woven = [no_words(); 4];
    for i in 0..REGISTERS {
        let [a, b, c, d] = four.map(|vector| vreinterpretq_u8_u32(vector[i]));
        let (ab, cd) = (vreinterpretq_u16_u8(vzip1q_u8(a, b)), vreinterpretq_u16_u8(vzip1q_u8(c, d)));
        let (ab_high, cd_high) = (vreinterpretq_u16_u8(vzip2q_u8(a, b)), vreinterpretq_u16_u8(vzip2q_u8(c, d)));
        woven[0][i] = vreinterpretq_u32_u16(vzip1q_u16(ab, cd));
        woven[1][i] = vreinterpretq_u32_u16(vzip2q_u16(ab, cd));
        woven[2][i] = vreinterpretq_u32_u16(vzip1q_u16(ab_high, cd_high));
        woven[3][i] = vreinterpretq_u32_u16(vzip2q_u16(ab_high, cd_high));
    }
    woven
}

/// Asks for a line of memory, into the second cache.
#[inline]
pub(super) fn prefetch(line: &[u8]) {
    // SAFETY: a prefetch reads nothing that the program could see. (Rust has no stable intrinsic of it yet.)
    unsafe {
        asm!("prfm pldl2keep, [{}]", in(reg) line.as_ptr(), options(nostack, preserves_flags, readonly));
    }
}

/// [`exp`](crate::cpu::decode::softmax::exp) of 16 numbers: to the bit what vectors of AVX-512 have.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn exp(x: Floats) -> Floats {
    x.map(|x| {
        // What is no number stays.
        let x = vmaxq_f32(x, vdupq_n_f32(LEAST));
        let n = vrndnq_f32(vmulq_f32(x, vdupq_n_f32(std::f32::consts::LOG2_E)));
        let rest = vfmsq_f32(x, n, vdupq_n_f32(LN_2_HIGH));
        let rest = vfmsq_f32(rest, n, vdupq_n_f32(LN_2_LOW));
        let mut polynomial = vdupq_n_f32(0.0);
        for term in TERMS {
            polynomial = vfmaq_f32(vdupq_n_f32(term), polynomial, rest);
        }
        let one = vaddq_f32(rest, vdupq_n_f32(1.0));
        // An exponent from -126 to 0: the power is no subnormal number, nor is what it multiplies.
        let exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
        let power = vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent));
        vmulq_f32(vfmaq_f32(one, polynomial, vmulq_f32(rest, rest)), power)
    })
}

/// 16 vectors of 16 numbers, transposed.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn transpose(rows: &mut [Words; LANES]) {
    let from = *rows;
    for (i, rows) in rows.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        for j in 0..REGISTERS {
            let [a, b, c, d]: [_; 4] = from_fn(|row| from[4 * j + row][i]);
            let (ab, cd) = (pairs(vtrn1q_u32(a, b)), pairs(vtrn1q_u32(c, d)));
            let (ab_odd, cd_odd) = (pairs(vtrn2q_u32(a, b)), pairs(vtrn2q_u32(c, d)));
            rows[0][j] = vreinterpretq_u32_u64(vtrn1q_u64(ab, cd));
            rows[1][j] = vreinterpretq_u32_u64(vtrn1q_u64(ab_odd, cd_odd));
            rows[2][j] = vreinterpretq_u32_u64(vtrn2q_u64(ab, cd));
            rows[3][j] = vreinterpretq_u32_u64(vtrn2q_u64(ab_odd, cd_odd));
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn pairs(words: uint32x4_t) -> uint64x2_t {
    vreinterpretq_u64_u32(words)
}
