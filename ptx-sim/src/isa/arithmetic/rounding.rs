//! Exact results, rounded once: every rounding mode into every binary format.
//!
//! The fast paths of the families use the processor's own rounding to nearest; everything else comes here.

/// Rounding modes (PTX ISA 6.5.2): `.rn`, `.rna`, `.rz`, `.rm`, `.rp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    Nearest,
    NearestAway,
    Zero,
    Down,
    Up,
}

impl Round {
    /// The mode of a modifier.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "rn" => Self::Nearest,
            "rna" => Self::NearestAway,
            "rz" => Self::Zero,
            "rm" => Self::Down,
            "rp" => Self::Up,
            _ => return None,
        })
    }
}

/// A binary floating-point format: sign, exponent, fraction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    exponent_bits: u32,
    fraction_bits: u32,
    /// Bits of the largest finite number.
    pub largest: u64,
    /// Bits of what overflows to: infinity, or the largest number where there is none.
    infinity: u64,
    /// Bits of the canonical NaN.
    pub nan: u64,
}

impl Format {
    pub const F64: Self = Self::ieee(11, 52);
    pub const F32: Self = Self::ieee(8, 23);
    pub const F16: Self = Self::ieee(5, 10);
    pub const BF16: Self = Self::ieee(8, 7);
    /// tf32 without the 13 bits that pad it to 32.
    pub const TF32: Self = Self::ieee(8, 10);
    pub const E5M2: Self = Self::ieee(5, 2);
    /// No infinity, and only the all-ones pattern is NaN.
    pub const E4M3: Self = Self { exponent_bits: 4, fraction_bits: 3, largest: 0x7E, infinity: 0x7E, nan: 0x7F };

    const fn ieee(exponent_bits: u32, fraction_bits: u32) -> Self {
        let infinity = ((1 << exponent_bits) - 1) << fraction_bits;
        let nan = infinity | ((1 << fraction_bits) - 1);
        Self { exponent_bits, fraction_bits, largest: infinity - 1, infinity, nan }
    }

    fn bias(self) -> i32 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    /// The sign bit.
    pub fn sign(self) -> u64 {
        1 << (self.exponent_bits + self.fraction_bits)
    }

    /// `x` in this format, as bits; NaN becomes the canonical one.
    pub fn round(self, x: f64, round: Round) -> u64 {
        let sign = if x.is_sign_negative() { self.sign() } else { 0 };
        match x {
            _ if x.is_nan() => self.nan,
            _ if x.is_infinite() => self.infinity | sign,
            _ => Exact::of(x).round(self, round),
        }
    }
}

/// The number `mantissa * 2^exponent`, whose lowest bit may stand for any nonzero rest below it: results have so many
/// bits more than the widest format that the lowest never decides a tie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exact {
    negative: bool,
    mantissa: u128,
    exponent: i32,
}

impl Exact {
    /// A finite number.
    pub fn of(x: f64) -> Self {
        let bits = x.to_bits();
        let (field, fraction) = ((bits >> 52 & 0x7FF) as i32, bits & ((1 << 52) - 1));
        let mantissa = if field == 0 { fraction } else { fraction | 1 << 52 };
        Self { negative: x.is_sign_negative(), mantissa: mantissa.into(), exponent: field.max(1) - 1075 }
    }

    /// An integer.
    pub fn integer(negative: bool, magnitude: u64) -> Self {
        Self { negative, mantissa: magnitude.into(), exponent: 0 }
    }

    pub fn product(a: f64, b: f64) -> Self {
        let (a, b) = (Self::of(a), Self::of(b));
        Self {
            negative: a.negative != b.negative,
            mantissa: a.mantissa * b.mantissa,
            exponent: a.exponent + b.exponent,
        }
    }

    /// The sum; the mode decides the sign of a zero that is no operand's.
    pub fn sum(self, other: Self, round: Round) -> Self {
        if self.mantissa == 0 && other.mantissa == 0 {
            let negative = if self.negative == other.negative { self.negative } else { round == Round::Down };
            return Self { negative, ..self };
        }
        if self.mantissa == 0 || other.mantissa == 0 {
            return if self.mantissa == 0 { other } else { self };
        }
        // The top bits at 125, room for a carry: numbers have at most 106 bits, so what is shifted out of the smaller
        // one lies at least 20 bits below the larger one's top, and cancels at most one bit of it.
        let (a, b) = (self.normalised(2), other.normalised(2));
        let (high, low) = if a.exponent >= b.exponent { (a, b) } else { (b, a) };
        let distance = (high.exponent - low.exponent) as u32;
        let kept = low.mantissa.checked_shr(distance).unwrap_or(0);
        let rest = kept.checked_shl(distance).unwrap_or(0) != low.mantissa;
        let low_mantissa = kept | u128::from(rest);
        if high.negative == low.negative {
            return Self { mantissa: high.mantissa + low_mantissa, ..high };
        }
        let negative = match high.mantissa.cmp(&low_mantissa) {
            std::cmp::Ordering::Less => low.negative,
            std::cmp::Ordering::Equal => round == Round::Down,
            std::cmp::Ordering::Greater => high.negative,
        };
        Self { negative, mantissa: high.mantissa.abs_diff(low_mantissa), exponent: high.exponent }
    }

    /// The quotient of finite numbers; `b` is not zero.
    pub fn quotient(a: f64, b: f64) -> Self {
        let (a, b) = (Self::of(a), Self::of(b));
        let negative = a.negative != b.negative;
        if a.mantissa == 0 {
            return Self { negative, ..a };
        }
        let a = a.normalised(1);
        let (whole, rest) = (a.mantissa / b.mantissa, a.mantissa % b.mantissa);
        Self { negative, mantissa: whole << 1 | u128::from(rest != 0), exponent: a.exponent - b.exponent - 1 }
    }

    /// The square root of a finite number that is not below zero.
    pub fn root(a: f64) -> Self {
        let a = Self::of(a);
        if a.mantissa == 0 {
            return a;
        }
        let mut a = a.normalised(1);
        if a.exponent % 2 != 0 {
            (a.mantissa, a.exponent) = (a.mantissa >> 1, a.exponent + 1);
        }
        let root = a.mantissa.isqrt();
        let rest = root * root != a.mantissa;
        Self { negative: false, mantissa: root << 1 | u128::from(rest), exponent: a.exponent / 2 - 1 }
    }

    /// The same number with `zeros` leading zeros; numbers that are not zero have fewer than 127 bits.
    fn normalised(self, zeros: u32) -> Self {
        let shift = self.mantissa.leading_zeros() - zeros;
        Self { mantissa: self.mantissa << shift, exponent: self.exponent - shift as i32, ..self }
    }

    /// The bits of this number in a format.
    pub fn round(self, format: Format, round: Round) -> u64 {
        let sign = if self.negative { format.sign() } else { 0 };
        if self.mantissa == 0 {
            return sign;
        }
        let magnitude = self.exponent + 127 - self.mantissa.leading_zeros() as i32;
        let least = 1 - format.bias();
        let shift = magnitude.max(least) - format.fraction_bits as i32 - self.exponent;
        let (kept, up) = self.keep(shift, round);
        let hidden = 1u64 << format.fraction_bits;
        let bits = match magnitude {
            _ if magnitude > format.bias() + 1 => u64::MAX,
            _ if magnitude < least => kept as u64 + u64::from(up),
            _ => ((magnitude - least + 1) as u64 * hidden) + (kept as u64 - hidden) + u64::from(up),
        };
        if bits <= format.largest {
            return bits | sign;
        }
        let infinite = match round {
            Round::Nearest | Round::NearestAway => true,
            Round::Zero => false,
            Round::Down => self.negative,
            Round::Up => !self.negative,
        };
        (if infinite { format.infinity } else { format.largest }) | sign
    }

    /// The mantissa without its lowest `shift` bits, and whether these round away from zero.
    fn keep(self, shift: i32, round: Round) -> (u128, bool) {
        if shift <= 0 {
            return (self.mantissa << -shift, false);
        }
        let kept = self.mantissa.checked_shr(shift as u32).unwrap_or(0);
        let rest = self.mantissa - kept.checked_shl(shift as u32).unwrap_or(0);
        // Beyond 128 bits even the largest rest is below one half.
        let half = 1u128.checked_shl(shift as u32 - 1).unwrap_or(u128::MAX);
        let up = match round {
            Round::Nearest => rest > half || rest == half && kept % 2 == 1,
            Round::NearestAway => rest >= half,
            Round::Zero => false,
            Round::Down => self.negative && rest > 0,
            Round::Up => !self.negative && rest > 0,
        };
        (kept, up)
    }
}

/// `a + b` rounded to odd: the nearest double whose last bit is one, unless the sum is exact. Rounding that again to
/// fewer bits (at least two fewer) rounds the exact sum once (Boldo and Melquiond, 2008). Without branches, for loops
/// over lanes; for sums that do not overflow.
#[inline]
pub(crate) fn sum_to_odd(a: f64, b: f64) -> f64 {
    // Knuth's two-sum: `rest` is exactly what `sum` lacks. With infinities it is NaN and the sum stays.
    let sum = a + b;
    let b_part = sum - a;
    let rest = (a - (sum - b_part)) + (b - b_part);
    let bits = sum.to_bits();
    let inexact = (rest > 0.0) | (rest < 0.0);
    let outward = (rest > 0.0) == (sum > 0.0);
    let stepped = if outward { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f64::from_bits(if inexact & (bits & 1 == 0) { stepped } else { bits })
}

/// `x` rounded to odd in f32; finite numbers stay finite.
#[inline]
pub(crate) fn f32_to_odd(x: f64) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    let inexact = (back > x) | (back < x);
    let bits = near.to_bits();
    let stepped = if back.abs() < x.abs() { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f32::from_bits(if inexact & (bits & 1 == 0) { stepped } else { bits })
}
