//! Quantised blocks to numbers, on all cores: from the bytes as they lie in the file straight into the tensor.

use std::num::NonZero;
use std::sync::LazyLock;
use std::thread;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::k_quants::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, GgmlType,
};
use half::{bf16, f16};

/// Numbers that are dequantised at a time: where rows are reordered, these 64 KiB wait in a core's L2 cache meanwhile.
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
        for (row, out) in head.chunks_exact_mut(self.row_len).enumerate() {
            out.copy_from_slice(&file[self.place(row) * self.row_len..][..self.row_len]);
        }
    }

    /// The same of all heads, whose rows are `row` bytes.
    pub fn undone(self, file: &[u8], row: usize) -> Vec<u8> {
        let heads = file.chunks_exact(self.head_dim * row);
        heads
            .flat_map(|head| (0..self.head_dim).flat_map(move |i| &head[self.place(i) * row..][..row]))
            .copied()
            .collect()
    }

    /// Where the file has a row of a head.
    fn place(self, row: usize) -> usize {
        let half = self.head_dim / 2;
        2 * (row % half) + row / half
    }
}

/// Why numbers cannot be had of a tensor's bytes.
type Refusal = &'static str;

/// Dequantises `len` numbers, which `bytes` hold in whole blocks of `dtype`, aligned as the file format asks.
///
/// # Errors
/// Says why a type is not dequantised.
pub(super) fn dequantize(
    dtype: GgmlDType,
    bytes: &[u8],
    len: usize,
    reordered: Option<Reordered>,
) -> Result<Vec<f32>, Refusal> {
    let (block, convert) = (dtype.block_size(), conversion(dtype)?);
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
        populate(numbers);
        let Some(rows) = reordered else { return convert(bytes, numbers) };
        let mut file = Vec::new();
        numbers.chunks_mut(piece).zip(bytes.chunks(piece_bytes)).try_for_each(|(numbers, bytes)| {
            file.resize(numbers.len(), 0.0);
            convert(bytes, &mut file)?;
            let heads = numbers.chunks_exact_mut(rows.head_len()).zip(file.chunks_exact(rows.head_len()));
            heads.for_each(|(head, file)| rows.undo(file, head));
            Ok(())
        })
    };
    thread::scope(|scope| {
        let own = work.next();
        let others: Vec<_> = work.map(|share| scope.spawn(move || fill(share))).collect();
        own.map_or(Ok(()), fill)?;
        others.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(numbers)
}

/// Asks Linux for memory in one call: page faults, one for each 4 KiB, would take longer than dequantising. Where a
/// kernel does not know the call (before 5.14), and elsewhere, the faults come as ever.
#[cfg_attr(not(target_os = "linux"), expect(unused_variables))]
fn populate(numbers: &mut [f32]) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: only asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(1 << 12);
        let range = numbers.as_mut_ptr_range();
        let skipped = range.start.addr().next_multiple_of(page) - range.start.addr();
        let whole_pages = size_of_val(numbers).saturating_sub(skipped) / page * page;
        if whole_pages > 0 {
            // SAFETY: these pages lie inside the slice, which is borrowed mutably, and the call changes none of their
            // bytes. That it may fail does not matter.
            unsafe { libc::madvise(range.start.byte_add(skipped).cast(), whole_pages, libc::MADV_POPULATE_WRITE) };
        }
    }
}

/// Makes numbers of whole blocks.
type Conversion = fn(&[u8], &mut [f32]) -> Result<(), Refusal>;

fn conversion(dtype: GgmlDType) -> Result<Conversion, Refusal> {
    Ok(match dtype {
        GgmlDType::F32 => to_float::<f32>,
        GgmlDType::F16 => to_float::<f16>,
        GgmlDType::BF16 => to_float::<bf16>,
        GgmlDType::Q4_0 => to_float::<BlockQ4_0>,
        GgmlDType::Q4_1 => to_float::<BlockQ4_1>,
        GgmlDType::Q5_0 => to_float::<BlockQ5_0>,
        GgmlDType::Q5_1 => to_float::<BlockQ5_1>,
        GgmlDType::Q8_0 => to_float::<BlockQ8_0>,
        GgmlDType::Q2K => to_float::<BlockQ2K>,
        GgmlDType::Q3K => to_float::<BlockQ3K>,
        GgmlDType::Q4K => to_float::<BlockQ4K>,
        GgmlDType::Q5K => to_float::<BlockQ5K>,
        GgmlDType::Q6K => to_float::<BlockQ6K>,
        GgmlDType::Q8_1 | GgmlDType::Q8K => return Err("a type of intermediate results"),
    })
}

/// candle's dequantisation of one of the block types above.
fn to_float<B: GgmlType>(bytes: &[u8], numbers: &mut [f32]) -> Result<(), Refusal> {
    // SAFETY: the types above are numbers, or `repr(C)` structures of numbers without padding: any bytes are one.
    match unsafe { bytes.align_to::<B>() } {
        ([], blocks, []) if blocks.len() * B::BLCK_SIZE == numbers.len() => {
            B::to_float(blocks, numbers);
            Ok(())
        }
        _ => Err("not whole blocks on their alignment"),
    }
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
    fn types_of_intermediate_results_and_broken_blocks_are_refused() {
        assert!(dequantize(GgmlDType::Q8K, &[0; 292], 256, None).is_err());
        assert!(dequantize(GgmlDType::Q8_1, &[0; 36], 32, None).is_err());
        assert!(dequantize(GgmlDType::F32, &[0; 6], 2, None).is_err());
        let words = [0.0f32; 3];
        // SAFETY: bytes of numbers, of which nothing is asked.
        let (_, bytes, _) = unsafe { words.align_to::<u8>() };
        assert!(dequantize(GgmlDType::F32, &bytes[1..9], 2, None).is_err());
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
