//! The kernels of `csrc/decode_sm80.cu`, for every device from Ampere on: which of them can serve a layer, with which
//! tiles, how they divide shared memory, and what that costs. Pure arithmetic.

use super::candidate::Candidate;
use super::latents::Latents;
use crate::cache::{CacheLayout, RopeFormat};
use crate::device::Limits;
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::image::Arch;
use crate::ops::check::count;
use crate::sys;

/// The kernels' file.
pub(super) const FILE: &str = "decode_sm80";

/// Latents per k-step of the kernels.
const STEP: usize = sys::DECODE_STEP as usize;

/// Slices of `STEP` latents that the warps of a block have at a time.
const WARPS: usize = sys::DECODE_THREADS as usize / 32;

/// Values per k-step of a rotated key.
const ROPE_STEP: usize = sys::DECODE_ROPE_STEP as usize;

/// Groups of latents whose mins one tensor-core product takes.
const GROUP_BLOCK: usize = sys::DECODE_GROUP_BLOCK as usize;

/// Nanoseconds of a tile on a full machine and of a block beside its tiles: about the medians of the layers of
/// `cargo xtask cost`, among which a tile takes 2 to 6 microseconds and the rest of a block 4 to 14.
const TILE_NS: u32 = 4500;
const BLOCK_NS: u32 = 8000;

/// Most slices of a warp in any kernel.
const MOST_SLICES: usize = 5;

/// n-tiles in a block for the most heads.
const MOST_N_TILES: usize = 4;

/// A kernel and what it was compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Variant {
    name: &'static str,
    latents: Latents,
    /// Slices of 64 latents per warp.
    slices: usize,
    /// n-tiles of 8 heads.
    n_tiles: usize,
    /// Tokens of a tile, or of 16 the most.
    tokens: usize,
    /// Blocks on a multiprocessor that registers allow.
    blocks: usize,
}

impl Variant {
    /// The kernels for a kind of latents, in code for an architecture.
    fn all(latents: Latents, arch: Arch) -> impl Iterator<Item = Self> {
        let kernels = sys::DECODE_SM80_KERNELS.into_iter().filter(move |kernel| kernel.1 == latents.name());
        kernels.map(move |(name, _, slices, n_tiles, tokens, before_blackwell, from_blackwell)| {
            let blocks = if arch.capability() >= (10, 0) { from_blackwell } else { before_blackwell };
            let [slices, n_tiles, tokens, blocks] = [slices, n_tiles, tokens, blocks].map(|n| n as usize);
            Self { name, latents, slices, n_tiles, tokens, blocks }
        })
    }

    /// Whether it has the accumulators for so many slices, and no more than 16 heads for layers of up to 16.
    fn suits(&self, slices: usize, query_heads: usize) -> bool {
        let most = if query_heads <= 16 { 2 } else { 4 };
        self.slices >= slices && self.n_tiles <= most
    }

    /// Whether it takes tiles of so many tokens.
    fn takes(&self, tile_tokens: usize) -> bool {
        self.tokens == tile_tokens.max(16)
    }

    /// m-tiles of which a warp computes scores at a time: `Shape` of `csrc/decode/sm80/block.cuh`.
    fn share(&self) -> usize {
        if self.slices > 2 && self.tokens > 16 { 2 } else { 1 }
    }
}

/// How blocks share a multiprocessor and take tokens.
struct Pipeline {
    /// Blocks on a multiprocessor.
    blocks: usize,
    tile_tokens: usize,
    /// Tiles in shared memory: with one, copies wait until a tile is computed.
    stages: usize,
    /// Predicted time of a token, in hundredths of the best pipeline's.
    time: u32,
}

/// All that are used, best first.
///
/// Two blocks on a multiprocessor are worth a smaller tile (one computes while the other waits), but neither one of fewer
/// than 32 tokens nor a single stage; a third block is worth no smaller tile: tiles of 32 tokens for its sake cost 16 heads a
/// third of their speed (docs/measurements.md). Tiles of 8 tokens leave half of each tensor-core product unused, and are the
/// last resort of devices with too little shared memory: nothing else costs as much.
const PIPELINES: [Pipeline; 13] = {
    const fn pipeline(blocks: usize, tile_tokens: usize, stages: usize, time: u32) -> Pipeline {
        Pipeline { blocks, tile_tokens, stages, time }
    }
    [
        pipeline(3, 64, 2, 100),
        pipeline(2, 64, 2, 105),
        pipeline(2, 32, 2, 110),
        pipeline(1, 64, 2, 115),
        pipeline(1, 32, 2, 120),
        pipeline(1, 32, 1, 130),
        pipeline(1, 16, 2, 140),
        pipeline(1, 16, 1, 150),
        pipeline(3, 8, 2, 1000),
        pipeline(2, 8, 2, 1050),
        pipeline(2, 8, 1, 1100),
        pipeline(1, 8, 2, 1150),
        pipeline(1, 8, 1, 1200),
    ]
};

/// What can serve a layer on a device, in code for `arch`. Several candidates of one kernel differ in tiles and in the
/// blocks that share a multiprocessor.
///
/// # Errors
/// [`Error::Unsupported`] if there is none: for latents too large for every kernel, or for the device's shared memory.
pub(super) fn candidates(
    geometry: &Geometry,
    layout: &CacheLayout,
    limits: &Limits,
    arch: Arch,
) -> Result<Vec<Candidate>> {
    let slices = geometry.latent_rank.div_ceil(WARPS * STEP);
    let (mut fitting, mut wanted) = (Vec::new(), usize::MAX);
    let variants = Variant::all(Latents::of(layout), arch);
    for variant in variants.filter(|variant| variant.suits(slices, geometry.query_heads)) {
        for pipeline in PIPELINES.iter() {
            if pipeline.blocks > variant.blocks || !variant.takes(pipeline.tile_tokens) {
                continue;
            }
            let mut candidate = lay_out(&variant, geometry, layout, pipeline)?;
            candidate.cost = cost(&variant, slices, pipeline);
            let used = candidate.shared_bytes + sys::DECODE_SM80_STATIC_BYTES as usize;
            wanted = wanted.min(used);
            let fit_together = pipeline.blocks == 1 || pipeline.blocks <= limits.blocks_with(used);
            if used <= limits.shared_bytes && fit_together {
                fitting.push(candidate);
            }
        }
    }
    if !fitting.is_empty() {
        return Ok(fitting);
    }
    let most = MOST_SLICES * WARPS * STEP;
    Err(Error::Unsupported {
        what: format!("decode of latents of {} numbers, {:?}", geometry.latent_rank, layout.format()),
        why: if slices > MOST_SLICES {
            format!("at most {most} are supported")
        } else {
            format!("needs {wanted} bytes of shared memory per block, and the device has {}", limits.shared_bytes)
        },
    })
}

/// Predicted time per cached token and head, in hundredths of that of the best: blocks of 32 heads, three of them on a
/// multiprocessor.
///
/// A block reads and unpacks each token once for all its heads, so that the time per head is as the inverse of their
/// number, whether the layer has as many or not: twice as many heads are worth more than any tile. Accumulators that the
/// layer leaves empty cost a little.
fn cost(variant: &Variant, slices: usize, pipeline: &Pipeline) -> u32 {
    pipeline.time * (MOST_N_TILES / variant.n_tiles) as u32 + (variant.slices - slices) as u32
}

/// Lays out shared memory, whether it fits or not.
fn lay_out(variant: &Variant, geometry: &Geometry, layout: &CacheLayout, pipeline: &Pipeline) -> Result<Candidate> {
    let &Pipeline { blocks, tile_tokens, stages, .. } = pipeline;
    let heads = 8 * variant.n_tiles;
    let steps = geometry.latent_rank.div_ceil(STEP);
    let rope_steps = geometry.rope_width().div_ceil(ROPE_STEP);
    let rope_span = rope_span(geometry);
    let m_tiles = (tile_tokens / 16).max(1);
    // Rows that `ldmatrix` reads 8 at a time, 16 bytes each, fill the banks: an odd multiple of that.
    let shifted_16 = |bytes: usize| 16 * (bytes.div_ceil(16) | 1);
    let latent_stride = match variant.latents {
        // Four rows of a k-step's 32 bytes fill the banks: 32 more than a multiple of 128.
        Latents::Whole | Latents::Groups => (32 * steps + 95) / 128 * 128 + 32,
        Latents::Bf16 => shifted_16(128 * steps),
    };
    // As many rows as a warp reads at once of a k-step.
    let rope_step_bytes = match layout.format().rope {
        RopeFormat::Bf16 => 64,
        RopeFormat::Int8 => 32,
        RopeFormat::Int4 { .. } => 16,
    };
    let rope_stride = rope_step_bytes * (rope_steps | 1);
    let affine_stride = match variant.latents {
        // A warp reads a pair of each of 8 tokens, which are in different banks unless rows are a multiple of 32 bytes;
        // of Groups four neighbouring ones.
        Latents::Whole | Latents::Bf16 => {
            let bytes = layout.affine_tile().row_bytes;
            if bytes.is_multiple_of(32) { bytes + 4 } else { bytes }
        }
        Latents::Groups => shifted_16(layout.affine_tile().row_bytes),
    };
    // The same for all layers, but where room is short.
    let q_latent_stride = shifted_16(128 * if variant.slices > 2 { steps } else { variant.slices * WARPS });
    let q_rope_stride = shifted_16(64 * rope_span);
    let groups = layout.latent_groups();
    // Planes of weights, and groups whose scales and mins the output's products read.
    let (planes, group_blocks, group_rows) = match variant.latents {
        Latents::Whole => (variant.slices, 0, 0),
        Latents::Groups => (1, groups.div_ceil(GROUP_BLOCK), groups),
        Latents::Bf16 => (2, 0, 0),
    };
    // Reading touches 4 rows of 32 bytes.
    let scale_stride = 32 * (m_tiles | 1);
    let k_slices = WARPS * variant.share() / m_tiles;
    // A C fragment of 16 tokens and 8 heads, and a B fragment of them, for a warp.
    let (score_bytes, weight_bytes) = (16 * 32, 8 * 32);
    // What a warp copies at a time of its rows, 32 lanes with 16 bytes each: 4 such pieces of latents, 2 of rotated keys.
    // Each lane's place of each is kept.
    let places = |row_bytes: usize, pieces: usize| {
        let bytes = (tile_tokens / WARPS).max(1) * row_bytes;
        bytes.div_ceil(pieces * 32 * 16) * pieces * 32 * 4
    };

    let mut end = 0;
    let mut region = |bytes: usize| -> Result<u32> {
        let start = end;
        end = (end + bytes).next_multiple_of(128);
        count("shared memory", start)
    };
    let q_latent = region(heads * q_latent_stride)?;
    let q_rope = region(if rope_span > 0 { heads * q_rope_stride } else { 0 })?;
    // Of each head and k-step, or run, what four lanes multiply with pairs of scale and min.
    let q_rope_sums = region(16 * heads * rope_span)?;
    let rope = (tile_tokens * latent_stride).next_multiple_of(16);
    let affine = (rope + if rope_steps > 0 { tile_tokens * rope_stride } else { 0 }).next_multiple_of(16);
    let stage_bytes = (affine + tile_tokens * affine_stride).next_multiple_of(128);
    let first_stage = region(stages * stage_bytes)?;
    let latent_pieces = region(places(layout.latent_tile().row_bytes, 4))?;
    let rope_pieces = region(places(layout.rope_tile().row_bytes, 2))?;
    let q_sums = region(match variant.latents {
        Latents::Whole => 16 * heads * variant.slices,
        Latents::Groups => group_blocks * heads * 4 * GROUP_BLOCK,
        Latents::Bf16 => 0,
    })?;
    let scales = region(2 * group_rows * scale_stride)?;
    let mins = region(group_blocks * variant.n_tiles * 4 * 8 * GROUP_BLOCK)?;
    // Sums over tokens take its place in the end.
    let sums = (1 + 2 * variant.slices) * m_tiles * heads * 4;
    let scores = region((k_slices * m_tiles * variant.n_tiles * score_bytes).max(sums))?;
    let weights = region(planes * m_tiles * variant.n_tiles * weight_bytes)?;
    let bytes = |n| count("shared memory", n);
    let shared = sys::DecodeShared {
        q_latent,
        q_latent_stride: bytes(q_latent_stride)?,
        q_rope,
        q_rope_stride: bytes(q_rope_stride)?,
        q_rope_sums,
        stages: first_stage,
        stage_count: bytes(stages)?,
        stage_step: bytes(if stages > 1 { stage_bytes / tile_tokens } else { 0 })?,
        latent_stride: bytes(latent_stride)?,
        rope: bytes(rope)?,
        rope_stride: bytes(rope_stride)?,
        affine: bytes(affine)?,
        affine_stride: bytes(affine_stride)?,
        latent_pieces,
        rope_pieces,
        q_sums,
        scales,
        scale_stride: bytes(scale_stride)?,
        mins,
        scores,
        weights,
    };
    Ok(Candidate {
        file: FILE,
        kernel: variant.name,
        threads: sys::DECODE_THREADS,
        heads,
        tile_tokens,
        latent_steps: steps,
        rope_steps,
        rope_span,
        shared,
        sm90: sys::DecodeSm90Shared::default(),
        cluster: 1,
        shared_bytes: end,
        blocks_per_multiprocessor: blocks,
        tile_ns: TILE_NS,
        block_ns: BLOCK_NS,
        cost: 0,
    })
}

/// Most k-steps of the rotated key that the rope heads of an n-tile lie in.
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
mod occupancy;
#[cfg(test)]
mod tests;
