//! Comparison and selection (PTX ISA 9.7.6-7), `testp`, `copysign`, `mov`.

use crate::cases::Case;
use crate::expected_float::{f32_of, flush};
use crate::expected_half::Small;
use crate::inputs::Element::{self, Bf16, Bool, F16, F16x2, F32, F64, I16, I32, I64};

/// Whether a comparison holds of numbers, unordered ones being neither less, equal nor greater.
fn holds(operator: &str, a: f64, b: f64) -> bool {
    let unordered = a.is_nan() || b.is_nan();
    match operator {
        "num" => !unordered,
        "nan" => unordered,
        _ if operator.len() == 3 => unordered || holds(&operator[..2], a, b),
        _ => !unordered && ordered(operator, a.partial_cmp(&b)),
    }
}

fn ordered(operator: &str, order: Option<std::cmp::Ordering>) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    match operator {
        "eq" => order == Some(Equal),
        "ne" => order != Some(Equal),
        "lt" | "lo" => order == Some(Less),
        "le" | "ls" => matches!(order, Some(Less | Equal)),
        "gt" | "hi" => order == Some(Greater),
        _ => matches!(order, Some(Greater | Equal)),
    }
}

/// The bits as the number of a type: order, not distance, is what counts.
fn integer(bits: u64, ty: &str) -> i128 {
    match ty {
        "s16" => (bits as i16).into(),
        "s32" => (bits as i32).into(),
        "s64" => (bits as i64).into(),
        _ => bits.into(),
    }
}

fn float(bits: u64, ty: &str) -> f64 {
    match ty {
        "f16" => Small::F16.value(bits),
        "bf16" => Small::Bf16.value(bits),
        "f32" => f32_of(bits).into(),
        _ => f64::from_bits(bits),
    }
}

const SIGNED: &[&str] = &["eq", "ne", "lt", "le", "gt", "ge"];
const UNSIGNED: &[&str] = &["eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs"];
const FLOATS: &[&str] = &["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"];

fn setp(list: &mut Vec<Case>) {
    let integers: [(&str, Element, &[&str]); 9] = [
        ("s16", I16, SIGNED),
        ("s32", I32, SIGNED),
        ("s64", I64, SIGNED),
        ("u16", I16, UNSIGNED),
        ("u32", I32, UNSIGNED),
        ("u64", I64, UNSIGNED),
        ("b16", I16, &["eq"]),
        ("b32", I32, &["ne"]),
        ("b64", I64, &["eq"]),
    ];
    for (ty, element, operators) in integers {
        for operator in operators {
            list.push(Case::new("compare", &format!("setp.{operator}.{ty}"), &[element; 2], move |row| {
                ordered(operator, Some(integer(row[0], ty).cmp(&integer(row[1], ty)))).into()
            }));
        }
    }
    for (ty, element) in [("f16", F16), ("f32", F32), ("f64", F64)] {
        for operator in FLOATS {
            list.push(Case::new("compare", &format!("setp.{operator}.{ty}"), &[element; 2], move |row| {
                holds(operator, float(row[0], ty), float(row[1], ty)).into()
            }));
        }
    }
    for operator in ["lt", "neu"] {
        list.push(Case::new("half_90", &format!("setp.{operator}.bf16"), &[Bf16; 2], move |row| {
            holds(operator, float(row[0], "bf16"), float(row[1], "bf16")).into()
        }));
    }
    list.push(Case::new("compare", "setp.lt.ftz.f32", &[F32; 2], |row| {
        (flush(f32_of(row[0])) < flush(f32_of(row[1]))).into()
    }));
    list.push(Case::new("compare", "setp.eq.ftz.f16", &[F16; 2], |row| {
        let flushed = |x: u64| if x & 0x7C00 == 0 { 0.0 } else { Small::F16.value(x) };
        (flushed(row[0]) == flushed(row[1])).into()
    }));
    for (name, f) in [("and", (|p, c| p & c) as fn(bool, bool) -> bool), ("or", |p, c| p | c), ("xor", |p, c| p ^ c)] {
        list.push(Case::new("compare", &format!("setp.lt.{name}.s32"), &[I32, I32, Bool], move |row| {
            let (less, c) = ((row[0] as i32) < row[1] as i32, row[2] == 1);
            u64::from(f(less, c)) | u64::from(f(!less, c)) << 1
        }));
    }
}

fn set(list: &mut Vec<Case>) {
    let all = |yes: bool| if yes { 0xFFFF_FFFF } else { 0 };
    let one = |yes: bool| if yes { 0x3F80_0000 } else { 0 };
    list.push(Case::new("compare", "set.lt.u32.s32", &[I32; 2], move |row| all((row[0] as i32) < row[1] as i32)));
    list.push(Case::new("compare", "set.ge.s32.u32", &[I32; 2], move |row| all(row[0] >= row[1])));
    list.push(Case::new("compare", "set.lt.f32.f32", &[F32; 2], move |row| one(f32_of(row[0]) < f32_of(row[1]))));
    list.push(Case::new("compare", "set.geu.u32.f64", &[F64; 2], move |row| {
        all(holds("geu", f64::from_bits(row[0]), f64::from_bits(row[1])))
    }));
    list.push(Case::new("compare", "set.eq.u32.b64", &[I64; 2], move |row| all(row[0] == row[1])));
    list.push(Case::new("compare", "set.gt.f16x2.f16x2", &[F16x2; 2], |row| {
        let half = |i: u32| {
            let [a, b] = [0, 1].map(|k: usize| Small::F16.value(row[k] >> (16 * i) & 0xFFFF));
            if a > b { 0x3C00 << (16 * i) } else { 0 }
        };
        half(0) | half(1)
    }));
}

fn select(list: &mut Vec<Case>) {
    for (ty, element) in [("b16", I16), ("s32", I32), ("f32", F32), ("b64", I64), ("f64", F64)] {
        list.push(Case::new("compare", &format!("selp.{ty}"), &[element, element, Bool], |row| {
            if row[2] == 1 { row[0] } else { row[1] }
        }));
    }
    for (ty, element) in [("b32", I32), ("u64", I64)] {
        list.push(Case::new("compare", &format!("slct.{ty}.s32"), &[element, element, I32], |row| {
            if row[2] as i32 >= 0 { row[0] } else { row[1] }
        }));
    }
    // -0 counts as >= 0, and NaN chooses the second (9.7.6.4).
    list.push(Case::new(
        "compare",
        "slct.f32.f32",
        &[F32; 3],
        |row| {
            if f32_of(row[2]) >= 0.0 { row[0] } else { row[1] }
        },
    ));
    list.push(Case::new("compare", "slct.ftz.b16.f32", &[I16, I16, F32], |row| {
        if flush(f32_of(row[2])) >= 0.0 { row[0] } else { row[1] }
    }));
}

fn tests(list: &mut Vec<Case>) {
    use std::num::FpCategory::{Infinite, Nan, Normal, Subnormal, Zero};
    for (ty, element) in [("f32", F32), ("f64", F64)] {
        let class = move |x: u64| match ty {
            "f32" => f32_of(x).classify(),
            _ => f64::from_bits(x).classify(),
        };
        for name in ["finite", "infinite", "number", "notanumber", "normal", "subnormal"] {
            list.push(Case::new("compare", &format!("testp.{name}.{ty}"), &[element], move |row| {
                let class = class(row[0]);
                u64::from(match name {
                    "finite" => !matches!(class, Infinite | Nan),
                    "infinite" => class == Infinite,
                    "number" => class != Nan,
                    "notanumber" => class == Nan,
                    // Zero is normal by the ISA's definition: it is neither infinite nor subnormal (9.7.3.1).
                    "normal" => matches!(class, Normal | Zero),
                    _ => class == Subnormal,
                })
            }));
        }
    }
}

fn moves(list: &mut Vec<Case>) {
    // The sign is the first operand's, the magnitude the second's (9.7.3.2).
    list.push(Case::new("compare", "copysign.f32", &[F32; 2], |row| row[0] & 0x8000_0000 | row[1] & 0x7FFF_FFFF));
    list.push(Case::new("compare", "copysign.f64", &[F64; 2], |row| row[0] >> 63 << 63 | row[1] & u64::MAX >> 1));
    list.push(Case::new("compare", "mov.u16", &[I16], |row| row[0]));
    list.push(Case::new("compare", "mov.f32", &[F32], |row| row[0]));
    list.push(Case::new("compare", "mov.b64", &[I64], |row| row[0]));
    list.push(Case::new("compare", "mov.b32", &[I32], |row| (row[0] as u32).rotate_left(16).into()));
    list.push(Case::new("compare", "mov.b64", &[I64], |row| row[0].rotate_left(32)).named("mov_b64_halves"));
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    setp(&mut list);
    set(&mut list);
    select(&mut list);
    tests(&mut list);
    moves(&mut list);
    list
}
