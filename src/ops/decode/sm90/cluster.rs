//! The kernels of `csrc/decode_cluster_sm90.cu`, for latents of more than 512 numbers: which of them can serve a layer, and how
//! they divide shared memory. Pure arithmetic.

use super::{
    BLOCK_NS, MOST_ROPE_BYTES, ROPE_BLOCK, ROPE_STEP, STEP, Stage, TILE, code_bytes, predicted, rope_block_bytes,
    steps_at_a_time, sum_blocks, too_large, too_wide, unit_inverse,
};
use crate::cache::{CacheLayout, Group, LatentFormat, RopeFormat};
use crate::device::Limits;
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::ops::check::count;
use crate::ops::decode::candidate::Candidate;
use crate::sys;

/// The kernels' file.
const FILE: &str = "decode_cluster_sm90";

/// Numbers of a latent that a block has.
pub(super) const RUN: usize = sys::DECODE_CLUSTER_SM90_RUN as usize;

/// Tiles in shared memory: those whose scores are ahead of their weights, and one more, at least.
const STAGES: [usize; 2] = [sys::DECODE_CLUSTER_SM90_TILES_AHEAD as usize + 1, sys::DECODE_SM90_MAX_STAGES as usize];

/// Units of 16 tokens in a tile.
const TILE_UNITS: usize = TILE / 16;

/// Nanoseconds of a tile on a full machine: what its issue slots take. It has not been timed.
const TILE_NS: u32 = 1200;

/// A kernel and what it was compiled for.
#[derive(Clone, Copy, Debug)]
struct Variant {
    name: &'static str,
    /// Blocks of a cluster, each with a run of the latent.
    runs: usize,
    /// n-tiles of 8 heads.
    n_tiles: usize,
}

impl Variant {
    /// The kernels for a layer, first the one that is predicted to take least.
    fn all(geometry: &Geometry) -> Vec<Self> {
        let mut variants: Vec<Self> = sys::DECODE_CLUSTER_SM90_KERNELS
            .into_iter()
            .map(|(name, _, runs, n_tiles)| Self { name, runs: runs as usize, n_tiles: n_tiles as usize })
            .filter(|variant| variant.runs == geometry.latent_rank.div_ceil(RUN))
            .collect();
        variants.sort_by_key(|variant| predicted(geometry, variant.n_tiles, RUN / STEP));
        variants
    }

    fn heads(&self) -> usize {
        8 * self.n_tiles
    }

    /// Bytes of `ClusterState`.
    fn state_bytes(&self) -> usize {
        // Units whose partial scores a block holds: its share of those of the tiles ahead and of the one behind.
        let units = (STAGES[0] * TILE_UNITS).div_ceil(self.runs);
        let block =
            sys::DECODE_CLUSTER_SM90_STATE_BLOCK_BYTES + units as u32 * sys::DECODE_CLUSTER_SM90_STATE_PARTIAL_BYTES;
        let heads = sys::DECODE_CLUSTER_SM90_STATE_HEADS_BYTES as usize + self.runs * block as usize;
        sys::DECODE_CLUSTER_SM90_STATE_BYTES as usize + self.n_tiles * heads
    }
}

/// Groups of a rotated key with a scale each.
fn rope_groups(layout: &CacheLayout) -> usize {
    layout.affine_tile().row_bytes / 4 - layout.latent_groups()
}

/// What a block has of a rotated key.
struct RopePart {
    /// Blocks of 64 values.
    blocks: usize,
    /// Groups with a scale each, as far as the key has them.
    groups: usize,
}

impl RopePart {
    /// An equal part of the key, of whole groups if there are several; past the key's end there are zeros.
    fn new(geometry: &Geometry, layout: &CacheLayout, runs: usize) -> Self {
        let group = match layout.format().rope {
            RopeFormat::Int4 { group } => Some(group.size()),
            RopeFormat::Int8 => Some(Group::Whole.size()),
            RopeFormat::Bf16 => None,
        };
        let unit = group.filter(|_| rope_groups(layout) > 1).unwrap_or(0).max(ROPE_BLOCK);
        let blocks = geometry.rope_width().div_ceil(runs * unit) * unit / ROPE_BLOCK;
        let groups = group.filter(|_| blocks > 0).map_or(0, |group| (blocks * ROPE_BLOCK / group).max(1));
        Self { blocks, groups }
    }
}

/// What can serve a layer whose latent is larger than a run. `refused` makes an error of a reason.
///
/// # Errors
/// [`Error::Unsupported`] if nothing can.
pub(super) fn candidates(
    geometry: &Geometry,
    layout: &CacheLayout,
    limits: &Limits,
    refused: impl Fn(String) -> Error,
) -> Result<Vec<Candidate>> {
    if layout.format().latent != (LatentFormat::Int4 { group: Group::Whole }) {
        return Err(refused("its latents are int4 with one scale for each 512 numbers".into()));
    }
    let variants = Variant::all(geometry);
    if variants.is_empty() {
        let most = sys::DECODE_CLUSTER_SM90_KERNELS.iter().map(|kernel| kernel.2 as usize * RUN).max().unwrap_or(0);
        return Err(refused(format!("at most {most} numbers are supported")));
    }
    let runs = variants[0].runs;
    if RopePart::new(geometry, layout, runs).blocks * rope_block_bytes(layout) > MOST_ROPE_BYTES {
        return Err(refused(too_wide(layout, runs * MOST_ROPE_BYTES)));
    }
    let mut wanted = usize::MAX;
    for variant in &variants {
        let [fewest, most] = STAGES;
        let smallest = lay_out(variant, geometry, layout, fewest)?;
        wanted = wanted.min(smallest.shared_bytes);
        if let Some(room) = limits.shared_bytes.checked_sub(smallest.shared_bytes) {
            let more = room / smallest.sm90.stage_bytes as usize;
            return Ok(vec![lay_out(variant, geometry, layout, (fewest + more).min(most))?]);
        }
    }
    Err(refused(too_large(wanted, limits)))
}

/// Lays out a block's shared memory, whether it fits or not.
fn lay_out(variant: &Variant, geometry: &Geometry, layout: &CacheLayout, stages: usize) -> Result<Candidate> {
    let RopePart { blocks, groups } = RopePart::new(geometry, layout, variant.runs);
    let block = 2 * STEP * variant.heads();
    let q_rope = RUN / STEP * block;
    let q_sums = q_rope + blocks * block;
    let weights = q_sums + sum_blocks(1 + groups) * block;
    let state = weights + sys::DECODE_CLUSTER_SM90_WEIGHT_TILES as usize * block;
    let first_stage = (state + variant.state_bytes()).next_multiple_of(128);
    let own = Stage::new(layout, code_bytes(RUN / STEP), blocks, (1 + groups) * 2 * size_of::<u16>());
    let bytes = |n| count("shared memory", n);
    let sm90 = sys::DecodeSm90Shared {
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
        rope_blocks: bytes(blocks)?,
        rope_way: if blocks == 0 { 0 } else { steps_at_a_time(layout) },
        rope_inverse: bytes(unit_inverse(blocks * rope_block_bytes(layout)))?,
        rope_lane_bytes: bytes(rope_block_bytes(layout) / 8)?,
        ..Default::default()
    };
    Ok(Candidate {
        file: FILE,
        kernel: variant.name,
        threads: sys::DECODE_CLUSTER_SM90_THREADS,
        cluster: variant.runs,
        heads: variant.heads(),
        tile_tokens: TILE,
        latent_steps: RUN / STEP,
        rope_steps: blocks * ROPE_BLOCK / ROPE_STEP,
        rope_span: 0,
        shared: sys::DecodeShared { stage_count: sm90.stage_count, ..Default::default() },
        sm90,
        shared_bytes: first_stage + stages * own.bytes,
        blocks_per_multiprocessor: 1,
        tile_ns: TILE_NS,
        block_ns: BLOCK_NS,
        cost: 0,
    })
}

#[cfg(test)]
mod tests;
