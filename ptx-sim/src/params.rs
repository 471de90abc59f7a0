//! A kernel's parameter block.

/// A kernel's parameter block, laid out as C lays out a struct: each value at the next multiple of its alignment.
///
/// ```
/// use ptx_sim::Params;
///
/// // __global__ void k(unsigned char flag, float *x, unsigned n, float2 scale)
/// let scale = [1.0f32.to_le_bytes(), 2.0f32.to_le_bytes()].concat();
/// let params = Params::new().u8(1).pointer(0x7000_0000_0000).u32(5).bytes_aligned(&scale, 8);
/// assert_eq!(params.bytes().len(), 32);
/// assert_eq!(params.bytes()[8..16], 0x7000_0000_0000u64.to_le_bytes());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    bytes: Vec<u8>,
}

macro_rules! numbers {
    ($($ty:ident)*) => { $(
        #[doc = concat!("The same with one more parameter of type `", stringify!($ty), "`.")]
        #[must_use]
        pub fn $ty(self, value: $ty) -> Self {
            self.bytes_aligned(&value.to_le_bytes(), size_of::<$ty>())
        }
    )* };
}

impl Params {
    /// An empty block.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with the address of an allocation.
    #[must_use]
    pub fn pointer(self, address: u64) -> Self {
        self.u64(address)
    }

    numbers! { u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 }

    /// The same with a value of any other type, as a struct or an array has it in memory.
    ///
    /// # Panics
    /// If `align` is not a power of two.
    #[must_use]
    pub fn bytes_aligned(mut self, bytes: &[u8], align: usize) -> Self {
        assert!(align.is_power_of_two(), "an alignment of {align}");
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The block, for [`Machine::launch`](crate::Machine::launch).
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_at_multiples_of_their_alignment() {
        let params = Params::new().u8(0x11).u16(0x2222).i8(-1).f32(1.0).u8(0x33).i64(-2).i16(3).f64(2.0).u8(4);
        let mut wanted = vec![0x11, 0, 0x22, 0x22, 0xFF, 0, 0, 0, 0, 0, 0x80, 0x3F, 0x33, 0, 0, 0];
        wanted.extend((-2i64).to_le_bytes());
        wanted.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        wanted.extend(2.0f64.to_le_bytes());
        wanted.push(4);
        assert_eq!(params.bytes(), wanted);
    }

    #[test]
    fn there_is_no_padding_at_the_end_and_none_in_front_of_bytes() {
        let params = Params::new().u32(7).bytes_aligned(&[1, 2, 3], 1).bytes_aligned(&[4; 4], 16).i32(-1).u64(5);
        let wanted = [&[7, 0, 0, 0, 1, 2, 3][..], &[0; 9], &[4; 4], &[0xFF; 4], &[5, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(params.bytes(), wanted);
        assert!(Params::new().bytes().is_empty());
    }
}
