//! The element formats of `mma` (PTX ISA 5.2.3 and 9.7.14.2).

use crate::exec::Word;

/// A format: how many bits an element has, and what they mean.
pub(super) trait Format: 'static {
    /// The least that holds every element exactly.
    type Element: Copy + Default;
    /// What products are computed in: holds every product of two elements exactly.
    type Value: Copy + Default + From<Self::Element>;
    /// The words of the registers that elements lie in.
    type Word: Word;
    const BITS: usize;
    /// Elements of a register.
    const PARTS: usize = if Self::BITS > 32 { 1 } else { 32 / Self::BITS };
    /// The element in the lowest `BITS` of `word`; what is above them is to be ignored.
    fn element(word: Self::Word) -> Self::Element;
}

/// Puts part number `part` of each register into `out`. Short elements first, then wide values: so vectors have as many
/// of them as they can.
#[inline(always)]
pub(super) fn unpack<F: Format, const N: usize>(words: &[F::Word; N], part: usize, out: &mut [F::Value; N]) {
    let mut elements = [F::Element::default(); N];
    for (word, element) in words.iter().zip(&mut elements) {
        *element = F::element(*word >> (part * F::BITS));
    }
    for (element, out) in elements.into_iter().zip(out) {
        *out = element.into();
    }
}

pub(super) struct F16;
pub(super) struct Bf16;
/// The upper 19 bits of a f32. The ISA leaves the meaning of the others open; they are ignored, as on hardware.
pub(super) struct Tf32;
/// Largest value 448, no infinities.
pub(super) struct E4m3;
pub(super) struct E5m2;
pub(super) struct F64;
/// A signed integer.
pub(super) struct Signed<const BITS: usize>;
/// An unsigned integer.
pub(super) struct Unsigned<const BITS: usize>;

impl Format for F16 {
    type Element = f32;
    type Value = f64;
    type Word = u32;
    const BITS: usize = 16;
    #[inline]
    fn element(word: u32) -> f32 {
        small::<5, 10, true>(word)
    }
}

impl Format for Bf16 {
    type Element = f32;
    type Value = f64;
    type Word = u32;
    const BITS: usize = 16;
    #[inline]
    fn element(word: u32) -> f32 {
        f32::from_bits(word << 16)
    }
}

impl Format for Tf32 {
    type Element = f32;
    type Value = f64;
    type Word = u32;
    const BITS: usize = 32;
    #[inline]
    fn element(word: u32) -> f32 {
        f32::from_bits(word & !0x1fff)
    }
}

impl Format for E4m3 {
    type Element = f32;
    type Value = f64;
    type Word = u32;
    const BITS: usize = 8;
    #[inline]
    fn element(word: u32) -> f32 {
        if word & 0x7f == 0x7f { f32::NAN } else { small::<4, 3, false>(word) }
    }
}

impl Format for E5m2 {
    type Element = f32;
    type Value = f64;
    type Word = u32;
    const BITS: usize = 8;
    #[inline]
    fn element(word: u32) -> f32 {
        small::<5, 2, true>(word)
    }
}

impl Format for F64 {
    type Element = f64;
    type Value = f64;
    type Word = u64;
    const BITS: usize = 64;
    #[inline]
    fn element(word: u64) -> f64 {
        f64::from_bits(word)
    }
}

impl<const BITS: usize> Format for Signed<BITS> {
    type Element = i32;
    type Value = i32;
    type Word = u32;
    const BITS: usize = BITS;
    #[inline]
    fn element(word: u32) -> i32 {
        let unused = 32 - BITS as u32;
        word.cast_signed() << unused >> unused
    }
}

impl<const BITS: usize> Format for Unsigned<BITS> {
    type Element = i32;
    type Value = i32;
    type Word = u32;
    const BITS: usize = BITS;
    #[inline]
    fn element(word: u32) -> i32 {
        word.cast_signed() & ((1 << BITS) - 1)
    }
}

/// A float of `EXPONENT` and `MANTISSA` bits with IEEE's bias and subnormals. Its greatest exponent means infinities
/// and NaNs if it is `IEEE`. Without branches, for loops over lanes, and without subnormal f32, which are slow.
#[inline]
fn small<const EXPONENT: u32, const MANTISSA: u32, const IEEE: bool>(bits: u32) -> f32 {
    let bias = (1u32 << (EXPONENT - 1)) - 1;
    let sign = (bits >> (EXPONENT + MANTISSA) & 1) << 31;
    let rest = bits & ((1 << (EXPONENT + MANTISSA)) - 1);
    let placed = rest << (23 - MANTISSA);
    let normal = placed + ((127 - bias) << 23);
    // The unit of subnormals is the last place of numbers from `least` on.
    let least = (128 - bias) << 23;
    let subnormal = (f32::from_bits(placed | least) - f32::from_bits(least)).to_bits();
    let finite = if rest >> MANTISSA == 0 { subnormal } else { normal };
    let special = IEEE && rest >> MANTISSA == (1 << EXPONENT) - 1;
    f32::from_bits(sign | if special { placed | 0x7F80_0000 } else { finite })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a float from its fields.
    fn of_fields(bits: u32, exponent_bits: u32, mantissa_bits: u32) -> f64 {
        let sign = if bits >> (exponent_bits + mantissa_bits) & 1 == 1 { -1.0 } else { 1.0 };
        let exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
        let fraction = f64::from(bits & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
        let bias = (1 << (exponent_bits - 1)) - 1;
        let (whole, power) = if exponent == 0 { (0.0, 1 - bias) } else { (1.0, exponent as i32 - bias) };
        sign * (whole + fraction) * 2f64.powi(power)
    }

    /// Compares as bits, so that zeros have signs.
    fn check(bits: u32, value: f32, exact: f64) {
        let value = f64::from(value);
        assert!(value.to_bits() == exact.to_bits() || value.is_nan() && exact.is_nan(), "{bits:#x}: {value} {exact}");
    }

    #[test]
    fn every_small_float_has_the_value_of_its_fields() {
        for bits in 0..0x1_0000 {
            let infinite = bits & 0x7C00 == 0x7C00;
            let special = if bits & 0x3FF == 0 { f64::INFINITY } else { f64::NAN };
            let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
            check(bits, F16::element(bits), if infinite { sign * special } else { of_fields(bits, 5, 10) });
        }
        for bits in 0..0x100 {
            let nan = bits & 0x7F == 0x7F;
            check(bits, E4m3::element(bits), if nan { f64::NAN } else { of_fields(bits, 4, 3) });
            // An e5m2 is the upper half of an f16.
            check(bits, E5m2::element(bits), F16::element(bits << 8).into());
        }
    }
}
