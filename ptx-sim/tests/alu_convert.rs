//! Conversions: narrow formats exhaustively or against tables of all their numbers, integers in 128 bits.

mod common;

use common::exact::Narrow;
use common::{Random, Snippet, evaluate32, rows};

const NAN: u64 = 0x7FFF_FFFF;

fn single(bits: u64) -> f64 {
    f32::from_bits(bits as u32).into()
}

/// f32 bit patterns: edges of the narrow formats, ties of f16, bf16, tf32 and fp8, and random ones.
fn singles(count: usize) -> Vec<Vec<u64>> {
    let mut list: Vec<u64> = vec![
        0,
        1,
        0x0040_0000,
        0x007F_FFFF,
        0x0080_0000,
        0x3300_0000,
        0x3300_0001,
        0x32FF_FFFF,
        0x3380_0000,
        0x387F_C000,
        0x387F_E000,
        0x3880_0000,
        0x477F_E000,
        0x477F_EFFF,
        0x477F_F000,
        0x4780_0000,
        0x7F7F_7FFF,
        0x7F7F_8000,
        0x7F7F_FFFF,
        0x7F80_0000,
        0x43E0_0000,
        0x43E8_0000,
        0x43E8_0001,
        0x43F0_0000,
        0x4760_0000,
        0x4770_0000,
        0x7F7F_EFFF,
        0x7F7F_F000,
    ];
    let mut random = Random(11);
    for i in 0..count {
        let bits = random.next();
        // Ordinary magnitudes, with long or short fractions.
        let fraction = bits & [0x7F_FFFF, 0x7F_F000, 0x7F_8000, 0x78_0000, 0x7F_F001][i % 5];
        let exponent = if i % 3 == 0 { bits >> 32 & 0xFF } else { 100 + (bits >> 32) % 48 };
        list.push(if exponent == 255 { fraction } else { exponent << 23 | fraction });
    }
    list.iter().flat_map(|x| [vec![*x], vec![x | 0x8000_0000]]).collect()
}

#[test]
fn every_f16_and_bf16_widens_exactly() {
    let list: Vec<Vec<u64>> = (0..0x1_0000).map(|x| vec![x]).collect();
    let (f16, bf16) = (Narrow::new(5, 10, 0x7BFF), Narrow::new(8, 7, 0x7F7F));
    for (ty, format) in [("f16", &f16), ("bf16", &bf16)] {
        let value = |x: u64| {
            let magnitude = (x & 0x7FFF) as usize;
            let number = match format.values.len() - 1 {
                infinity if magnitude == infinity => f64::INFINITY,
                infinity if magnitude > infinity => f64::NAN,
                _ => format.values[magnitude],
            };
            if x >> 15 == 1 { -number } else { number }
        };
        let body = format!("cvt.f32.{ty} %y0, %x0;");
        Snippet { inputs: &["b16"], outputs: &["b32"], body: &body }.check(&list, |row| {
            let x = value(row[0]) as f32;
            if x.is_nan() { NAN } else { x.to_bits().into() }
        });
        let body = format!("cvt.f64.{ty} %y0, %x0; testp.notanumber.f64 %y1, %y0;");
        for (row, result) in
            list.iter().zip(Snippet { inputs: &["b16"], outputs: &["b64", "pred"], body: &body }.run(&list))
        {
            let x = value(row[0]);
            assert!(x.is_nan() && result[1] == 1 || result == [x.to_bits(), 0], "{ty} {row:x?} {result:x?}");
        }
    }
}

/// The encoding with sign, infinity and NaN of a format with infinities.
fn encode(format: &Narrow, sign: u64, nan: u64, mode: &str, x: f64) -> u64 {
    if x.is_nan() {
        return nan;
    }
    format.round(mode, x, x.is_sign_negative()) as u64 | if x.is_sign_negative() { sign } else { 0 }
}

#[test]
fn f32_narrows_in_every_mode() {
    let mut list = singles(4000);
    list.extend([vec![0x7F80_0001], vec![0xFFC0_0000]]);
    let (f16, bf16) = (Narrow::new(5, 10, 0x7BFF), Narrow::new(8, 7, 0x7F7F));
    for (ty, format) in [("f16", &f16), ("bf16", &bf16)] {
        for mode in ["rn", "rz", "rm", "rp"] {
            let body = format!("cvt.{mode}.{ty}.f32 %y0, %x0;");
            Snippet { inputs: &["b32"], outputs: &["b16"], body: &body }
                .check(&list, |row| encode(format, 0x8000, 0x7FFF, mode, single(row[0])));
        }
    }
    let tf32 = Narrow::new(8, 10, 0x3_FBFF);
    for mode in ["rn", "rz", "rna"] {
        let body = format!("cvt.{mode}.tf32.f32 %y0, %x0;");
        Snippet { inputs: &["b32"], outputs: &["b32"], body: &body }.check(&list, |row| {
            if single(row[0]).is_nan() { NAN } else { encode(&tf32, 1 << 18, 0, mode, single(row[0])) << 13 }
        });
    }
}

#[test]
fn f64_narrows_once() {
    // Ties of f16 and f32 that only bits beyond f32 decide.
    let list: Vec<Vec<u64>> =
        [1.0 + 2f64.powi(-11), 1.0 + 3.0 * 2f64.powi(-11), 65520.0, 2f64.powi(-25), 3.0 * 2f64.powi(-25)]
            .into_iter()
            .flat_map(|x: f64| [x, x.next_up(), x.next_down(), -x, -x.next_up(), -x.next_down()])
            .map(|x| vec![x.to_bits()])
            .collect();
    let format = Narrow::new(5, 10, 0x7BFF);
    for mode in ["rn", "rz", "rm", "rp"] {
        let body = format!("cvt.{mode}.f16.f64 %y0, %x0;");
        Snippet { inputs: &["b64"], outputs: &["b16"], body: &body }
            .check(&list, |row| encode(&format, 0x8000, 0x7FFF, mode, f64::from_bits(row[0])));
    }
    let values = [1.0 + 2f64.powi(-24), (1.0 + 2f64.powi(-24)).next_up(), 1e-46, 3.5e38, -3.5e38];
    let list: Vec<Vec<u64>> = values.into_iter().map(|x: f64| vec![x.to_bits()]).collect();
    for (mode, expected) in [
        ("rn", [0x3F80_0000u64, 0x3F80_0001, 0, 0x7F80_0000, 0xFF80_0000]),
        ("rz", [0x3F80_0000, 0x3F80_0000, 0, 0x7F7F_FFFF, 0xFF7F_FFFF]),
        ("rm", [0x3F80_0000, 0x3F80_0000, 0, 0x7F7F_FFFF, 0xFF80_0000]),
        ("rp", [0x3F80_0001, 0x3F80_0001, 1, 0x7F80_0000, 0xFF7F_FFFF]),
    ] {
        let body = format!("cvt.{mode}.f32.f64 %y0, %x0;");
        assert_eq!(
            Snippet { inputs: &["b64"], outputs: &["b32"], body: &body }.run(&list).concat(),
            expected,
            "{mode}"
        );
    }
}

#[test]
fn packed_conversions_put_the_first_operand_into_the_upper_half() {
    let (f16, bf16) = (Narrow::new(5, 10, 0x7BFF), Narrow::new(8, 7, 0x7F7F));
    let list: Vec<Vec<u64>> =
        singles(1000).chunks_exact(2).map(|pair| vec![pair[0][0], pair[1][0] ^ 0x0040_1000]).collect();
    for (ty, format) in [("f16x2", &f16), ("bf16x2", &bf16)] {
        for mode in ["rn", "rz"] {
            for (modifier, relu, finite) in [("", false, false), (".relu", true, false), (".satfinite", false, true)] {
                let convert = |bits: u64| {
                    let x = single(bits);
                    let x = if relu && x <= 0.0 { 0.0 } else { x };
                    let code = encode(format, 0x8000, 0x7FFF, mode, x);
                    let infinite = code & 0x7FFF == format.values.len() as u64 - 1;
                    if finite && infinite { code - 1 } else { code }
                };
                let body = format!("cvt.{mode}{modifier}.{ty}.f32 %y0, %x0, %x1;");
                Snippet { inputs: &["b32", "b32"], outputs: &["b32"], body: &body }
                    .check(&list, |row| convert(row[0]) << 16 | convert(row[1]));
            }
        }
    }
    assert_eq!(evaluate32("cvt.rn.relu.bf16x2.f32 %y0, %x0, %x1;", &[vec![0x7FC0_0000, 0x8000_0000]]), [0x7FFF_0000]);
}

#[test]
fn fp8_limits_to_finite_numbers_and_widens_every_pair() {
    let (e4m3, e5m2) = (Narrow::new(4, 3, 0x7E), Narrow::new(5, 2, 0x7B));
    let mut list = singles(3000);
    list.extend([vec![0x7FC0_0000], vec![0xFF80_0001]]);
    let halves: Vec<Vec<u64>> = (0..0x1_0000).map(|x| vec![x | (x ^ 0x8421) << 16]).collect();
    for (ty, format, last) in [("e4m3x2", &e4m3, 0x7E), ("e5m2x2", &e5m2, 0x7B)] {
        let convert = |x: f64| match encode(format, 0x80, 0x7F, "rn", x) {
            code if !x.is_nan() && code & 0x7F > last => code & 0x80 | last,
            code => code,
        };
        let body = format!("cvt.rn.satfinite.{ty}.f32 %y0, %x0, 0f3F800000;");
        let one = convert(1.0);
        Snippet { inputs: &["b32"], outputs: &["b16"], body: &body }
            .check(&list, |row| convert(single(row[0])) << 8 | one);
        let f16 = |x: u64| half::f16::from_bits(x as u16).to_f64();
        let body = format!("cvt.rn.satfinite.{ty}.f16x2 %y0, %x0;");
        Snippet { inputs: &["b32"], outputs: &["b16"], body: &body }
            .check(&halves, |row| convert(f16(row[0] >> 16)) << 8 | convert(f16(row[0])));
        let widen = |byte: u64| {
            let magnitude = byte as usize & 0x7F;
            let infinite = ty == "e5m2x2" && magnitude == 0x7C;
            if magnitude as u64 > last && !infinite {
                return 0x7FFF;
            }
            let x = if infinite { f64::INFINITY } else { format.values[magnitude] };
            u64::from(half::f16::from_f64(if byte & 0x80 == 0 { x } else { -x }).to_bits())
        };
        let pairs: Vec<Vec<u64>> = (0..0x1_0000).map(|x| vec![x]).collect();
        let body = format!("cvt.rn.f16x2.{ty} %y0, %x0;");
        Snippet { inputs: &["b16"], outputs: &["b32"], body: &body }
            .check(&pairs, |row| widen(row[0] >> 8) << 16 | widen(row[0] & 0xFF));
        let body = format!("cvt.rn.satfinite.relu.{ty}.f32 %y0, 0fBF800000, 0f3F800000;");
        Snippet { inputs: &["b32"], outputs: &["b16"], body: &body }.check(&[vec![0]], |_| one);
    }
}

const INTEGERS: [(&str, u32, bool); 8] = [
    ("u8", 8, false),
    ("s8", 8, true),
    ("u16", 16, false),
    ("s16", 16, true),
    ("u32", 32, false),
    ("s32", 32, true),
    ("u64", 64, false),
    ("s64", 64, true),
];

fn range(width: u32, signed: bool) -> (i128, i128) {
    if signed { (-(1 << (width - 1)), (1 << (width - 1)) - 1) } else { (0, (1 << width) - 1) }
}

fn register(width: u32) -> &'static str {
    match width {
        8 | 16 => "b16",
        32 => "b32",
        _ => "b64",
    }
}

#[test]
fn integers_wrap_or_saturate_and_extend_to_the_register() {
    let list = rows(&[0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0x7FFF_FFFF, 0x8000_0000, u64::MAX, 1 << 63], 1, 64, 100);
    for (from, from_width, from_signed) in INTEGERS {
        let value = |bits: u64| {
            let value = i128::from(bits) & ((1 << from_width) - 1);
            if from_signed && value >> (from_width - 1) == 1 { value - (1 << from_width) } else { value }
        };
        for (to, width, signed) in INTEGERS {
            for wide in [register(width), "b64"] {
                let bits: u32 = wide[1..].parse().unwrap();
                // Signed results fill the register with their sign, unsigned ones with zeros.
                let place = |x: i128| {
                    let x = x & ((1 << width) - 1);
                    let x = if signed && x >> (width - 1) == 1 { x - (1 << width) } else { x };
                    (x & ((1 << bits) - 1)) as u64
                };
                let body = format!("cvt.{to}.{from} %y0, %x0;");
                Snippet { inputs: &["b64"], outputs: &[wide], body: &body }.check(&list, |row| place(value(row[0])));
                let (least, most) = range(width, signed);
                let body = format!("cvt.sat.{to}.{from} %y0, %x0;");
                Snippet { inputs: &["b64"], outputs: &[wide], body: &body }
                    .check(&list, |row| place(value(row[0]).clamp(least, most)));
            }
        }
    }
}

type Function = fn(f64) -> f64;

#[test]
fn floats_become_integers_rounded_and_limited() {
    let values = [
        0.0,
        -0.0,
        0.5,
        1.5,
        2.5,
        -0.5,
        -1.5,
        -2.5,
        0.49999997,
        127.5,
        128.0,
        -128.5,
        -129.0,
        255.5,
        65535.5,
        2147483520.0,
        2147483648.0,
        -2147483904.0,
        4294967296.0,
        9.2e18,
        1.9e19,
        -1e19,
        1e30,
        f64::INFINITY,
        f64::NEG_INFINITY,
        1e-40,
        3.7,
        -3.2,
        8388607.5,
    ];
    let modes: [(&str, Function); 4] =
        [("rni", f64::round_ties_even), ("rzi", f64::trunc), ("rmi", f64::floor), ("rpi", f64::ceil)];
    for (from, ty, bits) in [
        ("f32", "b32", (|x| u64::from((x as f32).to_bits())) as fn(f64) -> u64),
        ("f64", "b64", |x| x.to_bits()),
        ("f16", "b16", |x| u64::from(half::f16::from_f64(x).to_bits())),
        ("bf16", "b16", |x| u64::from(half::bf16::from_f64(x).to_bits())),
    ] {
        let value = |x: u64| match from {
            "f32" => single(x),
            "f64" => f64::from_bits(x),
            "f16" => half::f16::from_bits(x as u16).to_f64(),
            _ => half::bf16::from_bits(x as u16).to_f64(),
        };
        let mut list: Vec<Vec<u64>> = values.iter().map(|x| vec![bits(*x)]).collect();
        list.push(vec![bits(f64::NAN)]);
        for (to, width, signed) in INTEGERS {
            for (mode, round) in modes {
                let body = format!("cvt.{mode}.{to}.{from} %y0, %x0;");
                let (least, most) = range(width, signed);
                // Registers of 8-bit results have 16 bits.
                let mask = if signed { u64::MAX >> (64 - width.max(16)) } else { u64::MAX };
                Snippet { inputs: &[ty], outputs: &[register(width)], body: &body }.check(&list, |row| {
                    let x = round(value(row[0]));
                    let nan = if width == 64 || from == "f64" { 1i128 << (width - 1) } else { 0 };
                    let nan = if signed && nan > most { nan - (1 << width) } else { nan };
                    // Doubles beyond 2^126 are beyond every range.
                    let whole = if x.is_nan() { nan } else { x.clamp(-1e37, 1e37) as i128 };
                    whole.clamp(least, most) as u64 & mask
                });
            }
        }
    }
    assert_eq!(evaluate32("cvt.rpi.ftz.s32.f32 %y0, %x0;", &[vec![1], vec![0x3F00_0000]]), [0, 1]);
    assert_eq!(evaluate32("cvt.rpi.s32.f32 %y0, %x0;", &[vec![1], vec![0x3F00_0000]]), [1, 1]);
}

#[test]
fn integers_become_floats_rounded_in_every_mode() {
    let mut edges = vec![0u64, 1, 0xFF_FFFF, 0x100_0001, 0x100_0003, 0x1FF_FFFF, 0x7FFF_FFFF, 0x8000_0000, u64::MAX];
    edges.extend([
        (1 << 53) + 1,
        (1 << 53) + 3,
        (1 << 63) + 1,
        u64::MAX - 1023,
        u64::MAX >> 1,
        2049,
        2051,
        65519,
        65520,
        257,
    ]);
    let list = rows(&edges, 1, 64, 500);
    for (from, width, signed) in INTEGERS {
        let value = |bits: u64| {
            let value = i128::from(bits) & ((1 << width) - 1);
            if signed && value >> (width - 1) == 1 { value - (1 << width) } else { value }
        };
        for mode in ["rn", "rz", "rm", "rp"] {
            for (to, register, fraction, largest) in [
                ("f16", "b16", 11, 65504.0),
                ("bf16", "b16", 8, 3e38),
                ("f32", "b32", 24, 3e38),
                ("f64", "b64", 53, 1e300),
            ] {
                let body = format!("cvt.{mode}.{to}.{from} %y0, %x0;");
                Snippet { inputs: &["b64"], outputs: &[register], body: &body }.check(&list, |row| {
                    let exact = value(row[0]);
                    let magnitude = exact.unsigned_abs();
                    let unit = 1u128 << (128 - magnitude.leading_zeros() as i32 - fraction).max(0);
                    let (low, rest) = (magnitude / unit * unit, magnitude % unit);
                    let up = match mode {
                        "rn" => 2 * rest > unit || 2 * rest == unit && low / unit % 2 == 1,
                        "rm" => rest > 0 && exact < 0,
                        "rp" => rest > 0 && exact > 0,
                        _ => false,
                    };
                    // Exact: at most 53 bits are left.
                    let rounded = (low + if up { unit } else { 0 }) as f64;
                    let inward = matches!((mode, exact < 0), ("rz", _) | ("rm", false) | ("rp", true));
                    let rounded = if rounded > largest && inward { largest } else { rounded };
                    let x = if exact < 0 { -rounded } else { rounded };
                    match to {
                        "f16" => half::f16::from_f64(x).to_bits().into(),
                        "bf16" => half::bf16::from_f64(x).to_bits().into(),
                        "f32" => (x as f32).to_bits().into(),
                        _ => x.to_bits(),
                    }
                });
            }
        }
    }
}

#[test]
fn floats_round_to_integers_of_their_type_saturate_and_flush() {
    let list = [0x3F00_0000, 0x3FC0_0000, 0xBF00_0000, 0xBFC0_0000, 0x4B00_0001].map(|x| vec![x]);
    let expected = [
        ("rni", [0, 0x4000_0000, 0x8000_0000, 0xC000_0000, 0x4B00_0001]),
        ("rzi", [0, 0x3F80_0000, 0x8000_0000, 0xBF80_0000, 0x4B00_0001]),
        ("rmi", [0, 0x3F80_0000, 0xBF80_0000, 0xC000_0000, 0x4B00_0001]),
        ("rpi", [0x3F80_0000, 0x4000_0000, 0x8000_0000, 0xBF80_0000, 0x4B00_0001]),
    ];
    for (mode, expected) in expected {
        assert_eq!(evaluate32(&format!("cvt.{mode}.f32.f32 %y0, %x0;"), &list), expected, "{mode}");
    }
    let list = [0x4000_0000, 0xBF80_0000, 0x7FC0_0000, 0x3F00_0000].map(|x| vec![x]);
    assert_eq!(evaluate32("cvt.sat.f32.f32 %y0, %x0;", &list), [0x3F80_0000, 0, 0, 0x3F00_0000]);
    assert_eq!(
        evaluate32("cvt.ftz.f32.f32 %y0, %x0;", &[vec![0x8000_0001], vec![0x0080_0000]]),
        [0x8000_0000, 0x0080_0000]
    );
    assert_eq!(evaluate32("cvt.f32.f32 %y0, %x0;", &[vec![1], vec![0x7F80_0001]]), [1, 0x7FFF_FFFF]);
}

#[test]
fn packs_limit_and_join() {
    let list =
        rows(&[0, 1, 0x7F, 0x80, 0xFFFF_FF7F, 0x7FFF, 0x8000, 0xFFFF_8000, 0xFFFF_7FFF, 0x8000_0000], 3, 32, 100);
    let limit = |x: u64, width: u32, signed: bool| {
        let (least, most) = range(width, signed);
        i128::from(x as u32 as i32).clamp(least, most) as u64 & ((1 << width) - 1)
    };
    for (ty, width, signed) in [("u16", 16, false), ("s16", 16, true)] {
        let body = format!("cvt.pack.sat.{ty}.s32 %y0, %x0, %x1;");
        Snippet { inputs: &["b32"; 3], outputs: &["b32"], body: &body }
            .check(&list, |row| limit(row[0], width, signed) << 16 | limit(row[1], width, signed));
    }
    for (ty, width, signed) in
        [("u8", 8, false), ("s8", 8, true), ("u4", 4, false), ("s4", 4, true), ("u2", 2, false), ("s2", 2, true)]
    {
        let body = format!("cvt.pack.sat.{ty}.s32.b32 %y0, %x0, %x1, %x2;");
        Snippet { inputs: &["b32"; 3], outputs: &["b32"], body: &body }.check(&list, |row| {
            let pair = limit(row[0], width, signed) << width | limit(row[1], width, signed);
            (row[2] << (2 * width) | pair) & 0xFFFF_FFFF
        });
    }
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    let cases = [
        ("cvt.f16.f32 %h0, %x0;", "expected `.rn`"),
        ("cvt.s32.f32 %y0, %x0;", "expected `.rni`"),
        ("cvt.f32.s32 %y0, %x0;", "expected `.rn`"),
        ("cvt.rn.s16.s32 %h0, %x0;", "integers are not rounded"),
        ("cvt.rna.f16.f32 %h0, %x0;", "`.rna` is for"),
        ("cvt.rn.e4m3x2.f32 %h0, %x0, %x0;", "`.satfinite`"),
        ("cvt.rn.rz.f16.f32 %h0, %x0;", "at most one rounding mode"),
        ("cvt.pack.sat.u32.s32 %y0, %x0, %x0;", "expected `cvt.pack.sat`"),
        ("cvt.rs.f16x2.f32 %y0, %x0, %x0;", "unknown part `.rs`"),
    ];
    for (body, why) in cases {
        let (message, line) = Snippet { inputs: &["b32"], outputs: &["b32"], body }.refusal();
        let instruction = body.split(' ').next().unwrap();
        assert!(message.starts_with(&format!("line {line}: `{instruction}`")) && message.contains(why), "{message}");
    }
}
