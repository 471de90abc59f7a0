//! A box of a tensor: which of its elements lie where in global memory, and where in shared memory (PTX ISA 5.5.3 and
//! 5.5.7).
//!
//! In shared memory the elements that a box takes lie one behind the other, dimension 0 fastest. A swizzle then lets
//! 16-byte chunks change places within 32, 64 or 128 bytes, by the bits of the *address* above: a box that begins in the
//! middle of the pattern continues it.

use crate::tensor_map::{DataType, MOST_DIMENSIONS, OobFill, Swizzle, Tiled};

/// Bytes that a swizzle keeps together.
const CHUNK: usize = 16;

/// A box at its place in a tensor.
pub(super) struct TensorBox<'a> {
    map: &'a Tiled,
    /// Bytes of an element.
    element: u64,
    /// Coordinates of the first element; 0 for dimensions that the tensor lacks.
    corner: [i64; MOST_DIMENSIONS],
    /// Elements taken along each dimension; 1 for dimensions that the tensor lacks.
    counts: [u64; MOST_DIMENSIONS],
}

/// The elements of a box that differ in dimension 0 alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Bytes of the box in front of the row.
    pub start: usize,
    /// Bytes at the row's beginning that lie outside of the tensor.
    pub before: usize,
    /// Bytes behind them that lie inside.
    pub inside: usize,
    /// Where the first byte inside lies in global memory.
    pub address: u64,
}

impl<'a> TensorBox<'a> {
    /// The box that a map describes, at the given coordinates, one for each dimension of the tensor.
    pub fn new(map: &'a Tiled, coordinates: &[i32]) -> Self {
        let (mut corner, mut counts) = ([0; MOST_DIMENSIONS], [1; MOST_DIMENSIONS]);
        corner.iter_mut().zip(coordinates).for_each(|(corner, &coordinate)| *corner = coordinate.into());
        for (i, (count, &length)) in counts.iter_mut().zip(&map.box_dim).enumerate() {
            *count = u64::from(length).div_ceil(step(map, i));
        }
        // Packed types have no size, and no map.
        Self { map, element: map.data_type.size().unwrap_or(1) as u64, corner, counts }
    }

    /// Bytes of all its elements, those outside of the tensor included: what an `mbarrier` is told. At most 2^43.
    pub fn bytes(&self) -> u64 {
        self.element * self.counts.iter().product::<u64>()
    }

    /// Its rows, as they lie in shared memory.
    pub fn rows(&self) -> impl Iterator<Item = Row> + use<'_> {
        let row = self.element * self.counts[0];
        // The part of dimension 0 that lies inside is the same for all rows.
        let (first, end) = (self.corner[0], self.corner[0] + self.counts[0] as i64);
        let length = i64::try_from(self.map.global_dim[0]).unwrap_or(i64::MAX);
        let (from, to) = (first.clamp(0, length), end.clamp(0, length));
        let inside = (to - from) as u64 * self.element;
        let before = if inside == 0 { 0 } else { (from - first) as u64 * self.element };
        (0..self.counts[1..].iter().product::<u64>()).map(move |number| {
            let outer = self.outer(number);
            let address = outer.map(|offset| self.address(offset + u128::from(from as u64 * self.element)));
            Row {
                start: (number * row) as usize,
                before: if address.is_some() { before as usize } else { 0 },
                inside: if address.is_some() { inside as usize } else { 0 },
                address: address.unwrap_or(0),
            }
        })
    }

    /// Offset in global memory of a row's place along the dimensions above 0; `None` outside of the tensor.
    fn outer(&self, number: u64) -> Option<u128> {
        let (mut rest, mut offset) = (number, 0);
        for dimension in 1..self.map.rank() {
            let index = rest % self.counts[dimension];
            rest /= self.counts[dimension];
            let coordinate = self.corner[dimension] + (index * step(self.map, dimension)) as i64;
            let inside = u64::try_from(coordinate).ok().filter(|&at| at < self.map.global_dim[dimension])?;
            offset += u128::from(inside) * u128::from(self.map.global_strides[dimension - 1]);
        }
        Some(offset)
    }

    /// The address of a byte of the tensor. One beyond all addresses becomes the last, where nothing can lie.
    fn address(&self, offset: u128) -> u64 {
        u64::try_from(u128::from(self.map.global_address) + offset).unwrap_or(u64::MAX)
    }

    /// What a load puts where the tensor ends: a row of the box of nothing else.
    pub fn fill(&self) -> Vec<u8> {
        let element = match self.map.oob_fill {
            OobFill::Zeros => 0,
            OobFill::Nan => nan(self.map.data_type),
        };
        element.to_le_bytes()[..self.element as usize].repeat(self.counts[0] as usize)
    }

    /// Whether loaded elements become others.
    pub fn converts(&self) -> bool {
        matches!(self.map.data_type, DataType::F32Ftz | DataType::Tf32 | DataType::Tf32Ftz)
    }

    /// What becomes of elements that are loaded: subnormals are flushed, f32 is rounded to tf32.
    pub fn convert(&self, bytes: &mut [u8]) {
        let (flush, round) = match self.map.data_type {
            DataType::F32Ftz => (true, false),
            DataType::Tf32 => (false, true),
            DataType::Tf32Ftz => (true, true),
            _ => return,
        };
        for word in bytes.as_chunks_mut::<4>().0 {
            let mut bits = u32::from_le_bytes(*word);
            if flush && f32::from_bits(bits).is_subnormal() {
                bits &= 1 << 31;
            }
            *word = if round { to_tf32(bits) } else { bits }.to_le_bytes();
        }
    }

    /// Exchanges chunks as the map's swizzle does: makes of the box's bytes in order those that lie in shared memory
    /// from `address` on, a multiple of 128, and the other way round.
    pub fn swizzle(&self, address: u64, bytes: &[u8]) -> Vec<u8> {
        let Some(span) = self.map.swizzle.span().filter(|_| self.map.swizzle != Swizzle::None) else {
            return bytes.to_vec();
        };
        let chunks = bytes.as_chunks::<CHUNK>().0;
        // Bits from 7 on choose, and bits from 4 on within the span are changed, so that a second time undoes the first.
        let partner = |chunk: usize| {
            let at = address + (CHUNK * chunk) as u64;
            ((at ^ at >> 3 & (span - CHUNK as u64)) - address) as usize / CHUNK
        };
        (0..chunks.len()).flat_map(|chunk| chunks[partner(chunk)]).collect()
    }
}

/// The element stride of a dimension; there is none in dimension 0.
fn step(map: &Tiled, dimension: usize) -> u64 {
    match dimension {
        0 => 1,
        _ => map.element_strides[dimension].into(),
    }
}

/// The canonical NaN of a type (PTX ISA 9.7.3), for which the ISA has a NaN of unnamed bits (5.5.3.3).
fn nan(ty: DataType) -> u64 {
    match ty {
        DataType::F64 => 0x7FFF_FFFF_FFFF_FFFF,
        DataType::F16 | DataType::Bf16 => 0x7FFF,
        _ => 0x7FFF_FFFF,
    }
}

/// An f32 rounded to tf32, whose lowest 13 bits are zeros; to nearest even, as PTX ISA 5.5.1 has it for tensors.
fn to_tf32(bits: u32) -> u32 {
    if f32::from_bits(bits).is_nan() {
        return 0x7FFF_E000;
    }
    // A carry out of the fraction counts the exponent up, to infinity at last.
    (bits + 0xFFF + (bits >> 13 & 1)) & !0x1FFF
}
