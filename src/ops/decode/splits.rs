//! What a layer's splits cost beside their tiles, by which `schedule` chooses how long they are.

use super::candidate::Candidate;
use crate::geometry::Geometry;
use crate::splits::SplitCosts;

/// Nanoseconds of merging on an H200, as `cargo xtask cost` predicts them of one sequence: whatever the number of splits,
/// and for each batch of [`COMBINE_BATCH`](crate::sys::COMBINE_BATCH) that a block takes one after the other.
const MERGE_NS: f64 = 1000.0;
const MERGE_BATCH_NS: f64 = 250.0;

/// Bytes of partials that are merged in a nanosecond.
const MERGE_BYTES_PER_NS: f64 = 2700.0;

/// The costs for a layer. Only their proportions to a tile's time count, which other devices share about.
pub(super) fn costs(candidate: &Candidate, geometry: &Geometry) -> SplitCosts {
    let partial_bytes = (geometry.query_heads * (geometry.latent_rank + 1) * size_of::<f32>()) as f64;
    let beside = [f64::from(candidate.block_ns), MERGE_NS, partial_bytes / MERGE_BYTES_PER_NS, MERGE_BATCH_NS];
    SplitCosts::new(f64::from(candidate.tile_ns), beside)
}
