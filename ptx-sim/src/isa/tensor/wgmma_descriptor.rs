//! Where the elements of a matrix lie in shared memory that a `wgmma` finds by a descriptor (PTX ISA sections
//! 9.7.15.5.1.2, "Shared Memory Matrix Layout", and 9.7.15.5.1.2.2, "Matrix Descriptor Format").
//!
//! Everything is counted in *cores*: eight units of 16 bytes. A matrix whose rows along k lie together (K-major) has
//! cores of eight rows of A, or columns of B, times 16 bytes of k; one whose rows along M or N lie together (MN-major),
//! which only 16-bit types have, has cores of eight values of k times eight elements of M or N. Without swizzle a core is
//! 128 bytes in one piece. With a swizzle of 32, 64 or 128 bytes as many bytes of 2, 4 or 8 cores lie side by side, and
//! the unit within such a row is exchanged by an exclusive or with the lowest bits of the row's number: bits 4 to 6 of an
//! address with bits 7 to 9.
//!
//! | | units of a core | cores along M or N | cores along k |
//! |---|---|---|---|
//! | K-major, no swizzle | 16 bytes apart | stride offset | leading offset |
//! | K-major, swizzle of w bytes | w bytes apart | stride offset | 16 bytes |
//! | MN-major, no swizzle | 16 bytes apart | stride offset | leading offset |
//! | MN-major, swizzle of w bytes | w bytes apart | 16 bytes, then the leading offset after w bytes | stride offset |
//!
//! The exclusive or acts on addresses, so a swizzled pattern begins at a multiple of eight times w bytes. Where it does
//! not, the base offset says at which 128 bytes it begins: it is subtracted from bits 7 to 9 before they are used.

/// Bytes of a unit.
pub(super) const UNIT: usize = 16;

/// Units of a core.
pub(super) const UNITS: usize = 8;

/// Bits of a descriptor that mean nothing and have to be zero: 14, 15, 30, 31, 46 to 48 and 52 to 61.
const RESERVED: u64 = 0x3ff1_c000_c000_c000;

/// Which dimension's elements lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Major {
    K,
    Mn,
}

/// A descriptor's fields, offsets in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    start: u64,
    leading: u64,
    stride: u64,
    /// Where the swizzled pattern begins, in units of 128 bytes.
    base: u64,
    /// Bytes that are swizzled: 16 if none are.
    width: u64,
}

impl Descriptor {
    /// The error says what about the descriptor is wrong.
    pub fn new(bits: u64) -> Result<Self, String> {
        let refuse = |why: String| Err(format!("the descriptor {bits:#018x} {why}"));
        if bits & RESERVED != 0 {
            return refuse(format!("has reserved bits: {:#018x}", bits & RESERVED));
        }
        let offset = |shift: u32| (bits >> shift & 0x3fff) << 4;
        let (start, base) = (offset(0), bits >> 49 & 7);
        let width = match bits >> 62 {
            0 => 16,
            1 => 128,
            2 => 64,
            _ => 32,
        };
        if width == 16 && base != 0 {
            return refuse(format!("has the base offset {base} without a swizzle"));
        }
        let descriptor = Self { start, leading: offset(16), stride: offset(32), base, width };
        let mask = descriptor.mask();
        if start >> 7 & mask != base & mask {
            let (pattern, expected) = (8 * width, start >> 7 & 7);
            return refuse(format!(
                "begins at {start:#x}, which is no beginning of a pattern of {width}-byte swizzle: those are multiples \
                 of {pattern} bytes unless the base offset, here {base}, says that they are not (it would be {expected})"
            ));
        }
        Ok(descriptor)
    }

    /// The bits of a row's number that units are exchanged by.
    fn mask(&self) -> u64 {
        self.width / 16 - 1
    }

    /// The addresses of a core's units: core `row` along M or N, core `step` along k.
    pub fn core(&self, major: Major, row: usize, step: usize) -> [u64; UNITS] {
        let (row, step, unit) = (row as u64, step as u64, UNIT as u64);
        let across = self.width / unit;
        let origin = match (major, across) {
            (_, 1) => row * self.stride + step * self.leading,
            (Major::K, _) => row * self.stride + step * unit,
            (Major::Mn, _) => row % across * unit + row / across * self.leading + step * self.stride,
        };
        let swizzled = |address: u64| {
            let exchange = (address >> 7).wrapping_sub(self.base) & self.mask();
            address ^ exchange << 4
        };
        std::array::from_fn(|index| swizzled(self.start + origin + index as u64 * self.width))
    }
}

/// Joins units that lie one behind the other: where each piece begins, and its bytes. Units that are there several times
/// are in as many pieces.
pub(super) fn pieces(mut units: Vec<u64>) -> Vec<(u64, usize)> {
    units.sort_unstable();
    let mut pieces: Vec<(u64, usize)> = Vec::new();
    for unit in units {
        match pieces.last_mut() {
            Some((begin, len)) if *begin + *len as u64 == unit => *len += UNIT,
            _ => pieces.push((unit, UNIT)),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So each core takes one pass over the banks of shared memory, which are eight units wide.
    #[test]
    fn the_units_of_a_core_lie_in_different_banks() {
        for mode in 0..4u64 {
            for (start, base) in [(0, 0), (2, 0), (6, 0), (0x48, 1), (0x50, 2), (0x78, 7)] {
                if mode == 0 && base != 0 {
                    continue;
                }
                let bits = mode << 62 | base << 49 | 0x35 << 32 | 0x27 << 16 | start;
                let descriptor = Descriptor::new(bits).expect("a descriptor");
                for (major, row, step) in [(Major::K, 0, 0), (Major::K, 3, 1), (Major::Mn, 5, 0), (Major::Mn, 14, 1)] {
                    let mut banks = descriptor.core(major, row, step).map(|address| address / UNIT as u64 % 8);
                    banks.sort_unstable();
                    assert_eq!(banks, [0, 1, 2, 3, 4, 5, 6, 7], "{bits:#x} {major:?} {row} {step}");
                }
            }
        }
    }
}
