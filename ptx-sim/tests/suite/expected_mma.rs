//! Matrix fragments and products (PTX ISA 9.7.14.5): where elements lie as the ISA prints it, products by definition.
//!
//! Elements of floating-point formats are quarters up to 2, so that every sum is exact in any order: the ISA leaves
//! order and rounding of sums open.

use crate::cases::Case;
use crate::exact::Narrow;
use crate::inputs::Element::I32;
use crate::inputs::{Random, random_rows};

/// An element's format.
struct Format {
    name: &'static str,
    bits: usize,
}

const fn format(name: &'static str, bits: usize) -> Format {
    Format { name, bits }
}

/// Encodings of the multiples of 1/4 from -2 to 2, by value times 4 plus 8.
fn encode(name: &str, quarters: i64) -> u64 {
    let x = quarters as f64 / 4.0;
    match name {
        "f16" => half::f16::from_f64(x).to_bits().into(),
        "bf16" => half::bf16::from_f64(x).to_bits().into(),
        "tf32" | "f32" => (x as f32).to_bits().into(),
        "f64" => x.to_bits(),
        _ => {
            let numbers = if name == "e4m3" { Narrow::new(4, 3, 0x7E) } else { Narrow::new(5, 2, 0x7B) };
            numbers.round("rn", x, false) as u64 | if x < 0.0 { 0x80 } else { 0 }
        }
    }
}

/// The element of a register, times 4 if it is a floating-point one.
fn decode(format: &Format, table: &[u64], register: u64, part: usize) -> i64 {
    let bits = register >> (part * format.bits) & u64::MAX >> (64 - format.bits);
    match format.name {
        "s8" => (bits as i8).into(),
        "s4" => ((bits << 4) as i8 >> 4).into(),
        "u8" | "u4" => bits as i64,
        _ => table.iter().position(|code| *code == bits).expect("an encoding of the table") as i64 - 8,
    }
}

/// Elements of A: row and column (9.7.14.5, "Matrix Fragments for mma").
fn place_a(m: usize, parts: usize, lane: usize, register: usize, part: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    match m {
        8 => (group, thread * parts + part),
        _ => (group + if register % 2 == 1 { 8 } else { 0 }, thread * parts + part + register / 2 * 4 * parts),
    }
}

fn place_b(parts: usize, lane: usize, register: usize, part: usize) -> (usize, usize) {
    (lane % 4 * parts + part + register * 4 * parts, lane >> 2)
}

fn place_c(lane: usize, i: usize) -> (usize, usize) {
    ((lane >> 2) + if i >= 2 { 8 } else { 0 }, lane % 4 * 2 + i % 2)
}

struct Product {
    m: usize,
    k: usize,
    /// The format of C and D.
    d: &'static str,
    a: Format,
    b: Format,
    satfinite: bool,
}

impl Product {
    fn floating(&self) -> bool {
        self.d != "s32"
    }

    fn table(name: &str) -> Vec<u64> {
        (-8..=8).map(|quarters| encode(name, quarters)).collect()
    }

    /// Random rows: four words of A, four of B, four of C.
    fn rows(&self) -> Vec<Vec<u64>> {
        if !self.floating() {
            let mut rows = random_rows(&[I32; 12], 128);
            // Accumulators near the limits make sums wrap around or saturate.
            for (i, row) in rows.iter_mut().enumerate().filter(|(i, _)| i % 4 < 2) {
                row[8..].fill(if i % 4 == 0 { 0x7FFF_FFF0 } else { 0x8000_0003 });
            }
            return rows;
        }
        let mut random = Random(0x5EED_0000_0000 + self.k as u64);
        let (a, b, c) = (Self::table(self.a.name), Self::table(self.b.name), Self::table(self.d));
        let mut word = |table: &[u64], bits: usize| {
            let parts = if bits == 64 { 1 } else { 32 / bits };
            (0..parts).fold(0, |word, i| word | table[random.next() as usize % 17] << (bits * i))
        };
        let c_bits = if self.d == "f16" { 16 } else { self.a.bits.max(32) };
        (0..128)
            .map(|_| {
                let mut row: Vec<u64> = (0..4).map(|_| word(&a, self.a.bits)).collect();
                row.extend((0..4).map(|_| word(&b, self.b.bits)));
                row.extend((0..4).map(|_| word(&c, c_bits)));
                row
            })
            .collect()
    }

    /// The results of one warp.
    fn expected(&self, rows: &[Vec<u64>]) -> Vec<Vec<u64>> {
        let (tables, (m, k)) = ([&self.a, &self.b].map(|format| Self::table(format.name)), (self.m, self.k));
        let parts = if self.a.bits == 64 { 1 } else { 32 / self.a.bits };
        let (mut a, mut b) = (vec![vec![0; k]; m], vec![vec![0; 8]; k]);
        for (lane, row) in rows.iter().enumerate() {
            for part in 0..parts {
                for (register, word) in row[..m * k / 32 / parts].iter().enumerate() {
                    let (i, j) = place_a(m, parts, lane, register, part);
                    a[i][j] = decode(&self.a, &tables[0], *word, part);
                }
                for (register, word) in row[4..][..8 * k / 32 / parts].iter().enumerate() {
                    let (i, j) = place_b(parts, lane, register, part);
                    b[i][j] = decode(&self.b, &tables[1], *word, part);
                }
            }
        }
        let accumulators = Self::table(self.d);
        let quarters = |code: u64| accumulators.iter().position(|c| *c == code).expect("an accumulator") as i64 - 8;
        rows.iter()
            .enumerate()
            .map(|(lane, row)| {
                let mut out = vec![0; 4];
                for element in 0..m / 4 {
                    let (i, j) = place_c(lane, element);
                    let sum: i64 = (0..k).map(|l| a[i][l] * b[l][j]).sum();
                    let c = row[8 + element];
                    match self.d {
                        "s32" => {
                            let sum = sum + i64::from(c as i32);
                            let limited = sum.clamp(i32::MIN.into(), i32::MAX.into());
                            out[element] = if self.satfinite { limited } else { sum } as u32 as u64;
                        }
                        "f16" => {
                            let (register, shift) = (element / 2, element % 2 * 16);
                            let c = quarters(row[8 + register] >> shift & 0xFFFF);
                            let value = (sum + 4 * c) as f64 / 16.0;
                            out[register] |= u64::from(half::f16::from_f64(value).to_bits()) << shift;
                        }
                        "f32" => out[element] = (((sum + 4 * quarters(c)) as f32) / 16.0).to_bits().into(),
                        _ => out[element] = (((sum + 4 * quarters(c)) as f64) / 16.0).to_bits(),
                    }
                }
                out
            })
            .collect()
    }

    fn case(self, file: &'static str) -> Case {
        let (m, k, d, a, b) = (self.m, self.k, self.d, self.a.name, self.b.name);
        let kernel = match d {
            "s32" => format!("mma_m{m}n8k{k}_{}{a}_{b}", if self.satfinite { "satfinite_" } else { "" }),
            "f64" => format!("mma_m{m}n8k{k}_f64"),
            _ if a.starts_with('e') => format!("mma_m{m}n8k{k}_{d}_{a}_{b}"),
            _ => format!("mma_m{m}n8k{k}_{d}_{a}"),
        };
        let saturates = if self.satfinite { "satfinite." } else { "" };
        let instruction = format!("mma.sync.aligned.m{m}n8k{k}.row.col.{saturates}{d}.{a}.{b}.{d}");
        let rows = self.rows();
        Case::all(file, &kernel, &instruction, 4, rows, move |rows| {
            rows.chunks(32).flat_map(|warp| self.expected(warp)).collect()
        })
    }
}

fn products(list: &mut Vec<Case>) {
    let mut add = |file, (m, k), d, a: (&'static str, usize), b: &'static str, satfinite| {
        list.push(Product { m, k, d, a: format(a.0, a.1), b: format(b, a.1), satfinite }.case(file));
    };
    for (k, name, bits) in
        [(8, "f16", 16), (16, "f16", 16), (8, "bf16", 16), (16, "bf16", 16), (4, "tf32", 32), (8, "tf32", 32)]
    {
        add("mma", (16, k), "f32", (name, bits), name, false);
        if name == "f16" {
            add("mma", (16, k), "f16", (name, bits), name, false);
        }
    }
    for (a, b) in [("s8", "s8"), ("s8", "u8"), ("u8", "s8"), ("u8", "u8")] {
        add("mma", (16, 16), "s32", (a, 8), b, false);
        add("mma", (16, 32), "s32", (a, 8), b, false);
        add("mma", (16, 32), "s32", (a, 8), b, true);
    }
    for (a, b) in [("s4", "s4"), ("s4", "u4"), ("u4", "s4"), ("u4", "u4")] {
        add("mma", (16, 32), "s32", (a, 4), b, false);
        add("mma", (16, 64), "s32", (a, 4), b, false);
    }
    add("mma", (8, 16), "s32", ("s8", 8), "s8", false);
    add("mma", (8, 16), "s32", ("u8", 8), "s8", false);
    add("mma", (8, 4), "f64", ("f64", 64), "f64", false);
    for a in ["e4m3", "e5m2"] {
        for b in ["e4m3", "e5m2"] {
            add("mma_90", (16, 32), "f32", (a, 8), b, false);
            add("mma_90", (16, 32), "f16", (a, 8), b, false);
            add("mma_90", (16, 16), "f32", (a, 8), b, false);
        }
    }
}

/// Element (row, column) of matrix `index` whose rows the lanes have, eight halves each.
fn element(rows: &[Vec<u64>], index: usize, row: usize, column: usize) -> u64 {
    rows[8 * index + row][column / 2] >> (16 * (column % 2)) & 0xFFFF
}

fn matrices(list: &mut Vec<Case>) {
    for (count, transposed) in [(1, false), (2, false), (4, false), (1, true), (2, true), (4, true)] {
        let (suffix, modifier) = if transposed { ("_trans", ".trans") } else { ("", "") };
        let instruction = format!("ldmatrix.sync.aligned.m8n8.x{count}{modifier}.shared.b16");
        let rows = random_rows(&[I32; 4], 128);
        let load = move |warp: &[Vec<u64>], lane: usize, index: usize| {
            let half = |part: usize| match (lane / 4, lane % 4 * 2 + part) {
                (row, column) if transposed => element(warp, index, column, row),
                (row, column) => element(warp, index, row, column),
            };
            half(0) | half(1) << 16
        };
        list.push(Case::all("matrix", &format!("ldmatrix_x{count}{suffix}"), &instruction, 4, rows, move |rows| {
            let lane = |warp: &[Vec<u64>], lane: usize| {
                (0..4).map(|index| if index < count { load(warp, lane, index) } else { 0 }).collect()
            };
            rows.chunks(32).flat_map(|warp| (0..32).map(|l| lane(warp, l)).collect::<Vec<_>>()).collect()
        }));
    }
    for transposed in [false, true] {
        let (suffix, modifier) = if transposed { ("_trans", ".trans") } else { ("", "") };
        let instruction = format!("stmatrix.sync.aligned.m8n8.x4{modifier}.shared.b16");
        let rows = random_rows(&[I32; 4], 128);
        list.push(Case::all("matrix_90", &format!("stmatrix_x4{suffix}"), &instruction, 4, rows, move |rows| {
            // Row `row` of matrix `index` is gathered from the lanes that hold its elements.
            let half = |warp: &[Vec<u64>], index: usize, row: usize, column: usize| {
                let (row, column) = if transposed { (column, row) } else { (row, column) };
                warp[4 * row + column / 2][index] >> (16 * (column % 2)) & 0xFFFF
            };
            let word = |warp: &[Vec<u64>], lane: usize, k: usize| {
                half(warp, lane / 8, lane % 8, 2 * k) | half(warp, lane / 8, lane % 8, 2 * k + 1) << 16
            };
            let lane = |warp: &[Vec<u64>], l: usize| (0..4).map(|k| word(warp, l, k)).collect();
            rows.chunks(32).flat_map(|warp| (0..32).map(|l| lane(warp, l)).collect::<Vec<_>>()).collect()
        }));
    }
    let rows = random_rows(&[I32], 128);
    list.push(Case::all("matrix", "movmatrix", "movmatrix.sync.aligned.m8n8.trans.b16", 1, rows, |rows| {
        let half = |warp: &[Vec<u64>], row: usize, column: usize| {
            warp[4 * row + column / 2][0] >> (16 * (column % 2)) & 0xFFFF
        };
        let lane = |warp: &[Vec<u64>], l: usize| {
            let (row, column) = (l / 4, l % 4 * 2);
            vec![half(warp, column, row) | half(warp, column + 1, row) << 16]
        };
        rows.chunks(32).flat_map(|warp| (0..32).map(|l| lane(warp, l)).collect::<Vec<_>>()).collect()
    }));
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    products(&mut list);
    matrices(&mut list);
    list
}
