//! Which number formats the cache uses.

use super::range::RangeSetting;
use crate::geometry::Geometry;

/// How many consecutive values share one `(scale, min)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// 32 values.
    G32,
    /// 64 values.
    G64,
    /// 128 values.
    G128,
    /// Runs of up to 512 values: one scale per token wherever the width is at most 512.
    Whole,
}

impl Group {
    /// Largest number of values that share a scale.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::G32 => 32,
            Self::G64 => 64,
            Self::G128 => 128,
            Self::Whole => 512,
        }
    }
}

/// How the latent is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LatentFormat {
    /// 16 bits per value.
    Bf16,
    /// 4 bits per value and 32 bits per group.
    Int4 {
        /// Values per scale.
        group: Group,
    },
}

/// How the rotated key is stored. All rope heads of a token form one row, `[Gr, R]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeFormat {
    /// 16 bits per value.
    Bf16,
    /// 8 bits per value and 32 bits per run of up to 512 values.
    Int8,
    /// 4 bits per value and 32 bits per group.
    Int4 {
        /// Values per scale.
        group: Group,
    },
}

/// How one row of a tile is stored: the common view of latent and rope formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowFormat {
    Bf16,
    Affine { bits: usize, group: usize },
}

impl RowFormat {
    pub(super) fn bits(self) -> usize {
        match self {
            Self::Bf16 => 16,
            Self::Affine { bits, .. } => bits,
        }
    }

    /// Bytes of `width` values without padding; int4 rows come in 32-bit words.
    pub(super) fn row_bytes(self, width: usize) -> usize {
        match self {
            Self::Bf16 => 2 * width,
            Self::Affine { bits: 4, .. } => 4 * width.div_ceil(8),
            Self::Affine { .. } => width,
        }
    }

    pub(super) fn groups(self, width: usize) -> usize {
        match self {
            Self::Bf16 => 0,
            Self::Affine { group, .. } => width.div_ceil(group),
        }
    }
}

impl From<LatentFormat> for RowFormat {
    fn from(format: LatentFormat) -> Self {
        match format {
            LatentFormat::Bf16 => Self::Bf16,
            LatentFormat::Int4 { group } => Self::Affine { bits: 4, group: group.size() },
        }
    }
}

impl From<RopeFormat> for RowFormat {
    fn from(format: RopeFormat) -> Self {
        match format {
            RopeFormat::Bf16 => Self::Bf16,
            RopeFormat::Int8 => Self::Affine { bits: 8, group: Group::Whole.size() },
            RopeFormat::Int4 { group } => Self::Affine { bits: 4, group: group.size() },
        }
    }
}

/// How a token's latent and rotated key are stored.
///
/// ```
/// use latent_attention::{Geometry, cache::CacheFormat};
///
/// let geometry = Geometry::llama2_7b(64)?;
/// let saved = 1.0 - CacheFormat::INT4.code_bytes_per_token(&geometry) / geometry.uncompressed_bytes_per_token() as f64;
/// assert_eq!(format!("{:.2} %", 100.0 * saved), "92.19 %"); // the paper's figure
/// assert_eq!(CacheFormat::INT4.bytes_per_token(&geometry)?, 1360); // with every scale counted
/// # Ok::<(), latent_attention::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheFormat {
    /// Format of the latent.
    pub latent: LatentFormat,
    /// Format of the rotated key.
    pub rope: RopeFormat,
    /// How scales and minima are chosen when tokens are written. Reading does not depend on it.
    pub range: RangeSetting,
}

impl CacheFormat {
    /// Latent and rotated key in bf16.
    pub const BF16: Self = Self::new(LatentFormat::Bf16, RopeFormat::Bf16);

    /// Latent and rotated key in int4: one scale for each run of up to 512 latents, which is all that a rotated latent
    /// needs (feature `convert`), and one for 32 values of the rotated key, whose heads cannot be mixed and differ in
    /// range (`docs/measurements.md`).
    pub const INT4: Self = Self::int4(Group::Whole).with_rope(RopeFormat::Int4 { group: Group::G32 });

    /// The given formats, and ranges from minimum to maximum.
    #[must_use]
    pub const fn new(latent: LatentFormat, rope: RopeFormat) -> Self {
        Self { latent, rope, range: RangeSetting::MinMax }
    }

    /// Latent and rotated key in int4 with the given group.
    #[must_use]
    pub const fn int4(group: Group) -> Self {
        Self::new(LatentFormat::Int4 { group }, RopeFormat::Int4 { group })
    }

    /// This format with the rotated key stored otherwise.
    #[must_use]
    pub const fn with_rope(self, rope: RopeFormat) -> Self {
        Self { rope, ..self }
    }

    /// This format with ranges chosen otherwise: other codes and scales in the same places.
    #[must_use]
    pub const fn with_range(self, range: RangeSetting) -> Self {
        Self { range, ..self }
    }

    /// Bytes per token and layer of the values alone, without scales and padding: the figure that papers quote.
    #[must_use]
    pub fn code_bytes_per_token(&self, geometry: &Geometry) -> f64 {
        let latent = geometry.latent_rank * RowFormat::from(self.latent).bits();
        let rope = geometry.rope_width() * RowFormat::from(self.rope).bits();
        (latent + rope) as f64 / 8.0
    }
}
