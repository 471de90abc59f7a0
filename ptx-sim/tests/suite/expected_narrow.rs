//! Conversions between floats, and packing (PTX ISA 9.7.9.21-22): narrow formats by search among their numbers.

use std::panic::RefUnwindSafe;

use crate::cases::{Case, Format, Tolerance};
use crate::exact::Narrow;
use crate::exactly::single;
use crate::expected_float::{bits32, f32_of, flush};
use crate::expected_half::Small;
use crate::inputs::Element::{self, Bf16, F16, F16x2, F32, F64, I32};

fn wide(x: u64) -> f64 {
    f32_of(x).into()
}

fn relu(x: f64, yes: bool) -> f64 {
    if yes && x <= 0.0 { 0.0 } else { x }
}

fn scalars(list: &mut Vec<Case>) {
    let mut add = |file, name: &str, operand: Element, f: fn(u64) -> u64| {
        list.push(Case::new(file, name, &[operand], move |row| f(row[0])));
    };
    add("convert", "cvt.rn.relu.bf16.f32", F32, |x| Small::Bf16.round(relu(wide(x), true), "rn"));
    add("convert", "cvt.rn.relu.f16.f32", F32, |x| Small::F16.round(relu(wide(x), true), "rn"));
    add("convert", "cvt.rn.sat.f16.f32", F32, |x| Small::F16.round(saturate(wide(x)), "rn"));
    add("convert", "cvt.sat.f32.f32", F32, |x| bits32(saturate(wide(x)) as f32));
    add("convert", "cvt.f32.f16", F16, |x| bits32(Small::F16.value(x) as f32));
    add("convert_90", "cvt.rni.bf16.bf16", Bf16, |x| Small::Bf16.round(Small::Bf16.value(x).round_ties_even(), "rn"));
    for (name, operand, f) in [
        ("cvt.f64.f16", F16, (|x| Small::F16.value(x)) as fn(u64) -> f64),
        ("cvt.f64.f32", F32, wide),
        ("cvt.ftz.f64.f32", F32, |x| flush(f32_of(x)).into()),
    ] {
        let case = Case::new("convert", name, &[operand], move |row| f(row[0]).to_bits());
        list.push(case.within(Tolerance::Number(Format::F64)));
    }
    // An H200 keeps the upper bits of a NaN's payload where the simulator has the canonical NaN.
    let mut add = |file, name: &str, operand: Element, format: Format, f: Box<dyn Fn(u64) -> u64 + RefUnwindSafe>| {
        let case = Case::new(file, name, &[operand], move |row| f(row[0]));
        list.push(case.within(Tolerance::Number(format)));
    };
    let narrowed = |x| bits32(flush(f64::from_bits(x) as f32));
    add("convert", "cvt.rn.ftz.f32.f64", F64, Format::F32, Box::new(narrowed));
    add("convert_90", "cvt.f32.bf16", Bf16, Format::F32, Box::new(|x| bits32(Small::Bf16.value(x) as f32)));
    for mode in ["rn", "rz", "rm", "rp"] {
        let half = move |x| Small::F16.round(f64::from_bits(x), mode);
        add("convert", &format!("cvt.{mode}.f16.f64"), F64, Format::F16, Box::new(half));
        let narrowed = move |x| bits32(single(f64::from_bits(x), mode));
        add("convert", &format!("cvt.{mode}.f32.f64"), F64, Format::F32, Box::new(narrowed));
    }
    for mode in ["rn", "rz", "rm", "rp"] {
        list.push(Case::new("convert", &format!("cvt.{mode}.f16.f32"), &[F32], move |row| {
            Small::F16.round(wide(row[0]), mode)
        }));
    }
    for mode in ["rn", "rz"] {
        list.push(Case::new("convert", &format!("cvt.{mode}.bf16.f32"), &[F32], move |row| {
            Small::Bf16.round(wide(row[0]), mode)
        }));
    }
}

fn saturate(x: f64) -> f64 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

/// tf32: the upper 19 bits of an f32.
fn tf32(list: &mut Vec<Case>) {
    for (file, mode) in [("convert", "rna"), ("convert_90", "rn"), ("convert_90", "rz")] {
        let numbers = Narrow::new(8, 10, 0x3_FBFF);
        let case = Case::new(file, &format!("cvt.{mode}.tf32.f32"), &[F32], move |row| {
            let x = wide(row[0]);
            let sign = if x.is_sign_negative() { 1 << 31 } else { 0 };
            if x.is_nan() { 0x7FFF_FFFF } else { (numbers.round(mode, x, sign != 0) as u64) << 13 | sign }
        });
        list.push(case.within(Tolerance::Number(Format::F32)));
    }
}

/// Two results in one register: the first operand is the upper one.
fn pairs(list: &mut Vec<Case>) {
    for (small, ty) in [(Small::F16, "f16x2"), (Small::Bf16, "bf16x2")] {
        for (mode, zero) in [("rn", false), ("rz", false), ("rn", true)] {
            if zero && small == Small::Bf16 {
                continue;
            }
            let name = format!("cvt.{mode}{}.{ty}.f32", if zero { ".relu" } else { "" });
            list.push(Case::new("convert", &name, &[F32; 2], move |row| {
                let half = |x: u64| small.round(relu(wide(x), zero), mode);
                half(row[0]) << 16 | half(row[1])
            }));
        }
    }
}

/// The two formats of 8 bits: e4m3 has NaN and no infinity, and `.satfinite` keeps both within the largest number.
fn bytes(list: &mut Vec<Case>) {
    for (ty, exponent, fraction, largest, nan) in [("e4m3x2", 4, 3, 0x7E, 0x7F), ("e5m2x2", 5, 2, 0x7B, 0x7F)] {
        let encode = move |numbers: &Narrow, x: f64| {
            if x.is_nan() {
                return nan;
            }
            let sign = if x.is_sign_negative() { 0x80 } else { 0 };
            (numbers.round("rn", x, false)).min(largest) as u64 | sign
        };
        for zero in [false, true] {
            if zero && ty == "e5m2x2" {
                continue;
            }
            let numbers = Narrow::new(exponent, fraction, largest);
            let name = format!("cvt.rn.satfinite{}.{ty}.f32", if zero { ".relu" } else { "" });
            list.push(Case::new("convert_90", &name, &[F32; 2], move |row| {
                let byte = |x: u64| encode(&numbers, relu(wide(x), zero));
                byte(row[0]) << 8 | byte(row[1])
            }));
        }
        let numbers = Narrow::new(exponent, fraction, largest);
        list.push(Case::new("convert_90", &format!("cvt.rn.satfinite.{ty}.f16x2"), &[F16x2], move |row| {
            let byte = |x: u64| encode(&numbers, Small::F16.value(x & 0xFFFF));
            byte(row[0] >> 16) << 8 | byte(row[0])
        }));
        let numbers = Narrow::new(exponent, fraction, largest);
        let every = (0..0x1_0000).step_by(3).map(|x| vec![x]).collect();
        list.push(Case::of("convert_90", &format!("cvt.rn.f16x2.{ty}"), 1, every, move |row| {
            let half = |byte: u64| {
                let (size, sign) = ((byte & 0x7F) as usize, byte >> 7 << 15);
                match size {
                    _ if size <= largest => Small::F16.round(numbers.values[size], "rn") | sign,
                    // Above the largest number: infinity for e5m2 alone, else NaN.
                    0x7C if ty == "e5m2x2" => 0x7C00 | sign,
                    _ => 0x7FFF,
                }
            };
            vec![half(row[0] & 0xFF) | half(row[0] >> 8) << 16]
        }));
    }
}

/// `cvt.pack.sat`: two clamped integers, below what the third operand's low bits hold (9.7.9.22).
fn packs(list: &mut Vec<Case>) {
    let clamp = |x: u64, bits: u32, signed: bool| {
        let x = i64::from(x as i32);
        let (low, high) = if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
        x.clamp(low, high) as u64 & ((1 << bits) - 1)
    };
    for (ty, bits, signed) in [
        ("u16", 16, false),
        ("s16", 16, true),
        ("u8", 8, false),
        ("s8", 8, true),
        ("u4", 4, false),
        ("s4", 4, true),
        ("u2", 2, false),
        ("s2", 2, true),
    ] {
        let three = bits < 16;
        let name = format!("cvt.pack.sat.{ty}.s32{}", if three { ".b32" } else { "" });
        list.push(Case::new("convert", &name, &[I32; 3][..if three { 3 } else { 2 }], move |row| {
            let both = clamp(row[0], bits, signed) << bits | clamp(row[1], bits, signed);
            // What the third operand has moves up by the two new elements.
            if three { both | row[2] << (2 * bits) & 0xFFFF_FFFF } else { both }
        }));
    }
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    scalars(&mut list);
    tf32(&mut list);
    pairs(&mut list);
    bytes(&mut list);
    packs(&mut list);
    list
}
