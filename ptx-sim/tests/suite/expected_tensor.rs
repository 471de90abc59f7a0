//! What tensor copies from global to shared memory make of boxes.

use half::{bf16, f16};
use ptx_sim::tensor_map::{DataType, OobFill, Swizzle, Tiled};

use crate::cases::{Case, Map};
use crate::inputs::Random;
use crate::tensor::{THREADS, TILE, Task, WORDS, bytes, elements, give, rows};

const FILE: &str = "tensor_copy_90";

/// Corners around the edges of a tensor, and random ones.
fn corners(tiled: &Tiled, count: usize, random: &mut Random) -> Vec<[i32; 5]> {
    let rank = tiled.global_dim.len();
    let mut around = |choice: usize| {
        let mut corner = [0; 5];
        for (d, corner) in corner.iter_mut().enumerate().take(rank) {
            let (dim, width) = (tiled.global_dim[d] as i32, tiled.box_dim[d] as i32);
            *corner = match choice {
                0 => 0,
                1 => -1,
                2 => dim - 1,
                3 => dim - width,
                4 => -width,
                5 => dim,
                6 => i32::MIN,
                7 => i32::MAX,
                _ => (random.next() % (dim + 2 * width) as u64) as i32 - width,
            };
        }
        corner
    };
    (0..count).map(&mut around).collect()
}

/// A case that loads boxes by `maps`, each of them `count` times, the tile as `given` of its bytes gives it back.
fn loads(kernel: &str, instruction: &str, tensors: Vec<Tiled>, count: usize) -> Case {
    let mut random = Random(0x5EED_0000_0000_0001 + kernel.len() as u64);
    let mut tasks = Vec::new();
    for (map, tiled) in tensors.iter().enumerate() {
        for (i, corner) in corners(tiled, count, &mut random).into_iter().enumerate() {
            // The box begins at each place of the swizzle's pattern.
            let to = 128 * (i % 8).min((TILE - bytes(tiled)) / 128);
            tasks.push(Task { corner, bytes: bytes(tiled), map, to });
        }
    }
    let maps = tensors.iter().map(|tiled| Map { output: false, tiled: tiled.clone() }).collect();
    let expected = move |rows: &[Vec<u64>]| {
        let array: Vec<u8> = rows.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
        let block = |block: &[Vec<u64>]| {
            let task = Task::of(&block[0]);
            let mut tile = tile();
            load(&tensors[task.map], &task, &array, &mut tile);
            give(&tile)
        };
        rows.chunks(THREADS).flat_map(block).collect()
    };
    Case { maps, ..Case::all(FILE, kernel, instruction, WORDS, rows(&tasks), expected) }
}

/// The tile as it is before a copy.
fn tile() -> Vec<u8> {
    (0..TILE).map(|at| (at / 8 % WORDS) as u8).collect()
}

/// Puts the elements of a box into the tile.
fn load(tiled: &Tiled, task: &Task, array: &[u8], tile: &mut [u8]) {
    let size = tiled.data_type.size().unwrap();
    for element in elements(tiled, &task.corner, task.to) {
        let target = &mut tile[element.shared..][..size];
        match element.global {
            Some(at) => target.copy_from_slice(&converted(tiled.data_type, &array[at..at + size])),
            None if tiled.oob_fill == OobFill::Nan => target.fill(0xFF),
            None => target.fill(0),
        }
    }
}

/// An element as it is in shared memory. Of the two neighbours in tf32 the nearer one counts, or the even one.
fn converted(ty: DataType, bytes: &[u8]) -> Vec<u8> {
    let flush = matches!(ty, DataType::F32Ftz | DataType::Tf32Ftz);
    let round = matches!(ty, DataType::Tf32 | DataType::Tf32Ftz);
    if !flush && !round {
        return bytes.to_vec();
    }
    let mut value = f32::from_le_bytes(bytes.try_into().unwrap());
    if flush && value.is_subnormal() {
        value = 0f32.copysign(value);
    }
    if round && value.is_finite() {
        let below = f32::from_bits(value.to_bits() & !0x1FFF);
        let above = f32::from_bits(below.to_bits() + 0x2000);
        // Behind the largest number lies 2^128, which overflows.
        let next = if above.is_infinite() { 2f64.powi(128).copysign(above.into()) } else { above.into() };
        let (down, up) = ((f64::from(value) - f64::from(below)).abs(), (next - f64::from(value)).abs());
        let even = below.to_bits() & 0x2000 == 0;
        value = if down < up || (down == up && even) { below } else { above };
    }
    value.to_le_bytes().to_vec()
}

/// Shapes for the kernel of each rank: 32768 bytes and more lie in `in` with 8 blocks of 4 maps.
fn ranked() -> Vec<Case> {
    use DataType::{Bf16, F16, F32, F64, S32, S64, U8, U16, U32, U64};
    let t = |ty, address, dims: &[u64], strides: &[u64], sizes: &[u32]| Tiled::new(ty, address, dims, strides, sizes);
    vec![
        loads(
            "load_1d",
            "cp.async.bulk.tensor.1d",
            vec![
                t(U8, 16, &[5000], &[], &[256]),
                t(F16, 0, &[777], &[], &[64]).with_swizzle(Swizzle::B128),
                t(S32, 32, &[1001], &[], &[16]).with_swizzle(Swizzle::B64),
                t(F64, 48, &[101], &[], &[4]).with_swizzle(Swizzle::B32),
            ],
            24,
        ),
        loads(
            "load_2d",
            "cp.async.bulk.tensor.2d",
            vec![
                t(F16, 0, &[100, 50], &[208], &[64, 40]).with_swizzle(Swizzle::B128),
                t(U8, 64, &[333, 40], &[352], &[64, 17]).with_swizzle(Swizzle::B64).with_element_strides(&[1, 3]),
                t(F32, 16, &[31, 77], &[128], &[8, 25]).with_swizzle(Swizzle::B32),
                t(U64, 0, &[20, 30], &[160], &[10, 11]).with_element_strides(&[7, 2]),
            ],
            32,
        ),
        loads(
            "load_3d",
            "cp.async.bulk.tensor.3d",
            vec![
                t(Bf16, 0, &[64, 9, 7], &[128, 1168], &[64, 5, 3]).with_swizzle(Swizzle::B128),
                t(U16, 0, &[50, 11, 5], &[112, 1232], &[32, 4, 4]).with_swizzle(Swizzle::B64),
                t(U32, 0, &[9, 9, 9], &[48, 432], &[8, 3, 5])
                    .with_swizzle(Swizzle::B32)
                    .with_element_strides(&[1, 2, 3]),
                t(U8, 0, &[17, 13, 11], &[32, 416], &[32, 8, 8]),
            ],
            24,
        ),
        loads(
            "load_4d",
            "cp.async.bulk.tensor.4d",
            vec![
                t(S64, 0, &[16, 5, 4, 3], &[128, 640, 2560], &[16, 3, 2, 2]).with_swizzle(Swizzle::B128),
                t(F16, 0, &[40, 3, 4, 5], &[80, 240, 960], &[32, 2, 3, 4]).with_swizzle(Swizzle::B64),
                // The strides' order is not that of the dimensions, and rows overlap.
                t(F32, 0, &[8, 6, 5, 4], &[512, 32, 16], &[8, 5, 4, 3]).with_swizzle(Swizzle::B32),
                t(U8, 0, &[16, 4, 4, 4], &[16, 64, 256], &[16, 4, 4, 4]).with_element_strides(&[1, 8, 2, 3]),
            ],
            24,
        ),
        loads(
            "load_5d",
            "cp.async.bulk.tensor.5d",
            vec![
                t(F16, 0, &[64, 3, 3, 3, 2], &[128, 384, 1152, 3456], &[64, 2, 2, 3, 2]).with_swizzle(Swizzle::B128),
                t(U8, 0, &[64, 2, 3, 4, 5], &[64, 128, 384, 1536], &[64, 2, 2, 2, 4]).with_swizzle(Swizzle::B64),
                t(F64, 0, &[5, 2, 3, 2, 4], &[48, 96, 288, 576], &[4, 2, 2, 2, 3]).with_swizzle(Swizzle::B32),
                t(S32, 0, &[7, 5, 4, 3, 2], &[32, 160, 640, 1920], &[4, 4, 3, 3, 3])
                    .with_element_strides(&[1, 2, 1, 2, 1]),
            ],
            24,
        ),
    ]
}

/// A 2-dimensional tensor for each map, of which this is one.
fn flat() -> Vec<Tiled> {
    let tensor = Tiled::new(DataType::F16, 0, &[100, 50], &[208], &[64, 20]).with_swizzle(Swizzle::B128);
    (0..4).map(|i| Tiled { global_address: 64 * i, ..tensor.clone() }).collect()
}

fn converting() -> Case {
    let ty = |ty| Tiled::new(ty, 64, &[31, 100], &[128], &[32, 20]).with_swizzle(Swizzle::B128);
    let types = [DataType::F32, DataType::F32Ftz, DataType::Tf32, DataType::Tf32Ftz];
    let case = loads("load_converted", "cp.async.bulk.tensor.2d", types.map(ty).to_vec(), 12);
    // Numbers of all kinds in place of random bits; no NaN, whose bits are nobody's business.
    let edges: [u32; 16] = [
        0x0000_0001,
        0x8000_0FFF,
        0x0000_1000,
        0x007F_FFFF,
        0x807F_E000,
        0x0080_0000,
        0x3F80_1000,
        0x3F80_3000,
        0x3F80_1001,
        0x3F80_0FFF,
        0x7F7F_EFFF,
        0x7F7F_F000,
        0xFF7F_FFFF,
        0x7F80_0000,
        0xFF80_0000,
        0x8000_0000,
    ];
    let mut random = Random(0xF32_F32);
    let rows = case.rows.iter().enumerate().map(|(i, row)| match i % THREADS {
        0 => row.clone(),
        _ => {
            let mut number = || match random.next() {
                choice if choice % 3 == 0 => edges[(choice >> 8) as usize % 16],
                choice => Some((choice >> 32) as u32).filter(|bits| !f32::from_bits(*bits).is_nan()).unwrap_or(0),
            };
            (0..WORDS).map(|_| u64::from(number()) | u64::from(number()) << 32).collect()
        }
    });
    Case { rows: rows.collect(), ..case }
}

/// The kernel gives NaNs back as ones, those of the tensor too.
fn not_numbers() -> Case {
    let tensor = |ty: DataType| {
        let (size, span) = (ty.size().unwrap() as u32, 128);
        let tiled = Tiled::new(ty, 0, &[90, 30], &[720], &[span / size, 12]);
        tiled.with_swizzle(Swizzle::B128).with_oob_fill(OobFill::Nan)
    };
    let types = [DataType::F16, DataType::Bf16, DataType::F32, DataType::F64];
    let case = loads("load_nan", "cp.async.bulk.tensor.2d", types.map(tensor).to_vec(), 16);
    let copied = case.expected;
    let expected = move |rows: &[Vec<u64>]| {
        let mut results = copied(rows);
        for (i, row) in results.iter_mut().enumerate() {
            let ty = types[Task::of(&rows[i / THREADS * THREADS]).map];
            row.iter_mut().for_each(|word| *word = ones_for_nans(ty, *word));
        }
        results
    };
    Case { expected: Box::new(expected), ..case }
}

fn ones_for_nans(ty: DataType, word: u64) -> u64 {
    let bits = 8 * ty.size().unwrap() as u32;
    (0..64).step_by(bits as usize).fold(0, |result, at| {
        let value = word >> at & u64::MAX >> (64 - bits);
        let nan = match ty {
            DataType::F16 => f16::from_bits(value as u16).is_nan(),
            DataType::Bf16 => bf16::from_bits(value as u16).is_nan(),
            DataType::F32 => f32::from_bits(value as u32).is_nan(),
            _ => f64::from_bits(value).is_nan(),
        };
        result | if nan { u64::MAX >> (64 - bits) } else { value } << at
    })
}

/// Pairs of blocks: each loads a box, and both get both.
fn multicast() -> Case {
    let tensors = flat();
    let mut random = Random(0xC1_05_7E_12);
    let size = bytes(&tensors[0]);
    let corners = corners(&tensors[0], 24, &mut random);
    let task = |(i, corner): (usize, [i32; 5])| Task {
        corner,
        bytes: 2 * size,
        map: i % 4,
        to: i % 2 * 4096 + i / 2 % 3 * 128,
    };
    let tasks: Vec<Task> = corners.into_iter().enumerate().map(task).collect();
    let maps = tensors.iter().map(|tiled| Map { output: false, tiled: tiled.clone() }).collect();
    let expected = move |rows: &[Vec<u64>]| {
        let array: Vec<u8> = rows.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
        let pair = |pair: &[Vec<u64>]| {
            let mut tile = tile();
            for block in pair.chunks(THREADS) {
                let task = Task::of(&block[0]);
                load(&tensors[task.map], &task, &array, &mut tile);
            }
            [give(&tile), give(&tile)].concat()
        };
        rows.chunks(2 * THREADS).flat_map(pair).collect()
    };
    let instruction = "mbarrier::complete_tx::bytes.multicast::cluster";
    Case { maps, ..Case::all(FILE, "load_multicast", instruction, WORDS, rows(&tasks), expected) }
}

/// Kernels that copy their rows, and prefetch.
fn prefetches() -> Vec<Case> {
    let line = Tiled::new(DataType::F32, 0, &[1000], &[], &[64]);
    let cube = Tiled::new(DataType::U8, 0, &[64, 2, 3, 4, 5], &[64, 128, 384, 1536], &[64, 2, 2, 2, 4]);
    let kernels = [
        ("prefetch_1d", "cp.async.bulk.prefetch.tensor.1d", line),
        ("prefetch_5d", "cp.async.bulk.prefetch.tensor.5d", cube),
        ("prefetch_hint", "cp.async.bulk.prefetch.tensor.2d", flat().remove(0)),
        ("prefetch_map", "prefetch.tensormap", flat().remove(0)),
    ];
    let case = |(kernel, instruction, tiled): (&str, &str, Tiled)| {
        let case = loads(kernel, instruction, vec![tiled; 4], 8);
        Case { expected: Box::new(<[Vec<u64>]>::to_vec), ..case }
    };
    kernels.into_iter().map(case).collect()
}

pub fn cases() -> Vec<Case> {
    let mut cases = ranked();
    for (kernel, instruction) in [
        ("load_own", "cp.async.bulk.tensor.2d.shared::cta.global.tile.mbarrier::complete_tx::bytes"),
        ("load_hint", "mbarrier::complete_tx::bytes.L2::cache_hint"),
        ("load_written_map", "fence.proxy.tensormap::generic.acquire.gpu"),
    ] {
        cases.push(loads(kernel, instruction, flat(), 12));
    }
    cases.extend([converting(), not_numbers(), multicast()]);
    cases.extend(prefetches());
    cases
}
