//! Which kernel of `csrc/decode_sm80.cu` serves a layer, and how it divides shared memory. Pure arithmetic.

use crate::cache::{CacheLayout, Group, LatentFormat, RopeFormat};
use crate::device::Limits;
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::ops::check::count;
use crate::sys;

/// Latents per step of the kernels.
const STEP: usize = 64;

/// Slices of `STEP` latents that the 8 warps of a block have at a time.
const WARPS: usize = 8;

/// Values per step of a rotated key.
const ROPE_STEP: usize = 32;

/// Groups of latents whose mins one tensor-core product takes.
const MIN_BLOCK: usize = 16;

/// Most bytes of the kernels' static shared memory, and of those for more than two slices.
const STATIC_BYTES: usize = 2944;
const LARGE_STATIC_BYTES: usize = 3072;

/// Shared memory that the driver keeps for itself in each block.
const RESERVED_BYTES: usize = 1024;

/// How latents are stored, as the kernels distinguish it: the enum `Latents` of `csrc/decode/block.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Latents {
    Whole,
    Groups,
    Bf16,
}

/// A kernel and what it was compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Variant {
    name: &'static str,
    latents: Latents,
    /// Slices of 64 latents per warp.
    slices: usize,
    /// n-tiles of 8 heads.
    tiles: usize,
    /// Blocks on a multiprocessor that registers allow.
    blocks: usize,
}

/// All of them, for each kind of latents the smaller ones first, and of those the ones for many heads.
const VARIANTS: [Variant; 14] = {
    const fn variant(name: &'static str, latents: Latents, slices: usize, tiles: usize, blocks: usize) -> Variant {
        Variant { name, latents, slices, tiles, blocks }
    }
    [
        variant("decode_whole_1x4", Latents::Whole, 1, 4, 2),
        variant("decode_whole_1x2", Latents::Whole, 1, 2, 3),
        variant("decode_whole_2x4", Latents::Whole, 2, 4, 1),
        variant("decode_whole_2x2", Latents::Whole, 2, 2, 2),
        variant("decode_whole_5x2", Latents::Whole, 5, 2, 1),
        variant("decode_whole_5x1", Latents::Whole, 5, 1, 1),
        variant("decode_groups_1x4", Latents::Groups, 1, 4, 2),
        variant("decode_groups_1x2", Latents::Groups, 1, 2, 3),
        variant("decode_groups_2x2", Latents::Groups, 2, 2, 2),
        variant("decode_groups_5x1", Latents::Groups, 5, 1, 1),
        variant("decode_bf16_1x4", Latents::Bf16, 1, 4, 2),
        variant("decode_bf16_1x2", Latents::Bf16, 1, 2, 3),
        variant("decode_bf16_2x2", Latents::Bf16, 2, 2, 2),
        variant("decode_bf16_5x1", Latents::Bf16, 5, 1, 1),
    ]
};

/// Tokens per tile and stages of the pipeline, best first. Tiles of 8 tokens leave half of each tensor-core product
/// unused, and with one stage nothing is loaded while a tile is computed: for devices with too little memory.
const TILES: [(usize, usize); 7] = [(64, 2), (32, 2), (32, 1), (16, 2), (16, 1), (8, 2), (8, 1)];

/// The choice for a layer on a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    pub kernel: &'static str,
    /// Heads of a block.
    pub heads: usize,
    pub tile_tokens: usize,
    /// Tiles of tensor-core products: of 16 tokens.
    pub m_tiles: usize,
    /// Steps of the latent and of the rotated key.
    pub latent_steps: usize,
    pub rope_steps: usize,
    /// Steps of the rotated key that the query of 8 heads spans.
    pub rope_span: usize,
    pub shared: sys::DecodeShared,
    /// Dynamic shared memory of a block.
    pub shared_bytes: usize,
    /// Blocks that a multiprocessor holds.
    pub blocks_per_multiprocessor: usize,
}

impl Tiling {
    /// The best that fits: blocks for many heads before blocks for fewer (each reads the cache anew), then two blocks on a
    /// multiprocessor before large tiles (one computes while the other waits), tiles of 8 tokens last. Tiles of 32 tokens
    /// for the sake of a third block cost 16 heads a third of their speed (docs/measurements.md).
    pub fn choose(geometry: &Geometry, layout: &CacheLayout, limits: &Limits) -> Result<Self> {
        let latents = match layout.format().latent {
            LatentFormat::Int4 { group: Group::Whole } => Latents::Whole,
            LatentFormat::Int4 { .. } => Latents::Groups,
            LatentFormat::Bf16 => Latents::Bf16,
        };
        let slices = geometry.latent_rank.div_ceil(WARPS * STEP);
        let suits = |variant: &&Variant| {
            let least = if geometry.query_heads <= 16 { 2 } else { 4 };
            variant.latents == latents && variant.slices >= slices && variant.tiles <= least
        };
        let mut wanted = usize::MAX;
        let candidates = || VARIANTS.iter().filter(suits);
        for tiles in [&TILES[..5], &TILES[5..]] {
            for variant in candidates() {
                // Two blocks on a multiprocessor are worth a smaller tile, but neither one of fewer than 32 tokens nor
                // waiting; a third is worth none.
                let choices = [(3, &tiles[..1]), (2, &tiles[..2]), (1, tiles)];
                for (blocks, tiles) in choices.into_iter().filter(|(blocks, _)| *blocks <= variant.blocks) {
                    for &(tile_tokens, stages) in tiles {
                        let tiling = Self::with(variant, geometry, layout, tile_tokens, stages)?;
                        let fixed = if variant.slices > 2 { LARGE_STATIC_BYTES } else { STATIC_BYTES };
                        let used = tiling.shared_bytes + fixed;
                        wanted = wanted.min(used);
                        let fits_together =
                            blocks == 1 || blocks * (used + RESERVED_BYTES) <= limits.shared_bytes_per_multiprocessor;
                        if used <= limits.shared_bytes && fits_together {
                            return Ok(Self { blocks_per_multiprocessor: blocks, ..tiling });
                        }
                    }
                }
            }
        }
        let most = 5 * WARPS * STEP;
        Err(Error::Unsupported {
            what: format!("decode of latents of {} numbers, {:?}", geometry.latent_rank, layout.format()),
            why: if slices > 5 {
                format!("at most {most} are supported")
            } else {
                format!("needs {wanted} bytes of shared memory per block, and the device has {}", limits.shared_bytes)
            },
        })
    }

    /// Lays out shared memory, whether it fits or not.
    fn with(
        variant: &Variant,
        geometry: &Geometry,
        layout: &CacheLayout,
        tile_tokens: usize,
        stages: usize,
    ) -> Result<Self> {
        let heads = 8 * variant.tiles;
        let steps = geometry.latent_rank.div_ceil(STEP);
        let rope_steps = geometry.rope_width().div_ceil(ROPE_STEP);
        let rope_span = rope_span(geometry);
        let m_tiles = (tile_tokens / 16).max(1);
        // Rows that `ldmatrix` reads 8 at a time, 16 bytes each, fill the banks: an odd multiple of that.
        let shifted_16 = |bytes: usize| 16 * (bytes.div_ceil(16) | 1);
        let latent_stride = match variant.latents {
            // Four rows of a step's 32 bytes fill the banks: 32 more than a multiple of 128.
            Latents::Whole | Latents::Groups => (32 * steps + 95) / 128 * 128 + 32,
            Latents::Bf16 => shifted_16(128 * steps),
        };
        // As many rows as a warp reads at once of a step.
        let rope_step_bytes = match layout.format().rope {
            RopeFormat::Bf16 => 64,
            RopeFormat::Int8 => 32,
            RopeFormat::Int4 { .. } => 16,
        };
        let rope_stride = rope_step_bytes * (rope_steps | 1);
        let affine_stride = match variant.latents {
            // A warp reads a pair of each of 8 tokens, or of Groups four neighbouring ones.
            Latents::Whole | Latents::Bf16 => 4 * ((layout.affine_tile().row_bytes / 4) | 1),
            Latents::Groups => shifted_16(layout.affine_tile().row_bytes),
        };
        let q_latent_stride = shifted_16(128 * steps);
        let q_rope_stride = shifted_16(64 * rope_span);
        let groups = layout.latent_groups();
        let min_blocks = groups.div_ceil(MIN_BLOCK);
        let (planes, sum_blocks) = match variant.latents {
            Latents::Whole => (1, 0),
            Latents::Groups => (1, min_blocks),
            Latents::Bf16 => (2, 0),
        };
        // Writing touches 8 tokens of 4 pairs of heads, reading 32 tokens of a head.
        let score_stride = 4 * (16 * m_tiles + 4);
        // Reading touches 4 rows of 32 bytes.
        let weight_stride = 32 * (m_tiles | 1);

        let mut end = 0;
        let mut part = |bytes: usize| -> Result<u32> {
            let start = end;
            end = (end + bytes).next_multiple_of(128);
            count("shared memory", start)
        };
        let q_latent = part(heads * q_latent_stride)?;
        let q_rope = part(if rope_span > 0 { heads * q_rope_stride } else { 0 })?;
        let q_rope_sums = part(heads * (rope_span | 1) * 4)?;
        let rope = (tile_tokens * latent_stride).next_multiple_of(16);
        let affine = (rope + if rope_steps > 0 { tile_tokens * rope_stride } else { 0 }).next_multiple_of(16);
        let stage_bytes = (affine + tile_tokens * affine_stride).next_multiple_of(128);
        let first_stage = part(stages * stage_bytes)?;
        let q_sums = part(sum_blocks * heads * 4 * MIN_BLOCK)?;
        let scales = part(2 * groups * weight_stride)?;
        let mins = part(min_blocks * variant.tiles * 4 * 8 * MIN_BLOCK)?;
        let scores = part(WARPS / m_tiles * heads * score_stride)?;
        let weights = part(planes * heads * weight_stride)?;
        let bytes = |n| count("shared memory", n);
        let shared = sys::DecodeShared {
            q_latent,
            q_latent_stride: bytes(q_latent_stride)?,
            q_rope,
            q_rope_stride: bytes(q_rope_stride)?,
            q_rope_sums,
            stages: first_stage,
            stage_bytes: bytes(stage_bytes)?,
            stage_count: bytes(stages)?,
            latent_stride: bytes(latent_stride)?,
            rope: bytes(rope)?,
            rope_stride: bytes(rope_stride)?,
            affine: bytes(affine)?,
            affine_stride: bytes(affine_stride)?,
            q_sums,
            scales,
            mins,
            scores,
            score_stride: bytes(score_stride)?,
            weights,
            weight_stride: bytes(weight_stride)?,
        };
        let kernel = variant.name;
        Ok(Self {
            kernel,
            heads,
            tile_tokens,
            m_tiles,
            latent_steps: steps,
            rope_steps,
            rope_span,
            shared,
            shared_bytes: end,
            blocks_per_multiprocessor: 1,
        })
    }
}

/// Most steps of the rotated key that 8 heads of an n-tile have a part in.
fn rope_span(geometry: &Geometry) -> usize {
    let heads_per_rope = geometry.query_heads / geometry.rope_heads;
    let span = |first: usize| {
        let last = (first + 7).min(geometry.query_heads - 1);
        let begin = first / heads_per_rope * geometry.rope_dim / ROPE_STEP;
        ((last / heads_per_rope + 1) * geometry.rope_dim).div_ceil(ROPE_STEP) - begin
    };
    match geometry.rope_dim {
        0 => 0,
        _ => (0..geometry.query_heads).step_by(8).map(span).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests;
