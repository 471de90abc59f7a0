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

use std::mem::MaybeUninit;

use super::mma_formats::{Bf16, E4m3, E5m2, F16, F64, Signed, Tf32, Unsigned};
use super::product::{Accumulators, ExactProducts, FusedChain, Integers, Sum, Unpack, product};
use super::rounded::{add_f16, add_f32};
use crate::ast::Type;
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, Kernel, LANES, Outcome, Run, Source, Vectors, Word, Words, run_vectors};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::isa::sync::converge::{synchronise, whole_warp};
use crate::meter::Class;

/// Most registers of a fragment.
const REGISTERS: usize = 4;

/// What stands in front of the types of D, A, B and C.
const FRONT: [&str; 13] = [
    "sync",
    "aligned",
    "m8n8k4",
    "m8n8k16",
    "m16n8k4",
    "m16n8k8",
    "m16n8k16",
    "m16n8k32",
    "m16n8k64",
    "row",
    "col",
    "satfinite",
    "rn",
];

pub(crate) fn decode(operands: &Operands) -> Decoded {
    if operands.root() != "mma" {
        return Ok(None);
    }
    let list = operands.parts_with(&FRONT);
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

fn floats(name: &str) -> Unpack<u32, f64> {
    match name {
        "f16" => Unpack::of::<F16>(),
        "bf16" => Unpack::of::<Bf16>(),
        "tf32" => Unpack::of::<Tf32>(),
        "e4m3" => Unpack::of::<E4m3>(),
        _ => Unpack::of::<E5m2>(),
    }
}

fn integers(name: &str) -> Unpack<u32, i32> {
    match name {
        "s8" => Unpack::of::<Signed<8>>(),
        "u8" => Unpack::of::<Unsigned<8>>(),
        "s4" => Unpack::of::<Signed<4>>(),
        _ => Unpack::of::<Unsigned<4>>(),
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

    fn read<W: Word>(context: &Context, sources: &[Source]) -> [[W; LANES]; REGISTERS] {
        let mut out = [[W::default(); LANES]; REGISTERS];
        for (source, out) in sources.iter().zip(&mut out) {
            *out = *context.view(*source, &mut MaybeUninit::uninit());
        }
        out
    }

    /// The product of the matrices in A and B, onto `sums`.
    fn multiply<S: Sum<Value: Default>, W: Word>(
        &self,
        context: &Context,
        [unpack_a, unpack_b]: [&Unpack<W, S::Value>; 2],
        sums: &mut Accumulators<S::Value>,
    ) {
        let (mut a, mut b) = ([MaybeUninit::uninit(); REGISTERS], [MaybeUninit::uninit(); REGISTERS]);
        let (a, b) = (context.views(&self.a, &mut a), context.views(&self.b, &mut b));
        product::<S, W>(unpack_a, &a[..self.a.len()], unpack_b, &b[..self.b.len()], sums);
    }

    fn write<W: Word>(&self, context: &mut Context, values: &[[W; LANES]]) {
        for (register, values) in self.d.iter().zip(values) {
            if let Some(register) = register {
                context.write_typed(*register, values);
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
    unpack_a: Unpack<u32, f64>,
    unpack_b: Unpack<u32, f64>,
    half: bool,
) -> Result<Run, DecodeError> {
    let (a_len, b_len) = lens(m, k, unpack_a.parts);
    let (c_len, ty) = if half { (m / 8, Type::B32) } else { (m / 4, Type::F32) };
    let fragments = Fragments::new(operands, name, [a_len, b_len, c_len], ty)?;
    Ok(Box::new(move |context| {
        if !fragments.begin(context)? {
            return Ok(Outcome::Wait);
        }
        let mut sums = Accumulators::default();
        fragments.multiply::<ExactProducts, u32>(context, [&unpack_a, &unpack_b], &mut sums);
        let mut c = Fragments::read::<u32>(context, &fragments.c);
        if half {
            for (register, words) in c[..c_len].iter_mut().enumerate() {
                for (lane, word) in words.iter_mut().enumerate() {
                    let (low, high) = (sums.0[2 * register][lane], sums.0[2 * register + 1][lane]);
                    *word = add_f16(*word, low) | add_f16(*word >> 16, high) << 16;
                }
            }
        } else {
            c[..c_len].iter_mut().zip(&sums.0).for_each(|(c, sums)| run_vectors(AddF32 { c, sums }));
        }
        fragments.write(context, &c);
        Ok(Outcome::Next)
    }))
}

/// Adds sums to f32 accumulators, rounding once.
struct AddF32<'a> {
    c: &'a mut Words,
    sums: &'a [f64; LANES],
}

impl Kernel for AddF32<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vectors>(self) {
        let mut d = [0; LANES];
        let mut doubtful = 0;
        for (d, (c, sum)) in d.iter_mut().zip(self.c.iter().zip(self.sums)) {
            let total = sum + f64::from(f32::from_bits(*c));
            // Rounded to f64 and then to f32, a sum is rounded once, unless what the first rounding makes of it lies
            // halfway between two f32. Subnormal f32 have fewer bits, so their halfway points lie elsewhere.
            let halfway = total.to_bits() & 0x1FFF_FFFF == 0x1000_0000;
            let tiny = total.abs() < f64::from(f32::MIN_POSITIVE);
            doubtful |= u32::from(halfway | tiny);
            let rounded = total as f32;
            *d = if rounded.is_nan() { 0x7FFF_FFFF } else { rounded.to_bits() };
        }
        if doubtful != 0 {
            for (d, (c, sum)) in d.iter_mut().zip(self.c.iter().zip(self.sums)) {
                *d = add_f32(*c, *sum);
            }
        }
        *self.c = d;
    }
}

fn integer(
    operands: &Operands,
    name: String,
    (m, k): (usize, usize),
    unpack_a: Unpack<u32, i32>,
    unpack_b: Unpack<u32, i32>,
    saturate: bool,
) -> Result<Run, DecodeError> {
    let (a_len, b_len) = lens(m, k, unpack_a.parts);
    let c_len = m / 4;
    let fragments = Fragments::new(operands, name, [a_len, b_len, c_len], Type::S32)?;
    Ok(Box::new(move |context| {
        if !fragments.begin(context)? {
            return Ok(Outcome::Wait);
        }
        let mut sums = Accumulators::default();
        fragments.multiply::<Integers, u32>(context, [&unpack_a, &unpack_b], &mut sums);
        let mut c = Fragments::read::<u32>(context, &fragments.c);
        for (c, sums) in c[..c_len].iter_mut().zip(&sums.0) {
            for (c, sum) in c.iter_mut().zip(sums) {
                let old = c.cast_signed();
                *c = if saturate { old.saturating_add(*sum) } else { old.wrapping_add(*sum) }.cast_unsigned();
            }
        }
        fragments.write(context, &c);
        Ok(Outcome::Next)
    }))
}

fn double(operands: &Operands, name: String, (m, k): (usize, usize)) -> Result<Run, DecodeError> {
    let unpack = Unpack::of::<F64>();
    let (a_len, b_len) = lens(m, k, unpack.parts);
    let c_len = m / 4;
    let fragments = Fragments::new(operands, name, [a_len, b_len, c_len], Type::F64)?;
    Ok(Box::new(move |context| {
        if !fragments.begin(context)? {
            return Ok(Outcome::Wait);
        }
        let c = Fragments::read::<u64>(context, &fragments.c);
        let mut sums = Accumulators(c.map(|c| c.map(f64::from_bits)));
        fragments.multiply::<FusedChain, u64>(context, [&unpack, &unpack], &mut sums);
        let d = sums.0.map(|sums| sums.map(|d| if d.is_nan() { 0xfff8_0000_0000_0000 } else { d.to_bits() }));
        fragments.write(context, &d[..c_len]);
        Ok(Outcome::Next)
    }))
}
