//! Constant expressions (PTX ISA section 4.5).

use super::error::Result;
use super::lexer::Kind;
use super::literal::{Constant, literal};
use super::parser::Parser;

/// How tightly a binary operator binds.
fn precedence(operator: &str) -> Option<u32> {
    Some(match operator {
        "|" => 1,
        "^" => 2,
        "&" => 3,
        "<<" | ">>" => 4,
        "+" | "-" => ADDITIVE,
        "*" | "/" | "%" => MULTIPLICATIVE,
        _ => return None,
    })
}

const ADDITIVE: u32 = 5;
const MULTIPLICATIVE: u32 = 6;

impl Parser<'_> {
    /// Whether the next token can begin a constant.
    pub(super) fn at_constant(&self) -> bool {
        match self.token.kind {
            Kind::Number => true,
            Kind::Symbol => matches!(self.token.text, "(" | "-" | "+" | "~" | "!"),
            Kind::Word => self.token.text == "WARP_SZ",
            Kind::Dotted | Kind::Text | Kind::End => false,
        }
    }

    /// A constant expression.
    pub(super) fn constant(&mut self) -> Result<Constant> {
        self.binary(1)
    }

    /// A constant expression whose value is an integer.
    pub(super) fn integer(&mut self) -> Result<u64> {
        let first = self.token;
        let value = self.constant()?;
        value.integer().ok_or_else(|| self.error_at(first, "expected an integer, found a float".to_owned()))
    }

    /// `+4-8...` behind a name; nothing is 0. Sums wrap at 64 bits, as addresses do.
    pub(super) fn offset(&mut self) -> Result<i64> {
        let mut sum = 0i64;
        while self.token.is("+") || self.token.is("-") {
            let operator = self.advance()?;
            let first = self.token;
            let Some(value) = self.binary(MULTIPLICATIVE)?.integer() else {
                return Err(self.error_at(first, "expected an integer, found a float".to_owned()));
            };
            let value = value.cast_signed();
            sum = if operator.text == "+" { sum.wrapping_add(value) } else { sum.wrapping_sub(value) };
        }
        Ok(sum)
    }

    /// Operators that bind at least as tightly as `least`.
    fn binary(&mut self, least: u32) -> Result<Constant> {
        let mut left = self.unary()?;
        while self.token.kind == Kind::Symbol {
            let operator = self.token;
            let Some(level) = precedence(operator.text).filter(|level| *level >= least) else { break };
            self.advance()?;
            let right = self.binary(level + 1)?;
            let (
                Constant::Integer { bits: a, unsigned: left_unsigned },
                Constant::Integer { bits: b, unsigned: right_unsigned },
            ) = (left, right)
            else {
                return Err(self.error_at(operator, format!("expected integers around `{}`", operator.text)));
            };
            // A shift has the type of what is shifted.
            let unsigned = left_unsigned || (right_unsigned && !matches!(operator.text, "<<" | ">>"));
            left = match apply(operator.text, a, b, unsigned) {
                Some(bits) => Constant::Integer { bits, unsigned },
                None => return Err(self.error_at(operator, "expected a divisor other than 0".to_owned())),
            };
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Constant> {
        let first = self.token;
        if first.kind == Kind::Number {
            let Some(value) = literal(first.text) else {
                return Err(self.unexpected("a number of at most 64 bits"));
            };
            self.advance()?;
            return Ok(value);
        }
        if !self.at_constant() {
            return Err(self.unexpected("a constant"));
        }
        self.enter()?;
        self.advance()?;
        let value = match first.text {
            "WARP_SZ" => Constant::signed(32),
            "(" => {
                let value = self.constant()?;
                self.expect(")", "`)`")?;
                value
            }
            sign => match (sign, self.unary()?) {
                ("+", value) => value,
                ("-", Constant::F32(bits)) => Constant::F32(bits ^ 1 << 31),
                ("-", Constant::F64(bits)) => Constant::F64(bits ^ 1 << 63),
                ("-", Constant::Integer { bits, unsigned }) => {
                    Constant::Integer { bits: bits.wrapping_neg(), unsigned }
                }
                ("~", Constant::Integer { bits, unsigned }) => Constant::Integer { bits: !bits, unsigned },
                ("!", Constant::Integer { bits, .. }) => Constant::signed(i64::from(bits == 0)),
                _ => return Err(self.error_at(first, format!("expected an integer behind `{sign}`"))),
            },
        };
        self.leave();
        Ok(value)
    }
}

/// The result of an operator on 64 bits; `None` for a division by 0.
fn apply(operator: &str, a: u64, b: u64, unsigned: bool) -> Option<u64> {
    let (signed_a, signed_b) = (a.cast_signed(), b.cast_signed());
    let distance = u32::try_from(b).unwrap_or(u32::MAX);
    Some(match operator {
        "|" => a | b,
        "^" => a ^ b,
        "&" => a & b,
        "<<" => a.checked_shl(distance).unwrap_or(0),
        ">>" if unsigned => a.checked_shr(distance).unwrap_or(0),
        ">>" => (signed_a >> distance.min(63)).cast_unsigned(),
        "+" => a.wrapping_add(b),
        "-" => a.wrapping_sub(b),
        "*" => a.wrapping_mul(b),
        _ if b == 0 => return None,
        "/" if unsigned => a / b,
        "/" => signed_a.wrapping_div(signed_b).cast_unsigned(),
        _ if unsigned => a % b,
        _ => signed_a.wrapping_rem(signed_b).cast_unsigned(),
    })
}
