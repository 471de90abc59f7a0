//! Eight numbers in an array, for the compiler to put into what registers there are.

use super::{Arithmetic, LANES};
use crate::cache::{AFFINE_BYTES, Affine, unpack_nibbles};

/// Products and sums are rounded each: without an instruction for both, one rounding would be a call.
pub(super) struct Portable;

impl Arithmetic for Portable {
    type Eight = [f32; LANES];

    #[inline(always)]
    fn splat(number: f32) -> Self::Eight {
        [number; LANES]
    }

    #[inline(always)]
    fn load(numbers: &[f32; LANES]) -> Self::Eight {
        *numbers
    }

    #[inline(always)]
    fn store(eight: Self::Eight, to: &mut [f32; LANES]) {
        *to = eight;
    }

    #[inline(always)]
    fn multiply(a: Self::Eight, b: Self::Eight) -> Self::Eight {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn multiply_add(a: Self::Eight, b: Self::Eight, c: Self::Eight) -> Self::Eight {
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    fn sums(four: [Self::Eight; 4]) -> [f32; 4] {
        four.map(|[a, b, c, d, e, f, g, h]| ((a + b) + (c + d)) + ((e + f) + (g + h)))
    }

    #[inline(always)]
    fn nibbles(word: u32) -> Self::Eight {
        unpack_nibbles(word).map(f32::from)
    }

    #[inline(always)]
    fn bytes(codes: &[u8; LANES]) -> Self::Eight {
        codes.map(f32::from)
    }

    #[inline(always)]
    fn affine(bytes: [u8; AFFINE_BYTES]) -> [[f32; LANES]; 2] {
        let affine = Affine::from_le_bytes(bytes);
        [affine.scale, affine.min].map(|number| [number.to_f32(); LANES])
    }
}
