//! Arguments of a kernel as the command line writes them.

use super::value::Type;

/// Most bytes of one buffer.
const LARGEST: usize = 1 << 32;

/// One parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// Passed as it is, aligned to its size.
    Value(Vec<u8>),
    /// Passed as it is, in place of a struct.
    Bytes(Vec<u8>),
    /// Passed by address.
    Buffer(Buffer),
}

/// An array in global memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    /// As written, up to `=`.
    pub name: String,
    pub ty: Type,
    pub count: usize,
    /// Whether it is printed after the launch.
    pub output: bool,
    pub contents: Contents,
}

/// What a buffer contains at first.
#[derive(Clone, Debug, PartialEq)]
pub enum Contents {
    Unwritten,
    /// The bits of the first elements; the others are zero.
    Listed(Vec<u64>),
    Random(u64),
}

impl Argument {
    /// Reads one argument.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((kind, rest)) = text.split_once(':') else {
            return Err("expected TYPE:VALUE, bytes:0xHEX, in:TYPExCOUNT[=...] or out:TYPExCOUNT[=...]".into());
        };
        match kind {
            "in" | "out" => Buffer::parse(text, rest, kind == "out").map(Self::Buffer),
            "bytes" => hex(rest).map(Self::Bytes),
            _ => {
                let ty = Type::parse(kind).ok_or_else(|| format!("`{kind}` is no type; {TYPES}"))?;
                Ok(Self::Value(ty.value(rest)?.to_le_bytes()[..ty.size()].to_vec()))
            }
        }
    }
}

const TYPES: &str = "types are s8 s16 s32 s64 u8 u16 u32 u64 f16 bf16 f32 f64";

/// `0x00ff`: bytes in the order of memory.
fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.is_empty() || !digits.len().is_multiple_of(2) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(format!("`{text}` is no even number of hexadecimal digits"));
    }
    let nibble = |digit: u8| (digit as char).to_digit(16).unwrap_or(0) as u8;
    Ok(digits.as_bytes().chunks_exact(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect())
}

impl Buffer {
    fn parse(text: &str, rest: &str, output: bool) -> Result<Self, String> {
        let (shape, contents) = rest.split_once('=').map_or((rest, None), |(shape, contents)| (shape, Some(contents)));
        let parts = shape.split_once('x').and_then(|(ty, count)| Some((Type::parse(ty)?, count.parse().ok()?)));
        let (ty, count): (Type, usize) =
            parts.ok_or_else(|| format!("`{shape}` is no TYPExCOUNT such as f32x1024; {TYPES}"))?;
        if count.checked_mul(ty.size()).is_none_or(|bytes| bytes > LARGEST) {
            return Err(format!("`{shape}` is larger than {LARGEST} bytes"));
        }
        let contents = match contents {
            None if output => Contents::Unwritten,
            None => Contents::Listed(Vec::new()),
            Some(list) => match list.strip_prefix("random(").and_then(|rest| rest.strip_suffix(')')) {
                Some(seed) => Contents::Random(seed.parse().map_err(|_| format!("`{seed}` is no seed of 64 bits"))?),
                None => {
                    Contents::Listed(list.split(',').map(|number| ty.value(number.trim())).collect::<Result<_, _>>()?)
                }
            },
        };
        if matches!(&contents, Contents::Listed(list) if list.len() > count) {
            return Err(format!("more than {count} numbers"));
        }
        let name = text.split_once('=').map_or(text, |(name, _)| name).into();
        Ok(Self { name, ty, count, output, contents })
    }

    pub fn size(&self) -> usize {
        self.ty.size() * self.count
    }

    /// Its bytes before the launch; `None` if nothing has written them.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let size = self.ty.size();
        let bytes = |bits: u64| bits.to_le_bytes().into_iter().take(size);
        match &self.contents {
            Contents::Unwritten => None,
            Contents::Listed(list) => {
                let mut all: Vec<u8> = list.iter().flat_map(|bits| bytes(*bits)).collect();
                all.resize(self.size(), 0);
                Some(all)
            }
            Contents::Random(seed) => {
                let mut state = *seed;
                Some((0..self.count).flat_map(|_| bytes(self.ty.random(next(&mut state)))).collect())
            }
        }
    }
}

/// SplitMix64: every seed gives a good sequence.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_bytes_are_little_endian() {
        assert_eq!(Argument::parse("u32:5"), Ok(Argument::Value(vec![5, 0, 0, 0])));
        assert_eq!(Argument::parse("s16:-2"), Ok(Argument::Value(vec![0xFE, 0xFF])));
        assert_eq!(Argument::parse("bytes:0x00fF10"), Ok(Argument::Bytes(vec![0, 0xFF, 0x10])));
    }

    #[test]
    fn buffers_are_listed_random_or_unwritten() {
        let buffer = |text| match Argument::parse(text) {
            Ok(Argument::Buffer(buffer)) => buffer,
            other => panic!("{other:?}"),
        };
        assert_eq!(buffer("in:u8x4=1, 2").bytes(), Some(vec![1, 2, 0, 0]));
        assert_eq!(buffer("in:u8x2").bytes(), Some(vec![0, 0]));
        assert_eq!(buffer("out:u8x2").bytes(), None);
        let random = buffer("in:f32x1000=random(3)").bytes().unwrap();
        let floats = random.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<_>>();
        assert!(floats.iter().all(|x| x.abs() <= 1.0) && floats.iter().any(|x| *x < -0.9));
        assert_ne!(buffer("in:f32x1000=random(4)").bytes().unwrap(), random);
    }

    #[test]
    fn anything_else_is_an_error() {
        let wrong = [
            "",
            "5",
            "u32",
            "u32:",
            "u33:1",
            "in:",
            "in:f32",
            "in:f32x",
            "in:f32x-1",
            "in:f33x4",
            "in:f32x2=1,2,3",
            "in:f32x2=x",
            "in:f32x2=random(-1)",
            "in:f32x99999999999999999999",
            "in:u64x9223372036854775807",
            "bytes:",
            "bytes:0x0",
            "bytes:0xgg",
            "bytes:é",
            "in:f32x2=",
        ];
        for text in wrong {
            assert!(Argument::parse(text).is_err(), "{text}");
        }
    }
}
