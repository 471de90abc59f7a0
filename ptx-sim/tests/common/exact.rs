//! Rounding done by comparing integers: what tests hold floating-point results against.
#![allow(dead_code)] // Each test file uses its own part of this.

use std::cmp::Ordering;

/// A finite number as `mantissa * 2^exponent`.
pub fn parts(x: f64) -> (i128, i32) {
    let bits = x.to_bits();
    let (field, fraction) = ((bits >> 52 & 0x7FF) as i32, i128::from(bits & 0xF_FFFF_FFFF_FFFF));
    let mantissa = if field == 0 { fraction } else { fraction | 1 << 52 };
    (if x < 0.0 { -mantissa } else { mantissa }, field.max(1) - 1075)
}

/// `x * 2^scale`, which has to be an integer.
pub fn scaled(x: f64, scale: i32) -> i128 {
    let (mantissa, exponent) = parts(x);
    let shift = exponent + scale;
    if mantissa == 0 {
        return 0;
    }
    if shift >= 0 {
        return mantissa << shift;
    }
    assert!(mantissa.trailing_zeros() as i32 >= -shift, "{x} * 2^{scale} is no integer");
    mantissa >> -shift
}

/// The neighbours of `x` among the f32 or among the f64.
fn next(x: f64, up: bool, single: bool) -> f64 {
    match (single, up) {
        (true, true) => f64::from((x as f32).next_up()),
        (true, false) => f64::from((x as f32).next_down()),
        (false, true) => x.next_up(),
        (false, false) => x.next_down(),
    }
}

/// The number that mode `.rn`, `.rz`, `.rm` or `.rp` rounds to. `compare` tells how a candidate compares with the exact
/// result, `middle` how the mean of two neighbours does, and `guess` is near it.
pub fn rounded(
    mode: &str,
    single: bool,
    guess: f64,
    compare: impl Fn(f64) -> Ordering,
    middle: impl Fn(f64, f64) -> Ordering,
) -> f64 {
    let mut low = if single { f64::from(guess as f32) } else { guess };
    while compare(low) == Ordering::Greater {
        low = next(low, false, single);
    }
    // An exact result may have neighbours that the comparison cannot express.
    while compare(low) != Ordering::Equal && compare(next(low, true, single)) != Ordering::Greater {
        low = next(low, true, single);
    }
    if compare(low) == Ordering::Equal {
        return low;
    }
    let high = next(low, true, single);
    let even = |x: f64| parts(x).0 >> if single { 29 } else { 0 } & 1 == 0;
    match mode {
        "rm" => low,
        "rp" => high,
        "rz" => {
            if low < 0.0 {
                high
            } else {
                low
            }
        }
        _ => match middle(low, high) {
            Ordering::Greater => low,
            Ordering::Less => high,
            Ordering::Equal => {
                if even(low) {
                    low
                } else {
                    high
                }
            }
        },
    }
}

/// A narrow format's numbers that are not negative, ascending, with the number after the largest as the last; the
/// index is the encoding.
pub struct Narrow {
    pub values: Vec<f64>,
}

impl Narrow {
    /// `largest` is the encoding of the largest number.
    pub fn new(exponent_bits: i32, fraction_bits: i32, largest: usize) -> Self {
        let bias = (1 << (exponent_bits - 1)) - 1;
        let value = |bits: usize| {
            let (field, fraction) = (bits as i32 >> fraction_bits, bits as i32 & ((1 << fraction_bits) - 1));
            let hidden = if field == 0 { 0 } else { 1 << fraction_bits };
            f64::from(hidden + fraction) * 2f64.powi(field.max(1) - bias - fraction_bits)
        };
        Self { values: (0..=largest + 1).map(value).collect() }
    }

    /// The encoding of `|x|` rounded; that of the number after the largest if it overflows. `negative` is the sign of
    /// what is rounded, for the directed modes.
    pub fn round(&self, mode: &str, x: f64, negative: bool) -> usize {
        let magnitude = x.abs();
        let last = self.values.len() - 1;
        if magnitude >= self.values[last] {
            let inward = matches!((mode, negative), ("rz", _) | ("rm", false) | ("rp", true)) && x.is_finite();
            return if inward { last - 1 } else { last };
        }
        let low = self.values.partition_point(|value| *value <= magnitude) - 1;
        if self.values[low] == magnitude {
            return low;
        }
        let middle = (self.values[low] + self.values[low + 1]) / 2.0;
        let up = match mode {
            "rn" => magnitude > middle || magnitude == middle && low % 2 == 1,
            "rna" => magnitude >= middle,
            "rm" => negative,
            "rp" => !negative,
            _ => false,
        };
        low + usize::from(up)
    }
}
