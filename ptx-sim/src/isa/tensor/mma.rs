//! `mma.sync.aligned`: products of small matrices by a warp (PTX ISA 9.7.14.5.14).
//!
//! What is defined and what is chosen here:
//! - Products of floating-point elements are exact. The ISA promises sums of "at least single precision" for f32 and
//!   leaves order, rounding and subnormals open; hardware aligns the addends and truncates. Here the products of one
//!   instruction are summed in f64 in ascending order of k, and that sum plus the accumulator is rounded once, to
//!   nearest even: at least as close to the exact result as any hardware, and not the same bits.
//! - With f16 accumulators the same sum is rounded once to f16.
//! - NaN results are the canonical ones (0x7FFFFFFF, 0x7FFF, and CUDA's `CUDART_NAN` for f64).
//! - Integer sums wrap around, or with `.satfinite` the exact result is clamped.
//! - f64 is a chain of fused multiply-adds in ascending order of k.

use super::fragments;
use super::mma_formats::{Bf16, E4m3, E5m2, F16, F64, Format, Signed, Tf32, Unsigned};
use crate::ast::Type;
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, LANES, Lanes, Outcome, Run, Source};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::isa::arithmetic::rounding::{f32_to_odd, sum_to_odd};
use crate::isa::sync::converge::{synchronise, whole_warp};
use crate::meter::Class;

/// Columns of B, C and D in every shape.
const N: usize = 8;
/// Most rows of A.
const M: usize = 16;
/// Most registers of a fragment.
const REGISTERS: usize = 4;

/// Puts the elements of A into `out`, row after row of `m` rows.
type UnpackA<T> = fn(registers: &[Lanes], m: usize, out: &mut [T]);
/// Puts the elements of B into `out`, row after row.
type UnpackB<T> = fn(registers: &[Lanes], out: &mut [T]);

/// One multiplicand format's bits and unpacking.
type Unpack<T> = (usize, UnpackA<T>, UnpackB<T>);

pub(crate) fn decode(operands: &Operands) -> Decoded {
    if operands.root() != "mma" {
        return Ok(None);
    }
    let list = operands.parts();
    let ["sync", "aligned", shape, "row", "col", ref rest @ ..] = list[..] else {
        return operands.error("expected `.sync.aligned.shape.row.col`");
    };
    let (modifier, [d, a, b, c]) = match *rest {
        [modifier, d, a, b, c] => (modifier, [d, a, b, c]),
        [d, a, b, c] => ("", [d, a, b, c]),
        _ => return operands.error("expected the types of D, A, B and C"),
    };
    let (m, k) = match shape {
        "m8n8k4" => (8, 4),
        "m8n8k16" => (8, 16),
        "m16n8k4" => (16, 4),
        "m16n8k8" => (16, 8),
        "m16n8k16" => (16, 16),
        "m16n8k32" => (16, 32),
        "m16n8k64" => (16, 64),
        _ => return operands.error(format!("unknown shape `.{shape}`")),
    };
    let name = format!("{shape}.{d}.{a}.{b}.{c}");
    let known = match (d, a, b, c) {
        ("f16" | "f32", "f16", "f16", _) if c == d => m == 16 && matches!(k, 8 | 16),
        ("f32", "bf16", "bf16", "f32") => m == 16 && matches!(k, 8 | 16),
        ("f32", "tf32", "tf32", "f32") => m == 16 && matches!(k, 4 | 8),
        ("f16" | "f32", "e4m3" | "e5m2", "e4m3" | "e5m2", _) if c == d => m == 16 && matches!(k, 16 | 32),
        ("s32", "s8" | "u8", "s8" | "u8", "s32") => m == 16 && matches!(k, 16 | 32) || (m, k) == (8, 16),
        ("s32", "s4" | "u4", "s4" | "u4", "s32") => m == 16 && matches!(k, 32 | 64),
        ("f64", "f64", "f64", "f64") => (m, k) == (8, 4),
        _ => false,
    };
    if !known {
        return operands.error(format!("there is no product `{name}`"));
    }
    if !matches!((d, modifier), (_, "") | ("s32", "satfinite") | ("f64", "rn")) {
        return operands.error(format!("unknown part `.{modifier}`"));
    }
    let run = if d == "s32" {
        integer(operands, name, (m, k), integers(a), integers(b), modifier == "satfinite")
    } else if d == "f64" {
        double(operands, name, (m, k))
    } else {
        float(operands, name, (m, k), floats(a), floats(b), d == "f16")
    };
    run.map(|run| Some((Class::Mma, run)))
}

fn format<F: Format>() -> Unpack<F::Value> {
    (F::PARTS, unpack_a::<F>, unpack_b::<F>)
}

fn floats(name: &str) -> Unpack<f64> {
    match name {
        "f16" => format::<F16>(),
        "bf16" => format::<Bf16>(),
        "tf32" => format::<Tf32>(),
        "e4m3" => format::<E4m3>(),
        _ => format::<E5m2>(),
    }
}

fn integers(name: &str) -> Unpack<i32> {
    match name {
        "s8" => format::<Signed<8>>(),
        "u8" => format::<Unsigned<8>>(),
        "s4" => format::<Signed<4>>(),
        _ => format::<Unsigned<4>>(),
    }
}

fn unpack_a<F: Format>(registers: &[Lanes], m: usize, out: &mut [F::Value]) {
    let k = registers.len() / (m / 8) * 4 * F::PARTS;
    for (register, lanes) in registers.iter().enumerate() {
        for (lane, bits) in lanes.iter().enumerate() {
            for part in 0..F::PARTS {
                let (row, column) = fragments::a(m, F::PARTS, lane, register, part);
                out[row * k + column] = F::value(bits >> (part * F::BITS % 64));
            }
        }
    }
}

fn unpack_b<F: Format>(registers: &[Lanes], out: &mut [F::Value]) {
    for (register, lanes) in registers.iter().enumerate() {
        for (lane, bits) in lanes.iter().enumerate() {
            for part in 0..F::PARTS {
                let (row, column) = fragments::b(F::PARTS, lane, register, part);
                out[row * N + column] = F::value(bits >> (part * F::BITS % 64));
            }
        }
    }
}

/// The registers of an instruction.
struct Fragments {
    /// As instructions are counted by the meter, and as messages name it.
    name: String,
    what: String,
    d: Vec<Option<usize>>,
    a: Vec<Source>,
    b: Vec<Source>,
    c: Vec<Source>,
}

impl Fragments {
    /// Takes the operands; `lens` are the numbers of registers of A and B, and of C and D.
    fn new(operands: &Operands, name: String, lens: [usize; 3], ty: Type) -> Result<Self, DecodeError> {
        operands.count(4, 4)?;
        let take = |index: usize, len: usize| match operands.elements(index)? {
            elements if elements.len() == len => Ok(elements),
            elements => {
                operands.error(format!("operand {}: expected {len} registers, got {}", index + 1, elements.len()))
            }
        };
        let sources = |index: usize, len: usize, ty: Type| {
            take(index, len)?.iter().map(|element| operands.value(element, ty)).collect::<Result<Vec<_>, _>>()
        };
        let multiplicand = if ty == Type::F64 { Type::F64 } else { Type::B32 };
        Ok(Self {
            name,
            what: operands.instruction.name(),
            d: take(0, lens[2])?.iter().map(|element| operands.register(element)).collect::<Result<_, _>>()?,
            a: sources(1, lens[0], multiplicand)?,
            b: sources(2, lens[1], multiplicand)?,
            c: sources(3, lens[2], ty)?,
        })
    }

    /// Waits for the whole warp, and counts. Returns whether the warp is there.
    fn begin(&self, context: &mut Context) -> Result<bool, Fault> {
        if !whole_warp(context, &self.what)? {
            return Ok(false);
        }
        synchronise(context);
        context.ledger.meter.mma(&self.name);
        Ok(true)
    }

    fn read(context: &Context, sources: &[Source]) -> [Lanes; REGISTERS] {
        let mut out = [[0; LANES]; REGISTERS];
        sources.iter().zip(&mut out).for_each(|(source, out)| *out = context.read(*source));
        out
    }

    fn write(&self, context: &mut Context, values: &[Lanes]) {
        for (register, values) in self.d.iter().zip(values) {
            if let Some(register) = register {
                context.write(*register, values);
            }
        }
    }
}

/// The numbers of registers of A and B.
fn lens(m: usize, k: usize, parts: usize) -> (usize, usize) {
    (m / 8 * k / (4 * parts), k / (4 * parts))
}

fn float(
    operands: &Operands,
    name: String,
    (m, k): (usize, usize),
    (parts, unpack_a, _): Unpack<f64>,
    (_, _, unpack_b): Unpack<f64>,
    half: bool,
) -> Result<Run, DecodeError> {
    const K: usize = 32;
    let (a_len, b_len) = lens(m, k, parts);
    let (c_len, ty) = if half { (m / 8, Type::B32) } else { (m / 4, Type::F32) };
    let fragments = Fragments::new(operands, name, [a_len, b_len, c_len], ty)?;
    Ok(Box::new(move |context| {
        if !fragments.begin(context)? {
            return Ok(Outcome::Wait);
        }
        let (mut a, mut b) = ([0.0; M * K], [0.0; K * N]);
        unpack_a(&Fragments::read(context, &fragments.a)[..a_len], m, &mut a[..m * k]);
        unpack_b(&Fragments::read(context, &fragments.b)[..b_len], &mut b[..k * N]);
        let sums = multiply(&a[..m * k], &b[..k * N], |x, y, sum: f64| sum + x * y, [[0.0; N]; M]);
        let mut c = Fragments::read(context, &fragments.c);
        for (register, lanes) in c[..c_len].iter_mut().enumerate() {
            for (lane, bits) in lanes.iter_mut().enumerate() {
                let sum = |element| {
                    let (row, column) = fragments::accumulator(lane, element);
                    sums[row][column]
                };
                *bits = if half {
                    let (low, high) = (sum(2 * register), sum(2 * register + 1));
                    add_f16(*bits, low) | add_f16(*bits >> 16, high) << 16
                } else {
                    add_f32(*bits, sum(register))
                };
            }
        }
        fragments.write(context, &c);
        Ok(Outcome::Next)
    }))
}

fn add_f32(c: u64, sum: f64) -> u64 {
    let d = sum_to_odd(sum, f32::from_bits(c as u32).into()) as f32;
    if d.is_nan() { 0x7fff_ffff } else { d.to_bits().into() }
}

fn add_f16(c: u64, sum: f64) -> u64 {
    // Through a f32 rounded to odd, because `from_f64` ignores the lowest bits.
    let d = half::f16::from_f32(f32_to_odd(sum_to_odd(sum, F16::value(c))));
    if d.is_nan() { 0x7fff } else { d.to_bits().into() }
}

fn integer(
    operands: &Operands,
    name: String,
    (m, k): (usize, usize),
    (parts, unpack_a, _): Unpack<i32>,
    (_, _, unpack_b): Unpack<i32>,
    saturate: bool,
) -> Result<Run, DecodeError> {
    const K: usize = 64;
    let (a_len, b_len) = lens(m, k, parts);
    let c_len = m / 4;
    let fragments = Fragments::new(operands, name, [a_len, b_len, c_len], Type::S32)?;
    Ok(Box::new(move |context| {
        if !fragments.begin(context)? {
            return Ok(Outcome::Wait);
        }
        let (mut a, mut b) = ([0; M * K], [0; K * N]);
        unpack_a(&Fragments::read(context, &fragments.a)[..a_len], m, &mut a[..m * k]);
        unpack_b(&Fragments::read(context, &fragments.b)[..b_len], &mut b[..k * N]);
        // At most 64 products of less than 2^16: no sum without the accumulator overflows.
        let sums = multiply(&a[..m * k], &b[..k * N], |x, y, sum: i32| sum + x * y, [[0; N]; M]);
        let mut c = Fragments::read(context, &fragments.c);
        for (element, lanes) in c[..c_len].iter_mut().enumerate() {
            for (lane, bits) in lanes.iter_mut().enumerate() {
                let (row, column) = fragments::accumulator(lane, element);
                let (c, sum) = (*bits as u32 as i32, sums[row][column]);
                let d = if saturate { c.saturating_add(sum) } else { c.wrapping_add(sum) };
                *bits = u64::from(d as u32);
            }
        }
        fragments.write(context, &c);
        Ok(Outcome::Next)
    }))
}

fn double(operands: &Operands, name: String, (m, k): (usize, usize)) -> Result<Run, DecodeError> {
    const K: usize = 4;
    let (a_len, b_len) = lens(m, k, F64::PARTS);
    let c_len = m / 4;
    let fragments = Fragments::new(operands, name, [a_len, b_len, c_len], Type::F64)?;
    Ok(Box::new(move |context| {
        if !fragments.begin(context)? {
            return Ok(Outcome::Wait);
        }
        let (mut a, mut b, mut sums) = ([0.0; M * K], [0.0; K * N], [[0.0; N]; M]);
        unpack_a::<F64>(&Fragments::read(context, &fragments.a)[..a_len], m, &mut a[..m * k]);
        unpack_b::<F64>(&Fragments::read(context, &fragments.b)[..b_len], &mut b[..k * N]);
        let mut c = Fragments::read(context, &fragments.c);
        for (element, lanes) in c[..c_len].iter().enumerate() {
            for (lane, bits) in lanes.iter().enumerate() {
                let (row, column) = fragments::accumulator(lane, element);
                sums[row][column] = f64::from_bits(*bits);
            }
        }
        let sums = multiply(&a[..m * k], &b[..k * N], f64::mul_add, sums);
        for (element, lanes) in c[..c_len].iter_mut().enumerate() {
            for (lane, bits) in lanes.iter_mut().enumerate() {
                let (row, column) = fragments::accumulator(lane, element);
                let d = sums[row][column];
                *bits = if d.is_nan() { 0xfff8_0000_0000_0000 } else { d.to_bits() };
            }
        }
        fragments.write(context, &c);
        Ok(Outcome::Next)
    }))
}

/// Multiplies row-major matrices onto `sums`, in ascending order of k. The columns are the inner loop, so that the
/// compiler makes vectors of them.
fn multiply<T: Copy>(a: &[T], b: &[T], add: impl Fn(T, T, T) -> T, mut sums: [[T; N]; M]) -> [[T; N]; M] {
    let k = b.len() / N;
    for (row, sums) in a.chunks_exact(k).zip(&mut sums) {
        let mut sum = *sums;
        for (x, b) in row.iter().zip(b.chunks_exact(N)) {
            for n in 0..N {
                sum[n] = add(*x, b[n], sum[n]);
            }
        }
        *sums = sum;
    }
    sums
}
