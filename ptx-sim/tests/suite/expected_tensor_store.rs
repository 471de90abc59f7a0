//! What tensor copies and reductions from shared to global memory make of boxes.
//!
//! Blocks must not meet: the last dimension of each tensor is the number of the block, whose rows of `out` lie there.

use half::{bf16, f16};
use ptx_sim::tensor_map::{DataType, Swizzle, Tiled};

use crate::cases::{Case, Map};
use crate::exactly::Exactly;
use crate::inputs::Random;
use crate::tensor::{THREADS, TILE, Task, WORDS, bytes, elements, rows};

const FILE: &str = "tensor_store_90";

/// A tensor of each block's rows, whose shape along all dimensions but the last is given.
fn tensor(ty: DataType, dims: &[u64], strides: &[u64], sizes: &[u32], blocks: u64) -> Tiled {
    let strides: Vec<u64> = strides.iter().copied().chain([TILE as u64]).collect();
    Tiled::new(ty, 0, &[dims, &[blocks]].concat(), &strides[strides.len() - dims.len()..], &[sizes, &[1]].concat())
}

/// One box for each block, by turns of the maps. It begins at the tensor's first element, or anywhere, or beyond the end.
fn tasks(tensors: &[Tiled], blocks: usize, behind: usize) -> Vec<Task> {
    let mut random = Random(0x57_0123_4567_89AB);
    let mut task = |block: usize| {
        let map = block % tensors.len();
        let tiled = &tensors[map];
        let last = tiled.global_dim.len() - 1;
        let mut corner = [0; 5];
        for (d, corner) in corner.iter_mut().enumerate().take(last) {
            let dim = tiled.global_dim[d];
            *corner = match block / tensors.len() {
                0 => 0,
                1 => dim as i32 - 1,
                2 => dim as i32,
                3 => i32::MAX,
                _ => (random.next() % (dim + 1)) as i32,
            };
        }
        corner[last] = block as i32;
        let places = (TILE - bytes(tiled)) / 128;
        Task { corner, bytes: bytes(tiled), map, to: 128 * (behind + block % 8).min(places) }
    };
    (0..blocks).map(&mut task).collect()
}

/// Every word of `out`, which is `old` where no box of `tasks` lies.
fn written(
    tensors: &[Tiled],
    rows: &[Vec<u64>],
    old: &[u8],
    change: impl Fn(DataType, &[u8], &[u8]) -> Vec<u8>,
) -> Vec<Vec<u64>> {
    let array: Vec<u8> = rows.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
    let mut out = old.to_vec();
    for (block, tile) in rows.chunks(THREADS).zip(array.chunks(TILE)) {
        let task = Task::of(&block[0]);
        let tiled = &tensors[task.map];
        let size = tiled.data_type.size().unwrap();
        for element in elements(tiled, &task.corner, task.to) {
            if let Some(at) = element.global {
                let new = change(tiled.data_type, &out[at..at + size], &tile[element.shared..][..size]);
                out[at..at + size].copy_from_slice(&new);
            }
        }
    }
    let words: Vec<u64> = out.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    words.chunks(WORDS).map(<[u64]>::to_vec).collect()
}

fn stores(kernel: &str, instruction: &str, tensors: Vec<Tiled>, blocks: usize) -> Case {
    let rows = rows(&tasks(&tensors, blocks, 0));
    let maps = tensors.iter().map(|tiled| Map { output: true, tiled: tiled.clone() }).collect();
    let expected =
        move |rows: &[Vec<u64>]| written(&tensors, rows, &vec![0; rows.len() * 8 * WORDS], |_, _, new| new.to_vec());
    Case { maps, ..Case::all(FILE, kernel, instruction, WORDS, rows, expected) }
}

/// A single dimension has no room for the block: boxes lie far apart, and the last ones end behind the tensor.
fn lines() -> Case {
    const BLOCKS: usize = 24;
    let line = |ty: DataType, short: u64, size: u32| {
        let all = (BLOCKS * TILE / ty.size().unwrap()) as u64;
        Tiled::new(ty, 0, &[all - short], &[], &[size])
    };
    let tensors = vec![
        line(DataType::U8, 3050, 256),
        line(DataType::F16, 2, 64).with_swizzle(Swizzle::B128),
        line(DataType::S32, 1, 16).with_swizzle(Swizzle::B64),
        line(DataType::F64, 5, 4).with_swizzle(Swizzle::B32),
    ];
    let task = |block: usize| {
        let tiled = &tensors[block % tensors.len()];
        let (size, boxes) = (tiled.data_type.size().unwrap(), TILE / bytes(tiled));
        // The last box of the block's part of `out`, of which little lies inside.
        let corner = (TILE * block + bytes(tiled) * (boxes - 1 - block % 2)) / size;
        Task {
            corner: [corner as i32, 0, 0, 0, 0],
            bytes: bytes(tiled),
            map: block % tensors.len(),
            to: 128 * (block % 8),
        }
    };
    let rows = rows(&(0..BLOCKS).map(task).collect::<Vec<_>>());
    let case = stores("store_1d", "cp.async.bulk.tensor.1d.global.shared::cta.bulk_group", tensors, BLOCKS);
    Case { rows, ..case }
}

/// The kernel writes the block's rows into `out`, the last one first, before it reduces. The first row, which says what
/// the block does, takes no part.
fn reduces(operation: &'static str, kernel: &str, types: [DataType; 4], number: fn(DataType, u64) -> u64) -> Case {
    const BLOCKS: usize = 24;
    let shape = |ty: DataType| {
        let wide = 128 / ty.size().unwrap() as u32;
        let tiled = tensor(ty, &[u64::from(wide) * 5 / 4, 40], &[192], &[wide, 30], BLOCKS as u64);
        tiled.with_swizzle(Swizzle::B128)
    };
    let tensors: Vec<Tiled> = types.map(shape).to_vec();
    let mut rows = rows(&tasks(&tensors, BLOCKS, 1));
    for (i, row) in rows.iter_mut().enumerate().filter(|(i, _)| i % THREADS != 0) {
        let (ty, bits) = (types[i / THREADS % 4], 8 * types[i / THREADS % 4].size().unwrap());
        for word in row {
            let element = |at: usize| number(ty, *word >> at & u64::MAX >> (64 - bits)) << at;
            *word = (0..64).step_by(bits).map(element).fold(0, |word, element| word | element);
        }
    }
    let maps = tensors.iter().map(|tiled| Map { output: true, tiled: tiled.clone() }).collect();
    let expected = move |rows: &[Vec<u64>]| {
        let before = rows.chunks(THREADS).flat_map(|block| block.iter().rev().flatten());
        let before: Vec<u8> = before.flat_map(|word| word.to_le_bytes()).collect();
        written(&tensors, rows, &before, |ty, old, new| reduced(operation, ty, old, new))
    };
    let instruction = format!("cp.reduce.async.bulk.tensor.3d.global.shared::cta.{operation}");
    Case { maps, ..Case::all(FILE, kernel, &instruction, WORDS, rows, expected) }
}

/// An element reduced by another.
fn reduced(operation: &str, ty: DataType, old: &[u8], new: &[u8]) -> Vec<u8> {
    let size = old.len();
    let bits = |bytes: &[u8]| bytes.iter().rev().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
    let (old, new) = (bits(old), bits(new));
    let order = match ty {
        DataType::S32 => (old as i32).cmp(&(new as i32)),
        DataType::S64 => (old as i64).cmp(&(new as i64)),
        DataType::F16 | DataType::Bf16 | DataType::F32 => value(ty, old).partial_cmp(&value(ty, new)).unwrap(),
        _ => old.cmp(&new),
    };
    let result = match operation {
        "add" if ty == DataType::F16 || ty == DataType::Bf16 || ty == DataType::F32 => {
            let sum = Exactly::sum(value(ty, old), value(ty, new)).odd();
            match ty {
                DataType::F16 => f16::from_f64(sum).to_bits().into(),
                DataType::Bf16 => bf16::from_f64(sum).to_bits().into(),
                _ => (sum as f32).to_bits().into(),
            }
        }
        "add" => (u128::from(old) + u128::from(new)) as u64,
        "min" => {
            if order.is_gt() {
                new
            } else {
                old
            }
        }
        "max" => {
            if order.is_lt() {
                new
            } else {
                old
            }
        }
        "inc" => {
            if old < new {
                old + 1
            } else {
                0
            }
        }
        "dec" => {
            if old == 0 || old > new {
                new
            } else {
                old - 1
            }
        }
        "and" => old & new,
        "or" => old | new,
        _ => old ^ new,
    };
    result.to_le_bytes()[..size].to_vec()
}

fn value(ty: DataType, bits: u64) -> f64 {
    match ty {
        DataType::F16 => f16::from_bits(bits as u16).to_f64(),
        DataType::Bf16 => bf16::from_bits(bits as u16).to_f64(),
        _ => f32::from_bits(bits as u32).into(),
    }
}

/// Any bits.
fn any(_: DataType, bits: u64) -> u64 {
    bits
}

/// Numbers around each other, so that each direction of counting occurs.
fn near(_: DataType, bits: u64) -> u64 {
    bits % 5
}

/// Finite numbers, not zero: sums overflow at most in f16. Exponents of f32 lie together, so that sums are no subnormals.
fn finite(ty: DataType, bits: u64) -> u64 {
    match ty {
        DataType::F16 => {
            if bits & 0x7C00 == 0x7C00 {
                bits ^ 0x4000
            } else {
                bits | 1
            }
        }
        DataType::Bf16 => bits & 0x87FF | 0x3801,
        _ => bits & 0x87FF_FFFF | 0x3800_0001,
    }
}

pub fn cases() -> Vec<Case> {
    use DataType::{Bf16, F16, F32, F64, S32, S64, U8, U16, U32, U64};
    let three = |blocks| {
        vec![
            tensor(F16, &[100, 30], &[256], &[64, 20], blocks).with_swizzle(Swizzle::B128),
            tensor(U16, &[40, 60], &[112], &[32, 37], blocks).with_swizzle(Swizzle::B64),
            tensor(F32, &[9, 99], &[64], &[8, 50], blocks).with_swizzle(Swizzle::B32),
            tensor(U8, &[61, 80], &[96], &[80, 63], blocks).with_element_strides(&[1, 4, 1]),
        ]
    };
    let mut cases = vec![
        lines(),
        stores(
            "store_2d",
            "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group",
            vec![
                tensor(F16, &[1000], &[], &[64], 40).with_swizzle(Swizzle::B128),
                tensor(S32, &[1001], &[], &[16], 40).with_swizzle(Swizzle::B64),
                tensor(F64, &[1002], &[], &[4], 40).with_swizzle(Swizzle::B32),
                tensor(U8, &[300], &[], &[256], 40),
            ],
            40,
        ),
        stores("store_3d", "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group", three(40), 40),
        stores(
            "store_4d",
            "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group",
            vec![
                tensor(Bf16, &[70, 7, 6], &[144, 1024], &[64, 4, 4], 40).with_swizzle(Swizzle::B128),
                tensor(U32, &[17, 6, 5], &[80, 480], &[16, 5, 7], 40).with_swizzle(Swizzle::B64),
                tensor(S64, &[3, 9, 8], &[32, 288], &[4, 9, 9], 40).with_swizzle(Swizzle::B32),
                tensor(U64, &[6, 9, 8], &[48, 432], &[4, 9, 8], 40).with_element_strides(&[1, 2, 3, 1]),
            ],
            40,
        ),
        stores(
            "store_5d",
            "cp.async.bulk.tensor.5d.global.shared::cta.bulk_group",
            vec![
                tensor(F32, &[33, 3, 4, 3], &[144, 432, 1728], &[32, 2, 2, 4], 40).with_swizzle(Swizzle::B128),
                tensor(U8, &[64, 4, 3, 2], &[64, 256, 768], &[64, 3, 3, 3], 40).with_swizzle(Swizzle::B64),
                tensor(F16, &[15, 4, 3, 5], &[32, 128, 384], &[16, 3, 3, 2], 40).with_swizzle(Swizzle::B32),
                tensor(S32, &[7, 5, 3, 3], &[32, 160, 480], &[4, 4, 4, 4], 40).with_element_strides(&[1, 3, 2, 1, 1]),
            ],
            40,
        ),
        stores(
            "store_hint",
            "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group.L2::cache_hint",
            three(16),
            16,
        ),
    ];
    let (integers, words) = ([U32, S32, U64, S64], [U32; 4]);
    cases.extend([
        // There are no sums of s64.
        reduces("add", "reduce_add", [U32, S32, U64, U64], any),
        reduces("min", "reduce_min", integers, any),
        reduces("max", "reduce_max", integers, any),
        reduces("inc", "reduce_inc", words, near),
        reduces("dec", "reduce_dec", words, near),
        reduces("and", "reduce_and", integers, any),
        reduces("or", "reduce_or", integers, any),
        reduces("xor", "reduce_xor", integers, any),
        reduces("add", "reduce_add_float", [F16, Bf16, F32, F16], finite),
        reduces("min", "reduce_min_float", [F16, Bf16, F16, Bf16], finite),
        reduces("max", "reduce_max_float", [F16, Bf16, F16, Bf16], finite),
    ]);
    cases
}
