//! The two number types of the operations, and loops that use the machine's vectors.

use std::ops::Neg;

use candle_core::WithDType;
use rayon::prelude::*;

/// Rows that one thread works on at a time.
const ROWS: usize = 32;

/// Partial sums that a row is summed in: enough for the widest vectors, and the same on every machine.
const LANES: usize = 16;

/// f32, in which models are trained, or f64, in which gradients are checked.
pub trait Real: WithDType + Neg<Output = Self> {
    /// e to this power: for f32 within 2 units in the last place where the result is a normal number, and 0 below.
    fn exp(self) -> Self;

    /// The square root.
    fn sqrt(self) -> Self;

    /// The larger of two numbers.
    fn larger(self, other: Self) -> Self;

    /// The nearest f32.
    fn to_f32(self) -> f32;
}

impl Real for f32 {
    #[inline(always)]
    fn exp(self) -> Self {
        // exp(x) = 2^n exp(r), |r| <= ln(2)/2. Written so that compilers make vectors of it, which they do not of calls.
        const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits.
        let x = self.clamp(-87.0, 88.0);
        let shifted = x * std::f32::consts::LOG2_E + MAGIC;
        let n = shifted - MAGIC;
        // ln 2 in two parts, the first of which has few bits, so that n times it is exact.
        let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
        let mut series = 1.987_569_2e-4f32;
        for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
            series = series * r + coefficient;
        }
        let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
        let result = (series * r * r + r + 1.0) * power;
        if self < -87.0 { 0.0 } else { result }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Real for f64 {
    #[inline(always)]
    fn exp(self) -> Self {
        f64::exp(self)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self as f32
    }
}

/// The sum of `f(i)` for `i` in `0..count`, in partial sums whose number does not depend on the machine.
#[inline(always)]
pub fn sum<T: Real>(count: usize, f: impl Fn(usize) -> T) -> T {
    let mut lanes = [T::zero(); LANES];
    let whole = count / LANES * LANES;
    let mut start = 0;
    while start < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
        start += LANES;
    }
    for (lane, i) in (whole..count).enumerate() {
        lanes[lane] += f(i);
    }
    lanes.iter().fold(T::zero(), |sum, lane| sum + *lane)
}

/// The largest number of a row; minus infinity of none.
#[inline(always)]
pub fn largest<T: Real>(row: &[T]) -> T {
    let lowest = T::from_f64(f64::NEG_INFINITY);
    let mut lanes = [lowest; LANES];
    let mut chunks = row.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = lane.larger(*value);
        }
    }
    let rest = chunks.remainder().iter().fold(lowest, |largest, value| largest.larger(*value));
    lanes.iter().fold(rest, |largest, lane| largest.larger(*lane))
}

/// Calls `f` compiled for the best instructions that this machine has.
#[inline(always)]
pub fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Calls `f(row, out)` for every row of `width` numbers of `out`, on all cores.
pub fn for_rows<T: Real>(out: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    if width == 0 {
        return;
    }
    out.par_chunks_mut(width * ROWS).enumerate().for_each(|(chunk, rows)| {
        vectorised(
            #[inline(always)]
            || {
                for (row, out) in rows.chunks_exact_mut(width).enumerate() {
                    f(chunk * ROWS + row, out);
                }
            },
        );
    });
}

/// The sum over rows of `f(row, sum)`, which adds a row to `sum`, `width` numbers; the order of additions does not depend
/// on the number of cores.
pub fn sum_rows<T: Real>(rows: usize, width: usize, f: impl Fn(usize, &mut [T]) + Sync) -> Vec<T> {
    let partial = |chunk: usize| {
        let mut sum = vec![T::zero(); width];
        for row in chunk * ROWS..rows.min((chunk + 1) * ROWS) {
            f(row, &mut sum);
        }
        sum
    };
    let partial: Vec<Vec<T>> = (0..rows.div_ceil(ROWS)).into_par_iter().map(partial).collect();
    let mut total = vec![T::zero(); width];
    for partial in partial {
        total.iter_mut().zip(partial).for_each(|(total, part)| *total += part);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate() {
        for i in -870_000..880_000 {
            let x = i as f32 * 1e-4;
            let (got, expected) = (f64::from(Real::exp(x)), f64::from(x).exp());
            assert!((got / expected - 1.0).abs() < 2.4e-7, "exp({x}) = {got}, not {expected}");
        }
        assert_eq!(Real::exp(-90.0f32), 0.0);
        assert_eq!(Real::exp(f32::NEG_INFINITY), 0.0);
        assert!(Real::exp(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_maxima_cover_every_element() {
        for count in [0, 1, 15, 16, 17, 100] {
            assert_eq!(sum(count, |i| i as f64), (count * count.saturating_sub(1) / 2) as f64);
            let row: Vec<f32> = (0..count).map(|i| ((i * 7) % 101) as f32).collect();
            assert_eq!(largest(&row), row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
        assert_eq!(sum_rows(100, 2, |row, sum: &mut [f64]| sum[row % 2] += row as f64), [2450.0, 2500.0]);
    }
}
