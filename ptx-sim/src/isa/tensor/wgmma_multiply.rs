//! The arithmetic of `wgmma.mma_async`: matrices of a warp's 16 rows, unpacked to f64.
//!
//! As in `mma`: products are exact, those of one instruction are summed in f64 in ascending order of k, and that sum plus
//! the accumulator is rounded once, to nearest even. f64 holds every sum of 8-bit integers exactly, so that they take the
//! same way.

use super::mma_formats::{Bf16, E4m3, E5m2, F16, Format, Signed, Tf32, Unsigned};
use super::rounded::{add_f16, add_f32};
use super::wgmma_descriptor::{Major, UNIT, UNITS};
use crate::exec::{LANES, Lanes, Word};

/// Rows of A and D that a warp has.
pub(super) const ROWS: usize = 16;

/// Columns that are summed together: every N is a multiple.
const COLUMNS: usize = 8;

/// Puts the elements of little-endian bytes into `out`.
type Unpack = fn(bytes: &[u8], out: &mut [f64]);

/// The format of a multiplicand's elements.
#[derive(Clone, Copy)]
pub(super) struct Elements {
    /// Bytes of an element.
    pub size: usize,
    unpack: Unpack,
}

/// The format of accumulators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accumulator {
    F16,
    F32,
    S32 { saturate: bool },
}

fn format<F: Format>() -> Elements
where
    F::Element: Into<f64>,
{
    fn unpack<F: Format>(bytes: &[u8], out: &mut [f64])
    where
        F::Element: Into<f64>,
    {
        for (element, out) in bytes.chunks_exact(F::BITS / 8).zip(out) {
            let bits = element.iter().rev().fold(0, |bits: u64, byte| bits << 8 | u64::from(*byte));
            *out = F::element(F::Word::cut(bits)).into();
        }
    }
    Elements { size: F::BITS / 8, unpack: unpack::<F> }
}

impl Elements {
    /// The format of a type's name.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "f16" => format::<F16>(),
            "bf16" => format::<Bf16>(),
            "tf32" => format::<Tf32>(),
            "e4m3" => format::<E4m3>(),
            "e5m2" => format::<E5m2>(),
            "s8" => format::<Signed<8>>(),
            "u8" => format::<Unsigned<8>>(),
            _ => return None,
        })
    }

    /// Elements of 16 bytes.
    fn per_unit(self) -> usize {
        UNIT / self.size
    }

    /// The 16 rows of A that a warp has in four registers, row after row of `k` elements (PTX ISA 9.7.15.5.1.1): four
    /// lanes share a row, and registers go through the rows first, then along k.
    pub fn rows_of(self, registers: &[Lanes], k: usize) -> Vec<f64> {
        let mut a = vec![0.0; ROWS * k];
        let parts = 4 / self.size;
        for (register, lanes) in registers.iter().enumerate() {
            for (lane, bits) in lanes.iter().enumerate() {
                let row = lane / 4 + 8 * (register % 2);
                let first = (register / 2 * 4 + lane % 4) * parts;
                (self.unpack)(&(*bits as u32).to_le_bytes(), &mut a[row * k + first..][..parts]);
            }
        }
        a
    }

    /// Hands each element of a core to `put`, with its number along M or N and its number along k.
    pub fn core(
        self,
        bytes: &[u8; UNIT * UNITS],
        major: Major,
        (row, step): (usize, usize),
        mut put: impl FnMut(usize, usize, f64),
    ) {
        let mut elements = [0.0; UNIT];
        let per_unit = self.per_unit();
        for (unit, bytes) in bytes.chunks_exact(UNIT).enumerate() {
            (self.unpack)(bytes, &mut elements);
            for (index, element) in elements[..per_unit].iter().enumerate() {
                match major {
                    Major::K => put(row * UNITS + unit, step * per_unit + index, *element),
                    Major::Mn => put(row * per_unit + index, step * UNITS + unit, *element),
                }
            }
        }
    }
}

/// The products of 16 rows of A, `k` elements each, and of B, `k` rows of `n` elements: row after row.
pub(super) fn multiply(a: &[f64], b: &[f64], k: usize, n: usize) -> Vec<f64> {
    let mut sums = vec![0.0; ROWS * n];
    for (row, sums) in a.chunks_exact(k).zip(sums.chunks_exact_mut(n)) {
        for (block, sums) in sums.chunks_exact_mut(COLUMNS).enumerate() {
            let mut sum = [0.0; COLUMNS];
            for (x, b) in row.iter().zip(b.chunks_exact(n)) {
                for (sum, y) in sum.iter_mut().zip(&b[block * COLUMNS..][..COLUMNS]) {
                    *sum += x * y;
                }
            }
            sums.copy_from_slice(&sum);
        }
    }
    sums
}

/// Row and column of an element of D (PTX ISA 9.7.15.5.1.1): that of number `element` of a lane. Every eight columns have
/// four of a lane, two in a row and two in the row eight further down.
fn place(lane: usize, element: usize) -> (usize, usize) {
    (lane / 4 + 8 * (element / 2 % 2), element / 4 * 8 + lane % 4 * 2 + element % 2)
}

impl Accumulator {
    /// Registers of `n` columns.
    pub fn registers(self, n: usize) -> usize {
        if self == Self::F16 { n / 4 } else { n / 2 }
    }

    /// Adds sums, row after row of `n`, to the accumulators of a warp.
    pub fn add(self, registers: &mut [Lanes], sums: &[f64], n: usize) {
        for (register, lanes) in registers.iter_mut().enumerate() {
            for (lane, bits) in lanes.iter_mut().enumerate().take(LANES) {
                let sum = |element: usize| {
                    let (row, column) = place(lane, element);
                    sums[row * n + column]
                };
                let old = *bits as u32;
                *bits = u64::from(match self {
                    Self::F32 => add_f32(old, sum(register)),
                    Self::F16 => {
                        let (low, high) = (sum(2 * register), sum(2 * register + 1));
                        add_f16(old, low) | add_f16(old >> 16, high) << 16
                    }
                    Self::S32 { saturate } => {
                        let (old, sum) = (old.cast_signed(), sum(register) as i32);
                        if saturate { old.saturating_add(sum) } else { old.wrapping_add(sum) }.cast_unsigned()
                    }
                });
            }
        }
    }
}
