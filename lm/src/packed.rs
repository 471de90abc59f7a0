//! Matrices of 4- and 8-bit codes, multiplied with one vector at a time: what a model does for every token that it writes.
//!
//! A single token reads every weight once and computes little with it, so what counts are the weights' bytes and how few
//! instructions make numbers of them. The numbers are exact, and the vector stays f32: apart from the order of sums the
//! product is that of the dequantised matrix. Many tokens share what they read, and are better served by dense products.
//!
//! ```text
//! for each tile of 16 rows, one to a lane:            the tiles are divided among the threads
//!     for each group of 32 columns:
//!         dot = sum over its columns of code * x
//!         sums += scale * dot + min * (sum of x in the group)
//! ```

use anyhow::{Result, ensure};
use half::f16;
use latent_attention::load::{BlockFormat, QuantizedMatrix};
use latent_attention::weights::Matrix;
use rayon::prelude::*;

/// Rows of a tile: as many as a register of AVX-512 has lanes.
const ROWS: usize = 16;

/// Columns that share a scale.
const GROUP: usize = BlockFormat::NUMBERS;

/// Bytes of codes that a thread takes at a time: some microseconds' work, many times what it costs to hand it over.
const TASK_BYTES: usize = 1 << 15;

/// Groups ahead of the one that is computed whose memory is asked for: some kilobytes, as much as arrives meanwhile.
const AHEAD: usize = 32;

/// A word of codes for each row of a tile, in one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Words([u32; ROWS]);

/// Bits of an f16 for each row of a tile.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Halves([u16; ROWS]);

/// A matrix of codes, in tiles.
#[derive(Clone, Debug)]
pub struct Packed {
    rows: usize,
    cols: usize,
    /// For each tile and group: 4 or 8 words, of which each holds the codes of 8 or 4 columns, the first lowest. Signed codes
    /// are stored with 128 added.
    words: Vec<Words>,
    /// For each tile and group.
    scales: Vec<Halves>,
    /// As many, of codes of 4 bits; codes of 8 bits have none.
    mins: Vec<Halves>,
}

/// A block of a row: 32 numbers.
struct Block {
    scale: u16,
    min: u16,
    words: [u32; 8],
}

impl Packed {
    /// Packs a matrix as a file quantises it; `None` if that is done in a format that has no product here.
    ///
    /// # Errors
    /// If the bytes are not as many as the format says, or a scale or minimum is not finite.
    pub fn of_blocks(matrix: &QuantizedMatrix) -> Result<Option<Self>> {
        let QuantizedMatrix { format, rows, cols, ref bytes } = *matrix;
        let has_mins = match format {
            BlockFormat::Q4_0 | BlockFormat::Q4_1 => true,
            BlockFormat::Q8_0 => false,
            _ => return Ok(None),
        };
        let groups = cols / GROUP;
        let all = rows * groups * format.bytes();
        ensure!(
            cols.is_multiple_of(GROUP) && bytes.len() == all,
            "{} bytes do not make {rows} rows of {cols} numbers in {format:?}",
            bytes.len()
        );
        let block = |row: usize, group: usize| {
            let bytes = &bytes[(row * groups + group) * format.bytes()..][..format.bytes()];
            let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            match format {
                BlockFormat::Q8_0 => Block { scale: half(0), min: 0, words: words_of_bytes(&bytes[2..]) },
                BlockFormat::Q4_1 => Block { scale: half(0), min: half(2), words: words_of_nibbles(&bytes[4..]) },
                _ => {
                    // Codes of this format are 8 too large; eight times an f16 is one, unless it is beyond all of them.
                    let min = f16::from_f32(-8.0 * f16::from_bits(half(0)).to_f32()).to_bits();
                    Block { scale: half(0), min, words: words_of_nibbles(&bytes[2..]) }
                }
            }
        };
        Self::pack(rows, cols, has_mins, block).map(Some)
    }

    /// Rounds a matrix to codes of 8 bits, 32 columns to a scale: about as much as bf16 would. `None` if its columns do not
    /// come in groups of 32, or a number is beyond what an f16 scale can reach.
    #[must_use]
    pub fn rounded(matrix: &Matrix) -> Option<Self> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        if !cols.is_multiple_of(GROUP) {
            return None;
        }
        let block = |row: usize, group: usize| {
            let numbers = &matrix.data()[row * cols + group * GROUP..][..GROUP];
            let largest = numbers.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            // A number that is not a number makes the scale none either, which `pack` refuses.
            let sum: f32 = numbers.iter().sum();
            let scale = if sum.is_finite() { f16::from_f32(largest / 127.0) } else { f16::NAN };
            let factor = if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
            let mut codes = [0; GROUP];
            for (code, number) in codes.iter_mut().zip(numbers) {
                *code = ((number * factor).round().clamp(-127.0, 127.0) as i8).cast_unsigned();
            }
            Block { scale: scale.to_bits(), min: 0, words: words_of_bytes(&codes) }
        };
        Self::pack(rows, cols, false, block).ok()
    }

    fn pack(rows: usize, cols: usize, has_mins: bool, block: impl Fn(usize, usize) -> Block) -> Result<Self> {
        let (tiles, groups) = (rows.div_ceil(ROWS), cols / GROUP);
        let per_group = if has_mins { 4 } else { 8 };
        let mut words = vec![Words([0; ROWS]); tiles * groups * per_group];
        let mut scales = vec![Halves([0; ROWS]); tiles * groups];
        let mut mins = vec![Halves([0; ROWS]); if has_mins { tiles * groups } else { 0 }];
        for row in 0..rows {
            for group in 0..groups {
                let block = block(row, group);
                let finite = |bits: u16| f16::from_bits(bits).is_finite();
                ensure!(finite(block.scale) && finite(block.min), "row {row} has a scale that is not finite");
                let (place, lane) = (row / ROWS * groups + group, row % ROWS);
                scales[place].0[lane] = block.scale;
                if has_mins {
                    mins[place].0[lane] = block.min;
                }
                for (to, from) in words[place * per_group..][..per_group].iter_mut().zip(block.words) {
                    to.0[lane] = from;
                }
            }
        }
        Ok(Self { rows, cols, words, scales, mins })
    }

    /// Rows and columns.
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// Bytes that a product reads of it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.words) + size_of_val(&*self.scales) + size_of_val(&*self.mins)
    }

    /// The products of several matrices with one vector, on the threads of the pool that the caller is in. Every number is
    /// one thread's, so results do not depend on how many there are.
    ///
    /// # Panics
    /// If a matrix has not as many columns as `x` has numbers.
    #[must_use]
    pub fn apply(matrices: &[&Self], x: &[f32]) -> Vec<Vec<f32>> {
        let (x, _) = x.as_chunks::<GROUP>();
        let sums: Vec<f32> = x.iter().map(|group| group.iter().sum()).collect();
        let mut products: Vec<Vec<[f32; ROWS]>> =
            matrices.iter().map(|matrix| vec![[0.0; ROWS]; matrix.rows.div_ceil(ROWS)]).collect();
        let mut tasks = Vec::new();
        for (matrix, products) in matrices.iter().zip(&mut products) {
            assert_eq!(matrix.cols, x.len() * GROUP, "the vector has another width than the matrix");
            let tile_bytes = matrix.bytes().div_ceil(products.len().max(1)).max(1);
            let tiles = TASK_BYTES.div_ceil(tile_bytes);
            tasks.extend(products.chunks_mut(tiles).enumerate().map(|(i, products)| (*matrix, i * tiles, products)));
        }
        tasks.into_par_iter().for_each(|(matrix, first, products)| {
            pulp::Arch::new().dispatch(Tiles { matrix, first, products, x, sums: &sums });
        });
        let of = |(matrix, products): (&&Self, Vec<[f32; ROWS]>)| {
            let mut numbers = products.into_flattened();
            numbers.truncate(matrix.rows);
            numbers
        };
        matrices.iter().zip(products).map(of).collect()
    }
}

/// The products of some tiles, compiled for every set of instructions: all that it calls is inlined.
struct Tiles<'a> {
    matrix: &'a Packed,
    first: usize,
    products: &'a mut [[f32; ROWS]],
    x: &'a [[f32; GROUP]],
    /// Of each group of `x`.
    sums: &'a [f32],
}

impl pulp::WithSimd for Tiles<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) {
        let Self { matrix, first, products, x, sums } = self;
        let groups = x.len();
        for (tile, product) in products.iter_mut().enumerate() {
            let places = (first + tile) * groups..(first + tile + 1) * groups;
            let scales = &matrix.scales[places.clone()];
            *product = if matrix.mins.is_empty() {
                bytes_times::<S>(&matrix.words.as_chunks::<8>().0[places], scales, x, sums)
            } else {
                let words = &matrix.words.as_chunks::<4>().0[places.clone()];
                nibbles_times::<S>(words, scales, &matrix.mins[places], x, sums)
            };
        }
    }
}

/// A number for each row of a tile.
type Lanes = [f32; ROWS];

/// A tile of 4-bit codes. Four sums run beside each other, since an addition waits for the one before. Which sum a column
/// goes to is written out: of a loop over sums compilers make loads and stores that gather and scatter.
#[inline(always)]
fn nibbles_times<S: pulp::Simd>(
    words: &[[Words; 4]],
    scales: &[Halves],
    mins: &[Halves],
    x: &[[f32; GROUP]],
    sums: &[f32],
) -> Lanes {
    let mut product = [0.0; ROWS];
    for ((((words, scales), mins), x), sum) in words.iter().zip(scales).zip(mins).zip(x).zip(sums) {
        ask_ahead(words);
        ask_ahead(scales);
        ask_ahead(mins);
        let [mut a, mut b, mut c, mut d] = [[0.0; ROWS]; 4];
        for (words, x) in words.iter().zip(x.as_chunks::<8>().0) {
            a = plus::<S, 4, 0>(a, words, x[0]);
            b = plus::<S, 4, 4>(b, words, x[1]);
            c = plus::<S, 4, 8>(c, words, x[2]);
            d = plus::<S, 4, 12>(d, words, x[3]);
            a = plus::<S, 4, 16>(a, words, x[4]);
            b = plus::<S, 4, 20>(b, words, x[5]);
            c = plus::<S, 4, 24>(c, words, x[6]);
            d = plus::<S, 4, 28>(d, words, x[7]);
        }
        for lane in 0..ROWS {
            let dot = (a[lane] + b[lane]) + (c[lane] + d[lane]);
            let scale = 16.0 * widened(scales.0[lane]);
            product[lane] += scale * dot + (widened(mins.0[lane]) - scale) * sum;
        }
    }
    product
}

/// A tile of 8-bit codes.
#[inline(always)]
fn bytes_times<S: pulp::Simd>(words: &[[Words; 8]], scales: &[Halves], x: &[[f32; GROUP]], sums: &[f32]) -> Lanes {
    let mut product = [0.0; ROWS];
    for (((words, scales), x), sum) in words.iter().zip(scales).zip(x).zip(sums) {
        ask_ahead(words);
        ask_ahead(scales);
        let [mut a, mut b, mut c, mut d] = [[0.0; ROWS]; 4];
        for (words, x) in words.iter().zip(x.as_chunks::<4>().0) {
            a = plus::<S, 8, 0>(a, words, x[0]);
            b = plus::<S, 8, 8>(b, words, x[1]);
            c = plus::<S, 8, 16>(c, words, x[2]);
            d = plus::<S, 8, 24>(d, words, x[3]);
        }
        for lane in 0..ROWS {
            // The codes are 128 too large, half of 256.
            let dot = (a[lane] + b[lane]) + (c[lane] + d[lane]);
            product[lane] += 256.0 * widened(scales.0[lane]) * (dot - 1.5 * sum);
        }
    }
    product
}

/// `sums + (1 + code / 2^BITS) * x`, of the codes of `BITS` bits that begin at a bit of the words. A code becomes a number as
/// the first bits of the mantissa behind a one, which takes a shift and a mask; whoever sums up takes the ones away again.
#[inline(always)]
fn plus<S: pulp::Simd, const BITS: u32, const BEGIN: u32>(mut sums: Lanes, words: &Words, x: f32) -> Lanes {
    const ONE: u32 = 1f32.to_bits();
    let (end, mask) = (BEGIN + BITS, ((1 << BITS) - 1) << (23 - BITS));
    for (sum, word) in sums.iter_mut().zip(words.0) {
        let moved = if end > 23 { word >> (end - 23) } else { word << (23 - end) };
        let number = f32::from_bits((moved & mask) | ONE);
        // Sets of instructions with registers of several lanes have a fused product; without one it would be a call.
        *sum = if S::F32_LANES > 1 { number.mul_add(x, *sum) } else { number * x + *sum };
    }
    sums
}

/// Asks for the memory of what stands [`AHEAD`] places behind this one, in an array or behind its end. Left to themselves,
/// CPUs fetch too few lines at a time to keep such a stream going.
#[inline(always)]
fn ask_ahead<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of::<T>()).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = std::ptr::from_ref(place).wrapping_add(AHEAD).cast::<i8>().wrapping_add(line);
        // SAFETY: a hint, which any address may be given to: nothing is read.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// A finite f16 as f32, exactly: its bits where those of an f32 would be, and the difference of the exponents' biases, 112.
#[inline(always)]
fn widened(bits: u16) -> f32 {
    const BIAS: f32 = f32::from_bits((127 + 112) << 23);
    let bits = u32::from(bits);
    f32::from_bits(((bits & 0x8000) << 16) | ((bits & 0x7fff) << 13)) * BIAS
}

/// Words of 32 signed codes of 8 bits, four to a word, with 128 added.
fn words_of_bytes(codes: &[u8]) -> [u32; 8] {
    let mut words = [0; 8];
    for (word, codes) in words.iter_mut().zip(codes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*codes) ^ 0x8080_8080;
    }
    words
}

/// Words of 32 codes of 4 bits, eight to a word, of which the file has the first 16 in the low halves of 16 bytes and the
/// others in the high halves.
fn words_of_nibbles(bytes: &[u8]) -> [u32; 8] {
    let mut words = [0; 8];
    for (i, &byte) in bytes[..GROUP / 2].iter().enumerate() {
        words[i / 8] |= u32::from(byte & 15) << (4 * (i % 8));
        words[2 + i / 8] |= u32::from(byte >> 4) << (4 * (i % 8));
    }
    words
}

#[cfg(test)]
#[path = "packed_tests.rs"]
mod tests;
