//! `wgmma.mma_async` (PTX ISA 9.7.15): products by definition, of matrices in every layout that descriptors can say.
//!
//! Elements of floating-point formats are such that every sum is exact in any order, because the ISA leaves order and
//! rounding open: quarters up to 2, subnormals times small integers, and infinities and NaNs among them.

use std::cmp::Ordering;
use std::sync::LazyLock;

use crate::cases::{Case, Format, Tolerance};
use crate::exact::Narrow;
use crate::inputs::Random;
use crate::wgmma_layout::{Layout, a_fragment, d_fragment};

/// Threads of a warpgroup, and words of a row in front of the accumulators, as `wgmma.h` has them.
const THREADS: usize = 128;
const WORDS: usize = 7;
/// Words of shared memory of each thread.
const IMAGE: usize = 44;
/// Where B may begin in the block's shared memory: A is in front.
const B_BEGIN: usize = 12 << 10;
const END: usize = 8 * THREADS * IMAGE;

/// The numbers that the codes of 8-bit floats stand for.
static EIGHT_BITS: LazyLock<[Vec<f64>; 2]> = LazyLock::new(|| {
    [(4, 3, 0x7E, f64::NAN), (5, 2, 0x7B, f64::INFINITY)].map(|(exponent, fraction, largest, next)| {
        let numbers = Narrow::new(exponent, fraction, largest).values;
        let magnitude = |code: usize| match code.cmp(&(largest + 1)) {
            Ordering::Less => numbers[code],
            Ordering::Equal => next,
            Ordering::Greater => f64::NAN,
        };
        (0..256).map(|code| if code < 128 { magnitude(code) } else { -magnitude(code - 128) }).collect()
    })
});

/// The number that an element's bits stand for.
fn value(name: &str, bits: u64) -> f64 {
    match name {
        "f16" => half::f16::from_bits(bits as u16).to_f64(),
        "bf16" => half::bf16::from_bits(bits as u16).to_f64(),
        "tf32" => f32::from_bits(bits as u32 & !0x1FFF).into(),
        "s8" => f64::from(bits as u8 as i8),
        "u8" => f64::from(bits as u8),
        _ => EIGHT_BITS[usize::from(name == "e5m2")][bits as usize],
    }
}

fn bits_of(name: &str) -> usize {
    match name {
        "tf32" => 32,
        "f16" | "bf16" => 16,
        _ => 8,
    }
}

/// What the elements of a block are.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Multiples of 1/4 up to 2; integers at random.
    Ordinary,
    /// A has subnormals only, B integers up to 2.
    Subnormal,
    /// Infinities and NaNs among ordinary numbers.
    Special,
}

/// Codes of a format that stand for the multiples of 1/4 up to 2 whose number of quarters is a multiple of `step`.
fn quarters(name: &str, step: usize) -> Vec<u64> {
    let all: Vec<f64> = (-8..=8).step_by(step).map(|quarters| f64::from(quarters) / 4.0).collect();
    match name {
        // What lies below a tf32's bits does not count.
        "tf32" => all.iter().map(|x| u64::from((*x as f32).to_bits() | 0x1ABC)).collect(),
        "bf16" => all.iter().map(|x| half::bf16::from_f64(*x).to_bits().into()).collect(),
        "f16" => all.iter().map(|x| half::f16::from_f64(*x).to_bits().into()).collect(),
        _ => (0..256).filter(|code| all.contains(&value(name, *code))).collect(),
    }
}

struct Product {
    n: usize,
    d: &'static str,
    a: &'static str,
    b: &'static str,
    in_registers: bool,
    /// Whether A and B are MN-major.
    mn_major: [bool; 2],
    negated: bool,
    satfinite: bool,
    /// Instructions, each with the next values of k.
    steps: usize,
}

/// A block's operands, and the layouts of its matrices.
struct Block {
    a: Vec<Vec<u64>>,
    b: Vec<Vec<u64>>,
    kind: Kind,
    layouts: [Layout; 2],
}

impl Product {
    fn k(&self) -> usize {
        self.steps * 256 / bits_of(self.a)
    }

    fn integer(&self) -> bool {
        self.d == "s32"
    }

    /// Registers of D.
    fn registers(&self) -> usize {
        if self.d == "f16" { self.n / 4 } else { self.n / 2 }
    }

    /// An element; `ordinary` are the multiples of 1/4 and `whole` those of 1.
    fn element(&self, name: &str, kind: Kind, [ordinary, whole]: &[Vec<u64>; 2], is_a: bool, random: u64) -> u64 {
        let r = random;
        let pick = |list: &[u64]| list[(r >> 20) as usize % list.len()];
        match kind {
            _ if self.integer() => r >> 20 & 0xFF,
            Kind::Subnormal if !is_a => pick(whole),
            Kind::Subnormal => {
                let (bits, fraction) = match name {
                    "f16" => (16, 10),
                    "e4m3" => (8, 3),
                    "e5m2" => (8, 2),
                    // The products would be no f32 any more.
                    _ => return pick(ordinary),
                };
                r >> 20 & ((1 << fraction) - 1) | (r >> 50 & 1) << (bits - 1)
            }
            Kind::Special if r.is_multiple_of(97) => match name {
                "f16" => pick(&[0x7C00, 0xFC00, 0x7E01]),
                "bf16" => pick(&[0x7F80, 0xFF80, 0x7FC1]),
                "tf32" => pick(&[0x7F80_0000, 0xFF80_0000, 0x7FC0_0000]),
                "e5m2" => pick(&[0x7C, 0xFC, 0x7D]),
                _ => pick(&[0x7F, 0xFF]),
            },
            _ => pick(ordinary),
        }
    }

    /// Accumulators, as one register. Beside subnormals they are zero, so that the sum needs no rounding.
    fn accumulator(&self, kind: Kind, random: &mut Random) -> u64 {
        let r = random.next();
        if kind == Kind::Subnormal && !self.integer() {
            return 0;
        }
        let list = quarters("f16", 1);
        let half = |shift: u32| list[(r >> shift) as usize % list.len()];
        match self.d {
            "s32" => match r % 3 {
                0 => 0x7FFF_F000 | r >> 40 & 0xFFF,
                1 => 0x8000_0000 | r >> 40 & 0xFFF,
                _ => r >> 32,
            },
            "f16" => half(8) | half(30) << 16,
            _ => (half::f16::from_bits(half(8) as u16).to_f32()).to_bits().into(),
        }
    }

    fn block(&self, index: usize, layouts: [Layout; 2]) -> Block {
        let mut random = Random(0xABCD_0000_0001 + 7919 * (index + self.n) as u64);
        let kind = [Kind::Ordinary, Kind::Ordinary, Kind::Subnormal, Kind::Special][index % 4];
        let mut matrix = |rows: usize, name: &str, is_a: bool| -> Vec<Vec<u64>> {
            let codes = [1, 4].map(|step| if self.integer() { Vec::new() } else { quarters(name, step) });
            let mut row = || (0..self.k()).map(|_| self.element(name, kind, &codes, is_a, random.next())).collect();
            (0..rows).map(|_| row()).collect()
        };
        Block { a: matrix(64, self.a, true), b: matrix(self.n, self.b, false), kind, layouts }
    }

    /// The rows of a block's threads. `scale_d` is whether the accumulators count.
    fn rows(&self, block: &Block, scale_d: bool, random: &mut Random) -> Vec<Vec<u64>> {
        // What belongs to no matrix is NaN, or -1.
        let mut image = vec![0xFF; END];
        let mut store = |matrix: &[Vec<u64>], layout: &Layout| {
            for (mn, row) in matrix.iter().enumerate() {
                for (k, element) in row.iter().enumerate() {
                    let bytes = &element.to_le_bytes()[..layout.bits / 8];
                    image[layout.address(mn, k)..][..bytes.len()].copy_from_slice(bytes);
                }
            }
        };
        if !self.in_registers {
            store(&block.a, &block.layouts[0]);
        }
        store(&block.b, &block.layouts[1]);
        let word = |k: usize, thread: usize| {
            u64::from_le_bytes(image[8 * (THREADS * k + thread)..][..8].try_into().expect("eight bytes"))
        };
        let (bits, parts) = (bits_of(self.a), 32 / bits_of(self.a));
        (0..THREADS)
            .map(|thread| {
                let mut row: Vec<u64> = block.layouts.iter().map(Layout::descriptor).collect();
                row.push(scale_d.into());
                row.extend((0..4).map(|register| {
                    (0..parts).fold(0, |word, part| {
                        let (m, k) = a_fragment(bits, thread, register * parts + part);
                        word | block.a[m][k] << (bits * part)
                    })
                }));
                // Accumulators that do not count are NaN.
                let accumulate = scale_d || self.integer();
                row.extend(
                    (0..self.registers())
                        .map(|_| if accumulate { self.accumulator(block.kind, random) } else { 0xFFFF_FFFF }),
                );
                row.extend((0..IMAGE).map(|k| word(k, thread)));
                row
            })
            .collect()
    }

    /// The results of one block.
    fn expected(&self, block: &Block, rows: &[Vec<u64>]) -> Vec<Vec<u64>> {
        let numbers = |matrix: &[Vec<u64>], name: &str| -> Vec<Vec<f64>> {
            matrix.iter().map(|row| row.iter().map(|bits| value(name, *bits)).collect()).collect()
        };
        let (a, b) = (numbers(&block.a, self.a), numbers(&block.b, self.b));
        let sum = |thread: usize, element: usize| -> f64 {
            let (row, column) = d_fragment(thread, element);
            let sum: f64 = a[row].iter().zip(&b[column]).map(|(x, y)| x * y).sum();
            // Without a sign where the sum is zero: products of both signs cancel.
            if self.negated { 0.0 - sum } else { 0.0 + sum }
        };
        rows.iter()
            .enumerate()
            .map(|(thread, row)| {
                let old = |register: usize| if row[2] == 0 { 0 } else { row[WORDS + register] };
                (0..self.registers())
                    .map(|register| match self.d {
                        "s32" => {
                            let sum = sum(thread, register) as i64 + i64::from(old(register) as i32);
                            let limited = sum.clamp(i32::MIN.into(), i32::MAX.into());
                            u64::from(if self.satfinite { limited } else { sum } as u32)
                        }
                        "f16" => (0..2).fold(0, |word, part| {
                            let old = half::f16::from_bits((old(register) >> (16 * part)) as u16).to_f64();
                            let new = half::f16::from_f64(sum(thread, 2 * register + part) + old);
                            word | u64::from(new.to_bits()) << (16 * part)
                        }),
                        _ => {
                            let old = f64::from(f32::from_bits(old(register) as u32));
                            ((sum(thread, register) + old) as f32).to_bits().into()
                        }
                    })
                    .collect()
            })
            .collect()
    }

    fn case(self, kernel: &str, layouts: &[[Layout; 2]]) -> Case {
        let (n, k, d, a, b) = (self.n, 256 / bits_of(self.a), self.d, self.a, self.b);
        let saturates = if self.satfinite { ".satfinite" } else { "" };
        let instruction = format!("wgmma.mma_async.sync.aligned.m64n{n}k{k}.{d}.{a}.{b}{saturates}");
        let blocks: Vec<Block> =
            layouts.iter().enumerate().map(|(index, layouts)| self.block(index, *layouts)).collect();
        let mut random = Random(0x1234_5678_9ABC + n as u64);
        let all = blocks.iter().enumerate();
        let rows = all.flat_map(|(index, block)| self.rows(block, index % 3 != 1, &mut random)).collect();
        let (registers, tolerance) = (self.registers(), self.tolerance());
        let case = Case::all("wgmma_90", kernel, &instruction, registers, rows, move |rows| {
            let all = rows.chunks(THREADS).zip(&blocks);
            all.flat_map(|(rows, block)| self.expected(block, rows)).collect()
        });
        case.within(tolerance)
    }

    /// Payloads of NaN are open.
    fn tolerance(&self) -> Tolerance {
        match self.d {
            "s32" => Tolerance::Exact,
            "f16" => Tolerance::HalvesWithin { format: Format::F16, relative: 0.0, absolute: 0.0 },
            _ => Tolerance::Number(Format::F32),
        }
    }

    /// Every layout of either matrix at least once.
    fn layouts(&self) -> Vec<[Layout; 2]> {
        let bits = bits_of(self.a);
        let a = Layout::all(64, self.k(), bits, self.mn_major[0], 0, B_BEGIN);
        let b = Layout::all(self.n, self.k(), bits, self.mn_major[1], B_BEGIN, END);
        let all = if self.in_registers { b.len() } else { a.len().max(b.len()) };
        (0..all).map(|index| [a[index % a.len()], b[index % b.len()]]).collect()
    }
}

impl Product {
    /// A product of the types of D, A and B, with A in shared memory or in registers, as its kernel's name says it.
    fn new(n: usize, [d, a, b]: [&'static str; 3], source: char, suffix: &str) -> Self {
        let has = |part: &str| suffix.contains(part);
        let mn_major = [has("_ta"), has("_tb")];
        let negated = has("_na") != has("_nb");
        Self { n, d, a, b, in_registers: source == 'r', mn_major, negated, satfinite: false, steps: 1 }
    }
}

/// N, the types of D, A and B, where A is, and what is transposed or negated.
type Form = (usize, [&'static str; 3], char, &'static str);

fn forms() -> Vec<Form> {
    let mut list: Vec<Form> = Vec::new();
    let mut all = |sizes: &[usize], types, source, suffix| {
        list.extend(sizes.iter().map(|n| (*n, types, source, suffix)));
    };
    let half = ["f32", "f16", "f16"];
    all(&[8, 16, 24, 32, 40, 64, 72, 128, 136, 192, 248, 256], half, 's', "");
    all(&[8, 16, 32, 64, 128, 256], half, 'r', "");
    for suffix in ["_ta", "_tb", "_ta_tb"] {
        all(&[8, 16, 64, 96, 256], half, 's', suffix);
    }
    all(&[64], half, 'r', "_tb");
    for suffix in ["_na", "_nb", "_na_nb"] {
        all(&[16], half, 's', suffix);
    }
    all(&[8], half, 'r', "_na");
    let packed = ["f16", "f16", "f16"];
    all(&[8, 56, 256], packed, 's', "");
    all(&[32], packed, 'r', "");
    all(&[64], packed, 's', "_ta_tb");
    all(&[16], packed, 'r', "_tb_nb");
    let bf16 = ["f32", "bf16", "bf16"];
    all(&[8, 24, 128, 256], bf16, 's', "");
    all(&[64], bf16, 'r', "");
    all(&[120], bf16, 's', "_ta_tb_na");
    let tf32 = ["f32", "tf32", "tf32"];
    all(&[8, 40, 256], tf32, 's', "");
    all(&[32], tf32, 'r', "");
    all(&[16], tf32, 's', "_na");
    all(&[8, 104, 256], ["f32", "e4m3", "e4m3"], 's', "");
    all(&[64], ["f32", "e5m2", "e4m3"], 'r', "");
    all(&[48], ["f32", "e4m3", "e5m2"], 's', "_nb");
    all(&[32], ["f32", "e5m2", "e5m2"], 'r', "");
    all(&[8], ["f16", "e4m3", "e4m3"], 's', "");
    all(&[16], ["f16", "e4m3", "e5m2"], 'r', "");
    all(&[80], ["f16", "e5m2", "e4m3"], 's', "");
    all(&[256], ["f16", "e5m2", "e5m2"], 's', "");
    all(&[8, 16, 24, 32, 48, 224, 240, 256], ["s32", "s8", "s8"], 's', "");
    all(&[64], ["s32", "u8", "u8"], 's', "");
    all(&[96], ["s32", "s8", "u8"], 'r', "");
    all(&[16], ["s32", "u8", "s8"], 's', "");
    all(&[32], ["s32", "s8", "s8"], 'r', "");
    all(&[8], ["s32", "u8", "u8"], 'r', "");
    list
}

/// Patterns that begin at each 128 bytes, as the base offset says.
fn base_offsets() -> Vec<[Layout; 2]> {
    let layout = |begin: usize, swizzle: u32, base: usize| Layout {
        swizzle,
        mn_major: false,
        leading: 16,
        stride: 128 << swizzle,
        start: begin + 128 * base,
        base,
        bits: 16,
    };
    let all = (1..=3).flat_map(|swizzle| (0..8).map(move |base| (swizzle, base)));
    all.map(|(swizzle, base)| [layout(0, swizzle, base), layout(B_BEGIN, swizzle, 7 - base)]).collect()
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    for (n, types, source, suffix) in forms() {
        let product = Product::new(n, types, source, suffix);
        let [d, a, b] = types;
        let types = if bits_of(a) == 16 { format!("{d}_{a}") } else { format!("{d}_{a}_{b}") };
        let layouts = product.layouts();
        list.push(product.case(&format!("wgmma_n{n}_{types}_{source}{suffix}"), &layouts));
    }
    for (n, a, b, source) in
        [(32, "s8", "s8", 's'), (64, "u8", "u8", 's'), (8, "s8", "u8", 'r'), (112, "u8", "s8", 'r')]
    {
        let product = Product { satfinite: true, ..Product::new(n, ["s32", a, b], source, "") };
        let layouts = product.layouts();
        list.push(product.case(&format!("wgmma_n{n}_satfinite_{a}_{b}_{source}"), &layouts));
    }
    let half = ["f32", "f16", "f16"];
    list.push(Product::new(32, half, 's', "").case("wgmma_base_offset", &base_offsets()));
    let chain = Product { steps: 4, ..Product::new(64, half, 's', "") };
    let layout = |start: usize| Layout { start, base: 0, ..base_offsets()[16][0] };
    list.push(chain.case("wgmma_chain", &[0; 8].map(|_| [layout(0), layout(B_BEGIN)])));
    list
}
