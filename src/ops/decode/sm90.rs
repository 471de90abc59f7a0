//! The kernels of `csrc/decode_sm90.cu`, for Hopper: which of them can serve a layer, and how they divide shared memory. Pure
//! arithmetic. Longer latents are those of clusters of blocks.

mod cluster;

use super::candidate::Candidate;
use super::latents::Latents;
use crate::cache::{CacheLayout, Group, LatentFormat, RopeFormat};
use crate::device::Limits;
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::image::Arch;
use crate::ops::check::count;
use crate::sys;

/// The kernels' file.
pub(super) const FILE: &str = "decode_sm90";

/// Latents per k-step of the kernels.
const STEP: usize = sys::DECODE_STEP as usize;

/// Values per k-step of a rotated key, and per block of its query.
const ROPE_STEP: usize = sys::DECODE_ROPE_STEP as usize;
const ROPE_BLOCK: usize = 2 * ROPE_STEP;

/// Tokens of a tile.
const TILE: usize = sys::DECODE_MAX_TILE as usize;

/// Bytes of a pattern of swizzled rows, and of 64 values of bf16 of a tile's tokens.
const SWIZZLE_BYTES: usize = 1024;
const VALUE_BLOCK_BYTES: usize = 2 * STEP * TILE;

/// Warpgroups that multiply, and threads of one.
const CONSUMERS: usize = 2;
const WARPGROUP: usize = 128;

/// Nanoseconds of a tile on a full machine, and of a block beside its tiles: what its issue slots take, with bf16 what its
/// bytes take an H200 (512 latents and 64 rotated numbers), and what a block of `decode_sm80` is predicted to. They have
/// not been timed.
const TILE_NS: u32 = 1200;
const BF16_TILE_NS: u32 = 2500;
const BLOCK_NS: u32 = 8000;

/// Most bytes of a token's rotated keys: how a copy finds the row of a 16-byte unit is exact up to there.
const MOST_ROPE_BYTES: usize = 1024;

/// A kernel and what it was compiled for.
#[derive(Clone, Copy, Debug)]
struct Variant {
    name: &'static str,
    /// Most k-steps of 64 latents.
    steps: usize,
    /// n-tiles of 8 heads.
    n_tiles: usize,
    /// Whether latents are bf16.
    is_bf16: bool,
}

impl Variant {
    /// The kernels for a layer, first the one that is predicted to take least.
    fn all(geometry: &Geometry, layout: &CacheLayout) -> Vec<Self> {
        let is_bf16 = is_bf16(layout);
        let latents = match layout.format().latent {
            LatentFormat::Int4 { group: Group::G32 } => "Groups32",
            _ => Latents::of(layout).name(),
        };
        let steps = geometry.latent_rank.div_ceil(STEP);
        let mut variants: Vec<Self> = sys::DECODE_SM90_KERNELS
            .into_iter()
            .filter(|kernel| kernel.1 == latents)
            .map(|(name, _, steps, n_tiles)| Self { name, steps: steps as usize, n_tiles: n_tiles as usize, is_bf16 })
            .filter(|variant| variant.steps >= steps)
            .collect();
        variants.sort_by_key(|variant| predicted(geometry, variant.n_tiles, variant.steps));
        variants
    }

    /// Whether the warpgroups work on two tiles together, with half of the latents each.
    fn is_shared(&self) -> bool {
        self.n_tiles == 8 && !self.is_bf16
    }

    /// Tiles in shared memory, at least and at most.
    fn stages(&self) -> [usize; 2] {
        if self.is_shared() {
            [sys::DECODE_SM90_TOGETHER_STAGES as usize; 2]
        } else {
            [CONSUMERS, sys::DECODE_SM90_MAX_STAGES as usize]
        }
    }

    fn heads(&self) -> usize {
        8 * self.n_tiles
    }

    /// Bytes of `BlockState`, and multiples of which a stage begins at and is.
    fn state_bytes(&self) -> usize {
        let own_heads = if self.is_bf16 { self.heads() / CONSUMERS } else { self.heads() };
        sys::DECODE_SM90_STATE_BYTES as usize + sys::DECODE_SM90_STATE_HEAD_BYTES as usize * own_heads
    }

    fn stage_unit(&self) -> usize {
        if self.is_bf16 { SWIZZLE_BYTES } else { 128 }
    }

    /// Blocks of weights behind the queries: those of two tiles of each warpgroup, of one that they work on together, or
    /// with bf16 the higher parts of one that is both's.
    fn weight_blocks(&self) -> usize {
        if self.is_bf16 {
            1
        } else if self.is_shared() {
            CONSUMERS
        } else {
            2 * CONSUMERS
        }
    }

    /// Bytes in place of the stages in the end: half of a warpgroup's sums, of each that has its own tiles; with bf16 rows
    /// of outputs, four numbers apart.
    fn exchange_bytes(&self) -> usize {
        if self.is_bf16 {
            self.heads() * (self.steps * STEP + 4) * size_of::<f32>()
        } else if self.is_shared() {
            0
        } else {
            CONSUMERS * self.steps * self.n_tiles * 2 * size_of::<f32>() * WARPGROUP
        }
    }
}

fn is_bf16(layout: &CacheLayout) -> bool {
    layout.format().latent == LatentFormat::Bf16
}

/// What orders kernels by the time that they are predicted to take: products grow with the heads of a block, and each
/// block reads and unpacks all tokens, which takes as long as the products of 32 heads.
fn predicted(geometry: &Geometry, n_tiles: usize, steps: usize) -> (usize, usize) {
    let head_tiles = geometry.query_heads.div_ceil(8 * n_tiles);
    (head_tiles * (n_tiles + 4) * steps, head_tiles)
}

/// What can serve a layer on a device, best first.
///
/// # Errors
/// [`Error::Unsupported`] if nothing can: so far latents of up to 512 numbers, or of int4 of up to 2560 with one scale for
/// each 512.
pub(super) fn candidates(
    geometry: &Geometry,
    layout: &CacheLayout,
    limits: &Limits,
    _arch: Arch,
) -> Result<Vec<Candidate>> {
    let refused = |why: String| Error::Unsupported {
        what: format!("{FILE} of latents of {} numbers, {:?}", geometry.latent_rank, layout.format()),
        why,
    };
    if geometry.key_norm {
        return Err(refused("keys that are normalised head by head are the portable kernel's".into()));
    }
    if is_bf16(layout) && geometry.latent_rank > cluster::RUN {
        return Err(refused(format!("latents of bf16 have at most {} numbers", cluster::RUN)));
    }
    if geometry.latent_rank > cluster::RUN {
        return cluster::candidates(geometry, layout, limits, refused);
    }
    if layout.rope_tile().row_bytes > MOST_ROPE_BYTES {
        return Err(refused(too_wide(layout, MOST_ROPE_BYTES)));
    }
    let variants = Variant::all(geometry, layout);
    let (mut fitting, mut wanted) = (Vec::new(), usize::MAX);
    for variant in &variants {
        let [fewest, most] = variant.stages();
        let smallest = lay_out(variant, geometry, layout, fewest)?;
        wanted = wanted.min(smallest.shared_bytes);
        if smallest.shared_bytes <= limits.shared_bytes {
            let stage_bytes = stage(variant, layout, geometry).bytes;
            let room = (limits.shared_bytes - regions(variant, geometry, layout).stages) / stage_bytes;
            // As many as there is room for, and as few as do.
            let mut stages = vec![room.clamp(fewest, most), fewest];
            stages.dedup();
            for stages in stages {
                let cost = count("candidates", fitting.len())?;
                fitting.push(Candidate { cost, ..lay_out(variant, geometry, layout, stages)? });
            }
        }
    }
    if !fitting.is_empty() {
        return Ok(fitting);
    }
    Err(refused(too_large(wanted, limits)))
}

/// Why a layer with such rotated keys is not served.
fn too_wide(layout: &CacheLayout, most: usize) -> String {
    format!("a token's rotated keys are {} bytes, of at most {most}", layout.rope_tile().row_bytes)
}

/// Why a device cannot serve a layer that needs so many bytes of shared memory.
fn too_large(wanted: usize, limits: &Limits) -> String {
    format!("needs {wanted} bytes of shared memory per block, and the device has {}", limits.shared_bytes)
}

/// A tile's tokens in shared memory, in bytes.
struct Stage {
    rope: usize,
    rope_stride: usize,
    affine: usize,
    bytes: usize,
}

fn rope_blocks(geometry: &Geometry) -> usize {
    geometry.rope_width().div_ceil(ROPE_BLOCK)
}

/// How rotated keys are multiplied (`csrc/params.h`).
fn rope_way(geometry: &Geometry, layout: &CacheLayout) -> u32 {
    match layout.format().rope {
        _ if geometry.rope_width() == 0 => 0,
        RopeFormat::Bf16 if is_bf16(layout) => 0,
        RopeFormat::Int4 { group } if is_by_heads(geometry, layout, group.size()) => 3,
        _ => steps_at_a_time(layout),
    }
}

/// How many k-steps of a rotated key are multiplied at a time, group by group.
fn steps_at_a_time(layout: &CacheLayout) -> u32 {
    if layout.format().rope == (RopeFormat::Int4 { group: Group::G32 }) { 1 } else { 2 }
}

/// Whether each pair of neighbouring heads has one group of a rotated key, which is of at least two blocks.
fn is_by_heads(geometry: &Geometry, layout: &CacheLayout, group: usize) -> bool {
    let heads_per_rope = geometry.query_heads / geometry.rope_heads;
    let of_pair = |pair: usize| {
        let first = 2 * pair / heads_per_rope * geometry.rope_dim;
        let last = ((2 * pair + 1).min(geometry.query_heads - 1) / heads_per_rope + 1) * geometry.rope_dim - 1;
        [first / group, last / group]
    };
    // The kernels keep the numbers of pairs of (scale, min) in bytes.
    let pairs = layout.affine_tile().row_bytes / 4;
    rope_blocks(geometry) >= 2
        && pairs <= 256
        && (0..geometry.query_heads.div_ceil(2)).map(of_pair).all(|[first, last]| first == last)
}

/// Whether the half-warps that copy take whole rows, or whole parts of one, at a time.
fn is_regular(variant: &Variant, layout: &CacheLayout) -> bool {
    let (latents, ropes) = (layout.latent_tile().row_bytes, layout.rope_tile().row_bytes);
    !variant.is_bf16 && latents == variant.steps * STEP / 2 && (ropes == 0 || ropes.is_power_of_two() && ropes <= 256)
}

/// Bytes of a block of values as they lie in the cache.
fn rope_block_bytes(layout: &CacheLayout) -> usize {
    match layout.format().rope {
        RopeFormat::Int4 { .. } => ROPE_BLOCK / 2,
        RopeFormat::Int8 => ROPE_BLOCK,
        RopeFormat::Bf16 => 2 * ROPE_BLOCK,
    }
}

/// 65536 over the 16-byte units of a row, rounded up: by it kernels find the row of a unit.
fn unit_inverse(row_bytes: usize) -> usize {
    65536usize.div_ceil((row_bytes / 16).max(1))
}

fn stage(variant: &Variant, layout: &CacheLayout, geometry: &Geometry) -> Stage {
    let (blocks, affine_bytes) = (rope_blocks(geometry), layout.affine_tile().row_bytes);
    if !variant.is_bf16 {
        return Stage::new(layout, code_bytes(variant.steps), blocks, affine_bytes);
    }
    let latents = variant.steps * VALUE_BLOCK_BYTES;
    let mut stage = Stage::new(layout, latents, blocks, affine_bytes);
    let mut keys_are_written = false;
    if layout.format().rope == RopeFormat::Bf16 {
        let behind = latents + blocks * VALUE_BLOCK_BYTES;
        stage = Stage { rope: latents, rope_stride: 2 * ROPE_BLOCK, affine: behind, bytes: behind };
        keys_are_written = geometry.rope_width() > 0 && geometry.rope_width().is_multiple_of(ROPE_BLOCK);
    }
    // In the last bytes the lower parts of weights, over keys if copies write all of them.
    let weights = if keys_are_written { 0 } else { 2 * TILE * variant.heads() };
    Stage { bytes: (stage.bytes + weights).next_multiple_of(variant.stage_unit()), ..stage }
}

/// Bytes of a tile's codes: from token to token so many that 16 bytes of eight are in different banks.
fn code_bytes(steps: usize) -> usize {
    TILE * (steps * STEP / 2 + 16)
}

impl Stage {
    /// Of tokens with so many bytes of latents in all, `rope_blocks` blocks of a rotated key each, and so many bytes of pairs.
    fn new(layout: &CacheLayout, rope: usize, rope_blocks: usize, affine_bytes: usize) -> Self {
        // Of 32 values a warp reads at once 16 bytes of eight tokens (int4), 32 of four (int8) or 64 of two (bf16), two
        // apart.
        let unit = if layout.format().rope == RopeFormat::Bf16 { 32 } else { 16 };
        let rope_bytes = rope_blocks * rope_block_bytes(layout);
        let rope_stride = unit * (rope_bytes.div_ceil(unit) | 1);
        let affine = rope + if rope_bytes > 0 { TILE * rope_stride } else { 0 };
        // Behind the pairs 32 bytes of zeros.
        let bytes = (affine + TILE * affine_bytes + 32).next_multiple_of(128);
        Self { rope, rope_stride, affine, bytes }
    }
}

/// Where regions begin, in bytes, behind the query for the latents.
struct Regions {
    q_rope: usize,
    q_sums: usize,
    weights: usize,
    state: usize,
    states: usize,
    stages: usize,
}

/// Blocks of the query's sums over the groups of a token's pairs.
fn sum_blocks(pairs: usize) -> usize {
    // Four groups to a k-step of 16, but for the first, which stands beside them; four k-steps to a block.
    if pairs == 0 { 0 } else { (pairs - 1).div_ceil(4).max(1).div_ceil(4) }
}

fn regions(variant: &Variant, geometry: &Geometry, layout: &CacheLayout) -> Regions {
    let block = 2 * STEP * variant.heads();
    let q_rope = variant.steps * block;
    let q_sums = q_rope + rope_blocks(geometry) * block;
    let weights = q_sums + sum_blocks(layout.affine_tile().row_bytes / 4) * block;
    let state = weights + variant.weight_blocks() * block;
    let states = (state + variant.state_bytes()).next_multiple_of(variant.stage_unit());
    let thread_bytes = if variant.is_shared() { 4 * size_of::<f32>() * variant.n_tiles } else { 0 };
    let stages = states + CONSUMERS * WARPGROUP * thread_bytes;
    Regions { q_rope, q_sums, weights, state, states, stages }
}

/// Lays out shared memory, whether it fits or not.
fn lay_out(variant: &Variant, geometry: &Geometry, layout: &CacheLayout, stages: usize) -> Result<Candidate> {
    let Regions { q_rope, q_sums, weights, state, states, stages: first_stage } = regions(variant, geometry, layout);
    let own = stage(variant, layout, geometry);
    let bytes = |n| count("shared memory", n);
    let shared = sys::DecodeSm90Shared {
        q_rope: bytes(q_rope)?,
        q_sums: bytes(q_sums)?,
        weights: bytes(weights)?,
        state: bytes(state)?,
        stages: bytes(first_stage)?,
        stage_bytes: bytes(own.bytes)?,
        stage_count: bytes(stages)?,
        rope: bytes(own.rope)?,
        rope_stride: bytes(own.rope_stride)?,
        affine: bytes(own.affine)?,
        rope_blocks: bytes(rope_blocks(geometry))?,
        rope_way: rope_way(geometry, layout),
        is_regular: u32::from(is_regular(variant, layout)),
        latent_inverse: bytes(unit_inverse(layout.latent_tile().row_bytes))?,
        rope_inverse: bytes(unit_inverse(layout.rope_tile().row_bytes))?,
        rope_part_stride: bytes(own.rope_stride * 256 / layout.rope_tile().row_bytes.max(1))?,
        rope_lane_bytes: bytes(rope_block_bytes(layout) / 8)?,
        states: bytes(states)?,
    };
    Ok(Candidate {
        file: FILE,
        kernel: variant.name,
        threads: sys::DECODE_SM90_THREADS,
        cluster: 1,
        heads: variant.heads(),
        tile_tokens: TILE,
        latent_steps: geometry.latent_rank.div_ceil(STEP),
        rope_steps: geometry.rope_width().div_ceil(ROPE_STEP),
        rope_span: 0,
        shared: sys::DecodeShared { stage_count: shared.stage_count, ..Default::default() },
        sm90: shared,
        shared_bytes: first_stage + (stages * own.bytes).max(variant.exchange_bytes()),
        blocks_per_multiprocessor: 1,
        tile_ns: if variant.is_bf16 { BF16_TILE_NS } else { TILE_NS },
        block_ns: BLOCK_NS,
        cost: 0,
    })
}

#[cfg(test)]
mod tests;
