//! Integer arithmetic in 128 bits (PTX ISA 9.7.1 and 9.7.18), cut to the type's width.

use crate::cases::Case;
use crate::inputs::Element::{self, Bool, I16, I32, I64};

/// A type's name, its width, and whether it is signed.
type Integer = (&'static str, u32, bool);

const TYPES: [Integer; 6] = [
    ("u16", 16, false),
    ("s16", 16, true),
    ("u32", 32, false),
    ("s32", 32, true),
    ("u64", 64, false),
    ("s64", 64, true),
];

fn element(bits: u32) -> Element {
    match bits {
        16 => I16,
        32 => I32,
        _ => I64,
    }
}

/// The number that `bits` bits stand for.
fn value(x: u64, bits: u32, signed: bool) -> i128 {
    let x = i128::from(x & u64::MAX >> (64 - bits));
    if signed && x >> (bits - 1) == 1 { x - (1 << bits) } else { x }
}

fn cut(x: i128, bits: u32) -> u64 {
    x as u64 & u64::MAX >> (64 - bits)
}

/// `.sat` of `.s32`.
fn clamp(x: i128) -> u64 {
    cut(x.clamp(i32::MIN.into(), i32::MAX.into()), 32)
}

/// The high half of a product of two 64-bit numbers does not fit once something is added: halves are added apart.
fn high(a: i128, b: i128, bits: u32) -> i128 {
    match bits {
        // The product of two unsigned 64-bit numbers may exceed i128.
        64 if a > i64::MAX.into() && b > i64::MAX.into() => ((a as u128 * b as u128) >> 64) as i128,
        _ => (a * b) >> bits,
    }
}

fn binary(list: &mut Vec<Case>, name: &str, f: fn(i128, i128, u32) -> i128) {
    for (ty, bits, signed) in TYPES {
        let instruction = format!("{name}.{ty}");
        let divides = name == "div" || name == "rem";
        let mut case = Case::new("integer", &instruction, &[element(bits); 2], move |row| {
            cut(f(value(row[0], bits, signed), value(row[1], bits, signed), bits), bits)
        });
        // Division by zero is unspecified (9.7.1.8), and so is the quotient that overflows.
        if divides {
            case.rows.retain(|row| row[1] != 0 && !(signed && value(row[1], bits, true) == -1));
        }
        list.push(case);
    }
}

fn ternary(list: &mut Vec<Case>, name: &str, f: fn(i128, i128, i128, u32) -> i128) {
    for (ty, bits, signed) in TYPES {
        let number = move |x: u64| value(x, bits, signed);
        list.push(Case::new("integer", &format!("{name}.{ty}"), &[element(bits); 3], move |row| {
            cut(f(number(row[0]), number(row[1]), number(row[2]), bits), bits)
        }));
    }
}

fn wide(list: &mut Vec<Case>) {
    for (ty, bits, signed) in &TYPES[..4] {
        let (bits, signed) = (*bits, *signed);
        let product = move |row: &[u64]| value(row[0], bits, signed) * value(row[1], bits, signed);
        list.push(Case::new("integer", &format!("mul.wide.{ty}"), &[element(bits); 2], move |row| {
            cut(product(row), 2 * bits)
        }));
        let operands = [element(bits), element(bits), element(2 * bits)];
        list.push(Case::new("integer", &format!("mad.wide.{ty}"), &operands, move |row| {
            cut(product(row) + value(row[2], 2 * bits, signed), 2 * bits)
        }));
    }
}

/// `mul24`: bits 47..16 of the product are `.hi` (9.7.1.5).
fn product24(list: &mut Vec<Case>) {
    for signed in [false, true] {
        let ty = if signed { "s32" } else { "u32" };
        for (half, shift) in [("lo", 0), ("hi", 16)] {
            let product =
                move |row: &[u64]| (value(row[0], 24, signed) * value(row[1], 24, signed)) >> shift & 0xFFFF_FFFF;
            let name = |op: &str| format!("{op}.{half}.{ty}");
            list.push(Case::new("integer", &name("mul24"), &[I32; 2], move |row| cut(product(row), 32)));
            list.push(Case::new("integer", &name("mad24"), &[I32; 3], move |row| {
                cut(product(row) + i128::from(row[2]), 32)
            }));
        }
    }
    list.push(Case::new("integer", "mad24.hi.sat.s32", &[I32; 3], |row| {
        clamp(((value(row[0], 24, true) * value(row[1], 24, true)) >> 16) + value(row[2], 32, true))
    }));
}

/// Dot products of bytes with bytes or halves (9.7.1.23-24).
fn dots(list: &mut Vec<Case>) {
    for (a, b) in [("u32", "u32"), ("u32", "s32"), ("s32", "u32"), ("s32", "s32")] {
        let (sa, sb) = (a == "s32", b == "s32");
        // The accumulator's signedness does not matter to a sum cut to 32 bits.
        let dot = move |row: &[u64], count: u32, width: u32, first: u32| {
            let part = |i: u32| value(row[0] >> (width * i), width, sa) * value(row[1] >> (8 * (i + first)), 8, sb);
            cut((0..count).map(part).sum::<i128>() + i128::from(row[2]), 32)
        };
        list.push(Case::new("integer", &format!("dp4a.{a}.{b}"), &[I32; 3], move |row| dot(row, 4, 8, 0)));
        for (half, first) in [("lo", 0), ("hi", 2)] {
            let name = format!("dp2a.{half}.{a}.{b}");
            list.push(Case::new("integer", &name, &[I32; 3], move |row| dot(row, 2, 16, first)));
        }
    }
}

/// Absolute differences of bytes, apart or summed (9.7.18).
fn byte_differences(list: &mut Vec<Case>) {
    for (d, a, b) in [("u32", "u32", "u32"), ("u32", "s32", "u32"), ("s32", "u32", "s32"), ("s32", "s32", "s32")] {
        let (sa, sb) = (a == "s32", b == "s32");
        let difference =
            move |row: &[u64], i: u32| (value(row[0] >> (8 * i), 8, sa) - value(row[1] >> (8 * i), 8, sb)).abs();
        let (least, most) = if d == "s32" { (-128, 127) } else { (0, 255) };
        let name = format!("vabsdiff4.{d}.{a}.{b}");
        list.push(Case::new("video", &name, &[I32; 3], move |row| {
            (0..4).map(|i| cut(difference(row, i), 8) << (8 * i)).sum()
        }));
        list.push(Case::new("video", &format!("{name}.sat"), &[I32; 3], move |row| {
            (0..4).map(|i| cut(difference(row, i).clamp(least, most), 8) << (8 * i)).sum()
        }));
        list.push(Case::new("video", &format!("{name}.add"), &[I32; 3], move |row| {
            cut((0..4).map(|i| difference(row, i)).sum::<i128>() + i128::from(row[2]), 32)
        }));
    }
}

/// Three words, carried through (9.7.2), as a sum or difference of 96 or 192 bits.
fn carries(list: &mut Vec<Case>) {
    for bits in [32u32, 64] {
        for add in [true, false] {
            let name = format!("{}.cc.u{bits}", if add { "add" } else { "sub" });
            let rows = crate::inputs::rows(&[element(bits); 6]);
            list.push(Case::of("integer", &name, 3, rows, move |row| {
                let mut carry = 0;
                row.chunks_exact(2)
                    .map(|pair| {
                        let [a, b] = [i128::from(pair[0]), i128::from(pair[1])];
                        let sum = if add { a + b + carry } else { a - b - carry };
                        carry = sum >> bits & 1;
                        cut(sum, bits)
                    })
                    .collect()
            }));
        }
    }
    for (ty, bits, signed) in [TYPES[2], TYPES[3], TYPES[4]] {
        let rows = crate::inputs::rows(&[element(bits); 4]);
        list.push(Case::of("integer", &format!("mad.lo.cc.{ty}"), 2, rows, move |row| {
            let (a, b) = (value(row[0], bits, signed), value(row[1], bits, signed));
            let low = i128::from(cut(a.wrapping_mul(b), bits)) + i128::from(row[2]);
            vec![cut(low, bits), cut(high(a, b, bits) + i128::from(row[3]) + (low >> bits), bits)]
        }));
    }
}

fn packed(list: &mut Vec<Case>) {
    let mut add = |name: &str, signed: bool, f: fn(i128, i128) -> i128| {
        list.push(Case::new("integer_90", name, &[I32; 2], move |row| {
            let half = |i: u32| {
                let part = |x: u64| value(x >> (16 * i), 16, signed);
                cut(f(part(row[0]), part(row[1])), 16) << (16 * i)
            };
            half(0) | half(1)
        }));
    };
    add("add.u16x2", false, |a, b| a + b);
    add("add.s16x2", true, |a, b| a + b);
    add("min.u16x2", false, i128::min);
    add("min.s16x2", true, i128::min);
    add("max.u16x2", false, i128::max);
    add("max.s16x2", true, i128::max);
    add("min.relu.s16x2", true, |a, b| a.min(b).max(0));
    list.push(Case::new("integer_90", "max.relu.s32", &[I32; 2], |row| {
        cut(value(row[0], 32, true).max(value(row[1], 32, true)).max(0), 32)
    }));
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    binary(&mut list, "add", |a, b, _| a + b);
    binary(&mut list, "sub", |a, b, _| a - b);
    binary(&mut list, "min", |a, b, _| a.min(b));
    binary(&mut list, "max", |a, b, _| a.max(b));
    binary(&mut list, "div", |a, b, _| a / b);
    binary(&mut list, "rem", |a, b, _| a % b);
    binary(&mut list, "mul.lo", |a, b, _| a.wrapping_mul(b));
    binary(&mut list, "mul.hi", high);
    ternary(&mut list, "mad.lo", |a, b, c, _| a.wrapping_mul(b).wrapping_add(c));
    ternary(&mut list, "mad.hi", |a, b, c, bits| high(a, b, bits) + c);
    ternary(&mut list, "sad", |a, b, c, _| (a - b).abs() + c);
    for (name, sign) in [("add.sat.s32", 1), ("sub.sat.s32", -1)] {
        list.push(Case::new("integer", name, &[I32; 2], move |row| {
            clamp(value(row[0], 32, true) + sign * value(row[1], 32, true))
        }));
    }
    list.push(Case::new("integer", "mad.hi.sat.s32", &[I32; 3], |row| {
        clamp(high(value(row[0], 32, true), value(row[1], 32, true), 32) + value(row[2], 32, true))
    }));
    for bits in [16, 32, 64] {
        let number = move |row: &[u64]| value(row[0], bits, true);
        list.push(Case::new("integer", &format!("abs.s{bits}"), &[element(bits)], move |row| {
            cut(number(row).abs(), bits)
        }));
        list.push(Case::new("integer", &format!("neg.s{bits}"), &[element(bits)], move |row| cut(-number(row), bits)));
    }
    wide(&mut list);
    product24(&mut list);
    dots(&mut list);
    byte_differences(&mut list);
    carries(&mut list);
    packed(&mut list);
    // Predicates: and, or, xor, not, mov.
    list.push(
        Case::new("logic", "and.pred", &[Bool; 2], |row| {
            let (p, q) = (row[0], row[1]);
            p & q | (p | q) << 1 | (p ^ q) << 2 | (p ^ 1) << 3 | q << 4
        })
        .named("pred_logic"),
    );
    list
}
