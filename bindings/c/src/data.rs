//! Plain structs that describe memory, sizes and caches.

use std::ffi::c_char;

use latent_attention::cache::{CacheFormat, CacheLayout, Group, LatentFormat, RangeSetting, RopeFormat};
use latent_attention::error::Error;
use latent_attention::geometry::Geometry;

use crate::status::{LaStatus, Outcome, give, read, text};

/// Bytes.
pub const LA_DTYPE_U8: u32 = 1;
/// Signed integers of 32 bits.
pub const LA_DTYPE_I32: u32 = 2;
/// Unsigned integers of 32 bits.
pub const LA_DTYPE_U32: u32 = 3;
/// Signed integers of 64 bits.
pub const LA_DTYPE_I64: u32 = 4;
/// Unsigned integers of 64 bits.
pub const LA_DTYPE_U64: u32 = 5;
/// IEEE numbers of 32 bits.
pub const LA_DTYPE_F32: u32 = 6;
/// The upper halves of IEEE numbers of 32 bits.
pub const LA_DTYPE_BF16: u32 = 7;

/// Device memory. An optional array is left out by zeros: no address, no elements, no type. With a type it is there, if
/// only for no tokens.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaArray {
    /// Where it begins, a multiple of an element's size.
    pub address: u64,
    /// Number of elements.
    pub elements: usize,
    /// What an element is, as whoever filled the memory knows it: LA_DTYPE_U8, ... An array of another type than the
    /// struct that holds it says is refused; so is 0.
    pub dtype: u32,
}

/// A tensor `[outer, middle, inner]` of bf16 numbers whose inner dimension is dense, so that a slice of a wider tensor
/// needs no copy. One that is written must not have rows that share elements.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaTensor {
    /// The memory that the tensor lies in, from its first element on.
    pub memory: LaArray,
    /// Outer, middle and inner size.
    pub sizes: [usize; 3],
    /// Elements from one outer, and from one middle index to the next.
    pub strides: [usize; 2],
}

/// What a layer is. The letters are those that the shapes of arguments are written with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaGeometry {
    /// H: query heads.
    pub query_heads: usize,
    /// G: heads with an up-projection of their own; divides `query_heads`.
    pub kv_heads: usize,
    /// L: dimensions of the cached latent.
    pub latent_rank: usize,
    /// Gr: heads with a rotated key of their own; divides `kv_heads`. G in MHA2MLA, 1 in DeepSeek.
    pub rope_heads: usize,
    /// R: rotated dimensions per rope head; even, may be 0.
    pub rope_dim: usize,
    /// Dn: unrotated query and key dimensions per head; may be 0.
    pub nope_dim: usize,
    /// Dv: value dimensions per head.
    pub value_dim: usize,
}

/// Rows of bf16 numbers.
pub const LA_ROW_BF16: u32 = 0;
/// Rows of int4 codes, with a scale and a minimum for each group of values.
pub const LA_ROW_INT4: u32 = 1;
/// Rows of int8 codes, with a scale and a minimum for each run of up to 512 values: rotated keys only.
pub const LA_ROW_INT8: u32 = 2;

/// Codes cover a group's values from the smallest to the largest.
pub const LA_RANGE_MIN_MAX: u32 = 0;
/// Of that range and three shorter ones, codes cover the one with the smallest squared error. It is for int4 groups of
/// at least 96 values; others are stored as with LA_RANGE_MIN_MAX.
pub const LA_RANGE_MSE: u32 = 1;

/// How the bytes of a cache lie, and how they are made of numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaCacheFormat {
    /// Rows of latents: LA_ROW_BF16 or LA_ROW_INT4.
    pub latent_row: u32,
    /// Values of a latent that share a scale: 32, 64, 128 or 512 (runs of up to 512); 0 without scales.
    pub latent_group: u32,
    /// Rows of rotated keys: LA_ROW_BF16, LA_ROW_INT4 or LA_ROW_INT8.
    pub rope_row: u32,
    /// The same of a rotated key; 512 for LA_ROW_INT8.
    pub rope_group: u32,
    /// Tokens per page: 8, 16, 32 or 64.
    pub page_size: usize,
    /// LA_RANGE_MIN_MAX or LA_RANGE_MSE: how la_rope_append_run() chooses scales and minima. All operations on a cache
    /// have the same; the others do not depend on it.
    pub range: u32,
}

/// Where things lie in a page: three tiles of `page_size` rows, the first at its beginning.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaCacheLayout {
    /// Bytes of a token in all three tiles.
    pub token_bytes: usize,
    /// Bytes of a page.
    pub page_bytes: usize,
    /// Bytes of a token's latent.
    pub latent_row_bytes: usize,
    /// Where the tile of rotated keys begins, in bytes from the page's start.
    pub rope_offset: usize,
    /// Bytes of a token's rotated key.
    pub rope_row_bytes: usize,
    /// Where the tile of (scale, minimum) pairs begins, f16 both; first the latent's groups, then the rotated key's.
    pub affine_offset: usize,
    /// Bytes of a token's pairs.
    pub affine_row_bytes: usize,
}

/// A batch in device memory. Whenever a kernel runs on it, `query_starts` must ascend from 0, lengths must not be
/// negative, and the page table must have an id below `page_count` for every page that a sequence's length reaches.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LaBatch {
    /// i32 `[sequences + 1]`: the query tokens of sequence b are `query_starts[b] .. query_starts[b + 1] - 1`.
    pub query_starts: LaArray,
    /// i32 `[sequences]`: cached tokens, those of this step included. Query tokens of a sequence of length 0 see
    /// nothing.
    pub seq_lens: LaArray,
    /// i32 page ids, `[sequences, max_pages]`; with `page_starts`, those of all sequences one after the other.
    pub page_table: LaArray,
    /// Left out, or i32 `[sequences + 1]`, ascending from 0: sequence b has the ids from `page_starts[b]` on.
    pub page_starts: LaArray,
    /// Length of a row of `page_table`; 0 with `page_starts`.
    pub max_pages: usize,
    /// Pages of the smallest cache that the batch is for.
    pub page_count: usize,
}

/// The sizes of a named model: "llama2-7b-d64", "deepseek-v3", ...; the message of an unknown name lists all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_geometry_named(name: *const c_char, out: *mut LaGeometry) -> LaStatus {
    // SAFETY: as the header says.
    unsafe { give(out, || Ok(Geometry::named(&text("name", name)?.to_string_lossy())?.into())) }
}

/// The format to begin with: int4 throughout, one scale for up to 512 latents and one for 32 values of a rotated key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_cache_format_int4(page_size: usize, out: *mut LaCacheFormat) -> LaStatus {
    let (latent_group, rope_group) = (512, 32);
    let (latent_row, rope_row) = (LA_ROW_INT4, LA_ROW_INT4);
    let range = LA_RANGE_MIN_MAX;
    // SAFETY: as the header says.
    unsafe { give(out, || Ok(LaCacheFormat { latent_row, latent_group, rope_row, rope_group, page_size, range })) }
}

/// How large a cache of this format is for a layer of these sizes, and where things lie in it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_cache_layout(
    geometry: *const LaGeometry,
    format: *const LaCacheFormat,
    out: *mut LaCacheLayout,
) -> LaStatus {
    // SAFETY: as the header says.
    unsafe {
        give(out, || {
            let layout = read("format", format)?.layout(read("geometry", geometry)?)?;
            Ok(LaCacheLayout {
                token_bytes: layout.bytes_per_token(),
                page_bytes: layout.page_bytes(),
                latent_row_bytes: layout.latent_tile().row_bytes,
                rope_offset: layout.rope_tile().offset,
                rope_row_bytes: layout.rope_tile().row_bytes,
                affine_offset: layout.affine_tile().offset,
                affine_row_bytes: layout.affine_tile().row_bytes,
            })
        })
    }
}

impl From<Geometry> for LaGeometry {
    fn from(geometry: Geometry) -> Self {
        let Geometry { query_heads, kv_heads, latent_rank, rope_heads, rope_dim, nope_dim, value_dim, .. } = geometry;
        Self { query_heads, kv_heads, latent_rank, rope_heads, rope_dim, nope_dim, value_dim }
    }
}

impl LaGeometry {
    /// The sizes as the crate has them, unchecked: layouts and operations check those that they are made of.
    pub(crate) fn read(&self) -> Geometry {
        let &Self { query_heads, kv_heads, latent_rank, rope_heads, rope_dim, nope_dim, value_dim } = self;
        Geometry::unchecked(query_heads, kv_heads, latent_rank, rope_heads, rope_dim, nope_dim, value_dim)
    }
}

impl LaCacheFormat {
    pub(crate) fn layout(&self, geometry: &LaGeometry) -> Outcome<CacheLayout> {
        let unknown = |what: &str, row, group| Error::Config {
            what: format!("cache format: {what} rows of kind {row} in groups of {group}"),
            why: "must be LA_ROW_BF16 with 0, LA_ROW_INT4 with 32, 64, 128 or 512, or, of rotated keys only, \
                      LA_ROW_INT8 with 512"
                .into(),
        };
        let latent = match (self.latent_row, self.latent_group) {
            (LA_ROW_BF16, 0) => Some(LatentFormat::Bf16),
            (LA_ROW_INT4, size) => group(size).map(|group| LatentFormat::Int4 { group }),
            _ => None,
        };
        let rope = match (self.rope_row, self.rope_group) {
            (LA_ROW_BF16, 0) => Some(RopeFormat::Bf16),
            (LA_ROW_INT8, 512) => Some(RopeFormat::Int8),
            (LA_ROW_INT4, size) => group(size).map(|group| RopeFormat::Int4 { group }),
            _ => None,
        };
        let latent = latent.ok_or_else(|| unknown("latent", self.latent_row, self.latent_group))?;
        let rope = rope.ok_or_else(|| unknown("rope", self.rope_row, self.rope_group))?;
        let range = match self.range {
            LA_RANGE_MIN_MAX => RangeSetting::MinMax,
            LA_RANGE_MSE => RangeSetting::Mse,
            unknown => {
                let why = "must be LA_RANGE_MIN_MAX or LA_RANGE_MSE".into();
                return Err(Error::Config { what: format!("cache format: range {unknown}"), why }.into());
            }
        };
        let format = CacheFormat::new(latent, rope).with_range(range);
        Ok(CacheLayout::new(&geometry.read(), format, self.page_size)?)
    }
}

fn group(size: u32) -> Option<Group> {
    [Group::G32, Group::G64, Group::G128, Group::Whole].into_iter().find(|group| group.size() == size as usize)
}
