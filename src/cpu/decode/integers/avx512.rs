//! Vectors of AVX-512: 16 numbers of 32 bits.

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T1, _mm_prefetch, _mm_storeu_si128, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtepi32_epi8, _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps,
    _mm512_cvtph_ps, _mm512_cvtps_epi32, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_load_si512, _mm512_loadu_ps,
    _mm512_mask_mov_ps, _mm512_maskz_loadu_epi8, _mm512_max_ps, _mm512_mul_ps, _mm512_permutex2var_ps,
    _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi8,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_slli_epi32,
    _mm512_srli_epi16, _mm512_srli_epi32, _mm512_store_si512, _mm512_sub_ps, _mm512_unpackhi_epi8,
    _mm512_unpackhi_epi16, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi8, _mm512_unpacklo_epi16,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::lanes::{LANES, Line, Number};
use crate::cpu::decode::softmax::{LEAST, LN_2_HIGH, LN_2_LOW, TERMS};

/// Integers, or bits.
pub(super) type Words = __m512i;

pub(super) type Floats = __m512;

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn no_words() -> Words {
    _mm512_setzero_si512()
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load<T: Number>(line: &Line<T>) -> Words {
    // SAFETY: a line has 64 bytes, and is aligned to as many.
    unsafe { _mm512_load_si512((&raw const *line).cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store<T: Number>(line: &mut Line<T>, vector: Words) {
    // SAFETY: a line has 64 bytes, and is aligned to as many; every pattern is a number.
    unsafe { _mm512_store_si512((&raw mut *line).cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_floats(line: &Line<f32>) -> Floats {
    _mm512_castsi512_ps(load(line))
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_floats(line: &mut Line<f32>, vector: Floats) {
    store(line, bits(vector));
}

/// The bits of numbers.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn bits(numbers: Floats) -> Words {
    _mm512_castps_si512(numbers)
}

/// Numbers that lie anywhere.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_numbers(numbers: &[f32; LANES]) -> Floats {
    // SAFETY: there are 16 numbers.
    unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
}

/// Up to 64 bytes, and zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn load_bytes(bytes: &[u8]) -> Words {
    let mask = u64::MAX.checked_shr(64 - bytes.len().min(64) as u32).unwrap_or(0);
    // SAFETY: what is beyond the bytes is masked.
    unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn splat(number: f32) -> Floats {
    _mm512_set1_ps(number)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add(a: Floats, b: Floats) -> Floats {
    _mm512_add_ps(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn subtract(a: Floats, b: Floats) -> Floats {
    _mm512_sub_ps(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn multiply(a: Floats, b: Floats) -> Floats {
    _mm512_mul_ps(a, b)
}

/// `a * b + c`, rounded once.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn multiply_add(a: Floats, b: Floats, c: Floats) -> Floats {
    _mm512_fmadd_ps(a, b, c)
}

/// The larger ones: `b` where it is no number.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn larger(a: Floats, b: Floats) -> Floats {
    _mm512_max_ps(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn largest(numbers: Floats) -> f32 {
    _mm512_reduce_max_ps(numbers)
}

/// The sum, of halves that are added to each other again and again.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn sum(numbers: Floats) -> f32 {
    _mm512_reduce_add_ps(numbers)
}

/// The first `count` numbers of one vector, from 1 to 16, and the others of another.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn first_of(count: usize, numbers: Floats, others: Floats) -> Floats {
    _mm512_mask_mov_ps(others, (u32::MAX >> (32 - count)) as u16, numbers)
}

/// Of two vectors' 32 numbers those at these places.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn picked(a: Floats, places: &Line<u32>, b: Floats) -> Floats {
    _mm512_permutex2var_ps(a, load(places), b)
}

/// The floats of integers.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn floats(integers: Words) -> Floats {
    _mm512_cvtepi32_ps(integers)
}

/// The closest integers, of two as close the even ones.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn integers(numbers: Floats) -> Words {
    _mm512_cvtps_epi32(numbers)
}

/// The integers of which these are the sums of the upper and of the lower 8 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn joined([high, low]: [Words; 2]) -> Words {
    _mm512_add_epi32(_mm512_slli_epi32::<8>(high), low)
}

/// The lower 16 bits as numbers of f16, and the upper ones.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn pairs_of_halves(pairs: Words) -> [Floats; 2] {
    [
        _mm512_cvtph_ps(_mm512_cvtepi32_epi16(pairs)),
        _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(pairs))),
    ]
}

/// Stores bits 8 to 15 of each integer, and bits 0 to 7.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_parts([high, low]: [&mut [u32; 4]; 2], numbers: Words) {
    let parts = [_mm512_cvtepi32_epi8(_mm512_srli_epi32::<8>(numbers)), _mm512_cvtepi32_epi8(numbers)];
    for (to, bytes) in [high, low].into_iter().zip(parts) {
        // SAFETY: both have 16 bytes.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) }
    }
}

/// The lower four bits of each byte, and the upper ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn nibbles(bytes: Words) -> [Words; 2] {
    let mask = _mm512_set1_epi8(15);
    [_mm512_and_si512(bytes, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask)]
}

/// The bytes of four vectors side by side: of each 16 bytes the first four, the next four, and so on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn woven([a, b, c, d]: [Words; 4]) -> [Words; 4] {
    let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
    let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
    [
        _mm512_unpacklo_epi16(ab, cd),
        _mm512_unpackhi_epi16(ab, cd),
        _mm512_unpacklo_epi16(ab_high, cd_high),
        _mm512_unpackhi_epi16(ab_high, cd_high),
    ]
}

/// Asks for a line of memory, into the second cache.
#[inline]
pub(super) fn prefetch(line: &[u8]) {
    // SAFETY: a prefetch reads nothing that the program could see.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) }
}

/// [`exp`](crate::cpu::decode::softmax::exp) of 16 numbers.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exp(x: Floats) -> Floats {
    const NEAREST: i32 = 0;
    // What is no number stays: the second operand is taken then.
    let x = _mm512_max_ps(_mm512_set1_ps(LEAST), x);
    let n = _mm512_roundscale_ps::<NEAREST>(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)));
    let rest = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN_2_HIGH), x);
    let rest = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN_2_LOW), rest);
    let mut polynomial = _mm512_setzero_ps();
    for term in TERMS {
        polynomial = _mm512_fmadd_ps(polynomial, rest, _mm512_set1_ps(term));
    }
    let one = _mm512_add_ps(rest, _mm512_set1_ps(1.0));
    _mm512_scalef_ps(_mm512_fmadd_ps(polynomial, _mm512_mul_ps(rest, rest), one), n)
}

/// 16 vectors of 16 numbers, transposed.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(rows: &mut [Words; LANES]) {
    let (a, mut b) = (rows, [_mm512_setzero_si512(); LANES]);
    for i in 0..8 {
        b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
    }
    for i in 0..4 {
        a[4 * i] = _mm512_unpacklo_epi64(b[4 * i], b[4 * i + 2]);
        a[4 * i + 1] = _mm512_unpackhi_epi64(b[4 * i], b[4 * i + 2]);
        a[4 * i + 2] = _mm512_unpacklo_epi64(b[4 * i + 1], b[4 * i + 3]);
        a[4 * i + 3] = _mm512_unpackhi_epi64(b[4 * i + 1], b[4 * i + 3]);
    }
    for i in 0..4 {
        b[i] = _mm512_shuffle_i32x4::<0x88>(a[i], a[i + 4]);
        b[i + 4] = _mm512_shuffle_i32x4::<0xDD>(a[i], a[i + 4]);
        b[i + 8] = _mm512_shuffle_i32x4::<0x88>(a[i + 8], a[i + 12]);
        b[i + 12] = _mm512_shuffle_i32x4::<0xDD>(a[i + 8], a[i + 12]);
    }
    for i in 0..8 {
        a[i] = _mm512_shuffle_i32x4::<0x88>(b[i], b[i + 8]);
        a[i + 8] = _mm512_shuffle_i32x4::<0xDD>(b[i], b[i + 8]);
    }
}
