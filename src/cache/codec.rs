//! The affine quantiser and the order of nibbles, specified to the bit.

use half::f16;

use super::grid::{F16_MAX, Grid};
use super::range::{RangeSetting, least_squared_error};

/// Where each of 8 values stands in their 32-bit word: value `NIBBLE_ORDER[n]` occupies bits `4n..4n+4`.
///
/// Masking the word with `0x000F000F` after a right shift by `4 s` leaves values `2s` and `2s + 1` in the low and
/// high halves: the two lanes of a packed 16-bit pair, in natural order.
pub const NIBBLE_ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Packs 8 codes (each below 16) into one word.
#[must_use]
pub fn pack_nibbles(codes: [u8; 8]) -> u32 {
    let nibbles = NIBBLE_ORDER.iter().enumerate();
    nibbles.fold(0, |word, (n, &value)| word | u32::from(codes[value] & 15) << (4 * n))
}

/// The inverse of [`pack_nibbles`].
#[must_use]
pub fn unpack_nibbles(word: u32) -> [u8; 8] {
    let mut codes = [0; 8];
    for (n, &value) in NIBBLE_ORDER.iter().enumerate() {
        codes[value] = (word >> (4 * n) & 15) as u8;
    }
    codes
}

/// The map from a code to a value: `scale * code + min`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Distance between neighbouring codes, never negative.
    pub scale: f16,
    /// Value of code 0.
    pub min: f16,
}

impl Affine {
    /// The value of `code`. Exact: an 11-bit significand times an 8-bit code plus an 11-bit significand, with
    /// exponents at most 40 apart, fits into f64's 53 bits.
    #[must_use]
    pub fn value(self, code: u8) -> f64 {
        self.scale.to_f64() * f64::from(code) + self.min.to_f64()
    }

    /// Scale, then min, little-endian.
    #[must_use]
    pub fn to_le_bytes(self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.scale.to_le_bytes(), self.min.to_le_bytes());
        [a, b, c, d]
    }

    /// The inverse of [`Affine::to_le_bytes`].
    #[must_use]
    pub fn from_le_bytes([a, b, c, d]: [u8; 4]) -> Self {
        Self { scale: f16::from_le_bytes([a, b]), min: f16::from_le_bytes([c, d]) }
    }
}

/// The outcome of [`quantize`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantized {
    /// Scale and min of the group.
    pub affine: Affine,
    /// How many values were NaN, infinite or beyond f16's range, and were therefore moved into the group's range.
    /// (Values that [`RangeSetting::Mse`] clips are not among them.)
    pub saturated: usize,
}

/// Quantises one group to codes `0..=max_code` (15 or 255).
///
/// All arithmetic is f32, each operation rounded to nearest even, none contracted:
///
/// 1. `lo`, `hi` = smallest and largest finite value, each clamped to +-65504, plus 0 (which makes +0 of -0); both
///    0 if no value is finite. `first..=last` is the range that the codes shall cover: `lo..=hi` with
///    [`RangeSetting::MinMax`], one of four with [`RangeSetting::Mse`].
/// 2. `min` = `first` rounded *down* to f16.
/// 3. `scale` = `(last - min) / max_code` rounded *up* to f16.
/// 4. `inverse` = `1 / scale`, or 0 if `scale` is 0.
/// 5. A value's `steps` are `(v - min) * inverse`, where `v` is the value clamped to `lo..=hi`, and `lo` for NaN. Its
///    code is `steps` rounded to the nearest integer, ties to even, clamped to `0..=max_code`.
///
/// Rounding scale and min outwards *before* the codes are computed makes the codes cover the whole range, so that
/// every value inside of it comes back within half a step: `|value - x| <= scale/2` up to f32 rounding. With
/// [`RangeSetting::MinMax`] these are all values that did not saturate.
///
/// With [`RangeSetting::Mse`], the ranges `lo + cut ..= hi - cut` are tried, where `cut` = `(hi - lo) * (k / 32)` and
/// `k` = 0, 1, 2, 3. The one with the smallest squared error is taken, of several the longest; except for the first,
/// ranges whose `scale` is 0 are passed over. A range's squared error is the sum of `(steps - code)^2`, times
/// `scale * scale`; the sum is what a warp gets that holds values `8 l .. 8 l + 7` of either half of a run of 512 in
/// lane `l`:
///
/// 1. Values `i` with the same `i / 8 % 32` and `i / 256 % 2` (a lane's half) are added in ascending order, beginning
///    with 0.
/// 2. Each lane adds its second half's sum to its first's.
/// 3. For a distance of 16, 8, 4, 2, 1, every lane adds the sum of the lane at that distance (butterfly).
///
/// # Panics
/// If `values` and `codes` differ in length.
pub fn quantize(values: &[f32], max_code: u8, range: RangeSetting, codes: &mut [u8]) -> Quantized {
    assert_eq!(values.len(), codes.len(), "one code per value");
    let finite = || values.iter().copied().filter(|v| v.is_finite());
    let (lo, hi) = if finite().next().is_some() {
        let lo = finite().fold(f32::INFINITY, f32::min);
        let hi = finite().fold(f32::NEG_INFINITY, f32::max);
        (lo.clamp(-F16_MAX, F16_MAX) + 0.0, hi.clamp(-F16_MAX, F16_MAX) + 0.0)
    } else {
        (0.0, 0.0)
    };
    let whole = Grid::new(lo, hi, f32::from(max_code));
    let grid = match range {
        RangeSetting::MinMax => whole,
        RangeSetting::Mse => least_squared_error(values, whole),
    };
    let mut saturated = 0;
    for (&value, code) in values.iter().zip(codes) {
        saturated += usize::from(whole.clamped(value) != value);
        *code = grid.nearest_code(grid.steps(whole.clamped(value))) as u8;
    }
    Quantized { affine: Affine { scale: grid.scale, min: grid.min }, saturated }
}
