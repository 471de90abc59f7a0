//! Conversions between integers and floats (PTX ISA 9.7.9.21), by way of integers of 128 bits and exact f64.

use crate::cases::{Case, Format, Tolerance};
use crate::exactly::{Exactly, single};
use crate::expected_float::{bits32, f32_of, flush};
use crate::expected_half::Small;
use crate::inputs::Element::{self, F16, F32, F64, I16, I32, I64};
use crate::inputs::rows;

const MODES: [&str; 4] = ["rn", "rz", "rm", "rp"];

/// Width and signedness of `s32`.
fn shape(ty: &str) -> (u32, bool) {
    (ty[1..].parse().unwrap(), ty.starts_with('s'))
}

/// The number that the low bits of a register stand for.
fn integer(x: u64, ty: &str) -> i128 {
    let (bits, signed) = shape(ty);
    let x = i128::from(x & u64::MAX >> (64 - bits));
    if signed && x >> (bits - 1) == 1 { x - (1 << bits) } else { x }
}

/// The register that an integer result is written to: bytes lie in 32 bits, extended as their type says (9.4.1).
fn register(x: i128, ty: &str) -> u64 {
    let (bits, _) = shape(ty);
    integer(x as u64, ty) as u64 & u64::MAX >> (64 - if bits == 8 { 32 } else { bits })
}

fn limits(ty: &str) -> (i128, i128) {
    let (bits, signed) = shape(ty);
    if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

fn float(bits: u64, ty: &str) -> f64 {
    match ty {
        "f16" => Small::F16.value(bits),
        "bf16" => Small::Bf16.value(bits),
        "f32" => f32_of(bits).into(),
        _ => f64::from_bits(bits),
    }
}

fn element(ty: &str) -> Element {
    match ty {
        "f16" => F16,
        "f32" => F32,
        "f64" => F64,
        "u64" | "s64" => I64,
        "u16" | "s16" => I16,
        _ => I32,
    }
}

fn integral(mode: &str, x: f64) -> f64 {
    match mode {
        "rni" => x.round_ties_even(),
        "rzi" => x.trunc(),
        "rmi" => x.floor(),
        _ => x.ceil(),
    }
}

/// A float as an integer. Numbers beyond the type are clamped to it, whether or not `.sat` is written. NaN becomes zero
/// if the source is no f64 and the destination has fewer than 64 bits, and otherwise the number of which only the
/// highest bit is set (9.7.9.21).
fn to_integer(mode: &str, x: f64, from: &str, to: &str) -> u64 {
    let (low, high) = limits(to);
    let (bits, _) = shape(to);
    if x.is_nan() {
        let wide = from == "f64" || bits == 64;
        return if wide { register(1 << (bits - 1), to) } else { 0 };
    }
    // f64 to i128 saturates far beyond every type here.
    register((integral(mode, x) as i128).clamp(low, high), to)
}

const INTEGERS: [&str; 8] = ["u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64"];

/// Operands around the limits of all integers, besides the type's own edges.
fn operands(ty: &'static str) -> Vec<Vec<u64>> {
    let mut list = rows(&[element(ty)]);
    for bits in [7, 8, 15, 16, 31, 32, 63, 64] {
        for part in [-1.5, -1.0, -0.5, 0.0, 0.25, 0.5] {
            for sign in [1.0, -1.0] {
                let x = sign * (2f64.powi(bits) + part);
                let bits = match ty {
                    "f16" => Small::F16.round(x, "rz"),
                    "f32" => (x as f32).to_bits().into(),
                    _ => x.to_bits(),
                };
                list.push(vec![bits]);
            }
        }
    }
    list
}

fn to_integers(list: &mut Vec<Case>) {
    for from in ["f16", "f32", "f64"] {
        for to in INTEGERS {
            for mode in ["rni", "rzi", "rmi", "rpi"] {
                let name = format!("cvt.{mode}.{to}.{from}");
                list.push(Case::of("convert", &name, 1, operands(from), move |row| {
                    vec![to_integer(mode, float(row[0], from), from, to)]
                }));
            }
        }
    }
    for (mode, to) in [("rzi", "s32"), ("rpi", "u32")] {
        list.push(Case::of("convert", &format!("cvt.{mode}.ftz.{to}.f32"), 1, operands("f32"), move |row| {
            vec![to_integer(mode, flush(f32_of(row[0])).into(), "f32", to)]
        }));
    }
    list.push(Case::new("convert_90", "cvt.rzi.s32.bf16", &[Element::Bf16], |row| {
        to_integer("rzi", Small::Bf16.value(row[0]), "bf16", "s32")
    }));
}

/// An integer as an f64 in front of one rounding: two parts of 53 bits at most make it up.
fn exactly(x: i128) -> Exactly {
    let high = x >> 32 << 32;
    Exactly::sum(high as f64, (x - high) as f64)
}

/// The bits of a number rounded to a type.
fn rounded(x: Exactly, to: &str, mode: &str) -> u64 {
    match to {
        "f16" => Small::F16.round(x.odd(), mode),
        "f32" => bits32(single(x.odd(), mode)),
        _ => x.double(mode).to_bits(),
    }
}

fn from_integers(list: &mut Vec<Case>) {
    for to in ["f16", "f32", "f64"] {
        for from in INTEGERS {
            let wide = matches!(from, "u32" | "s32" | "u64" | "s64");
            for mode in &MODES[..if wide { 4 } else { 1 }] {
                let name = format!("cvt.{mode}.{to}.{from}");
                list.push(Case::new("convert", &name, &[element(from)], move |row| {
                    rounded(exactly(integer(row[0], from)), to, mode)
                }));
            }
        }
    }
    list.push(Case::new("convert_90", "cvt.rn.bf16.s32", &[I32], |row| {
        Small::Bf16.round(f64::from(row[0] as i32), "rn")
    }));
}

fn between_integers(list: &mut Vec<Case>) {
    let plain = [
        ("u8", "u32"),
        ("s8", "s32"),
        ("u16", "u32"),
        ("s16", "s32"),
        ("u32", "u8"),
        ("s32", "s8"),
        ("u32", "u16"),
        ("s32", "s16"),
        ("u64", "u32"),
        ("s64", "s32"),
        ("u32", "u64"),
        ("s16", "s8"),
        ("s32", "u16"),
        ("u64", "s8"),
        ("s64", "u16"),
    ];
    for (to, from) in plain {
        list.push(Case::new("convert", &format!("cvt.{to}.{from}"), &[element(from)], move |row| {
            register(integer(row[0], from), to)
        }));
    }
    let clamped = [
        ("u8", "s32"),
        ("s8", "s32"),
        ("s8", "u32"),
        ("u16", "s32"),
        ("s16", "s64"),
        ("u32", "s64"),
        ("s32", "s64"),
        ("s32", "u64"),
        ("u64", "s64"),
        ("u32", "s32"),
        ("s32", "u32"),
    ];
    for (to, from) in clamped {
        list.push(Case::new("convert", &format!("cvt.sat.{to}.{from}"), &[element(from)], move |row| {
            let (low, high) = limits(to);
            register(integer(row[0], from).clamp(low, high), to)
        }));
    }
}

fn to_integral(list: &mut Vec<Case>) {
    for ty in ["f16", "f32", "f64"] {
        for mode in ["rni", "rzi", "rmi", "rpi"] {
            let case = Case::of("convert", &format!("cvt.{mode}.{ty}.{ty}"), 1, operands(ty), move |row| {
                let x = integral(mode, float(row[0], ty));
                vec![match ty {
                    "f16" => Small::F16.round(x, "rn"),
                    "f32" => bits32(x as f32),
                    _ => x.to_bits(),
                }]
            });
            list.push(case.within(if ty == "f64" { Tolerance::Number(Format::F64) } else { Tolerance::Exact }));
        }
    }
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    to_integers(&mut list);
    from_integers(&mut list);
    between_integers(&mut list);
    to_integral(&mut list);
    list
}
