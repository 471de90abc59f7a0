//! The bytes of a tensor map, as the simulator has them.
//!
//! | Bytes | |
//! |---|---|
//! | 0..8 | the mark |
//! | 8..16 | checksum of the bytes behind it |
//! | 16..24 | data type, rank, interleave, swizzle, L2 promotion, fill, 0, 0 |
//! | 24..32 | global address |
//! | 32..52 | global dimensions, each less 1 |
//! | 52..84 | global strides |
//! | 84..94 | box dimensions |
//! | 94..99 | element strides |
//! | 99..128 | zeros |
//!
//! Numbers are little-endian; those of dimensions that the tensor lacks are zeros.

use super::types::{DataType, Interleave, L2Promotion, OobFill, Swizzle};
use super::{MOST_DIMENSIONS, TENSOR_MAP_BYTES, Tiled};

const MARK: [u8; 8] = *b"ptxsimTM";

/// FNV-1a of 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

/// Reads numbers one behind the other.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    /// The next number, of `N` bytes; `None` behind the end.
    fn next<const N: usize>(&mut self) -> Option<u64> {
        let (number, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(number.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// As many numbers of `N` bytes as there is room for, of which the first `count` are wanted.
    fn list<const N: usize>(&mut self, room: usize, count: usize) -> Option<Vec<u64>> {
        let numbers: Option<Vec<u64>> = (0..room).map(|_| self.next::<N>()).collect();
        numbers.map(|mut numbers| {
            numbers.truncate(count);
            numbers
        })
    }
}

/// The variant of an enumeration that has a number.
fn variant<T: Copy>(all: &[T], number: u64) -> Option<T> {
    all.get(usize::try_from(number).ok()?).copied()
}

impl Tiled {
    /// The bytes of a tensor map that was checked.
    pub(super) fn to_bytes(&self) -> [u8; TENSOR_MAP_BYTES] {
        let mut fields = Vec::with_capacity(TENSOR_MAP_BYTES);
        let mut put = |value: u64, bytes: usize| fields.extend_from_slice(&value.to_le_bytes()[..bytes]);
        put(self.data_type as u64, 1);
        put(self.rank() as u64, 1);
        put(self.interleave as u64, 1);
        put(self.swizzle as u64, 1);
        put(self.l2_promotion as u64, 1);
        put(self.oob_fill as u64, 1);
        put(0, 2);
        put(self.global_address, 8);
        // A dimension may have 2^32 elements, which is one too many for four bytes.
        (0..MOST_DIMENSIONS).for_each(|i| put(self.global_dim.get(i).map_or(0, |dim| dim - 1), 4));
        (0..MOST_DIMENSIONS - 1).for_each(|i| put(self.global_strides.get(i).copied().unwrap_or(0), 8));
        (0..MOST_DIMENSIONS).for_each(|i| put(self.box_dim.get(i).copied().unwrap_or(0).into(), 2));
        (0..MOST_DIMENSIONS).for_each(|i| put(self.element_strides.get(i).copied().unwrap_or(0).into(), 1));
        fields.resize(TENSOR_MAP_BYTES - 16, 0);
        let mut bytes = [0; TENSOR_MAP_BYTES];
        bytes[..8].copy_from_slice(&MARK);
        bytes[8..16].copy_from_slice(&checksum(&fields).to_le_bytes());
        bytes[16..].copy_from_slice(&fields);
        bytes
    }

    /// What the bytes say, if they are marked as a tensor map and unchanged. The values are not checked.
    pub(super) fn from_bytes(bytes: &[u8; TENSOR_MAP_BYTES]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MARK)?;
        let mut reader = Reader { rest };
        let sum = reader.next::<8>()?;
        if sum != checksum(reader.rest) {
            return None;
        }
        let data_type = variant(&DataType::ALL, reader.next::<1>()?)?;
        let rank = usize::try_from(reader.next::<1>()?).ok().filter(|rank| (1..=MOST_DIMENSIONS).contains(rank))?;
        let interleave = variant(&[Interleave::None, Interleave::B16, Interleave::B32], reader.next::<1>()?)?;
        let swizzle = variant(&[Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128], reader.next::<1>()?)?;
        let promotions = [L2Promotion::None, L2Promotion::B64, L2Promotion::B128, L2Promotion::B256];
        let l2_promotion = variant(&promotions, reader.next::<1>()?)?;
        let oob_fill = variant(&[OobFill::Zeros, OobFill::Nan], reader.next::<1>()?)?;
        reader.next::<2>()?;
        let narrow = |numbers: Vec<u64>| numbers.into_iter().map(|number| number as u32).collect();
        Some(Self {
            data_type,
            global_address: reader.next::<8>()?,
            global_dim: reader.list::<4>(MOST_DIMENSIONS, rank)?.into_iter().map(|dim| dim + 1).collect(),
            global_strides: reader.list::<8>(MOST_DIMENSIONS - 1, rank - 1)?,
            box_dim: narrow(reader.list::<2>(MOST_DIMENSIONS, rank)?),
            element_strides: narrow(reader.list::<1>(MOST_DIMENSIONS, rank)?),
            interleave,
            swizzle,
            l2_promotion,
            oob_fill,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tiled() -> impl Strategy<Value = Tiled> {
        let numbers = (0..13usize, 0..4u64, 0..2usize, any::<u64>());
        let lists = (1..=MOST_DIMENSIONS).prop_flat_map(|rank| {
            (
                prop::collection::vec(1..=1u64 << 32, rank),
                prop::collection::vec((0..1u64 << 36).prop_map(|stride| stride * 16), rank - 1),
                prop::collection::vec(1..=16u32, rank),
                prop::collection::vec(1..=8u32, rank),
            )
        });
        (numbers, lists).prop_map(|((ty, promotion, fill, address), (dims, strides, mut sizes, steps))| {
            let data_type = DataType::ALL[ty];
            sizes[0] *= 16;
            let promotions = [L2Promotion::None, L2Promotion::B64, L2Promotion::B128, L2Promotion::B256];
            Tiled::new(data_type, address & !15, &dims, &strides, &sizes)
                .with_element_strides(&steps)
                .with_l2_promotion(promotions[promotion as usize])
                .with_oob_fill(if data_type.is_float() && fill == 1 { OobFill::Nan } else { OobFill::Zeros })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_map_says_what_it_was_made_of(tiled in tiled()) {
            prop_assert_eq!(Tiled::decode(tiled.encode().unwrap().bytes()), Some(tiled));
        }

        #[test]
        fn a_changed_map_is_none(tiled in tiled(), at in 0..TENSOR_MAP_BYTES, bits in 1..=255u8) {
            let mut bytes = *tiled.encode().unwrap().bytes();
            bytes[at] ^= bits;
            prop_assert_eq!(Tiled::decode(&bytes), None);
        }

        /// Nobody makes such bytes by accident, but a kernel may: what is decoded could have been encoded.
        #[test]
        fn changes_under_a_right_checksum_are_checked(tiled in tiled(), at in 16..TENSOR_MAP_BYTES, byte in any::<u8>()) {
            let mut bytes = *tiled.encode().unwrap().bytes();
            bytes[at] = byte;
            let sum = checksum(&bytes[16..]);
            bytes[8..16].copy_from_slice(&sum.to_le_bytes());
            prop_assert!(Tiled::decode(&bytes).is_none_or(|decoded| decoded.encode().is_ok()));
        }
    }
}
