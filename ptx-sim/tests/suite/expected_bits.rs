//! Logic, shifts, permutation and bit fields, bit by bit (PTX ISA 9.7.1.14-22, 9.7.8, 9.7.9.7).

use crate::cases::Case;
use crate::inputs::Element::{I16, I32, I64, Selector, Shift};
use crate::inputs::{Element, rows};

const WIDTHS: [(u32, Element); 3] = [(16, I16), (32, I32), (64, I64)];

fn bit(x: u64, i: u32) -> u64 {
    if i < 64 { x >> i & 1 } else { 0 }
}

/// Bits put together from the lowest.
fn build(bits: u32, f: impl Fn(u32) -> u64) -> u64 {
    (0..bits).fold(0, |x, i| x | f(i) << i)
}

fn logic(list: &mut Vec<Case>) {
    for (bits, element) in WIDTHS {
        let mut two = |name: &str, f: fn(u64, u64) -> u64| {
            list.push(Case::new("logic", &format!("{name}.b{bits}"), &[element; 2], move |row| {
                build(bits, |i| f(bit(row[0], i), bit(row[1], i)))
            }));
        };
        two("and", |a, b| a * b);
        two("or", |a, b| u64::from(a + b > 0));
        two("xor", |a, b| u64::from(a != b));
        list.push(Case::new("logic", &format!("not.b{bits}"), &[element], move |row| {
            build(bits, |i| 1 - bit(row[0], i))
        }));
        list.push(Case::new("logic", &format!("cnot.b{bits}"), &[element], |row| (row[0] == 0).into()));
    }
    list.push(Case::of("logic", "lop3.b32", 256, rows(&[I32; 3]), |row| {
        let function = |lut: u64| build(32, |i| lut >> (bit(row[0], i) * 4 + bit(row[1], i) * 2 + bit(row[2], i)) & 1);
        (0..256).map(function).collect()
    }));
}

fn shifts(list: &mut Vec<Case>) {
    for (bits, element) in WIDTHS {
        // Amounts above the width are clamped to it (9.7.8.8-9).
        let from = move |x: u64, i: i64, fill: u64| if (0..bits.into()).contains(&i) { bit(x, i as u32) } else { fill };
        list.push(Case::new("logic", &format!("shl.b{bits}"), &[element, Shift], move |row| {
            build(bits, |i| from(row[0], i64::from(i) - row[1] as i64, 0))
        }));
        for ty in ["u", "s", "b"] {
            if ty == "b" && bits != 32 {
                continue;
            }
            list.push(Case::new("logic", &format!("shr.{ty}{bits}"), &[element, Shift], move |row| {
                let fill = if ty == "s" { bit(row[0], bits - 1) } else { 0 };
                build(bits, |i| from(row[0], i64::from(i) + row[1] as i64, fill))
            }));
        }
    }
    for wrap in [false, true] {
        let amount = move |n: u64| if wrap { n % 32 } else { n.min(32) } as u32;
        let name = |side: &str| format!("shf.{side}.{}.b32", if wrap { "wrap" } else { "clamp" });
        let both = |row: &[u64]| row[0] | row[1] << 32;
        list.push(Case::new("logic", &name("l"), &[I32, I32, Shift], move |row| {
            build(32, |i| bit(both(row), i + 32 - amount(row[2])))
        }));
        list.push(Case::new("logic", &name("r"), &[I32, I32, Shift], move |row| {
            build(32, |i| bit(both(row), i + amount(row[2])))
        }));
    }
}

/// The bytes that each mode takes, for bytes 3, 2, 1, 0 of the result and selectors 0 to 3: the ISA's table (9.7.9.7).
const MODES: [(&str, [[u8; 4]; 4]); 6] = [
    ("f4e", [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]),
    ("b4e", [[5, 6, 7, 0], [6, 7, 0, 1], [7, 0, 1, 2], [0, 1, 2, 3]]),
    ("rc8", [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]),
    ("ecl", [[3, 2, 1, 0], [3, 2, 1, 1], [3, 2, 2, 2], [3, 3, 3, 3]]),
    ("ecr", [[0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 1, 0], [3, 2, 1, 0]]),
    ("rc16", [[1, 0, 1, 0], [3, 2, 3, 2], [1, 0, 1, 0], [3, 2, 3, 2]]),
];

fn permutation(list: &mut Vec<Case>) {
    let bytes = |row: &[u64]| (row[0] | row[1] << 32).to_le_bytes();
    list.push(Case::new("logic", "prmt.b32", &[I32, I32, Selector], move |row| {
        let byte = |i: usize| {
            let nibble = row[2] >> (4 * i) & 15;
            let byte = bytes(row)[nibble as usize & 7];
            // The nibble's high bit asks for eight copies of the byte's sign.
            if nibble < 8 { byte } else { 0u8.wrapping_sub(byte >> 7) }
        };
        u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]).into()
    }));
    for (mode, table) in MODES {
        list.push(Case::new("logic", &format!("prmt.b32.{mode}"), &[I32, I32, Selector], move |row| {
            u32::from_be_bytes(table[row[2] as usize & 3].map(|index| bytes(row)[index as usize])).into()
        }));
    }
}

/// Position of the highest bit that differs from the sign, or all ones (9.7.1.16).
fn bfind(x: u64, bits: u32, signed: bool, amount: bool) -> u64 {
    let sign = if signed { bit(x, bits - 1) } else { 0 };
    match (0..bits).rev().find(|&i| bit(x, i) != sign) {
        Some(i) => u64::from(if amount { bits - 1 - i } else { i }),
        None => 0xFFFF_FFFF,
    }
}

fn fields(list: &mut Vec<Case>) {
    // The ISA restricts position and length to 0..=255 (9.7.1.19-20). Its pseudo-code takes larger ones modulo 256; what
    // ptxas and driver 580 make of the 64-bit forms takes them for one past the end, and the simulator ends the launch.
    let is_byte = |x: &u64| *x < 256;
    for (bits, element) in &WIDTHS[1..] {
        let (bits, element) = (*bits, *element);
        list.push(Case::new("integer", &format!("popc.b{bits}"), &[element], move |row| {
            (0..bits).map(|i| bit(row[0], i)).sum()
        }));
        list.push(Case::new("integer", &format!("clz.b{bits}"), &[element], move |row| {
            (0..bits).rev().take_while(|&i| bit(row[0], i) == 0).count() as u64
        }));
        list.push(Case::new("integer", &format!("brev.b{bits}"), &[element], move |row| {
            build(bits, |i| bit(row[0], bits - 1 - i))
        }));
        for signed in [false, true] {
            let ty = format!("{}{bits}", if signed { "s" } else { "u" });
            list.push(Case::new("integer", &format!("bfind.{ty}"), &[element], move |row| {
                bfind(row[0], bits, signed, false)
            }));
            if signed == (bits == 64) {
                list.push(Case::new("integer", &format!("bfind.shiftamt.{ty}"), &[element], move |row| {
                    bfind(row[0], bits, signed, true)
                }));
            }
            // The ISA's pseudo-code (9.7.1.19): position and length are 8 bits.
            let mut case = Case::new("integer", &format!("bfe.{ty}"), &[element, Shift, Shift], move |row| {
                let (pos, len) = ((row[1] & 255) as u32, (row[2] & 255) as u32);
                let sign = if signed && len > 0 { bit(row[0], (pos + len - 1).min(bits - 1)) } else { 0 };
                build(bits, |i| if i < len && pos + i < bits { bit(row[0], pos + i) } else { sign })
            });
            case.rows.retain(|row| bits == 32 || row[1..].iter().all(is_byte));
            list.push(case);
        }
        let mut case = Case::new("integer", &format!("bfi.b{bits}"), &[element, element, Shift, Shift], move |row| {
            let (pos, len) = ((row[2] & 255) as u32, (row[3] & 255) as u32);
            build(bits, |i| if i >= pos && i < pos + len { bit(row[0], i - pos) } else { bit(row[1], i) })
        });
        case.rows.retain(|row| bits == 32 || row[2..].iter().all(is_byte));
        list.push(case);
    }
    let mut finds = rows(&[I32, I32, I32]);
    // The base is a bit's number, the offset counts set bits from there, up or down.
    for (i, row) in finds.iter_mut().enumerate() {
        row[1] %= 32;
        row[2] = [0, 1, 2, 5, 0xFFFF_FFFF, 0xFFFF_FFFD, 33][i % 7];
    }
    list.push(Case::of("integer", "fns.b32", 1, finds, |row| {
        let (base, offset) = (row[1] as i64, i64::from(row[2] as i32));
        let set = |i: &i64| bit(row[0], *i as u32) == 1;
        let found = match offset {
            0 => Some(base).filter(set),
            1.. => (base..32).filter(set).nth(offset as usize - 1),
            _ => (0..=base).rev().filter(set).nth(-offset as usize - 1),
        };
        vec![found.map_or(0xFFFF_FFFF, |i| i as u64)]
    }));
    for wrap in [false, true] {
        let mode = if wrap { "wrap" } else { "clamp" };
        list.push(Case::new("integer", &format!("bmsk.{mode}.b32"), &[Shift; 2], move |row| {
            let [start, len] = [0, 1].map(|i| if wrap { row[i] % 32 } else { row[i].min(32) });
            build(32, |i| u64::from((start..start + len).contains(&i.into())))
        }));
    }
    // Sign or zero extension from a bit number that is clamped or taken modulo 32 (9.7.1.21).
    list.push(Case::new("integer", "szext.clamp.u32", &[I32, Shift], |row| row[0] & ((1u64 << row[1].min(32)) - 1)));
    list.push(Case::new("integer", "szext.wrap.s32", &[I32, Shift], |row| match row[1] as u32 % 32 {
        0 => 0,
        n => build(32, |i| bit(row[0], i.min(n - 1))),
    }));
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    logic(&mut list);
    shifts(&mut list);
    permutation(&mut list);
    fields(&mut list);
    list
}
