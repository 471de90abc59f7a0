//! Numbers of the types that arguments have.

use half::{bf16, f16};

/// A type of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Signed(usize),
    Unsigned(usize),
    F16,
    Bf16,
    F32,
    F64,
}

impl Type {
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "s8" => Self::Signed(1),
            "s16" => Self::Signed(2),
            "s32" => Self::Signed(4),
            "s64" => Self::Signed(8),
            "u8" => Self::Unsigned(1),
            "u16" => Self::Unsigned(2),
            "u32" => Self::Unsigned(4),
            "u64" => Self::Unsigned(8),
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "f32" => Self::F32,
            "f64" => Self::F64,
            _ => return None,
        })
    }

    pub fn size(self) -> usize {
        match self {
            Self::Signed(size) | Self::Unsigned(size) => size,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The bits of a number as written.
    pub fn value(self, text: &str) -> Result<u64, String> {
        let wrong = || format!("`{text}` is no {self}");
        match self {
            Self::F16 => text.parse().map(|x| f16::from_f64(x).to_bits().into()).map_err(|_| wrong()),
            Self::Bf16 => text.parse().map(|x| bf16::from_f64(x).to_bits().into()).map_err(|_| wrong()),
            Self::F32 => text.parse().map(|x: f32| x.to_bits().into()).map_err(|_| wrong()),
            Self::F64 => text.parse().map(f64::to_bits).map_err(|_| wrong()),
            Self::Signed(size) | Self::Unsigned(size) => {
                let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
                let number = match digits.strip_prefix("0x") {
                    Some(digits) if digits.starts_with(|c: char| c.is_ascii_hexdigit()) => {
                        i128::from_str_radix(digits, 16)
                    }
                    _ if digits.starts_with(|c: char| c.is_ascii_digit()) => digits.parse(),
                    _ => return Err(wrong()),
                };
                let number = number.map_err(|_| wrong())? * if negative { -1 } else { 1 };
                let bits = 8 * size as u32 - u32::from(matches!(self, Self::Signed(_)));
                let least = if matches!(self, Self::Signed(_)) { -(1i128 << bits) } else { 0 };
                if (least..1 << bits).contains(&number) { Ok(number as u64) } else { Err(wrong()) }
            }
        }
    }

    /// A number made of 64 random bits: floats lie between -1 and 1.
    pub fn random(self, bits: u64) -> u64 {
        let unit = (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
        match self {
            Self::Signed(_) | Self::Unsigned(_) => bits >> (64 - 8 * self.size()),
            Self::F16 => f16::from_f64(unit).to_bits().into(),
            Self::Bf16 => bf16::from_f64(unit).to_bits().into(),
            Self::F32 => (unit as f32).to_bits().into(),
            Self::F64 => unit.to_bits(),
        }
    }

    /// The number in little-endian bytes, in the shortest form that reads back to it.
    pub fn show(self, bytes: &[u8]) -> String {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(wide);
        match self {
            Self::Signed(size) => {
                let unused = 64 - 8 * size;
                (((bits << unused) as i64) >> unused).to_string()
            }
            Self::Unsigned(_) => bits.to_string(),
            Self::F16 => format!("{:?}", f16::from_bits(bits as u16)),
            Self::Bf16 => format!("{:?}", bf16::from_bits(bits as u16)),
            Self::F32 => format!("{:?}", f32::from_bits(bits as u32)),
            Self::F64 => format!("{:?}", f64::from_bits(bits)),
        }
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Signed(size) => write!(f, "s{}", 8 * size),
            Self::Unsigned(size) => write!(f, "u{}", 8 * size),
            Self::F16 => f.write_str("f16"),
            Self::Bf16 => f.write_str("bf16"),
            Self::F32 => f.write_str("f32"),
            Self::F64 => f.write_str("f64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_of_their_type_are_refused() {
        let value = |name, text: &str| Type::parse(name).unwrap().value(text);
        assert_eq!(value("s8", "-128"), Ok(-128i64 as u64));
        assert_eq!(value("u64", "18446744073709551615"), Ok(u64::MAX));
        assert_eq!(value("s64", "-0x8000000000000000"), Ok(1 << 63));
        assert_eq!(value("f16", "1.5"), Ok(0x3E00));
        assert_eq!(value("bf16", "-2"), Ok(0xC000));
        assert_eq!(value("f32", "1e3"), Ok(1000f32.to_bits().into()));
        for (name, text) in [
            ("s8", "128"),
            ("u8", "-1"),
            ("u32", "4294967296"),
            ("u32", ""),
            ("u32", "--1"),
            ("u32", "0x-1"),
            ("u32", "1.5"),
            ("u64", "99999999999999999999999999999999999999999999"),
            ("f32", "one"),
        ] {
            assert!(value(name, text).is_err(), "{name}:{text}");
        }
    }

    #[test]
    fn numbers_are_shown_as_they_are_read() {
        for (name, text) in
            [("s16", "-5"), ("u8", "255"), ("f16", "0.1"), ("bf16", "3.0"), ("f32", "0.1"), ("f64", "1e-300")]
        {
            let ty = Type::parse(name).unwrap();
            let bits = ty.value(text).unwrap().to_le_bytes();
            let shown = ty.show(&bits[..ty.size()]);
            assert_eq!(ty.value(&shown).unwrap() & u64::MAX >> (64 - 8 * ty.size()), {
                u64::from_le_bytes(bits) & u64::MAX >> (64 - 8 * ty.size())
            });
        }
        assert_eq!(Type::F32.show(&0.1f32.to_le_bytes()), "0.1");
    }
}
