//! Boxes of tensors, element by element: where an element lies in global memory is counted from its coordinates, and where
//! in shared memory is looked up in the ISA's tables of swizzles (PTX ISA 5.5.7). And what the kernels of
//! `suite/tensor.h` are told.

use ptx_sim::tensor_map::{Swizzle, Tiled};

use crate::inputs::Random;

/// Words of a row, threads of a block and bytes of a block's tile in shared memory.
pub const WORDS: usize = 8;
pub const THREADS: usize = 128;
pub const TILE: usize = 8 * WORDS * THREADS;

/// The rows of the ISA's tables: the numbers of the 16-byte chunks that come to lie in 128 bytes, pattern for pattern.
const SWIZZLE_32: [[usize; 8]; 2] = [[0, 1, 2, 3, 4, 5, 6, 7], [1, 0, 3, 2, 5, 4, 7, 6]];
const SWIZZLE_64: [[usize; 8]; 4] =
    [[0, 1, 2, 3, 4, 5, 6, 7], [1, 0, 3, 2, 5, 4, 7, 6], [2, 3, 0, 1, 6, 7, 4, 5], [3, 2, 1, 0, 7, 6, 5, 4]];
const SWIZZLE_128: [[usize; 8]; 8] = [
    [0, 1, 2, 3, 4, 5, 6, 7],
    [1, 0, 3, 2, 5, 4, 7, 6],
    [2, 3, 0, 1, 6, 7, 4, 5],
    [3, 2, 1, 0, 7, 6, 5, 4],
    [4, 5, 6, 7, 0, 1, 2, 3],
    [5, 4, 7, 6, 1, 0, 3, 2],
    [6, 7, 4, 5, 2, 3, 0, 1],
    [7, 6, 5, 4, 3, 2, 1, 0],
];

/// Where a byte comes to lie that would lie at `address` without a swizzle.
fn swizzled(swizzle: Swizzle, address: usize) -> usize {
    let table: &[[usize; 8]] = match swizzle {
        Swizzle::None => return address,
        Swizzle::B32 => &SWIZZLE_32,
        Swizzle::B64 => &SWIZZLE_64,
        _ => &SWIZZLE_128,
    };
    let (line, chunk, byte) = (address / 128, address / 16 % 8, address % 16);
    let place = table[line % table.len()].iter().position(|&lies| lies == chunk).unwrap();
    128 * line + 16 * place + byte
}

/// An element of a box: where it lies in its array, or `None` outside of the tensor, and where in the tile.
pub struct Element {
    pub global: Option<usize>,
    pub shared: usize,
}

/// All elements of the box at `corner`, which begins `to` bytes behind the tile's beginning.
pub fn elements(tiled: &Tiled, corner: &[i32], to: usize) -> Vec<Element> {
    let (rank, size) = (tiled.global_dim.len(), tiled.data_type.size().unwrap());
    let steps = |d: usize| if d == 0 { 1 } else { tiled.element_strides[d] as usize };
    let mut found = Vec::new();
    let mut index = vec![0; rank];
    loop {
        let at = |d: usize| i64::from(corner[d]) + (index[d] * steps(d)) as i64;
        let inside = (0..rank).all(|d| at(d) >= 0 && (at(d) as u64) < tiled.global_dim[d]);
        let stride = |d: usize| if d == 0 { size as u64 } else { tiled.global_strides[d - 1] };
        let global = (0..rank).map(|d| at(d) * stride(d) as i64).sum::<i64>() + tiled.global_address as i64;
        let shared = swizzled(tiled.swizzle, to + found.len() * size);
        found.push(Element { global: inside.then_some(global as usize), shared });
        let Some(next) = (0..rank).find(|&d| (index[d] + 1) * steps(d) < tiled.box_dim[d] as usize) else { break };
        index[next] += 1;
        index[..next].fill(0);
    }
    found
}

/// Bytes of a box.
pub fn bytes(tiled: &Tiled) -> usize {
    elements(tiled, &[0; 5], 0).len() * tiled.data_type.size().unwrap()
}

/// What a block does: the first row of its rows.
#[derive(Clone, Copy)]
pub struct Task {
    pub corner: [i32; 5],
    pub bytes: usize,
    pub map: usize,
    pub to: usize,
}

impl Task {
    pub fn row(&self) -> Vec<u64> {
        let numbers = [self.bytes as u64, self.map as u64, self.to as u64];
        self.corner.iter().map(|&c| u64::from(c as u32)).chain(numbers).collect()
    }

    pub fn of(row: &[u64]) -> Self {
        let corner = std::array::from_fn(|i| row[i] as i32);
        Self { corner, bytes: row[5] as usize, map: row[6] as usize, to: row[7] as usize }
    }
}

/// Rows for `tasks`, one block each, which are random but for the first of each block.
pub fn rows(tasks: &[Task]) -> Vec<Vec<u64>> {
    let mut random = Random(0x7E45_0123_89AB_CDEF);
    let mut row = || (0..WORDS).map(|_| random.next()).collect::<Vec<u64>>();
    let block = |task: &Task| (0..THREADS).map(|i| if i == 0 { task.row() } else { row() }).collect::<Vec<_>>();
    tasks.iter().flat_map(block).collect()
}

/// A tile as rows of results.
pub fn give(tile: &[u8]) -> Vec<Vec<u64>> {
    let words: Vec<u64> = tile.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    words.chunks(WORDS).map(<[u64]>::to_vec).collect()
}
