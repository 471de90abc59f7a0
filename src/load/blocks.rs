//! Matrices as a file quantises them.

/// How 32 numbers of a row lie in a block of bytes. All of these are llama.cpp's formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockFormat {
    /// A scale d (f16, little-endian) and 16 bytes: the low four bits are the codes of the first 16 numbers, the high four
    /// bits those of the others; a number is `d * (code - 8)`.
    Q4_0,
    /// A scale d and a min m (f16), and codes as in [`BlockFormat::Q4_0`]; a number is `d * code + m`.
    Q4_1,
    /// A scale d (f16) and 32 signed codes of 8 bits; a number is `d * code`.
    Q8_0,
}

impl BlockFormat {
    /// Numbers of a block.
    pub const NUMBERS: usize = 32;

    /// Bytes of a block.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q8_0 => 34,
        }
    }
}

/// A matrix in whole blocks, row after row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizedMatrix {
    /// What a block is.
    pub format: BlockFormat,
    /// Number of rows.
    pub rows: usize,
    /// Numbers of a row, a multiple of [`BlockFormat::NUMBERS`].
    pub cols: usize,
    /// `rows * cols / 32` blocks.
    pub bytes: Vec<u8>,
}
