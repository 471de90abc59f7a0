//! Stores and reductions in another block's memory, in clusters of 4 blocks of 64 threads (PTX ISA 9.7.9.12, 9.7.13.7).

use crate::cases::Case;
use crate::expected_cluster::{BLOCKS, ROWS, case};
use crate::inputs::Element::{I32, I64};
use crate::inputs::random_rows;

const FILE: &str = "async_store_90";

fn stores(list: &mut Vec<Case>) {
    let mechanism = "mbarrier::complete_tx::bytes";
    let forms = [
        ("st_async_u32", format!("st.async.shared::cluster.{mechanism}.u32"), 1, I32),
        ("st_async_weak_b32", format!("st.async.weak.shared::cluster.{mechanism}.b32"), 1, I32),
        ("st_async_s64", format!("st.async.shared::cluster.{mechanism}.s64"), 1, I64),
        ("st_async_v2_s32", format!("st.async.shared::cluster.{mechanism}.v2.s32"), 2, I32),
        ("st_async_v2_b64", format!("st.async.shared::cluster.{mechanism}.v2.b64"), 2, I64),
        ("st_async_v4_b32", format!("st.async.weak.shared::cluster.{mechanism}.v4.b32"), 4, I32),
        ("st_async_generic", format!("st.async.{mechanism}.f64"), 1, I64),
    ];
    for (kernel, instruction, words, element) in forms {
        let rows = random_rows(&vec![element; words], ROWS);
        list.push(case(FILE, kernel, &instruction, words, rows, |blocks, rank, thread| {
            blocks[(rank + BLOCKS - 1) % BLOCKS][thread].clone()
        }));
    }
}

/// The word of the first block after all threads of the other blocks have changed it, in any order.
fn reductions(list: &mut Vec<Case>) {
    let wrap = |bound: u64, start: u64, count: u64, up: bool| {
        (0..count).fold(start, |x, _| match up {
            true if x >= bound => 0,
            true => x + 1,
            false if x == 0 || x > bound => bound,
            false => x - 1,
        })
    };
    type Total = Box<dyn Fn(u64, &[u64]) -> u64 + std::panic::RefUnwindSafe>;
    let operations: Vec<(&str, Total)> = vec![
        ("inc.u32", Box::new(move |start, all| wrap(all[0], start, all.len() as u64, true))),
        ("dec.u32", Box::new(move |start, all| wrap(all[0], start, all.len() as u64, false))),
        ("min.u32", Box::new(|start, all| *all.iter().chain([&start]).min().unwrap())),
        ("max.u32", Box::new(|start, all| *all.iter().chain([&start]).max().unwrap())),
        ("min.s32", Box::new(|start, all| *all.iter().chain([&start]).min_by_key(|x| **x as i32).unwrap())),
        ("max.s32", Box::new(|start, all| *all.iter().chain([&start]).max_by_key(|x| **x as i32).unwrap())),
        ("and.b32", Box::new(|start, all| all.iter().fold(start, |bits, x| bits & x))),
        ("or.b32", Box::new(|start, all| all.iter().fold(start, |bits, x| bits | x))),
        ("xor.b32", Box::new(|start, all| all.iter().fold(start, |bits, x| bits ^ x))),
        ("add.u32", Box::new(|start, all| all.iter().fold(start as u32, |sum, x| sum.wrapping_add(*x as u32)).into())),
        ("add.s32", Box::new(|start, all| all.iter().fold(start as u32, |sum, x| sum.wrapping_add(*x as u32)).into())),
        ("add.u64", Box::new(|start, all| all.iter().fold(start, |sum, x| sum.wrapping_add(*x)))),
    ];
    for (operation, total) in operations {
        let element = if operation.ends_with("64") { I64 } else { I32 };
        let mut rows = random_rows(&[element; 2], ROWS);
        if operation.starts_with("inc") || operation.starts_with("dec") {
            // With one bound for all threads the order does not matter; one start lies above it.
            rows.iter_mut().for_each(|row| row[0] = 50);
            rows[0][1] = 7;
        }
        let kernel = format!("red_async_{}", operation.replace('.', "_"));
        let instruction = format!("red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.{operation}");
        list.push(case(FILE, &kernel, &instruction, 1, rows, move |blocks, rank, _| {
            let all: Vec<u64> = blocks[1..].iter().flat_map(|rows| rows.iter().map(|row| row[0])).collect();
            vec![if rank == 0 { total(blocks[0][0][1], &all) } else { 0 }]
        }));
    }
}

fn reduce_scatter(list: &mut Vec<Case>) {
    // Whole numbers, so that the order of the sum does not matter.
    let mut rows = random_rows(&[I32; 4], ROWS);
    rows.iter_mut().flatten().for_each(|x| *x = ((*x % 4001) as f32 - 2000.0).to_bits().into());
    let instruction = "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32";
    list.push(case(FILE, "reduce_scatter", instruction, 4, rows, |blocks, _, thread| {
        let value = |block: usize, word: usize| f32::from_bits(blocks[block][thread][word] as u32);
        let sum = |word: usize| (0..BLOCKS).map(|block| value(block, word)).sum::<f32>();
        (0..4).map(|word| sum(word).to_bits().into()).collect()
    }));
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    stores(&mut list);
    reductions(&mut list);
    reduce_scatter(&mut list);
    list
}
