//! Quantised blocks to numbers, on all cores: from the bytes as they lie in the file straight into the tensor.

use std::borrow::Cow;
use std::num::NonZero;
use std::sync::LazyLock;
use std::thread;

use candle_core::quantized::GgmlDType;
use candle_core::{CpuStorage, Result};

/// Numbers that are dequantised at a time. candle makes a vector of its own of each piece; one that stays in a core's
/// L2 cache, as these 64 KiB do, costs little next to the first touch of the tensor's memory.
const PIECE: usize = 1 << 14;

/// Numbers below which a thread takes longer to start than to do its share.
const PER_THREAD: usize = 1 << 17;

/// Cores that this process may use. Asking takes as long as dequantising a small tensor does.
static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, NonZero::get));

/// The rows of a Llama model's query or key heads, which llama.cpp's converter reorders for its interleaved rotation.
#[derive(Clone, Copy)]
pub(super) struct Reordered {
    /// Rows of one head, an even number.
    pub head_dim: usize,
    /// Numbers in a row.
    pub row_len: usize,
}

impl Reordered {
    fn head_len(self) -> usize {
        self.head_dim * self.row_len
    }

    /// Brings the rows of one head from interleaved pairs back to half-split order: row `2i + j` of the file is row
    /// `j*head_dim/2 + i`.
    fn undo(self, file: &[f32], head: &mut [f32]) {
        let half = self.head_dim / 2;
        for (row, out) in head.chunks_exact_mut(self.row_len).enumerate() {
            let from = 2 * (row % half) + row / half;
            out.copy_from_slice(&file[from * self.row_len..][..self.row_len]);
        }
    }
}

/// Dequantises `len` numbers, which `bytes` hold in whole blocks of `dtype`, aligned as the file format asks.
pub(super) fn dequantize(dtype: GgmlDType, bytes: &[u8], len: usize, reordered: Option<Reordered>) -> Result<Vec<f32>> {
    let block = dtype.block_size();
    // Pieces are whole blocks, and whole heads where rows are reordered within heads.
    let unit = match reordered.map_or(1, Reordered::head_len) {
        head_len if head_len.is_multiple_of(block) => head_len,
        head_len => head_len * block,
    };
    let piece = unit * (PIECE / unit).max(1);
    let piece_bytes = piece / block * dtype.type_size();
    let threads = (*CORES).min(len / PER_THREAD).max(1);
    let share = len.div_ceil(piece).div_ceil(threads);

    // Zeros of this size come from the system untouched: each page is first written by the thread that fills it.
    let mut numbers = vec![0.0; len];
    let mut work = numbers.chunks_mut(share * piece).zip(bytes.chunks(share * piece_bytes));
    let fill = |(numbers, bytes): (&mut [f32], &[u8])| {
        let mut pieces = numbers.chunks_mut(piece).zip(bytes.chunks(piece_bytes));
        pieces.try_for_each(|(numbers, bytes)| fill_piece(dtype, bytes, numbers, reordered))
    };
    thread::scope(|scope| {
        let own = work.next();
        let others: Vec<_> = work.map(|share| scope.spawn(move || fill(share))).collect();
        own.map_or(Ok(()), fill)?;
        others.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(numbers)
}

fn fill_piece(dtype: GgmlDType, bytes: &[u8], numbers: &mut [f32], reordered: Option<Reordered>) -> Result<()> {
    let CpuStorage::F32(file) = dtype.from_data(Cow::Borrowed(bytes)).dequantize(numbers.len())? else {
        return Err(candle_core::Error::Msg("is not dequantised to f32".into()));
    };
    match reordered {
        None => numbers.copy_from_slice(&file),
        Some(rows) => {
            let heads = numbers.chunks_exact_mut(rows.head_len()).zip(file.chunks_exact(rows.head_len()));
            heads.for_each(|(head, file)| rows.undo(file, head));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::QTensor;
    use candle_core::{Device, Tensor};

    use super::*;

    /// Blocks of `len` numbers, and the numbers as candle dequantises them in one go.
    fn blocks(dtype: GgmlDType, len: usize) -> (Vec<u8>, Vec<f32>) {
        let data: Vec<f32> = (0..len).map(|i| (i as f32 * 0.37).sin() * (i % 7) as f32).collect();
        let tensor = Tensor::from_vec(data, len, &Device::Cpu).expect("a tensor");
        let quantized = QTensor::quantize(&tensor, dtype).expect("quantised");
        let numbers = quantized.dequantize(&Device::Cpu).and_then(|tensor| tensor.to_vec1()).expect("numbers");
        (quantized.data().expect("bytes").into_owned(), numbers)
    }

    #[test]
    fn pieces_and_threads_give_the_numbers_that_candle_gives_at_once() {
        use GgmlDType::*;
        for dtype in [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K] {
            let block = dtype.block_size();
            for len in [block, PIECE - block, PIECE + block, 3 * PER_THREAD + block, 8 * PER_THREAD] {
                let (bytes, expected) = blocks(dtype, len);
                let read = dequantize(dtype, &bytes, len, None).expect("numbers");
                assert!(read == expected, "{len} numbers of {dtype:?}");
            }
        }
    }

    #[test]
    fn reordered_rows_come_back_whatever_the_sizes_of_heads_and_blocks() {
        for (dtype, heads, head_dim, row_len) in [
            (GgmlDType::F32, 4, 8, 1), // a bias
            (GgmlDType::F32, 3, 6, 5),
            (GgmlDType::Q4_1, 9, 64, 576),
            (GgmlDType::Q4K, 5, 128, 1024), // a head is larger than a piece
            (GgmlDType::Q4K, 16, 64, 1),    // a block holds rows of several heads
        ] {
            let (bytes, file) = blocks(dtype, heads * head_dim * row_len);
            let mut expected = vec![0.0; file.len()];
            for (row, numbers) in file.chunks(row_len).enumerate() {
                let (head, row) = (row / head_dim, row % head_dim);
                let target = head * head_dim + row % 2 * (head_dim / 2) + row / 2;
                expected[target * row_len..][..row_len].copy_from_slice(numbers);
            }
            let read = dequantize(dtype, &bytes, file.len(), Some(Reordered { head_dim, row_len })).expect("numbers");
            assert!(read == expected, "{heads} heads of {head_dim} rows of {row_len} numbers, {dtype:?}");
        }
    }
}
