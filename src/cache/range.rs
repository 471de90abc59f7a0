//! Which range of a group's values its codes cover.

use super::grid::Grid;
use crate::warp;

/// How the range that a group's codes cover is chosen (*range setting* in the literature, for example M. Nagel et al.,
/// "A White Paper on Neural Network Quantization", 2021). Bytes have the same places and the same meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RangeSetting {
    /// From the smallest to the largest value: every value comes back within half a step.
    #[default]
    MinMax,
    /// Of that range and three shorter ones around its middle, the one with the smallest sum of squared errors: a few
    /// values are clipped, and all others come back from finer steps. [`quantize`](super::quantize) says how, to the
    /// bit.
    ///
    /// It costs time when tokens are written, and none when they are read. In the cache it is for int4 groups that hold
    /// at least 96 values (not counting what a row's last group lacks); smaller ones, which gain little, and int8 rows,
    /// which gain nothing, are stored as by [`RangeSetting::MinMax`] (`docs/measurements.md`).
    Mse,
}

impl RangeSetting {
    /// What the cache does with a group of so many values, of so many bits each, when it is set to `self`.
    #[must_use]
    pub fn of_group(self, values: usize, bits: usize) -> Self {
        if bits == 4 && values >= LEAST_VALUES { self } else { Self::MinMax }
    }
}

/// Groups of fewer values are not worth the time.
const LEAST_VALUES: usize = 96;

/// How many ranges are tried. Range `k` is the first one without `k` of its [`PARTS`] at each end: they are 1, 15/16,
/// 14/16 and 13/16 as long.
const RANGES: u8 = 4;
const PARTS: f32 = 32.0;

/// Values that a lane holds of each half of a run (`CHUNK`), and those of all lanes, as in `csrc/cache/quantize.cuh`.
const CHUNK: usize = 8;
const HALF_RUN: usize = warp::LANES * CHUNK;

/// The grid of the smallest squared error, of those over `whole`'s range and tighter ones.
pub(super) fn least_squared_error(values: &[f32], whole: Grid) -> Grid {
    let (mut best, mut least) = (whole, squared_error(values, &whole, &whole));
    for k in 1..RANGES {
        let cut = (whole.hi - whole.lo) * (f32::from(k) / PARTS);
        let grid = Grid::new(whole.lo + cut, whole.hi - cut, whole.max_code);
        let error = squared_error(values, &grid, &whole);
        if !grid.is_point() && error < least {
            (best, least) = (grid, error);
        }
    }
    best
}

/// The squares of the distances between values and what their codes stand for, added up as a warp does it.
fn squared_error(values: &[f32], grid: &Grid, whole: &Grid) -> f32 {
    let mut halves = [[0.0f32; warp::LANES]; 2];
    for (i, &value) in values.iter().enumerate() {
        let steps = grid.steps(whole.clamped(value));
        let distance = steps - grid.nearest_code(steps);
        halves[i / HALF_RUN % 2][i / CHUNK % warp::LANES] += distance * distance;
    }
    let [mut lanes, second] = halves;
    lanes.iter_mut().zip(second).for_each(|(first, second)| *first += second);
    let scale = grid.scale.to_f32();
    warp::sum(lanes) * (scale * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_added_in_the_order_of_a_warp() {
        // 1/4 + 2^-26 is a tie that rounds to 1/4, so the order of additions shows: squares of 2^-13 vanish beside 1/4,
        // but not beside each other.
        const TINY: f32 = 1.0 / 8192.0;
        const ULP: f32 = f32::EPSILON / 4.0;
        let grid = Grid::new(0.0, 15.0, 15.0);
        let check = |tiny: &[usize], extra: f32| {
            let mut values = vec![0.0; 512];
            tiny.iter().for_each(|&i| values[i] = TINY);
            values[0] = 0.5;
            assert_eq!(squared_error(&values, &grid, &grid), 0.25 + extra, "{tiny:?}");
        };
        check(&[1, 2, 3, 4, 5, 6, 7], 0.0); // All in lane 0.
        check(&[256, 257], ULP); // The second half of lane 0, by itself.
        check(&[256], 0.0);
        check(&[8, 16, 24], ULP); // Lanes 0+2, 1+3, then both.
        check(&[8, 16], 0.0); // 1/4 meets lane 2, then lane 1: twice a tie.
        check(&[128, 136], 0.0); // 1/4 meets lane 16, then lanes 1+17.
        check(&[128, 384], ULP); // Both halves of lane 16.
    }
}
