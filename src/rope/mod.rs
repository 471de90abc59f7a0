//! Rotary position embedding on the dimensions that keep it.
//!
//! A rope head of `R` dimensions is `R/2` pairs. Pair `j` is rotated by the angle of frequency
//! `frequencies[rope head][j]` at the token's position. The cosines and sines come from the caller, so every
//! scaling rule (YaRN, Llama-3, longrope, multi-axis positions) stays the caller's.

mod partial;

use std::ops::Range;

pub use partial::PartialRope;

use crate::error::{Error, Result, check_finite, check_len};
use crate::geometry::Geometry;

/// Which two dimensions of a rope head form pair `j`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pairing {
    /// `(j, j + R/2)`: Hugging Face's Llama and Qwen, MHA2MLA ("NeoX" order).
    Half,
    /// `(2j, 2j + 1)`: DeepSeek's checkpoints and GGUF files of Llama models ("GPT-J" order).
    Interleaved,
}

impl Pairing {
    /// The two dimensions of pair `pair` in a head of `rope_dim` dimensions.
    #[must_use]
    pub fn dims(self, pair: usize, rope_dim: usize) -> (usize, usize) {
        match self {
            Self::Half => (pair, pair + rope_dim / 2),
            Self::Interleaved => (2 * pair, 2 * pair + 1),
        }
    }
}

/// For each rope head, the frequency (column of [`RopeTables`]) that rotates each of its pairs.
///
/// MHA2MLA's 2-norm strategy keeps other frequencies in each layer and KV head; a model that keeps all of them
/// has `0, 1, 2, ...` in every head ([`FrequencyIndex::all`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrequencyIndex {
    rope_heads: usize,
    indices: Vec<u32>,
}

impl FrequencyIndex {
    /// Wraps `[rope_heads, R/2]` frequency indices, row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] if the indices do not divide evenly among the heads.
    pub fn new(rope_heads: usize, indices: Vec<u32>) -> Result<Self> {
        if rope_heads == 0 || !indices.len().is_multiple_of(rope_heads) {
            return Err(Error::Shape {
                what: "frequency index",
                expected: format!("a multiple of {rope_heads} rope heads"),
                got: format!("{} elements", indices.len()),
            });
        }
        Ok(Self { rope_heads, indices })
    }

    /// Every head keeps frequencies `0..rope_dim/2`.
    #[must_use]
    pub fn all(rope_heads: usize, rope_dim: usize) -> Self {
        let indices = (0..rope_heads).flat_map(|_| 0..rope_dim as u32 / 2).collect();
        Self { rope_heads, indices }
    }

    /// Pairs per rope head, `R/2`.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.indices.len() / self.rope_heads
    }

    /// Number of rope heads.
    #[must_use]
    pub fn rope_heads(&self) -> usize {
        self.rope_heads
    }

    /// The frequencies of one rope head, one per pair.
    ///
    /// # Panics
    /// If `head >= rope_heads`, like slice indexing.
    #[must_use]
    pub fn head(&self, head: usize) -> &[u32] {
        &self.indices[head * self.pairs()..][..self.pairs()]
    }

    /// All indices, `[rope_heads, R/2]`.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.indices
    }

    /// Returns [`Error::Index`] unless tables of `frequencies` columns have all that are indexed.
    pub(crate) fn check_within(&self, frequencies: usize) -> Result<()> {
        match self.indices.iter().position(|&frequency| frequency as usize >= frequencies) {
            None => Ok(()),
            Some(i) => Err(Error::Index {
                what: format!("frequency index [{i}]"),
                got: self.indices[i].into(),
                bound: format!("0..{frequencies} frequencies"),
            }),
        }
    }

    pub(crate) fn check(&self, geometry: &Geometry) -> Result<()> {
        let dims = [("rope heads", geometry.rope_heads), ("pairs", geometry.rope_dim / 2)];
        check_len("frequency index", self.indices.len(), &dims)
    }
}

/// Cosines and sines, `[positions, frequencies]` each, in f32.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTables {
    frequencies: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTables {
    /// Wraps the caller's tables.
    ///
    /// # Errors
    /// [`Error::Shape`] if the two differ in length or do not divide into rows of `frequencies`; [`Error::NotFinite`] if
    /// a number in them is not finite.
    pub fn new(frequencies: usize, cos: Vec<f32>, sin: Vec<f32>) -> Result<Self> {
        if cos.len() != sin.len() || frequencies == 0 || !cos.len().is_multiple_of(frequencies) {
            return Err(Error::Shape {
                what: "rope tables",
                expected: format!("two tables of [positions, frequencies {frequencies}]"),
                got: format!("{} cosines and {} sines", cos.len(), sin.len()),
            });
        }
        let tables = Self { frequencies, cos, sin };
        tables.check_finite(0..tables.positions())?;
        Ok(tables)
    }

    /// Refuses positions whose cosines or sines are no numbers, as those of a `theta` that is none.
    pub(crate) fn check_finite(&self, positions: Range<usize>) -> Result<()> {
        let numbers = positions.start * self.frequencies..positions.end * self.frequencies;
        for (what, table) in [("cosine", &self.cos), ("sine", &self.sin)] {
            if let Some(i) = numbers.clone().find(|&i| !table[i].is_finite()) {
                let (position, frequency) = (i / self.frequencies, i % self.frequencies);
                check_finite(&format!("{what} of position {position} and frequency {frequency}:"), table[i].into())?;
            }
        }
        Ok(())
    }

    /// Tables for positions `0..positions` of the given angular frequencies (radians per token), the angles
    /// computed in f64. What is not finite is refused where the tables are used.
    #[must_use]
    pub fn from_frequencies(frequencies: &[f32], positions: usize) -> Self {
        let angles =
            (0..positions).flat_map(|position| frequencies.iter().map(move |&f| position as f64 * f64::from(f)));
        let (cos, sin) = angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
        Self { frequencies: frequencies.len(), cos, sin }
    }

    /// Tables of the original RoPE (arXiv 2104.09864): frequency `i` is `theta^(-2i/head_dim)`. `theta` is positive;
    /// of another one tables are NaN, which is refused where they are used.
    #[must_use]
    pub fn from_theta(theta: f32, head_dim: usize, positions: usize) -> Self {
        Self::from_frequencies(&theta_frequencies(theta, head_dim), positions)
    }

    /// Number of positions the tables cover.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.cos.len() / self.frequencies
    }

    /// Number of frequencies per position.
    #[must_use]
    pub fn frequencies(&self) -> usize {
        self.frequencies
    }

    /// All cosines, `[positions, frequencies]`.
    #[must_use]
    pub fn cos(&self) -> &[f32] {
        &self.cos
    }

    /// All sines, `[positions, frequencies]`.
    #[must_use]
    pub fn sin(&self) -> &[f32] {
        &self.sin
    }

    /// Cosine and sine of `frequency` at `position`.
    ///
    /// # Panics
    /// If either lies outside of the tables, like slice indexing.
    #[must_use]
    pub fn at(&self, position: usize, frequency: usize) -> (f32, f32) {
        assert!(frequency < self.frequencies, "frequency {frequency} of {}", self.frequencies);
        let index = position * self.frequencies + frequency;
        (self.cos[index], self.sin[index])
    }
}

/// The angular frequencies `theta^(-2i/head_dim)`, `i` in `0..head_dim/2`.
#[must_use]
pub fn theta_frequencies(theta: f32, head_dim: usize) -> Vec<f32> {
    let exponent = |i: usize| -2.0 * i as f64 / head_dim as f64;
    (0..head_dim / 2).map(|i| f64::from(theta).powf(exponent(i)) as f32).collect()
}

/// Rotates one head in place at `position`.
///
/// Specified to the bit: for a pair `(a, b)` with cosine `c` and sine `s`, all in f32, each operation rounded to
/// nearest even and none contracted: `a' = a*c - b*s`, `b' = b*c + a*s`.
///
/// # Panics
/// If `frequencies` is not half as long as `head`, or an index lies outside of `tables`.
pub fn rotate_head(head: &mut [f32], frequencies: &[u32], pairing: Pairing, tables: &RopeTables, position: usize) {
    let row = position * tables.frequencies..(position + 1) * tables.frequencies;
    rotate_head_at(head, frequencies, pairing, &tables.cos[row.clone()], &tables.sin[row]);
}

/// [`rotate_head`] by the cosines and sines of one position, `[frequencies]` each.
pub(crate) fn rotate_head_at(head: &mut [f32], frequencies: &[u32], pairing: Pairing, cos: &[f32], sin: &[f32]) {
    let rope_dim = head.len();
    assert_eq!(frequencies.len(), rope_dim / 2, "one frequency per pair");
    for (pair, &frequency) in frequencies.iter().enumerate() {
        let (i, j) = pairing.dims(pair, rope_dim);
        let (cos, sin) = (cos[frequency as usize], sin[frequency as usize]);
        let (a, b) = (head[i], head[j]);
        head[i] = a * cos - b * sin;
        head[j] = b * cos + a * sin;
    }
}
