//! The element formats of `mma` (PTX ISA 5.2.3 and 9.7.14.2).

/// A format: how many bits an element has, and what they mean.
pub(super) trait Format {
    /// What products are computed in: holds every product of two elements exactly.
    type Value: Copy + Default;
    const BITS: usize;
    /// Elements of a register.
    const PARTS: usize = if Self::BITS > 32 { 1 } else { 32 / Self::BITS };
    /// The value of the lowest `BITS` of `bits`; what is above them is to be ignored.
    fn value(bits: u64) -> Self::Value;
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
    type Value = f64;
    const BITS: usize = 16;
    fn value(bits: u64) -> f64 {
        small::<5, 10, true>(bits)
    }
}

impl Format for Bf16 {
    type Value = f64;
    const BITS: usize = 16;
    fn value(bits: u64) -> f64 {
        f32::from_bits((bits as u32) << 16).into()
    }
}

impl Format for Tf32 {
    type Value = f64;
    const BITS: usize = 32;
    fn value(bits: u64) -> f64 {
        f32::from_bits(bits as u32 & !0x1fff).into()
    }
}

impl Format for E4m3 {
    type Value = f64;
    const BITS: usize = 8;
    fn value(bits: u64) -> f64 {
        if bits & 0x7f == 0x7f { f64::NAN } else { small::<4, 3, false>(bits) }
    }
}

impl Format for E5m2 {
    type Value = f64;
    const BITS: usize = 8;
    fn value(bits: u64) -> f64 {
        small::<5, 2, true>(bits)
    }
}

impl Format for F64 {
    type Value = f64;
    const BITS: usize = 64;
    fn value(bits: u64) -> f64 {
        f64::from_bits(bits)
    }
}

impl<const BITS: usize> Format for Signed<BITS> {
    type Value = i32;
    const BITS: usize = BITS;
    fn value(bits: u64) -> i32 {
        let unused = 32 - BITS as u32;
        (bits as i32) << unused >> unused
    }
}

impl<const BITS: usize> Format for Unsigned<BITS> {
    type Value = i32;
    const BITS: usize = BITS;
    fn value(bits: u64) -> i32 {
        bits as i32 & ((1 << BITS) - 1)
    }
}

/// A float of `EXPONENT` and `MANTISSA` bits with IEEE's bias and subnormals. Its greatest exponent means infinities
/// and NaNs if it is `IEEE`.
fn small<const EXPONENT: u32, const MANTISSA: u32, const IEEE: bool>(bits: u64) -> f64 {
    let top = (1u64 << EXPONENT) - 1;
    let bias = top >> 1;
    let exponent = bits >> MANTISSA & top;
    let fraction = bits & ((1 << MANTISSA) - 1);
    let sign = (bits >> (EXPONENT + MANTISSA) & 1) << 63;
    let wide = |exponent: u64, fraction: u64| f64::from_bits(sign | exponent << 52 | fraction);
    let placed = fraction << (52 - MANTISSA);
    if exponent == 0 {
        // The unit of subnormals, 2^(1 - bias - MANTISSA), times the fraction.
        return wide(1024 - bias - u64::from(MANTISSA), 0) * fraction as f64;
    }
    if IEEE && exponent == top { wide(0x7ff, placed) } else { wide(exponent + 1023 - bias, placed) }
}
