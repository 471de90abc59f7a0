//! Integer, carry and bit-field instructions against exact 128-bit arithmetic.

mod common;

use common::{Snippet, rows};
use ptx_sim::fault::Fault;
use ptx_sim::{Launch, Machine};

const EDGES: [u64; 9] = [0, 1, 2, 0x7F, 0x8000, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF];

/// Types by name: width and whether they are signed.
const TYPES: [(&str, u32, bool); 6] = [
    ("u16", 16, false),
    ("s16", 16, true),
    ("u32", 32, false),
    ("s32", 32, true),
    ("u64", 64, false),
    ("s64", 64, true),
];

fn value(bits: u64, width: u32, signed: bool) -> i128 {
    let value = i128::from(bits) & ((1 << width) - 1);
    if signed && value >> (width - 1) == 1 { value - (1 << width) } else { value }
}

fn cut(value: i128, width: u32) -> u64 {
    (value as u128 & ((1 << width) - 1)) as u64
}

fn register(width: u32) -> &'static str {
    match width {
        16 => "b16",
        32 => "b32",
        _ => "b64",
    }
}

/// Checks `opcode` with operands of `width` bits and a result of `to` bits, for every type that `wanted` has.
fn check(opcode: &str, types: &[&str], count: usize, to: impl Fn(u32) -> u32, expected: impl Fn(&[i128], u32) -> i128) {
    for (name, width, signed) in TYPES.into_iter().filter(|(name, ..)| types.contains(name)) {
        let inputs = vec![register(width); count];
        let list: Vec<String> = (0..count).map(|i| format!("%x{i}")).collect();
        let body = format!("{opcode}.{name} %y0, {};", list.join(", "));
        let snippet = Snippet { inputs: &inputs, outputs: &[register(to(width))], body: &body };
        snippet.check(&rows(&EDGES, count, width, 500), |row| {
            let values: Vec<i128> = row.iter().map(|&bits| value(bits, width, signed)).collect();
            cut(expected(&values, width), to(width))
        });
    }
}

const ALL: [&str; 6] = ["u16", "s16", "u32", "s32", "u64", "s64"];

#[test]
fn sums_differences_and_low_products_wrap() {
    let same = |width| width;
    check("add", &ALL, 2, same, |v, _| v[0] + v[1]);
    check("sub", &ALL, 2, same, |v, _| v[0] - v[1]);
    check("mul.lo", &ALL, 2, same, |v, _| v[0].wrapping_mul(v[1]));
    check("mad.lo", &ALL, 3, same, |v, _| v[0].wrapping_mul(v[1]).wrapping_add(v[2]));
    check("sad", &ALL, 3, same, |v, _| v[2] + (v[0] - v[1]).abs());
    check("neg", &["s16", "s32", "s64"], 1, same, |v, _| -v[0]);
    check("abs", &["s16", "s32", "s64"], 1, same, |v, _| v[0].abs());
    check("min", &ALL, 2, same, |v, _| v[0].min(v[1]));
    check("max", &ALL, 2, same, |v, _| v[0].max(v[1]));
}

#[test]
fn high_and_wide_products_are_parts_of_the_exact_product() {
    let high = |v: &[i128], width: u32| (v[0].wrapping_mul(v[1]) as u128 >> width) as i128;
    check("mul.hi", &ALL, 2, |width| width, high);
    check("mad.hi", &ALL, 3, |width| width, |v, width| high(v, width) + v[2]);
    check("mul.wide", &ALL[..4], 2, |width| 2 * width, |v, _| v[0] * v[1]);
    for (name, width, signed) in TYPES.into_iter().take(4) {
        let (narrow, wide) = (register(width), register(2 * width));
        let body = format!("mad.wide.{name} %y0, %x0, %x1, %x2;");
        let snippet = Snippet { inputs: &[narrow, narrow, wide], outputs: &[wide], body: &body };
        snippet.check(&rows(&EDGES, 3, 64, 300), |row| {
            let product = value(row[0], width, signed) * value(row[1], width, signed);
            cut(product + i128::from(row[2]), 2 * width)
        });
    }
}

#[test]
fn saturating_sums_stay_in_range() {
    let clamp = |value: i128| value.clamp(i32::MIN.into(), i32::MAX.into());
    check("add.sat", &["s32"], 2, |w| w, |v, _| clamp(v[0] + v[1]));
    check("sub.sat", &["s32"], 2, |w| w, |v, _| clamp(v[0] - v[1]));
    check("mad.hi.sat", &["s32"], 3, |w| w, |v, _| clamp(((v[0] * v[1]) >> 32) + v[2]));
    check("min.relu", &["s32"], 2, |w| w, |v, _| v[0].min(v[1]).max(0));
    check("max.relu", &["s32"], 2, |w| w, |v, _| v[0].max(v[1]).max(0));
}

#[test]
fn quotients_truncate_and_division_by_zero_gives_all_ones() {
    check("div", &ALL, 2, |w| w, |v, _| if v[1] == 0 { -1 } else { v[0] / v[1] });
    check("rem", &ALL, 2, |w| w, |v, _| if v[1] == 0 { -1 } else { v[0] % v[1] });
}

#[test]
fn products_of_24_bits_have_48() {
    let low = |v: i128, signed: bool| value(v as u64 & 0xFF_FFFF, 24, signed);
    for (name, signed) in [("u32", false), ("s32", true)] {
        let product = |v: &[i128]| low(v[0], signed) * low(v[1], signed);
        check("mul24.lo", &[name], 2, |w| w, |v, _| product(v));
        check("mul24.hi", &[name], 2, |w| w, |v, _| product(v) >> 16);
        check("mad24.lo", &[name], 3, |w| w, |v, _| product(v) + v[2]);
        check("mad24.hi", &[name], 3, |w| w, |v, _| (product(v) >> 16) + v[2]);
    }
    check(
        "mad24.hi.sat",
        &["s32"],
        3,
        |w| w,
        |v, _| {
            let high = i128::from(((low(v[0], true) * low(v[1], true)) >> 16) as i32);
            (high + v[2]).clamp(i32::MIN.into(), i32::MAX.into())
        },
    );
}

/// What an instruction does to each half.
type Function = &'static dyn Fn(i128, i128) -> i128;

#[test]
fn packed_halves_do_not_carry_into_each_other() {
    let halves = |row: &[u64], signed: bool, f: &dyn Fn(i128, i128) -> i128| {
        let half = |i: u32| f(value(row[0] >> (16 * i), 16, signed), value(row[1] >> (16 * i), 16, signed));
        cut(half(0), 16) | cut(half(1), 16) << 16
    };
    let cases: [(&str, bool, Function); 8] = [
        ("add.u16x2", false, &|a, b| a + b),
        ("add.s16x2", true, &|a, b| a + b),
        ("min.u16x2", false, &|a, b| a.min(b)),
        ("max.u16x2", false, &|a, b| a.max(b)),
        ("min.s16x2", true, &|a, b| a.min(b)),
        ("max.s16x2", true, &|a, b| a.max(b)),
        ("min.relu.s16x2", true, &|a, b| a.min(b).max(0)),
        ("max.relu.s16x2", true, &|a, b| a.max(b).max(0)),
    ];
    for (opcode, signed, f) in cases {
        let body = format!("{opcode} %y0, %x0, %x1;");
        let snippet = Snippet { inputs: &["b32", "b32"], outputs: &["b32"], body: &body };
        snippet.check(&rows(&[0, 0x7FFF_8000, 0x8000_7FFF, 0xFFFF_0001], 2, 32, 500), |row| halves(row, signed, f));
    }
}

#[test]
fn carry_chains_compute_in_twice_the_width() {
    // Two words of 32 and of 64 bits; operands are a, b as (low, high).
    for (bits, unsigned) in [(32, "u32"), (64, "u64")] {
        let ty = register(bits);
        let join = |low: u64, high: u64| u128::from(high) << bits | u128::from(low);
        for (first, second, minus) in [("add.cc", "addc", false), ("sub.cc", "subc", true)] {
            let body = format!("{first}.{unsigned} %y0, %x0, %x2; {second}.{unsigned} %y1, %x1, %x3;");
            let snippet = Snippet { inputs: &[ty; 4], outputs: &[ty, ty], body: &body };
            let rows = rows(&[0, 1, u64::MAX], 4, bits, 500);
            for (row, result) in rows.iter().zip(snippet.run(&rows)) {
                let (a, b) = (join(row[0], row[1]), join(row[2], row[3]));
                let sum = if minus { a.wrapping_sub(b) } else { a.wrapping_add(b) };
                let mask = u128::MAX >> (128 - 2 * bits);
                assert_eq!(join(result[0], result[1]), sum & mask, "{body} {row:x?}");
            }
        }
    }
}

#[test]
fn carries_go_through_middle_words_and_reach_the_end() {
    let body = "add.cc.u32 %y0, %x0, %x1; addc.cc.u32 %y1, %x0, %x1; addc.u32 %y2, 0, 0;";
    let snippet = Snippet { inputs: &["b32", "b32"], outputs: &["b32", "b32", "b32"], body };
    let rows = rows(&[0, 1, 0xFFFF_FFFF], 2, 32, 300);
    for (row, result) in rows.iter().zip(snippet.run(&rows)) {
        let twice = |x: u64| u128::from(x) << 32 | u128::from(x);
        let got = u128::from(result[2]) << 64 | u128::from(result[1]) << 32 | u128::from(result[0]);
        assert_eq!(got, twice(row[0]) + twice(row[1]));
    }
    // An instruction without `.cc` leaves the flag alone, and inactive lanes keep theirs.
    let body = "setp.ne.u32 %p0, %x1, 0;\nadd.cc.u32 %t0, %x0, 1; add.u32 %t1, %x0, %x0;\n\
                @%p0 add.cc.u32 %t2, 0, 0;\naddc.u32 %y0, 0, 0;";
    let snippet = Snippet { inputs: &["b32", "b32"], outputs: &["b32"], body };
    let rows: Vec<Vec<u64>> = (0..64).map(|i| vec![if i % 3 == 0 { 0xFFFF_FFFF } else { 5 }, i % 2]).collect();
    snippet.check(&rows, |row| u64::from(row[0] == 0xFFFF_FFFF && row[1] == 0));
}

#[test]
fn products_with_carries_multiply_64_bits_with_words_of_32() {
    // The 128-bit product of two 64-bit numbers, as compilers write it.
    let body = "mul.lo.u32 %y0, %x0, %x2; mul.hi.u32 %y1, %x0, %x2;\n\
                mad.lo.cc.u32 %y1, %x0, %x3, %y1; madc.hi.u32 %y2, %x0, %x3, 0;\n\
                mad.lo.cc.u32 %y1, %x1, %x2, %y1; madc.hi.cc.u32 %y2, %x1, %x2, %y2; addc.u32 %y3, 0, 0;\n\
                mad.lo.cc.u32 %y2, %x1, %x3, %y2; madc.hi.u32 %y3, %x1, %x3, %y3;";
    let snippet = Snippet { inputs: &["b32"; 4], outputs: &["b32"; 4], body };
    let rows = rows(&[0, 1, 0xFFFF_FFFF], 4, 32, 500);
    for (row, result) in rows.iter().zip(snippet.run(&rows)) {
        let product = u128::from(row[1] << 32 | row[0]) * u128::from(row[3] << 32 | row[2]);
        let got = result.iter().rev().fold(0, |sum, word| sum << 32 | u128::from(*word));
        assert_eq!(got, product, "{row:x?}");
    }
}

#[test]
fn dot_products_add_products_of_bytes() {
    let element = |word: u64, width: u32, i: u32, signed: bool| value(word >> (width * i), width, signed);
    for (a_name, a_signed) in [("u32", false), ("s32", true)] {
        for (b_name, b_signed) in [("u32", false), ("s32", true)] {
            let body = format!("dp4a.{a_name}.{b_name} %y0, %x0, %x1, %x2;");
            let rows = rows(&[0, 0x8080_8080, 0xFFFF_FFFF, 0x7F80_FF01], 3, 32, 300);
            Snippet { inputs: &["b32"; 3], outputs: &["b32"], body: &body }.check(&rows, |row| {
                let terms = (0..4).map(|i| element(row[0], 8, i, a_signed) * element(row[1], 8, i, b_signed));
                cut(i128::from(row[2]) + terms.sum::<i128>(), 32)
            });
            for (mode, first) in [("lo", 0), ("hi", 2)] {
                let body = format!("dp2a.{mode}.{a_name}.{b_name} %y0, %x0, %x1, %x2;");
                Snippet { inputs: &["b32"; 3], outputs: &["b32"], body: &body }.check(&rows, |row| {
                    let term = |i| element(row[0], 16, i, a_signed) * element(row[1], 8, first + i, b_signed);
                    cut(i128::from(row[2]) + term(0) + term(1), 32)
                });
            }
        }
    }
}

#[test]
fn bits_are_counted_found_and_reversed() {
    for (ty, width) in [("b32", 32), ("b64", 64)] {
        let list = rows(&EDGES, 1, width, 500);
        let check = |opcode: &str, to: &str, expected: &dyn Fn(u64) -> u64| {
            let body = format!("{opcode} %y0, %x0;");
            Snippet { inputs: &[ty], outputs: &[to], body: &body }.check(&list, |row| expected(row[0]));
        };
        let bit = |x: u64, i: u32| x >> i & 1;
        let top = move |x: u64| (0..width).rev().find(|&i| bit(x, i) == 1);
        check(&format!("popc.{ty}"), "b32", &|x| (0..width).map(|i| bit(x, i)).sum());
        check(&format!("clz.{ty}"), "b32", &|x| top(x).map_or(width, |i| width - 1 - i).into());
        check(&format!("brev.{ty}"), ty, &|x| (0..width).map(|i| bit(x, i) << (width - 1 - i)).sum());
        for (sign, signed) in [("u", false), ("s", true)] {
            let found = |x: u64| {
                let copies = if signed { bit(x, width - 1) } else { 0 };
                (0..width).rev().find(|&i| bit(x, i) != copies)
            };
            check(&format!("bfind.{sign}{width}"), "b32", &|x| found(x).unwrap_or(u32::MAX).into());
            check(&format!("bfind.shiftamt.{sign}{width}"), "b32", &|x| {
                found(x).map_or(u32::MAX, |i| width - 1 - i).into()
            });
        }
    }
}

#[test]
fn fns_finds_the_nth_set_bit_from_the_base() {
    let mut list = Vec::new();
    for mask in [0u64, 1, 0x8000_0000, 0xFFFF_FFFF, 0xA5A5_5A5A, 0x0001_1000] {
        for base in 0..32 {
            list.extend((-6i32..=6).map(|offset| vec![mask, base, u64::from(offset as u32)]));
        }
    }
    Snippet { inputs: &["b32"; 3], outputs: &["b32"], body: "fns.b32 %y0, %x0, %x1, %x2;" }.check(&list, |row| {
        let (mask, mut position, offset) = (row[0], row[1] as i32, row[2] as u32 as i32);
        let set = |position: i32| mask >> position & 1 == 1;
        if offset == 0 {
            return if set(position) { row[1] } else { 0xFFFF_FFFF };
        }
        let mut count = offset.abs();
        while (0..32).contains(&position) {
            count -= i32::from(set(position));
            if count == 0 {
                return position as u64;
            }
            position += offset.signum();
        }
        0xFFFF_FFFF
    });
}

#[test]
fn fields_are_extracted_and_inserted_bit_by_bit() {
    let all = [0, 1, 31, 32, 33, 63, 64, 65, 0xFF, 0x100, 0x8000_0000];
    // For 64 bits, those beyond 255 have a test of their own.
    for (width, ty, edges) in [(32, "b32", &all[..]), (64, "b64", &all[..9])] {
        let mut list = Vec::new();
        for value in rows(&EDGES, 1, width, 10).into_iter().flatten() {
            for &start in edges {
                list.extend(
                    edges
                        .iter()
                        .map(|length| vec![value, !value.rotate_left(7) & u64::MAX >> (64 - width), start, *length]),
                );
            }
        }
        let fields = |row: &[u64]| ((row[2] & 0xFF) as u32, (row[3] & 0xFF) as u32);
        for (sign, signed) in [("u", false), ("s", true)] {
            let body = format!("bfe.{sign}{width} %y0, %x0, %x2, %x3;");
            Snippet { inputs: &[ty, ty, "b32", "b32"], outputs: &[ty], body: &body }.check(&list, |row| {
                let (start, length) = fields(row);
                let bit = |i: u32| row[0] >> i & 1;
                let last = (start + length).saturating_sub(1).min(width - 1);
                let sign = if signed && length > 0 { bit(last) } else { 0 };
                (0..width).map(|i| (if i < length && start + i < width { bit(start + i) } else { sign }) << i).sum()
            });
        }
        let body = format!("bfi.b{width} %y0, %x0, %x1, %x2, %x3;");
        Snippet { inputs: &[ty, ty, "b32", "b32"], outputs: &[ty], body: &body }.check(&list, |row| {
            let (start, length) = fields(row);
            let inside = |i: u32| i >= start && i - start < length;
            (0..width).map(|i| (if inside(i) { row[0] >> (i - start) } else { row[1] >> i } & 1) << i).sum()
        });
    }
}

#[test]
fn a_position_or_length_beyond_255_of_a_64_bit_field_ends_the_launch() {
    for (body, what) in [
        ("bfe.u64 %y0, %d0, %t0, 8;", "bfe.u64: position 256"),
        ("bfe.s64 %y0, %d0, 8, %t0;", "bfe.s64: length 256"),
        ("bfi.b64 %y0, %d0, %d1, %t0, 8;", "bfi.b64: position 256"),
        ("bfi.b64 %y0, %d0, %d1, 8, %t0;", "bfi.b64: length 256"),
    ] {
        // Of lanes that the guard leaves out, any value will do.
        for (guarded, trapped) in [("@%p0 ", false), ("@!%p0 ", true)] {
            let body = format!(
                "mov.b64 %d0, 1;\nmov.b64 %d1, 2;\nmov.b64 %y0, 0;\nmov.b32 %t0, 256;\nsetp.eq.u32 %p0, %t0, 0;\n\
                 {guarded}{body}"
            );
            let ptx = Snippet { inputs: &[], outputs: &["b64"], body: &body }.ptx();
            let mut machine = Machine::default();
            let module = machine.load(&ptx).unwrap();
            let output = machine.memory.allocate(8 * 32).unwrap();
            let params: Vec<u8> = [0, output].iter().flat_map(|pointer: &u64| pointer.to_le_bytes()).collect();
            let result = machine.launch(&module, "k", &Launch::new([1; 3], [32, 1, 1]), &params);
            match Machine::fault(&result) {
                Some(Fault::Trap(why)) => assert!(trapped && why.starts_with(what), "{body}: {why}"),
                other => assert!(!trapped && result.is_ok(), "{body}: {other:?}"),
            }
        }
    }
}

#[test]
fn masks_and_extensions_clamp_or_wrap() {
    let mut list = Vec::new();
    for a in [0u64, 1, 5, 31, 32, 33, 64, 0x8000_0000, 0xFFFF_FFFF] {
        list.extend([0u64, 1, 5, 31, 32, 33, 63, 0xFFFF_FFFF].map(|b| vec![a, b]));
    }
    for (mode, clamp) in [("clamp", true), ("wrap", false)] {
        let limit = |x: u64| if clamp { x.min(32) } else { x % 32 };
        let body = format!("bmsk.{mode}.b32 %y0, %x0, %x1;");
        Snippet { inputs: &["b32"; 2], outputs: &["b32"], body: &body }.check(&list, |row| {
            let (start, length) = (limit(row[0]), limit(row[1]));
            (0..32).filter(|i| (start..start + length).contains(i)).map(|i| 1 << i).sum()
        });
        for (ty, signed) in [("u32", false), ("s32", true)] {
            let body = format!("szext.{mode}.{ty} %y0, %x0, %x1;");
            Snippet { inputs: &["b32"; 2], outputs: &["b32"], body: &body }.check(&list, |row| match limit(row[1]) {
                0 => 0,
                bits => cut(value(row[0], bits as u32, signed), 32),
            });
        }
    }
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    let cases = [
        ("add.rz.s32 %y0, %x0, %x0;", "unknown part `.rz`"),
        ("add.sat.u32 %y0, %x0, %x0;", "`.sat` is for `.s32`"),
        ("mul.u32 %y0, %x0, %x0;", "expected one of `.lo`, `.hi` and `.wide`"),
        ("mul.wide.u64 %d0, %d1, %d2;", "`.wide` is for 16 and 32 bits"),
        ("abs.u32 %y0, %x0;", "does not exist for type `.u32`"),
        ("min.relu.u32 %y0, %x0, %x0;", "`.relu` is for"),
        ("add.u32 %y0, %x0;", "expected 3 to 3 operands, got 2"),
        ("add.u32 %y0, %x0, %nothing;", "`%nothing` is not declared"),
        ("bfind.wrap.u32 %y0, %x0;", "unknown part `.wrap`"),
        ("bmsk.b32 %y0, %x0, %x0;", "expected `.clamp` or `.wrap`"),
        ("vabsdiff4.u32.u32 %y0, %x0, %x0, %x0;", "expected three types"),
        ("vabsdiff4.u32.u32.f32 %y0, %x0, %x0, %x0;", "expected `.u32` or `.s32`, found `.f32`"),
        ("vabsdiff4.u32.u32.u32.sat.add %y0, %x0, %x0, %x0;", "expected nothing, `.sat` or `.add`"),
        ("vabsdiff4.u32.u32.u32 %y0, %x0, %x0;", "expected 4 to 4 operands, got 3"),
    ];
    for (body, why) in cases {
        let (message, line) = Snippet { inputs: &["b32"], outputs: &["b32"], body }.refusal();
        let instruction = body.split(' ').next().unwrap();
        assert!(message.starts_with(&format!("line {line}: `{instruction}`")), "{message} (line {line})");
        assert!(message.contains(why), "{message}");
    }
}
