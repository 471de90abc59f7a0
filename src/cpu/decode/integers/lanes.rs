//! Vectors of AVX-512: 16 numbers of 32 bits.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_ps, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps,
    _mm512_load_si512, _mm512_max_ps, _mm512_mul_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_store_si512, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use crate::cpu::decode::softmax::{LEAST, LN_2_HIGH, LN_2_LOW, TERMS};

/// Numbers of a vector.
pub(super) const LANES: usize = 16;

/// The contents of a vector, at an address that is a multiple of its size.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line<T>(pub [T; LANES]);

/// Types of 32 bits of which every pattern is a number.
pub(super) trait Number: Copy + Default {}
impl Number for u32 {}
impl Number for i32 {}
impl Number for f32 {}

impl<T: Number> Default for Line<T> {
    fn default() -> Self {
        Self([T::default(); LANES])
    }
}

/// Zeros.
pub(super) fn zeros<T: Number>(lines: usize) -> Vec<Line<T>> {
    vec![Line::default(); lines]
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load<T: Number>(line: &Line<T>) -> __m512i {
    // SAFETY: a line has 64 bytes, and is aligned to as many.
    unsafe { _mm512_load_si512((&raw const *line).cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store<T: Number>(line: &mut Line<T>, vector: __m512i) {
    // SAFETY: a line has 64 bytes, and is aligned to as many; every pattern is a number.
    unsafe { _mm512_store_si512((&raw mut *line).cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_floats(line: &Line<f32>) -> __m512 {
    _mm512_castsi512_ps(load(line))
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_floats(line: &mut Line<f32>, vector: __m512) {
    store(line, _mm512_castps_si512(vector));
}

/// [`exp`](crate::cpu::decode::softmax::exp) of 16 numbers.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exp(x: __m512) -> __m512 {
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
pub(super) fn transpose(rows: &mut [__m512i; LANES]) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::decode::softmax;
    use crate::cpu::level::Level;

    #[test]
    fn exponentials_are_close_and_those_of_no_number_are_none() {
        if !Level::Avx512Vnni.is_available() {
            return;
        }
        // SAFETY: there is AVX-512.
        let exp = |x: [f32; LANES]| unsafe {
            let mut results = Line::default();
            store_floats(&mut results, exp(load_floats(&Line(x))));
            results.0
        };
        for i in 0..60_000 {
            let x: [f32; LANES] = std::array::from_fn(|lane| (i * LANES + lane) as f32 * -1e-4);
            for (x, got) in x.into_iter().zip(exp(x)) {
                let want = f64::from(x.max(-87.0)).exp();
                assert!((f64::from(got) / want - 1.0).abs() < 4e-7, "exp({x}) is not {got}");
            }
        }
        let got = exp(std::array::from_fn(|lane| [f32::NAN, f32::NEG_INFINITY, 0.0, -87.0][lane % 4]));
        assert!(got[0].is_nan() && got[4].is_nan());
        assert_eq!(got[2], 1.0);
        assert_eq!(got[1], got[3]);
        assert!((got[1] / softmax::exp(-87.0) - 1.0).abs() < 4e-7);
    }

    #[test]
    fn a_transposed_square_has_columns_for_rows() {
        if !Level::Avx512Vnni.is_available() {
            return;
        }
        let square: [Line<u32>; LANES] =
            std::array::from_fn(|row| Line(std::array::from_fn(|i| (100 * row + i) as u32)));
        let mut transposed = square;
        // SAFETY: there is AVX-512.
        unsafe {
            let mut rows = [_mm512_setzero_si512(); LANES];
            for (row, line) in rows.iter_mut().zip(&square) {
                *row = load(line);
            }
            transpose(&mut rows);
            for (row, line) in rows.into_iter().zip(&mut transposed) {
                store(line, row);
            }
        }
        for (row, line) in transposed.iter().enumerate() {
            assert_eq!(line.0, square.each_ref().map(|line| line.0[row]));
        }
    }
}
