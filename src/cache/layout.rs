//! Where the bytes of a token lie.

use super::format::{CacheFormat, RowFormat};
use super::row::{AFFINE_BYTES, FACTOR_BYTES};
use crate::error::{Error, Result};
use crate::geometry::Geometry;

/// The page sizes, in tokens, that every operation takes.
pub const PAGE_SIZES: [usize; 4] = [8, 16, 32, 64];

/// Rows and tiles start on multiples of this many bytes, for 16-byte copies.
const ROW_ALIGNMENT: usize = 16;

/// One tile of a page: `page_size` rows, one per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tile {
    /// Bytes from the start of the page to the tile's first row.
    pub offset: usize,
    /// Bytes from one token's row to the next.
    pub row_bytes: usize,
}

/// The layout of one layer's cache: which tiles a page has and how large they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLayout {
    format: CacheFormat,
    page_size: usize,
    latent_rank: usize,
    rope_width: usize,
    key_factors: usize,
    latent: Tile,
    rope: Tile,
    affine: Tile,
}

impl CacheLayout {
    /// The layout for one layer with pages of `page_size` tokens.
    ///
    /// # Errors
    /// [`Error::Geometry`] if the geometry is inconsistent, [`Error::Config`] if the page size is not one of
    /// [`PAGE_SIZES`].
    pub fn new(geometry: &Geometry, format: CacheFormat, page_size: usize) -> Result<Self> {
        let geometry = geometry.validate()?;
        if !PAGE_SIZES.contains(&page_size) {
            return Err(Error::Config {
                what: format!("page size {page_size}"),
                why: format!("must be one of {PAGE_SIZES:?} tokens"),
            });
        }
        let (latent_rank, rope_width) = (geometry.latent_rank, geometry.rope_width());
        let (latent_row, rope_row) = (RowFormat::from(format.latent), RowFormat::from(format.rope));
        let mut offset = 0;
        let mut tile = |row_bytes: usize| {
            let tile = Tile { offset, row_bytes };
            offset += page_size * row_bytes;
            tile
        };
        let latent = tile(latent_row.row_bytes(latent_rank).next_multiple_of(ROW_ALIGNMENT));
        let rope = tile(rope_row.row_bytes(rope_width).next_multiple_of(ROW_ALIGNMENT));
        let pairs = latent_row.groups(latent_rank) + rope_row.groups(rope_width);
        let key_factors = geometry.key_factors();
        let affine = tile(AFFINE_BYTES * pairs + (FACTOR_BYTES * key_factors).next_multiple_of(AFFINE_BYTES));
        Ok(Self { format, page_size, latent_rank, rope_width, key_factors, latent, rope, affine })
    }

    /// The number formats.
    #[must_use]
    pub fn format(&self) -> CacheFormat {
        self.format
    }

    /// Tokens per page.
    #[must_use]
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// Values in a token's latent, L.
    #[must_use]
    pub fn latent_rank(&self) -> usize {
        self.latent_rank
    }

    /// Values in a token's rotated key over all rope heads, Gr * R.
    #[must_use]
    pub fn rope_width(&self) -> usize {
        self.rope_width
    }

    /// The tile of latent rows.
    #[must_use]
    pub fn latent_tile(&self) -> Tile {
        self.latent
    }

    /// The tile of rotated-key rows.
    #[must_use]
    pub fn rope_tile(&self) -> Tile {
        self.rope
    }

    /// The tile of `(scale, min)` rows: first the latent's groups, then the rotated key's, none in bf16; and behind them the
    /// [factors of normalised keys](Self::key_factors), 2 bytes each, with zeros up to a multiple of 4.
    #[must_use]
    pub fn affine_tile(&self) -> Tile {
        self.affine
    }

    /// Number of `(scale, min)` pairs that belong to the latent.
    #[must_use]
    pub fn latent_groups(&self) -> usize {
        self.latent_row().groups(self.latent_rank)
    }

    /// Factors of a token, f16: of normalised keys one for each KV head, 1 over the root of the key's mean square. Scores of
    /// the latent are multiplied with them; rotated keys contain them. None where keys are not normalised.
    #[must_use]
    pub fn key_factors(&self) -> usize {
        self.key_factors
    }

    /// Bytes from the start of a token's row of `(scale, min)` pairs to its factors.
    #[must_use]
    pub fn factor_offset(&self) -> usize {
        AFFINE_BYTES * (self.latent_groups() + self.rope_row().groups(self.rope_width))
    }

    /// Bytes of one page, a multiple of 16.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.page_size * self.bytes_per_token()
    }

    /// Bytes of one token's record: its rows in all three tiles.
    #[must_use]
    pub fn bytes_per_token(&self) -> usize {
        self.latent.row_bytes + self.rope.row_bytes + self.affine.row_bytes
    }

    /// Whether this is the layout of the geometry's cache.
    ///
    /// # Errors
    /// [`Error::Shape`] names the number that differs.
    pub fn check(&self, geometry: &Geometry) -> Result<()> {
        for (what, ours, theirs) in [
            ("cache layout: latent rank", self.latent_rank, geometry.latent_rank),
            ("cache layout: rope width", self.rope_width, geometry.rope_width()),
            ("cache layout: factors of keys", self.key_factors, geometry.key_factors()),
        ] {
            if ours != theirs {
                return Err(Error::Shape {
                    what,
                    expected: format!("{theirs} from the geometry"),
                    got: ours.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Returns [`Error::Shape`] unless so many bytes are a whole number of pages.
    pub(crate) fn check_bytes(&self, bytes: usize) -> Result<()> {
        if bytes.is_multiple_of(self.page_bytes()) {
            return Ok(());
        }
        Err(Error::Shape {
            what: "cache bytes",
            expected: format!("a multiple of {} bytes per page", self.page_bytes()),
            got: format!("{bytes} bytes"),
        })
    }

    pub(crate) fn latent_row(&self) -> RowFormat {
        self.format.latent.into()
    }

    pub(crate) fn rope_row(&self) -> RowFormat {
        self.format.rope.into()
    }
}

// Here and not beside the formats, which know nothing of layouts.
impl CacheFormat {
    /// Bytes per token and layer that the cache really takes: values, scales and padding. It does not depend on
    /// the page size.
    ///
    /// # Errors
    /// [`Error::Geometry`] if the geometry is inconsistent.
    pub fn bytes_per_token(&self, geometry: &Geometry) -> Result<usize> {
        Ok(CacheLayout::new(geometry, *self, 8)?.bytes_per_token())
    }
}
