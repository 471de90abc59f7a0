//! How the bytes of the paged cache lie, and the codec that writes and reads them.
//!
//! A page holds `page_size` tokens (8, 16, 32 or 64) in three tiles; a token's *record* is its row in each:
//!
//! ```text
//! page    | latent tile                | rope tile                  | affine tile                    |
//! token 0 | latent row   pad to 16 B   | rope row     pad to 16 B   | (scale, min) per group, f16 x2 |
//! token 1 | latent row                 | rope row                   | (scale, min) ...               |
//! ```
//!
//! Tiles instead of whole records keep both wishes: every row starts on 16 bytes, so that it can be copied with
//! 16-byte accesses, and the 4-byte scales of a page's tokens lie side by side without padding. No byte belongs to
//! two tokens, so a token is written without reading its neighbours.
//!
//! Format of a row, by [`CacheFormat`]:
//!
//! - bf16: little-endian, round to nearest even, NaN stored as `0x7FFF`.
//! - int8: one byte per value, the code 0..=255.
//! - int4: the codes of 8 consecutive values in one little-endian 32-bit word, the nibbles in
//!   [`NIBBLE_ORDER`]. Values past the end have code 0.
//!
//! [`quantize`] says how codes, scale and min come about, to the bit.

mod codec;
mod format;
mod grid;
mod layout;
mod paged;
mod range;
mod row;
mod sequences;

pub use codec::{Affine, NIBBLE_ORDER, Quantized, pack_nibbles, quantize, unpack_nibbles};
pub(crate) use format::RowFormat;
pub use format::{CacheFormat, Group, LatentFormat, RopeFormat};
pub use layout::{CacheLayout, PAGE_SIZES, Tile};
pub use paged::PagedCache;
pub use range::RangeSetting;
pub(crate) use row::{AFFINE_BYTES, FACTOR_BYTES, decode_f32, decode_factors, encode, encode_factors};
pub use sequences::{PageTable, Sequences};
