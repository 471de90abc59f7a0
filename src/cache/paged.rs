//! The cache of one layer in host memory.

use half::bf16;

use super::codec::{Affine, unpack_nibbles};
use super::format::RowFormat;
use super::layout::{CacheLayout, Tile};
use super::row::{AFFINE_BYTES, decode_factors, encode, encode_factors};
use crate::error::{Error, Result, check_len};

/// One layer's paged cache in host memory: the specification of what kernels write and read.
///
/// A *slot* is `page * page_size + offset`. New pages are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagedCache {
    layout: CacheLayout,
    bytes: Vec<u8>,
}

impl PagedCache {
    /// A cache of `pages` pages.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if there is not enough memory for it.
    pub fn new(layout: CacheLayout, pages: usize) -> Result<Self> {
        // Zeros from the operating system cost nothing until they are written.
        let bytes =
            bytemuck::try_zeroed_vec(pages.saturating_mul(layout.page_bytes())).map_err(|()| Error::OutOfMemory {
                what: format!("{pages} pages of {} bytes", layout.page_bytes()),
                why: "more than this computer's memory holds".into(),
            })?;
        Ok(Self { layout, bytes })
    }

    /// A cache over existing bytes, for example copied back from a device.
    ///
    /// # Errors
    /// [`Error::Shape`] if the bytes are not a whole number of pages.
    pub fn from_bytes(layout: CacheLayout, bytes: Vec<u8>) -> Result<Self> {
        layout.check_bytes(bytes.len())?;
        Ok(Self { layout, bytes })
    }

    /// How the bytes lie.
    #[must_use]
    pub fn layout(&self) -> &CacheLayout {
        &self.layout
    }

    /// Number of pages.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.bytes.len() / self.layout.page_bytes()
    }

    /// Number of slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.pages() * self.layout.page_size()
    }

    /// All bytes, page after page.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All bytes, writable: any pattern is a valid cache.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Writes one token's record: `latent` of `[L]` and the rotated key `rope` of `[Gr, R]`. Returns how many values
    /// were not finite or had to saturate.
    ///
    /// # Errors
    /// [`Error::Index`] if there is no such slot, [`Error::Shape`] if a slice has the wrong length, or the cache is one of
    /// normalised keys, whose records have [factors](Self::write_normalised).
    pub fn write(&mut self, slot: usize, latent: &[f32], rope: &[f32]) -> Result<usize> {
        self.write_normalised(slot, latent, rope, &[])
    }

    /// The same with the [factors](CacheLayout::key_factors) of normalised keys, `[G]`, rounded to f16.
    ///
    /// # Errors
    /// [`Error::Index`] if there is no such slot, [`Error::Shape`] if a slice has the wrong length.
    pub fn write_normalised(&mut self, slot: usize, latent: &[f32], rope: &[f32], factors: &[f32]) -> Result<usize> {
        let layout = self.layout;
        self.check_slot(slot)?;
        check_len("latent", latent.len(), &[("latent", layout.latent_rank())])?;
        check_len("rotated key", rope.len(), &[("rope width", layout.rope_width())])?;
        check_len("factors of keys", factors.len(), &[("factors", layout.key_factors())])?;
        let (page, offset) = (slot / layout.page_size(), slot % layout.page_size());
        let page = &mut self.bytes[page * layout.page_bytes()..][..layout.page_bytes()];
        let (page, affine_tile) = page.split_at_mut(layout.affine_tile().offset);
        let (latent_tile, rope_tile) = page.split_at_mut(layout.rope_tile().offset);
        let rows =
            [(latent_tile, layout.latent_tile()), (rope_tile, layout.rope_tile()), (affine_tile, layout.affine_tile())];
        let [latent_row, rope_row, affines] =
            rows.map(|(bytes, tile)| &mut bytes[offset * tile.row_bytes..][..tile.row_bytes]);
        let (affines, factor_bytes) = affines.split_at_mut(layout.factor_offset());
        let (latent_affines, rope_affines) = affines.split_at_mut(AFFINE_BYTES * layout.latent_groups());
        let setting = layout.format().range;
        Ok(encode(layout.latent_row(), setting, latent, latent_row, latent_affines)
            + encode(layout.rope_row(), setting, rope, rope_row, rope_affines)
            + encode_factors(factors, factor_bytes))
    }

    /// The latent stored in a slot, `[L]`, exactly.
    ///
    /// # Errors
    /// [`Error::Index`] if there is no such slot.
    pub fn latent(&self, slot: usize) -> Result<Vec<f64>> {
        self.check_slot(slot)?;
        let (layout, affines) = (&self.layout, self.affines(slot));
        let row = &self.bytes[self.row(slot, layout.latent_tile())];
        Ok(decode(layout.latent_row(), layout.latent_rank(), row, &affines[..layout.latent_groups()]))
    }

    /// The rotated key stored in a slot, `[Gr, R]`, exactly.
    ///
    /// # Errors
    /// [`Error::Index`] if there is no such slot.
    pub fn rope(&self, slot: usize) -> Result<Vec<f64>> {
        self.check_slot(slot)?;
        let (layout, affines) = (&self.layout, self.affines(slot));
        let row = &self.bytes[self.row(slot, layout.rope_tile())];
        Ok(decode(layout.rope_row(), layout.rope_width(), row, &affines[layout.latent_groups()..]))
    }

    /// The factors stored in a slot, `[G]`, exactly; none where keys are not normalised.
    ///
    /// # Errors
    /// [`Error::Index`] if there is no such slot.
    pub fn factors(&self, slot: usize) -> Result<Vec<f64>> {
        self.check_slot(slot)?;
        let row = &self.bytes[self.row(slot, self.layout.affine_tile())];
        let factors = decode_factors(&row[self.layout.factor_offset()..], self.layout.key_factors());
        Ok(factors.map(f64::from).collect())
    }

    fn check_slot(&self, slot: usize) -> Result<()> {
        if slot < self.slots() {
            return Ok(());
        }
        Err(Error::Index { what: "slot".into(), got: slot as i64, bound: format!("0..{} slots", self.slots()) })
    }

    fn row(&self, slot: usize, tile: Tile) -> std::ops::Range<usize> {
        let (page, offset) = (slot / self.layout.page_size(), slot % self.layout.page_size());
        let start = page * self.layout.page_bytes() + tile.offset + offset * tile.row_bytes;
        start..start + tile.row_bytes
    }

    fn affines(&self, slot: usize) -> Vec<Affine> {
        let row = &self.bytes[self.row(slot, self.layout.affine_tile())][..self.layout.factor_offset()];
        row.chunks_exact(4).map(|b| Affine::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }
}

fn decode(format: RowFormat, width: usize, row: &[u8], affines: &[Affine]) -> Vec<f64> {
    match format {
        RowFormat::Bf16 => {
            row.chunks_exact(2).take(width).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect()
        }
        RowFormat::Affine { bits, group } => {
            let codes: Vec<u8> = match bits {
                4 => row
                    .chunks_exact(4)
                    .flat_map(|b| unpack_nibbles(u32::from_le_bytes([b[0], b[1], b[2], b[3]])))
                    .collect(),
                _ => row.to_vec(),
            };
            codes[..width].iter().enumerate().map(|(i, &code)| affines[i / group].value(code)).collect()
        }
    }
}
