//! Clusters of 4 blocks of 64 threads, and what their blocks see of each other (PTX ISA 9.7.13.3, 9.7.9.23-24, 10.11-17).

use crate::cases::Case;
use crate::inputs::Element::{I32, I64};
use crate::inputs::random_rows;

const FILE: &str = "cluster_90";
const THREADS: usize = 64;
pub const BLOCKS: usize = 4;
/// Rows of two clusters.
pub const ROWS: usize = 2 * BLOCKS * THREADS;

/// A kernel whose results are a function of its cluster's rows, by rank and thread.
pub fn case(
    file: &'static str,
    kernel: &str,
    instruction: &str,
    outputs: usize,
    rows: Vec<Vec<u64>>,
    f: impl Fn(&[&[Vec<u64>]], usize, usize) -> Vec<u64> + std::panic::RefUnwindSafe + 'static,
) -> Case {
    let expected = move |rows: &[Vec<u64>]| {
        let cluster = |rows: &[Vec<u64>]| {
            let blocks: Vec<&[Vec<u64>]> = rows.chunks(THREADS).collect();
            (0..BLOCKS * THREADS).map(|i| f(&blocks, i / THREADS, i % THREADS)).collect::<Vec<_>>()
        };
        rows.chunks(BLOCKS * THREADS).flat_map(cluster).collect()
    };
    let case = Case::all(file, kernel, instruction, outputs, rows, expected);
    Case { threads: THREADS as u32, cluster: BLOCKS as u32, ..case }
}

fn rings(list: &mut Vec<Case>) {
    for (kernel, instruction) in [
        ("ring_aligned", "barrier.cluster.wait.acquire.aligned"),
        ("ring_unaligned", "barrier.cluster.wait;"),
        ("ring_relaxed", "barrier.cluster.arrive.relaxed.aligned"),
        ("ring_generic", "mapa.u64"),
    ] {
        list.push(case(FILE, kernel, instruction, 1, random_rows(&[I64], ROWS), |blocks, rank, thread| {
            vec![blocks[(rank + 1) % BLOCKS][thread][0]]
        }));
    }
}

fn accesses(list: &mut Vec<Case>) {
    list.push(case(
        FILE,
        "widths",
        "st.shared::cluster.v4.b32",
        11,
        random_rows(&[I64; 2], ROWS),
        |blocks, rank, thread| {
            let row = &blocks[rank][thread];
            let bytes: Vec<u8> = row.iter().flat_map(|word| word.to_le_bytes()).collect();
            let number = |at: usize, size: usize| {
                bytes[at..at + size].iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
            };
            let narrow = |value: i64| u64::from(value as u32);
            vec![
                number(1, 1),
                narrow((number(2, 1) as i8).into()),
                number(4, 2),
                narrow((number(6, 2) as i16).into()),
                number(8, 2),
                number(12, 4),
                number(0, 4),
                number(4, 4),
                number(0, 8),
                number(8, 8),
                number(10, 2),
            ]
        },
    ));
    list.push(case(FILE, "all_to_all", "ld.shared::cluster.u64", 1, random_rows(&[I64], ROWS), |blocks, _, thread| {
        let word = |rank: usize| blocks[rank][(thread + rank) % THREADS][0].wrapping_mul(rank as u64 + 1);
        vec![(0..BLOCKS).map(word).fold(0, u64::wrapping_add)]
    }));
}

fn atomics(list: &mut Vec<Case>) {
    // Below 2^55, so that the sum of 256 values does not wrap, and what an atomic returned is at most the total.
    let mut rows = random_rows(&[I64], ROWS);
    rows.iter_mut().for_each(|row| row[0] >>= 9);
    list.push(case(FILE, "atomics", "red.shared::cluster.add.noftz.f16x2", 10, rows, |blocks, _, _| {
        let all: Vec<u64> = blocks.iter().flat_map(|rows| rows.iter().map(|row| row[0])).collect();
        let words: Vec<u32> = all.iter().map(|value| *value as u32).collect();
        // `inc` counts from 0 to 100 and begins again.
        let turns = all.len() as u64 % 101;
        vec![
            words.iter().fold(0u32, |sum, x| sum.wrapping_add(*x)).into(),
            (*words.iter().min().unwrap()).into(),
            (*words.iter().max().unwrap()).into(),
            words.iter().fold(0, |bits, x| bits ^ x).into(),
            turns,
            all.len() as u64,
            all.iter().sum(),
            u64::from(half::f16::from_f32(all.len() as f32).to_bits()) * 0x1_0001,
            1,
            1,
        ]
    }));
    list.push(case(
        FILE,
        "lock",
        "atom.acquire.cluster.shared::cluster.cas",
        1,
        random_rows(&[I32], ROWS),
        |blocks, _, _| vec![blocks.iter().fold(0u32, |sum, rows| sum.wrapping_add(rows[0][0] as u32)).into()],
    ));
}

fn places(list: &mut Vec<Case>) {
    list.push(case(FILE, "addresses", "getctarank.u64", 5, random_rows(&[I32], ROWS), |blocks, own, thread| {
        let bit = blocks[own][thread][0] & 1;
        let ranks = (0..BLOCKS as u64).map(|rank| {
            let windows = 1 << 8 | u64::from(rank == own as u64) << 9;
            rank | rank << 4 | windows | 1 << 11 | 1 << 12 | bit << 13
        });
        ranks.chain([own as u64]).collect()
    }));
    let rows = random_rows(&[I32], ROWS);
    let case = Case::all(FILE, "registers", "%is_explicit_cluster", 8, rows, |rows| {
        let place = |i: usize| {
            let (block, blocks) = (i / THREADS, BLOCKS as u64);
            let (rank, cluster) = ((block % BLOCKS) as u64, (block / BLOCKS) as u64);
            vec![rank, blocks, cluster, (ROWS / THREADS / BLOCKS) as u64, 1, 1, rank, blocks]
        };
        (0..rows.len()).map(place).collect()
    });
    list.push(Case { threads: THREADS as u32, cluster: BLOCKS as u32, ..case });
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    rings(&mut list);
    accesses(&mut list);
    atomics(&mut list);
    places(&mut list);
    list
}
