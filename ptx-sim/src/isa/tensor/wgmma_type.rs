//! The shapes and types that `wgmma.mma_async` has (PTX ISA sections 9.7.15.2, 9.7.15.3 and 9.7.15.5.2).

use super::wgmma_multiply::{Accumulator, Elements};
use crate::decode::{DecodeError, Operands};

/// A shape and its types.
pub(super) struct Product {
    /// As the ISA writes it, for example `m64n32k16.f32.f16.f16`.
    pub name: String,
    pub n: usize,
    pub k: usize,
    pub a: Elements,
    pub b: Elements,
    pub accumulator: Accumulator,
    /// Whether matrices in shared memory may be MN-major: those of 16-bit elements.
    pub transposable: bool,
}

impl Product {
    /// Takes the opcode's parts behind `.sync.aligned`.
    pub fn decode(operands: &Operands, parts: &[&str]) -> Result<Self, DecodeError> {
        let (shape, d, a, b, saturate) = match *parts {
            [_, _, "b1", "b1", ..] => return operands.error("single-bit products are not known"),
            [shape, d, a, b] => (shape, d, a, b, false),
            [shape, "satfinite", d, a, b] | [shape, d, a, b, "satfinite"] => (shape, d, a, b, true),
            _ => return operands.error("expected a shape and the types of D, A and B"),
        };
        let name = format!("{shape}.{d}.{a}.{b}");
        let (accumulator, kind) = match (d, a, b) {
            ("f16", "f16", "f16") => (Accumulator::F16, 16),
            ("f32", "f16", "f16") | ("f32", "bf16", "bf16") => (Accumulator::F32, 16),
            ("f32", "tf32", "tf32") => (Accumulator::F32, 32),
            ("f16", "e4m3" | "e5m2", "e4m3" | "e5m2") => (Accumulator::F16, 8),
            ("f32", "e4m3" | "e5m2", "e4m3" | "e5m2") => (Accumulator::F32, 8),
            ("s32", "s8" | "u8", "s8" | "u8") => (Accumulator::S32 { saturate }, 8),
            _ => return operands.error(format!("there is no product of the types `.{d}.{a}.{b}`")),
        };
        let integer = d == "s32";
        if saturate && !integer {
            return operands.error("`.satfinite` is for integers");
        }
        let (Some(a), Some(b)) = (Elements::of(a), Elements::of(b)) else {
            return operands.error(format!("there is no product of the types `.{d}.{a}.{b}`"));
        };
        let k = 256 / kind;
        let suffix = format!("k{k}");
        let n = shape.strip_prefix("m64n").and_then(|rest| rest.strip_suffix(&suffix)?.parse().ok());
        // Written back, so that no other spelling of a number passes.
        let known = |n: &usize| {
            let step = if integer && *n > 32 { 16 } else { 8 };
            (8..=256).contains(n) && n.is_multiple_of(step) && shape == format!("m64n{n}k{k}")
        };
        match n.filter(known) {
            Some(n) => Ok(Self { name, n, k, a, b, accumulator, transposable: kind == 16 }),
            None => operands
                .error(format!("there is no shape `.{shape}` for the types `.{d}`, `.{}`", parts[parts.len() - 1])),
        }
    }

    /// Whether D is of integers.
    pub fn integer(&self) -> bool {
        matches!(self.accumulator, Accumulator::S32 { .. })
    }
}
