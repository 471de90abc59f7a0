//! Element formats by their definitions, for comparison.

/// Bits of an element.
pub fn bits(ty: &str) -> usize {
    match ty {
        "s4" | "u4" => 4,
        "s8" | "u8" | "e4m3" | "e5m2" => 8,
        "f16" | "bf16" => 16,
        "f64" => 64,
        _ => 32,
    }
}

/// Exponent and fraction bits.
fn fields(ty: &str) -> (i32, i32) {
    match ty {
        "f16" => (5, 10),
        "bf16" => (8, 7),
        "f32" | "tf32" => (8, 23),
        "e4m3" => (4, 3),
        "e5m2" => (5, 2),
        "f64" => (11, 52),
        other => panic!("{other} is no float"),
    }
}

/// The value of an element: (-1)^s * 2^(e - bias) * 1.f, with subnormals, infinities and NaNs.
pub fn value(ty: &str, bits: u64) -> f64 {
    match ty {
        "s4" => return f64::from((bits as i8) << 4 >> 4),
        "u4" => return (bits & 15) as f64,
        "s8" => return f64::from(bits as i8),
        "u8" => return f64::from(bits as u8),
        "s32" => return f64::from(bits as i32),
        _ => {}
    }
    let (exponents, fractions) = fields(ty);
    let bits = if ty == "tf32" { bits & 0xffff_e000 } else { bits };
    let sign = if bits >> (exponents + fractions) & 1 == 1 { -1.0 } else { 1.0 };
    let top = (1 << exponents) - 1;
    let exponent = (bits >> fractions) as i32 & top;
    let fraction = bits & ((1 << fractions) - 1);
    let scaled = fraction as f64 / (1u64 << fractions) as f64;
    let bias = top / 2;
    match exponent {
        _ if ty == "e4m3" && bits & 0x7f == 0x7f => f64::NAN,
        0 => sign * scaled * 2f64.powi(1 - bias),
        e if e == top && ty != "e4m3" => {
            if fraction == 0 {
                sign * f64::INFINITY
            } else {
                f64::NAN
            }
        }
        // 2^1023 is the largest power, which f64 needs itself.
        e => sign * (1.0 + scaled) * 2f64.powi(e - bias),
    }
}

/// The nearest f16, ties to even, by search.
pub fn encode_f16(x: f64) -> u64 {
    let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
    let x = x.abs();
    if x >= 65520.0 {
        return sign | 0x7c00;
    }
    let below = (0..0x7c00).rev().find(|&bits| value("f16", bits) <= x).unwrap();
    let (low, high) = (value("f16", below), if below == 0x7bff { 65536.0 } else { value("f16", below + 1) });
    let up = x - low > high - x || x - low == high - x && below % 2 == 1;
    sign | (below + u64::from(up))
}

/// One.
pub fn one(ty: &str) -> u64 {
    match ty {
        "f16" => 0x3c00,
        "bf16" => 0x3f80,
        "f32" | "tf32" => 0x3f80_0000,
        "e4m3" => 0x38,
        "e5m2" => 0x3c,
        "f64" => 0x3ff0_0000_0000_0000,
        _ => 1,
    }
}

/// The NaN that arithmetic produces.
pub fn nan(ty: &str) -> u64 {
    match ty {
        "f16" => 0x7fff,
        "f32" => 0x7fff_ffff,
        _ => 0xfff8_0000_0000_0000,
    }
}

/// Zeros, the least and greatest subnormals and normals, one and its neighbours, infinity, NaNs; of both signs.
pub fn edges(ty: &str) -> Vec<u64> {
    let (exponents, fractions) = fields(ty);
    // The lowest bits of tf32 do not count.
    let unit = if ty == "tf32" { 0x2000u64 } else { 1 };
    let normal = 1u64 << fractions;
    let infinity = ((1u64 << exponents) - 1) << fractions;
    let positive = [
        0,
        unit,
        normal - unit,
        normal,
        one(ty) - unit,
        one(ty),
        one(ty) + unit,
        infinity - unit,
        infinity,
        infinity + normal / 2,
        infinity + normal - unit,
    ];
    positive.into_iter().flat_map(|bits| [bits, bits | 1 << (exponents + fractions)]).collect()
}
