//! Bulk copies, reductions and groups (PTX ISA 9.7.9.25.4, 9.7.9.25.6). A row of 16 bytes is moved as it is; what is
//! reduced is cut into elements here.

use crate::cases::{Case, Format, Tolerance};
use crate::expected_float::{bits32, f32_of};
use crate::expected_half::Small;
use crate::expected_memory::operate;
use crate::inputs::Element::{self, Bf16, F16, F32, F64, I32, I64};
use crate::inputs::{random_rows, rows};

/// Threads of a block, and blocks of a cluster.
const BLOCK: usize = 128;

/// Rows of two clusters.
const ROWS: usize = 4 * BLOCK;

/// The 16 bytes of rows, as many rows as a row says, from the one of its block that it names; and `rest` behind them.
fn some_rows(all: &[Vec<u64>], index: usize, rest: u64) -> Vec<u64> {
    let row = &all[index];
    let (count, first) = (row[0] as u32 as usize % 4 + 1, row[1] as u32 as usize % 125);
    let mut words = all[index / BLOCK * BLOCK + first..][..count].concat();
    words.resize(8, rest);
    words
}

fn copies(list: &mut Vec<Case>) {
    let all = |kernel: &str, instruction: &str, outputs: usize, rest: u64| {
        Case::all("bulk_90", kernel, instruction, outputs, random_rows(&[I64, I64], ROWS), move |rows| {
            (0..rows.len()).map(|index| some_rows(rows, index, rest)).collect()
        })
    };
    let store = "cp.async.bulk.global.shared::cta.bulk_group";
    list.push(all("bulk_store", store, 8, 0));
    list.push(all("bulk_store_hint", &format!("{store}.L2::cache_hint"), 8, 0));
    let (cluster, own) = ("cp.async.bulk.shared::cluster", "cp.async.bulk.shared::cta");
    let end = "mbarrier::complete_tx::bytes";
    list.push(all("bulk_load_cluster", &format!("{cluster}.global.{end}"), 8, u64::MAX));
    list.push(all("bulk_load_cta", &format!("{own}.global.{end}"), 8, u64::MAX));
    list.push(all("bulk_load_hint", &format!("{own}.global.{end}.L2::cache_hint"), 8, u64::MAX));
    let groups = Case::of("bulk_90", "cp.async.bulk.wait_group.read", 6, random_rows(&[I64; 3], ROWS), |row| {
        row.iter().flat_map(|word| [*word, !*word]).collect()
    });
    list.push(groups.named("bulk_groups"));

    // Rows that come from another place among those of the cluster.
    let moved = |kernel: &str, instruction: &str, from: fn(usize) -> usize| {
        Case::all("bulk_90", kernel, instruction, 2, random_rows(&[I64, I64], ROWS), move |rows| {
            (0..rows.len()).map(|index| rows[from(index)].clone()).collect()
        })
    };
    let half = |index: usize| {
        let (cluster, thread) = (index / (2 * BLOCK), index % BLOCK);
        2 * BLOCK * cluster + if thread < BLOCK / 2 { thread } else { BLOCK + thread }
    };
    list.push(moved("bulk_multicast", &format!("{cluster}.global.{end}.multicast::cluster"), half));
    list.push(moved("bulk_remote", &format!("{cluster}.shared::cta.{end}"), |index| index ^ BLOCK));
    list.push(moved("bulk_prefetch", "cp.async.bulk.prefetch.L2.global", |index| index));
}

/// A zero of the sign in place of a subnormal f32.
fn flush(bits: u64) -> u64 {
    if f32_of(bits).is_subnormal() { bits & 1 << 31 } else { bits }
}

/// What an element becomes, of a type whose name ends in its number of bits.
fn element(name: &str, ty: &str, old: u64, x: u64) -> u64 {
    match ty {
        // Sums of f32 flush subnormal operands and results (9.7.9.25.4.2).
        "f32" => flush(bits32(f32_of(flush(old)) + f32_of(flush(x)))),
        "f16" | "bf16" => {
            let small = if ty == "f16" { Small::F16 } else { Small::Bf16 };
            let (a, b) = (small.value(old), small.value(x));
            match name {
                "min" if a < b => old,
                "max" if a > b => old,
                "min" | "max" => x,
                _ => small.round(a + b, "rn"),
            }
        }
        _ => operate(name, ty, old, x),
    }
}

fn width(ty: &str) -> usize {
    ty.trim_start_matches(char::is_alphabetic).parse().unwrap()
}

/// 16 bytes of elements and 16 bytes of operands in a row, of edges and random values.
fn operand_rows(name: &str, ty: &str) -> Vec<Vec<u64>> {
    let kind = match ty {
        "f16" => F16,
        "bf16" => Bf16,
        "f32" => F32,
        "f64" => F64,
        _ if width(ty) == 64 => I64,
        _ => I32,
    };
    let mut pairs = rows(&[kind; 2]);
    // Of NaN and of zeros of both signs the ISA does not say which is the lesser.
    if matches!((name, kind), ("min" | "max", F16 | Bf16)) {
        let small = if kind == Element::F16 { Small::F16 } else { Small::Bf16 };
        pairs.retain(|pair| {
            let [a, b] = [pair[0], pair[1]].map(|bits| small.value(bits));
            !a.is_nan() && !b.is_nan() && (a != b || a != 0.0)
        });
    }
    let (bits, lanes) = (width(ty), 64 / width(ty));
    let pack = |values: Vec<u64>| {
        values.iter().rev().fold(0u64, |word, value| word.checked_shl(bits as u32).unwrap_or(0) | value)
    };
    let of = |pairs: &[Vec<u64>], which: usize| pack(pairs.iter().map(|pair| pair[which]).collect());
    let packed = pairs.chunks_exact(2 * lanes).map(|pairs| {
        let (low, high) = pairs.split_at(lanes);
        vec![of(low, 0), of(high, 0), of(low, 1), of(high, 1)]
    });
    packed.collect()
}

/// A word of elements reduced with another.
fn reduced(name: &str, ty: &str, old: u64, x: u64) -> u64 {
    let bits = width(ty);
    let mask = u64::MAX >> (64 - bits);
    (0..64).step_by(bits).fold(0, |word, at| word | element(name, ty, old >> at & mask, x >> at & mask) << at)
}

fn reductions(list: &mut Vec<Case>) {
    let forms: [(&'static str, &[&'static str]); 8] = [
        ("add", &["u32", "s32", "u64", "f32", "f64", "f16", "bf16"]),
        ("min", &["u32", "s32", "u64", "s64", "f16", "bf16"]),
        ("max", &["u32", "s32", "u64", "s64", "f16", "bf16"]),
        ("inc", &["u32"]),
        ("dec", &["u32"]),
        ("and", &["b32", "b64"]),
        ("or", &["b32", "b64"]),
        ("xor", &["b32", "b64"]),
    ];
    for (name, types) in forms {
        for &ty in types {
            let form = if name == "add" && ty.ends_with("f16") { "add.noftz" } else { name };
            let instruction = format!("cp.reduce.async.bulk.global.shared::cta.bulk_group.{form}.{ty}");
            let case = Case::of("bulk_90", &instruction, 2, operand_rows(name, ty), move |row| {
                vec![reduced(name, ty, row[0], row[2]), reduced(name, ty, row[1], row[3])]
            });
            let tolerance = if ty == "f64" { Tolerance::Number(Format::F64) } else { Tolerance::Exact };
            list.push(case.named(&format!("bulk_reduce_{}_{ty}", form.replace('.', "_"))).within(tolerance));
            if ty.ends_with("32") && !ty.starts_with('f') || (name, ty) == ("add", "u64") {
                list.push(remote(name, ty));
            }
        }
    }
    let instruction = "cp.reduce.async.bulk.global.shared::cta.bulk_group.L2::cache_hint.add.u64";
    let rows = random_rows(&[I64, I64], ROWS);
    list.push(Case::all("bulk_90", "bulk_reduce_together", instruction, 2, rows, |rows| {
        let sum = |block: &[Vec<u64>], word: usize| block.iter().fold(0u64, |sum, row| sum.wrapping_add(row[word]));
        let block = |block: &[Vec<u64>]| {
            let mut rows = vec![vec![0, 0]; BLOCK];
            rows[0] = vec![sum(block, 0), sum(block, 1)];
            rows
        };
        rows.chunks(BLOCK).flat_map(block).collect()
    }));
}

/// The first half of a row is reduced with the second half of the other block's.
fn remote(name: &'static str, ty: &'static str) -> Case {
    let instruction =
        format!("cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.{name}.{ty}");
    let mut rows = operand_rows(name, ty);
    rows.extend(random_rows(&[I64; 4], ROWS));
    rows.truncate(rows.len() / (2 * BLOCK) * (2 * BLOCK));
    Case::all("bulk_90", &format!("bulk_remote_{name}_{ty}"), &instruction, 2, rows, move |rows| {
        let of = |index: usize, word: usize| reduced(name, ty, rows[index][word], rows[index ^ BLOCK][word + 2]);
        (0..rows.len()).map(|index| vec![of(index, 0), of(index, 1)]).collect()
    })
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    copies(&mut list);
    reductions(&mut list);
    list
}
