//! Eight numbers in a register of AVX2, with FMA and F16C.

use std::arch::x86_64::{
    __m256, _mm_add_ps, _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_loadl_epi64, _mm_movehdup_ps, _mm_storeu_ps,
    _mm256_and_si256, _mm256_broadcastss_ps, _mm256_castps256_ps128, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32,
    _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_hadd_ps, _mm256_loadu_ps, _mm256_mul_ps, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setr_epi32, _mm256_srlv_epi32, _mm256_storeu_ps,
};

use super::{Arithmetic, LANES};
use crate::cache::AFFINE_BYTES;

/// Rounded once.
pub(in crate::cpu) struct Avx2;

/// Runs instructions.
macro_rules! avx2 {
    ($($body:tt)*) => {
        // SAFETY: `Level::run` runs tasks in this arithmetic where there are AVX2, FMA and F16C only, and arrays have the sizes that
        // the instructions read and write.
        unsafe { $($body)* }
    };
}

impl Arithmetic for Avx2 {
    type Eight = __m256;

    #[inline(always)]
    fn splat(number: f32) -> __m256 {
        avx2!(_mm256_set1_ps(number))
    }

    #[inline(always)]
    fn load(numbers: &[f32; LANES]) -> __m256 {
        avx2!(_mm256_loadu_ps(numbers.as_ptr()))
    }

    #[inline(always)]
    fn store(eight: __m256, to: &mut [f32; LANES]) {
        avx2!(_mm256_storeu_ps(to.as_mut_ptr(), eight))
    }

    #[inline(always)]
    fn multiply(a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn multiply_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        avx2!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn sums([a, b, c, d]: [__m256; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        avx2! {
            let pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
            let halves = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps::<1>(pairs));
            _mm_storeu_ps(sums.as_mut_ptr(), halves);
        }
        sums
    }

    #[inline(always)]
    fn nibbles(word: u32) -> __m256 {
        avx2! {
            let words = _mm256_set1_epi32(word as i32);
            let shifted = _mm256_srlv_epi32(words, _mm256_setr_epi32(0, 16, 4, 20, 8, 24, 12, 28));
            _mm256_cvtepi32_ps(_mm256_and_si256(shifted, _mm256_set1_epi32(15)))
        }
    }

    #[inline(always)]
    fn bytes(codes: &[u8; LANES]) -> __m256 {
        avx2!(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(codes.as_ptr().cast()))))
    }

    #[inline(always)]
    fn affine(bytes: [u8; AFFINE_BYTES]) -> [__m256; 2] {
        avx2! {
            let both = _mm_cvtph_ps(_mm_cvtsi32_si128(i32::from_le_bytes(bytes)));
            [_mm256_broadcastss_ps(both), _mm256_broadcastss_ps(_mm_movehdup_ps(both))]
        }
    }
}
