//! Functions that nvcc calls and the driver provides: `vprintf` and `__assertfail`.

use super::memory::access::from_generic;
use crate::exec::{Builtin, Call, Context, Target};
use crate::fault::Fault;

/// Longest string that is read from memory.
const LONGEST: usize = 1 << 16;

/// Largest width and precision of a conversion.
const WIDEST: usize = 1 << 12;

/// The function of this name, if the driver provides it.
pub(crate) fn find(name: &str) -> Option<Builtin> {
    match name {
        "vprintf" => Some(print),
        "__assertfail" => Some(fail),
        _ => None,
    }
}

/// `vprintf(format, arguments)`, lane after lane; it returns 0.
fn print(context: &mut Context, call: &Call) -> Result<(), Fault> {
    for lane in context.lanes() {
        context.lane = lane;
        let (format, arguments) = (argument(context, lane, call, 0), argument(context, lane, call, 1));
        let text = format_c(context, lane, format, arguments)?;
        context.ledger.print(&text)?;
        if let Some(result) = call.results.first() {
            let params = &mut context.warp.frames[context.depth].params[lane];
            params[result.offset..result.offset + result.size].fill(0);
        }
    }
    Ok(())
}

/// `__assertfail(message, file, line, function, size of a character)`, which `assert` calls: the first lane's assertion
/// ends the launch.
fn fail(context: &mut Context, call: &Call) -> Result<(), Fault> {
    let Some(lane) = context.lanes().next() else { return Ok(()) };
    context.lane = lane;
    let message = argument(context, lane, call, 0);
    let message = string(context, lane, message)?;
    let file = argument(context, lane, call, 1);
    let file = string(context, lane, file)?;
    let line = argument(context, lane, call, 2);
    Err(Fault::Trap(format!("{file}:{line}: assertion `{message}` failed")))
}

/// Argument `index` of a call, of up to 8 bytes.
fn argument(context: &Context, lane: usize, call: &Call, index: usize) -> u64 {
    let Some(slot) = call.arguments.get(index) else { return 0 };
    let bytes = &context.warp.frames[context.depth].params[lane][slot.offset..slot.offset + slot.size.min(8)];
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Reads `size` bytes, at most 8, at a generic address.
fn read(context: &mut Context, lane: usize, address: u64, size: usize) -> Result<u64, Fault> {
    let (space, address) = from_generic(address);
    let mut bytes = [0; 8];
    Target { lane, space, address, strong: false }.read(context, &mut bytes[..size])?;
    Ok(u64::from_le_bytes(bytes))
}

fn string(context: &mut Context, lane: usize, address: u64) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    while bytes.len() < LONGEST {
        match read(context, lane, address.wrapping_add(bytes.len() as u64), 1)? {
            0 => break,
            byte => bytes.push(byte as u8),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A conversion of a format: `%-8.3lf`.
#[derive(Default)]
struct Conversion {
    left: bool,
    plus: bool,
    space: bool,
    zero: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
    /// Number of `l` in front of the letter; `z`, `j`, `t` count as two.
    long: usize,
    /// Number of `h`.
    short: usize,
}

/// Formats as C's `printf` does. Arguments lie at their natural alignment; floats have been promoted to double.
fn format_c(context: &mut Context, lane: usize, format: u64, arguments: u64) -> Result<String, Fault> {
    let format = string(context, lane, format)?;
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    let mut at = arguments;
    let mut next = |context: &mut Context, size: usize| {
        at = at.next_multiple_of(size as u64);
        let value = read(context, lane, at, size);
        at += size as u64;
        value
    };
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut form = Conversion::default();
        let letter = loop {
            match chars.next() {
                Some('-') => form.left = true,
                Some('+') => form.plus = true,
                Some(' ') => form.space = true,
                Some('#') => form.alternate = true,
                Some('0') if form.width == 0 && form.precision.is_none() => form.zero = true,
                Some('.') => form.precision = Some(0),
                Some('*') => {
                    let value = next(context, 4)? as u32 as usize;
                    *form.precision.as_mut().unwrap_or(&mut form.width) = value.min(WIDEST);
                }
                Some(digit) if digit.is_ascii_digit() => {
                    let number = form.precision.as_mut().unwrap_or(&mut form.width);
                    *number = (*number * 10 + digit as usize - '0' as usize).min(WIDEST);
                }
                Some('l') => form.long += 1,
                Some('z' | 'j' | 't') => form.long += 2,
                Some('h') => form.short += 1,
                other => break other,
            }
        };
        let text = match letter {
            Some('%') => "%".into(),
            Some('c') => form.pad(String::from(next(context, 4)? as u8 as char), ""),
            Some('s') => {
                let address = next(context, 8)?;
                let text = string(context, lane, address)?;
                form.pad(text.chars().take(form.precision.unwrap_or(usize::MAX)).collect(), "")
            }
            Some('p') => form.pad(format!("{:#x}", next(context, 8)?), ""),
            Some(letter @ ('d' | 'i' | 'u' | 'x' | 'X' | 'o')) => {
                let value = next(context, if form.long > 0 { 8 } else { 4 })?;
                form.integer(letter, value)
            }
            Some(letter @ ('f' | 'F' | 'e' | 'E' | 'g' | 'G')) => {
                let value = f64::from_bits(next(context, 8)?);
                form.float(letter, value)
            }
            other => return Err(Fault::Trap(format!("printf: unknown conversion {other:?} in {format:?}"))),
        };
        out.push_str(&text);
    }
    Ok(out)
}

impl Conversion {
    /// Fills up to the width: zeros go between the sign and the digits.
    fn pad(&self, digits: String, sign: &str) -> String {
        let fill = self.width.saturating_sub(digits.chars().count() + sign.len());
        match (self.left, self.zero) {
            (true, _) => format!("{sign}{digits}{}", " ".repeat(fill)),
            (false, true) => format!("{sign}{}{digits}", "0".repeat(fill)),
            (false, false) => format!("{}{sign}{digits}", " ".repeat(fill)),
        }
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (false, true, _) => "+",
            (false, false, true) => " ",
            (false, false, false) => "",
        }
    }

    fn integer(&self, letter: char, value: u64) -> String {
        let bits = match (self.long, self.short) {
            (0, 0) => 32,
            (0, 1) => 16,
            (0, _) => 8,
            _ => 64,
        };
        let value = value << (64 - bits) >> (64 - bits);
        let signed = (value << (64 - bits)) as i64 >> (64 - bits);
        let (sign, digits) = match letter {
            'd' | 'i' => (self.sign(signed < 0), signed.unsigned_abs().to_string()),
            'u' => ("", value.to_string()),
            'o' => (if self.alternate { "0" } else { "" }, format!("{value:o}")),
            'x' => (if self.alternate && value != 0 { "0x" } else { "" }, format!("{value:x}")),
            _ => (if self.alternate && value != 0 { "0X" } else { "" }, format!("{value:X}")),
        };
        let digits = format!("{digits:0>width$}", width = self.precision.unwrap_or(1));
        // A precision switches zero-filling off.
        let form = Self { zero: self.zero && self.precision.is_none(), ..*self };
        form.pad(digits, sign)
    }

    fn float(&self, letter: char, value: f64) -> String {
        let sign = self.sign(value.is_sign_negative() && !value.is_nan());
        let size = value.abs();
        let precision = self.precision.unwrap_or(6);
        if !value.is_finite() {
            let text = if value.is_nan() { "nan" } else { "inf" };
            return Self { zero: false, ..*self }.pad(text.into(), sign);
        }
        let digits = match letter.to_ascii_lowercase() {
            'f' => format!("{size:.precision$}"),
            'e' => exponential(size, precision),
            _ => {
                // `%g`: significant digits; the shorter form, without trailing zeros.
                let significant = precision.max(1);
                let text = exponential(size, significant - 1);
                let exponent: i32 = text.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
                let trim = |text: &str| {
                    if text.contains('.') && !self.alternate {
                        text.trim_end_matches('0').trim_end_matches('.').to_string()
                    } else {
                        text.to_string()
                    }
                };
                if exponent < -4 || exponent >= significant as i32 {
                    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
                    format!("{}e{exponent}", trim(mantissa))
                } else {
                    trim(&format!("{size:.0$}", (significant as i32 - 1 - exponent) as usize))
                }
            }
        };
        self.pad(if letter.is_ascii_uppercase() { digits.to_uppercase() } else { digits }, sign)
    }
}

/// C's exponent has a sign and at least two digits.
fn exponential(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{exponent:0>2}")
}
