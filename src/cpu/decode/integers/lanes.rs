//! Lines: 16 numbers of 32 bits in memory, which a vector holds.

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

#[cfg(test)]
mod tests {
    use super::super::vectors::{
        exp, integers, load, load_floats, no_words, pairs_of_halves, store, store_floats, store_parts, sum, transpose,
    };
    use super::*;
    use crate::cpu::decode::softmax;
    use crate::cpu::level::Level;

    /// What vectors of every architecture compute, to the bit.
    fn exp_of_one(x: f32) -> f32 {
        let x = x.max(softmax::LEAST);
        let n = (x * std::f32::consts::LOG2_E).round_ties_even();
        let rest = (-n).mul_add(softmax::LN_2_LOW, (-n).mul_add(softmax::LN_2_HIGH, x));
        let polynomial = softmax::TERMS.iter().fold(0.0f32, |sum, term| sum.mul_add(rest, *term));
        polynomial.mul_add(rest * rest, rest + 1.0) * f32::from_bits(((n as i32 + 127) as u32) << 23)
    }

    #[test]
    fn exponentials_are_close_and_those_of_no_number_are_none() {
        if !Level::available().any(Level::has_int8) {
            return;
        }
        // SAFETY: there are the vectors.
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
                assert_eq!(got, exp_of_one(x), "{x}");
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
        if !Level::available().any(Level::has_int8) {
            return;
        }
        let square: [Line<u32>; LANES] =
            std::array::from_fn(|row| Line(std::array::from_fn(|i| (100 * row + i) as u32)));
        let mut transposed = square;
        // SAFETY: there are the vectors.
        unsafe {
            let mut rows = [no_words(); LANES];
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

    #[test]
    fn halves_are_their_numbers_and_sums_are_taken_in_one_order() {
        if !Level::available().any(Level::has_int8) {
            return;
        }
        for first in (0..=u16::MAX).step_by(LANES) {
            let pairs = Line(std::array::from_fn(|lane| {
                let half = first + lane as u16;
                u32::from(half) | u32::from(!half) << 16
            }));
            let mut halves = [Line::default(); 2];
            // SAFETY: there are the vectors.
            unsafe {
                for (line, half) in halves.iter_mut().zip(pairs_of_halves(load(&pairs))) {
                    store_floats(line, half);
                }
            }
            for (lane, pair) in pairs.0.into_iter().enumerate() {
                for (half, bits) in halves.iter().zip([pair as u16, (pair >> 16) as u16]) {
                    let (got, want) = (half.0[lane], half::f16::from_bits(bits).to_f32());
                    assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{bits:#06x}: {got}");
                }
            }
        }
        let numbers: [f32; LANES] = std::array::from_fn(|lane| 0.1 + (lane * lane) as f32 * 0.37);
        let (mut halves, mut count) = (numbers, LANES);
        while count > 1 {
            count /= 2;
            for lane in 0..count {
                halves[lane] += halves[lane + count];
            }
        }
        // SAFETY: as above.
        assert_eq!(unsafe { sum(load_floats(&Line(numbers))) }, halves[0]);
    }

    #[test]
    fn integers_are_the_closest_ones_and_their_bytes_are_stored_apart() {
        if !Level::available().any(Level::has_int8) {
            return;
        }
        let numbers = Line(std::array::from_fn(|lane| [0.5, 1.5, 255.49, 256.5, 4711.7, 65535.0][lane % 6]));
        let [mut high, mut low] = [[0; 4]; 2];
        // SAFETY: there are the vectors.
        unsafe { store_parts([&mut high, &mut low], integers(load_floats(&numbers))) };
        for (lane, number) in numbers.0.into_iter().enumerate() {
            let byte = |bytes: [u32; 4]| u32::from(bytes[lane / 4].to_le_bytes()[lane % 4]);
            assert_eq!(256 * byte(high) + byte(low), number.round_ties_even() as u32);
        }
    }
}
