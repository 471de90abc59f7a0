//! The warp-specialised product: whole numbers, whose sums f32 holds exactly in whatever order they are added, rounded to
//! bf16 once.

use half::bf16;
use ptx_sim::tensor_map::{DataType, Swizzle, Tiled};

use crate::cases::{Case, Map};
use crate::inputs::Random;

/// D = A B^T, A of `M` rows and B of `N` rows of `K`.
const M: usize = 256;
const N: usize = 256;
const K: usize = 512;

/// Rows and columns of a block's tile; it has three warpgroups.
const TILE: usize = 128;
const THREADS: usize = 384;

/// Words of a thread's row of operands and of results, so that the matrices fit in.
const BLOCKS: usize = (M / TILE) * (N / TILE);
const INPUT: usize = ((M + N) * K / 4).div_ceil(BLOCKS * THREADS);
const OUTPUT: usize = (M * N / 4).div_ceil(BLOCKS * THREADS);

/// Stages, results and objects, as the kernel has them.
const MEMORY: usize = 4 * 4 * 8192 + 4 * 8192 + 2 * 4 * 8;

/// Matrices behind each other, four elements in a word, cut into rows.
fn packed(values: &[f32], words: usize) -> Vec<Vec<u64>> {
    let mut bits: Vec<u64> = values.iter().map(|value| bf16::from_f32(*value).to_bits().into()).collect();
    bits.resize(4 * words * BLOCKS * THREADS, 0);
    let all: Vec<u64> = bits.chunks(4).map(|four| four.iter().rev().fold(0, |word, bits| word << 16 | bits)).collect();
    all.chunks(words).map(<[u64]>::to_vec).collect()
}

fn unpacked(rows: &[Vec<u64>]) -> Vec<f32> {
    let bits = rows.iter().flatten().flat_map(|word| (0..4).map(move |i| (word >> (16 * i)) as u16));
    bits.map(|bits| bf16::from_bits(bits).to_f32()).collect()
}

fn product(rows: &[Vec<u64>]) -> Vec<Vec<u64>> {
    let values = unpacked(rows);
    let (a, b) = (&values[..M * K], &values[M * K..(M + N) * K]);
    let mut result = Vec::new();
    for a in a.chunks(K) {
        for b in b.chunks(K) {
            let sum: i64 = a.iter().zip(b).map(|(x, y)| *x as i64 * *y as i64).sum();
            // At most 512 products of at most 64: exact in f32, and rounded to nearest even by the conversion.
            result.push(sum as f32);
        }
    }
    packed(&result, OUTPUT)
}

pub fn cases() -> Vec<Case> {
    let mut random = Random(0x6E33_0000_0000_0001);
    let values: Vec<f32> = (0..(M + N) * K).map(|_| (random.next() % 17) as f32 - 8.0).collect();
    let map = |output: bool, first: usize, rows: usize, columns: usize, box_rows: u32| Map {
        output,
        tiled: Tiled {
            swizzle: Swizzle::B128,
            ..Tiled::new(
                DataType::Bf16,
                2 * first as u64,
                &[columns as u64, rows as u64],
                &[2 * columns as u64],
                &[64, box_rows],
            )
        },
    };
    let maps = vec![map(false, 0, M, K, 128), map(false, M * K, N, K, 64), map(true, 0, M, N, 64)];
    let instruction = "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16";
    let case = Case::all("gemm_90", "gemm", instruction, OUTPUT, packed(&values, INPUT), product);
    vec![Case { threads: THREADS as u32, dynamic_shared: MEMORY, maps, ..case }]
}
