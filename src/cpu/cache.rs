//! The paged cache at its address.

use super::level::{Arithmetic, LANES};
use super::memory::{numbers, numbers_mut};
use crate::cache::{
    AFFINE_BYTES, FACTOR_BYTES, RangeSetting, RowFormat, decode_f32, decode_factors, encode, encode_factors,
};
use crate::sys;

/// One layer's cache.
#[derive(Clone, Copy)]
pub(super) struct Cache<'a>(pub &'a sys::CacheParams);

/// A token's place in it.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub page: usize,
    /// Token of the page.
    pub offset: usize,
}

/// Which of a token's two rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Latent,
    Rope,
}

impl Cache<'_> {
    /// The place of a slot.
    pub fn place(&self, slot: usize) -> Place {
        let page_size = self.0.page_size as usize;
        Place { page: slot / page_size, offset: slot % page_size }
    }

    /// How a part's rows are stored.
    #[inline(always)]
    pub fn format(&self, part: Part) -> RowFormat {
        let (kind, group) = match part {
            Part::Latent => (self.0.latent_kind, self.0.latent_group),
            Part::Rope => (self.0.rope_kind, self.0.rope_group),
        };
        match kind {
            sys::ROW_BF16 => RowFormat::Bf16,
            kind => RowFormat::Affine { bits: if kind == sys::ROW_INT4 { 4 } else { 8 }, group: group as usize },
        }
    }

    /// Address of a token's row of the tile that begins `tile` bytes behind the start of a page.
    #[inline(always)]
    fn tile_row(&self, place: Place, tile: u32, row_bytes: u32) -> u64 {
        let page = self.0.pages + place.page as u64 * self.0.page_bytes;
        page + u64::from(tile) + place.offset as u64 * u64::from(row_bytes)
    }

    /// Address and bytes of a token's row, and of its `(scale, min)` pairs.
    #[inline(always)]
    fn row(&self, place: Place, part: Part) -> [(u64, usize); 2] {
        let params = self.0;
        let row = |tile: u32, row_bytes: u32| self.tile_row(place, tile, row_bytes);
        let affines = row(params.affine_offset, params.affine_row_bytes);
        let latent_affines = AFFINE_BYTES * params.latent_groups as usize;
        match part {
            Part::Latent => {
                [(row(0, params.latent_row_bytes), params.latent_row_bytes as usize), (affines, latent_affines)]
            }
            Part::Rope => [
                (row(params.rope_offset, params.rope_row_bytes), params.rope_row_bytes as usize),
                (affines + latent_affines as u64, self.factor_offset() - latent_affines),
            ],
        }
    }

    /// Bytes from the start of a token's pairs to its factors of normalised keys.
    #[inline(always)]
    fn factor_offset(&self) -> usize {
        let factor_bytes = (FACTOR_BYTES * self.0.key_factors as usize).next_multiple_of(AFFINE_BYTES);
        self.0.affine_row_bytes as usize - factor_bytes
    }

    /// Address and bytes of a token's factors.
    fn factor_row(&self, place: Place) -> (u64, usize) {
        let row = self.tile_row(place, self.0.affine_offset, self.0.affine_row_bytes);
        (row + self.factor_offset() as u64, self.0.affine_row_bytes as usize - self.factor_offset())
    }

    /// Reads a token's factors, one for each KV head; none where keys are not normalised.
    ///
    /// # Safety
    /// As [`Cache::bytes`].
    pub unsafe fn factors(&self, place: Place) -> impl Iterator<Item = f32> + use<> {
        let (address, bytes) = self.factor_row(place);
        // SAFETY: promised by the caller.
        decode_factors(unsafe { numbers(address, bytes) }, self.0.key_factors as usize)
    }

    /// Writes a token's factors. Returns how many saturated.
    ///
    /// # Safety
    /// As [`Cache::write`].
    pub unsafe fn write_factors(&self, place: Place, factors: &[f32]) -> usize {
        let (address, bytes) = self.factor_row(place);
        // SAFETY: promised by the caller.
        encode_factors(factors, unsafe { numbers_mut(address, bytes) })
    }

    /// A token's bytes, and those of its `(scale, min)` pairs.
    ///
    /// # Safety
    /// The place must be in the cache, and nothing write it meanwhile.
    #[inline(always)]
    pub unsafe fn bytes<'a>(&self, place: Place, part: Part) -> [&'a [u8]; 2] {
        // SAFETY: promised by the caller.
        self.row(place, part).map(|(address, bytes)| unsafe { numbers(address, bytes) })
    }

    /// Reads a token's values, as the cache decodes them, rounded to f32.
    ///
    /// # Safety
    /// As [`Cache::bytes`].
    #[inline(always)]
    pub unsafe fn read<A: Arithmetic>(&self, place: Place, part: Part, values: &mut [f32]) {
        // SAFETY: promised by the caller.
        let [row, affines] = unsafe { self.bytes(place, part) };
        match self.format(part) {
            RowFormat::Affine { bits, group } if values.len().is_multiple_of(LANES) => {
                decode::<A>(bits, group, row, affines, values);
            }
            format => decode_f32(format, row, affines, values),
        }
    }

    /// Writes a token's values. Returns how many saturated.
    ///
    /// # Safety
    /// The place must be in the cache, and nothing else read or write it meanwhile.
    pub unsafe fn write(&self, place: Place, part: Part, range: RangeSetting, values: &[f32]) -> usize {
        // SAFETY: promised by the caller; row and pairs have no byte in common.
        let [row, affines] = self.row(place, part).map(|(address, bytes)| unsafe { numbers_mut(address, bytes) });
        encode(self.format(part), range, values, row, affines)
    }
}

/// What [`decode_f32`] makes of codes, of whole registers of numbers. A code times its scale is exact, so that it is the same
/// to the bit whether products and sums are rounded each or together.
#[inline(always)]
fn decode<A: Arithmetic>(bits: usize, group: usize, row: &[u8], affines: &[u8], values: &mut [f32]) {
    let (mut values_left, mut row_left) = (values, row);
    // Chunks of both would be counted by divisions, which take as long as a group.
    for affine in affines.as_chunks::<AFFINE_BYTES>().0 {
        let numbers = group.min(values_left.len());
        let (values, row);
        (values, values_left) = std::mem::take(&mut values_left).split_at_mut(numbers);
        (row, row_left) = row_left.split_at((numbers * bits / 8).min(row_left.len()));
        let [scale, min] = A::affine(*affine);
        let values = values.as_chunks_mut::<LANES>().0.iter_mut();
        if bits == 4 {
            for (values, word) in values.zip(row.as_chunks::<4>().0) {
                A::store(A::multiply_add(A::nibbles(u32::from_le_bytes(*word)), scale, min), values);
            }
        } else {
            for (values, codes) in values.zip(row.as_chunks::<LANES>().0) {
                A::store(A::multiply_add(A::bytes(codes), scale, min), values);
            }
        }
    }
}
