//! Where the elements of `wgmma`'s matrices lie, as CuTe writes it: coordinates times strides.
//!
//! A nested coordinate is taken apart by the sizes of its levels, innermost first, and each part is multiplied by its
//! stride. Shared memory: PTX ISA 9.7.15.5.1.2.1.3, "Canonical Layouts". Registers: the fragments' figures in
//! 9.7.15.5.1.1, whose layouts CUTLASS states as shapes and strides.

/// Takes `index` apart by `sizes`, the last of which is open, and returns the sum of the parts times `strides`.
fn nested(mut index: usize, sizes: &[usize], strides: &[usize]) -> usize {
    let mut sum = 0;
    for (level, stride) in strides.iter().enumerate() {
        match sizes.get(level) {
            Some(size) => {
                sum += index % size * stride;
                index /= size;
            }
            None => sum += index * stride,
        }
    }
    sum
}

/// A matrix in shared memory. Offsets are in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Bits of Swizzle<B, 4, 3>: 0 for none, 1 to 3 for 32 to 128 bytes.
    pub swizzle: u32,
    pub mn_major: bool,
    pub leading: usize,
    pub stride: usize,
    pub start: usize,
    /// The descriptor's base offset.
    pub base: usize,
    /// Bits of an element.
    pub bits: usize,
}

impl Layout {
    /// The address of an element, by its number along M or N and along K.
    pub fn address(&self, mn: usize, k: usize) -> usize {
        let t = 128 / self.bits;
        let elements = |bytes: usize| bytes * 8 / self.bits;
        let (lbo, sbo, units) = (elements(self.leading), elements(self.stride), 1 << self.swizzle);
        let element = match (self.mn_major, self.swizzle) {
            // ((T,1,m),(8,k)):((1,T,SBO),(1T,LBO))
            (true, 0) => nested(mn, &[t, 1], &[1, t, sbo]) + nested(k, &[8], &[t, lbo]),
            // ((T,2^B,m),(8,k)):((1,T,LBO),(2^B T,SBO))
            (true, _) => nested(mn, &[t, units], &[1, t, lbo]) + nested(k, &[8], &[units * t, sbo]),
            // ((8,m),(T,2k)):((1T,SBO),(1,LBO))
            (false, 0) => nested(mn, &[8], &[t, sbo]) + nested(k, &[t], &[1, lbo]),
            // ((8,m),(T,2k)):((2^B T,SBO),(1,T))
            (false, _) => nested(mn, &[8], &[units * t, sbo]) + nested(k, &[t], &[1, t]),
        };
        let linear = self.start + element * self.bits / 8;
        // The pattern's first row of 128 bytes is that of the base offset.
        let row = (linear / 128 + 8 - self.base) % units;
        linear ^ (row * 16)
    }

    /// The descriptor, without the place of the block's shared memory.
    pub fn descriptor(&self) -> u64 {
        let mode = [0, 3, 2, 1][self.swizzle as usize];
        let field = |bytes: usize| (bytes as u64 & 0x3_FFFF) >> 4;
        field(self.start) | field(self.leading) << 16 | field(self.stride) << 32 | (self.base as u64) << 49 | mode << 62
    }

    /// The end of what it takes of shared memory.
    pub fn end(&self, rows: usize, k: usize) -> usize {
        let all = (0..rows).flat_map(|mn| (0..k).map(move |k| self.address(mn, k)));
        all.max().map_or(0, |last| last + self.bits.div_ceil(8))
    }

    /// Layouts of a matrix of `rows` times `k` elements between `begin` and `end`: every swizzle, compact and with gaps,
    /// also such as begin within a pattern, as the steps of a loop along k do.
    pub fn all(rows: usize, k: usize, bits: usize, mn_major: bool, begin: usize, end: usize) -> Vec<Self> {
        let t = 128 / bits;
        let none = |leading, stride, start| Self { swizzle: 0, mn_major, leading, stride, start, base: 0, bits };
        let mut list = Vec::new();
        // Cores of 128 bytes: `many` along M or N, two along k. Either lie side by side, without and with gaps.
        let many = rows / 8;
        for (leading, stride) in [(128 * many, 128), (128, 256), (144 * many + 48, 144), (160, 320)] {
            list.push(none(leading, stride, begin));
            list.push(none(leading, stride, begin + 16));
        }
        for swizzle in 1..=3 {
            let (width, units) = (16 << swizzle, 1 << swizzle);
            let atom = 8 * width;
            let swizzled = |leading, stride, start| Self { swizzle, ..none(leading, stride, start) };
            if mn_major {
                let atoms = (rows / t).div_ceil(units);
                list.push(swizzled(2 * atom, atom, begin));
                list.push(swizzled(atom, atoms * atom, begin + atom));
                list.push(swizzled(3 * atom, 5 * atom * atoms, begin));
                if rows / t < units {
                    list.push(swizzled(atom, atom, begin + 16));
                }
            } else {
                list.push(swizzled(16, atom, begin));
                list.push(swizzled(16, atom, begin + width - 32));
                list.push(swizzled(16, 2 * atom, begin + atom));
                list.push(swizzled(16, 3 * atom, begin + 32 % width));
            }
        }
        list.retain(|layout| layout.end(rows, k) <= end);
        list
    }
}

/// The element of A in a register: row and column. `thread` is one of the warpgroup's, elements count through its
/// registers. The strides are those of a matrix of 64 rows that is stored column by column.
pub fn a_fragment(bits: usize, thread: usize, element: usize) -> (usize, usize) {
    let index = match bits {
        // ((4,8,4),(2,2,2)):((128,1,16),(64,8,512))
        16 => nested(thread, &[4, 8], &[128, 1, 16]) + nested(element, &[2, 2], &[64, 8, 512]),
        // ((4,8,4),(4,2,2)):((256,1,16),(64,8,1024))
        8 => nested(thread, &[4, 8], &[256, 1, 16]) + nested(element, &[4, 2], &[64, 8, 1024]),
        // ((4,8,4),(2,2)):((64,1,16),(8,256))
        _ => nested(thread, &[4, 8], &[64, 1, 16]) + nested(element, &[2], &[8, 256]),
    };
    (index % 64, index / 64)
}

/// The element of D in a register: ((4,8,4),(2,2,N/8)):((128,1,16),(64,8,512)).
pub fn d_fragment(thread: usize, element: usize) -> (usize, usize) {
    let index = nested(thread, &[4, 8], &[128, 1, 16]) + nested(element, &[2, 2], &[64, 8, 512]);
    (index % 64, index / 64)
}
