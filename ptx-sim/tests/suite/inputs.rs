//! Operands: edges of each type in every combination, and random values.

/// What an operand is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element {
    I16,
    I32,
    I64,
    /// Shift amounts and bit positions, also far beyond any width.
    Shift,
    /// Selectors of `prmt`.
    Selector,
    Bool,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    F32,
    F64,
    /// f64 of exponents near zero, for which exact results fit 128 bits.
    Tame,
    /// f32 in a range, of which the ends and the middle are edges.
    Range(f32, f32),
}

/// A reproducible source of numbers (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Evenly spread from 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / 2f64.powi(53)
    }
}

/// Numbers without and with sign: zero, subnormals, the least and largest normal ones, one, infinity, NaN.
fn signed(magnitudes: &[u64], sign: u64) -> Vec<u64> {
    magnitudes.iter().flat_map(|bits| [*bits, bits | sign]).collect()
}

impl Element {
    fn edges(self) -> Vec<u64> {
        let integer = |bits: u32| {
            let most = u64::MAX >> (64 - bits);
            vec![0, 1, 2, most, most - 1, most >> 1, (most >> 1) + 1, (most >> 1) + 2, most / 3]
        };
        let both = |list: Vec<u64>| {
            let next = |i: usize| list[(i + 5) % list.len()];
            list.iter().enumerate().map(|(i, low)| low | next(i) << 16).collect()
        };
        match self {
            Self::I16 => integer(16),
            Self::I32 => integer(32),
            Self::I64 => integer(64),
            Self::Shift => {
                vec![0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 255, 256, 0x7FFF_FFFF, 0xFFFF_FFFF]
            }
            Self::Selector => (0..16).map(|nibble| nibble * 0x1111).chain([0x3210, 0x7654, 0xBA98, 0xFEDC]).collect(),
            Self::Bool => vec![0, 1],
            Self::F16 => signed(&[0, 1, 0x3FF, 0x400, 0x3800, 0x3C00, 0x3C01, 0x7BFF, 0x7C00, 0x7E01], 0x8000),
            Self::Bf16 => signed(&[0, 1, 0x7F, 0x80, 0x3F00, 0x3F80, 0x3F81, 0x7F7F, 0x7F80, 0x7FC1], 0x8000),
            Self::F16x2 => both(Self::F16.edges()),
            Self::Bf16x2 => both(Self::Bf16.edges()),
            Self::F32 => signed(
                &[
                    0,
                    1,
                    0x7F_FFFF,
                    0x80_0000,
                    0x3F00_0000,
                    0x3F80_0000,
                    0x3F80_0001,
                    0x4B00_0001,
                    0x7F7F_FFFF,
                    0x7F80_0000,
                    0x7FC0_0001,
                ],
                1 << 31,
            ),
            Self::F64 => signed(
                &[
                    0,
                    1,
                    0xF_FFFF_FFFF_FFFF,
                    1 << 52,
                    0x3FE0 << 48,
                    0x3FF0 << 48,
                    0x3FF0 << 48 | 1,
                    0x7FEF_FFFF_FFFF_FFFF,
                    0x7FF0 << 48,
                    0x7FF8 << 48 | 1,
                ],
                1 << 63,
            ),
            Self::Tame => signed(&[0, 0x3FF0 << 48, 0x3FF0 << 48 | 1, 0x3FE5_5555_5555_5555, 0x4008 << 48], 1 << 63),
            Self::Range(low, high) => [low, high, (low + high) / 2.0].iter().map(|x| u64::from(x.to_bits())).collect(),
        }
    }

    pub fn random(self, random: &mut Random) -> u64 {
        let bits = random.next();
        // Half of the random numbers have few bits set, so that carries, signs and magnitudes vary.
        let integer = |width: u32, random: &mut Random| {
            let mask = u64::MAX >> (64 - width);
            match bits & 1 {
                0 => bits >> 1 & mask,
                _ => bits & random.next() >> ((bits >> 8) % u64::from(width)) & mask,
            }
        };
        match self {
            Self::I16 => integer(16, random),
            Self::I32 => integer(32, random),
            Self::I64 => integer(64, random),
            Self::Shift => bits % 72,
            Self::Selector => bits & 0xFFFF_FFFF,
            Self::Bool => bits >> 7 & 1,
            Self::F16 | Self::Bf16 => bits & 0xFFFF,
            Self::F16x2 | Self::Bf16x2 => bits & 0xFFFF_FFFF,
            // Ordinary magnitudes half of the time, so that sums do not vanish.
            Self::F32 => match bits >> 32 & 1 {
                0 => bits & 0xFFFF_FFFF,
                _ => bits & 0x807F_FFFF | (120 + (bits >> 33) % 16) << 23,
            },
            Self::F64 => match bits >> 60 & 1 {
                0 => random.next(),
                _ => bits & 0x800F_FFFF_FFFF_FFFF | (1016 + (bits >> 53) % 16) << 52,
            },
            Self::Tame => bits & 0x800F_FFFF_FFFF_FFFF | (1019 + (bits >> 53) % 8) << 52,
            Self::Range(low, high) => ((low + (high - low) * random.unit() as f32).to_bits()).into(),
        }
    }
}

/// Most rows made of edges: beyond that, a part of them chosen by stride.
const MOST: usize = 1200;

/// Edges in every combination, then random rows.
pub fn rows(operands: &[Element]) -> Vec<Vec<u64>> {
    let edges: Vec<Vec<u64>> = operands.iter().map(|operand| operand.edges()).collect();
    let total: usize = edges.iter().map(Vec::len).product();
    // An odd stride that no small number divides visits the combinations of all operands evenly.
    let stride = if total > MOST { total / MOST * 2 + 9 } else { 1 };
    let mut rows = Vec::new();
    for index in (0..total).step_by(stride) {
        let mut rest = index;
        rows.push(
            edges
                .iter()
                .map(|edges| {
                    let value = edges[rest % edges.len()];
                    rest /= edges.len();
                    value
                })
                .collect(),
        );
    }
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    rows.extend((0..400).map(|_| operands.iter().map(|operand| operand.random(&mut random)).collect::<Vec<_>>()));
    rows
}

/// `count` rows of random operands.
pub fn random_rows(operands: &[Element], count: usize) -> Vec<Vec<u64>> {
    let mut random = Random(0xD1B5_4A32_D192_ED03);
    (0..count).map(|_| operands.iter().map(|operand| operand.random(&mut random)).collect()).collect()
}
