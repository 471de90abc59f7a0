//! Values of constants, and numeric literals (PTX ISA section 4.5).

use crate::ast::Operand;

/// The value of a constant expression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Constant {
    /// An integer, which C's rules make signed unless it says or needs otherwise.
    Integer { bits: u64, unsigned: bool },
    /// `0f`: bits of a float.
    F32(u32),
    /// `0d` or decimal: bits of a double.
    F64(u64),
}

impl Constant {
    pub(super) fn signed(value: i64) -> Self {
        Self::Integer { bits: value.cast_unsigned(), unsigned: false }
    }

    /// The value if it is an integer.
    pub(super) fn integer(self) -> Option<u64> {
        match self {
            Self::Integer { bits, .. } => Some(bits),
            Self::F32(_) | Self::F64(_) => None,
        }
    }
}

/// The value of a numeric literal; `None` if it is malformed or exceeds 64 bits.
pub(super) fn literal(text: &str) -> Option<Constant> {
    let prefix = text.get(..2).unwrap_or_default().to_ascii_lowercase();
    match prefix.as_str() {
        "0f" if text.len() == 10 => return u32::from_str_radix(&text[2..], 16).ok().map(Constant::F32),
        "0d" if text.len() == 18 => return u64::from_str_radix(&text[2..], 16).ok().map(Constant::F64),
        _ => {}
    }
    let digits = text.strip_suffix('U');
    let unsigned = digits.is_some();
    let digits = digits.unwrap_or(text);
    let bits = match prefix.as_str() {
        "0x" => u64::from_str_radix(digits.get(2..)?, 16).ok()?,
        "0b" => u64::from_str_radix(digits.get(2..)?, 2).ok()?,
        _ if !unsigned && text.contains(['.', 'e', 'E']) => {
            return text.parse::<f64>().ok().map(|value| Constant::F64(value.to_bits()));
        }
        _ if digits.len() > 1 && digits.starts_with('0') => u64::from_str_radix(digits, 8).ok()?,
        _ => digits.parse().ok()?,
    };
    Some(Constant::Integer { bits, unsigned: unsigned || bits > i64::MAX.cast_unsigned() })
}

impl From<Constant> for Operand {
    fn from(value: Constant) -> Self {
        match value {
            Constant::Integer { bits, .. } => Self::Integer(bits),
            Constant::F32(bits) => Self::F32(bits),
            Constant::F64(bits) => Self::F64(bits),
        }
    }
}
