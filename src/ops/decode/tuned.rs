//! Choices by measured times: the kernel that was fastest on a layer, for that layer and for those that are like it. Pure
//! arithmetic.

use super::candidate::Candidate;
pub(super) use super::latents::Latents;
use crate::cache::CacheLayout;
use crate::geometry::Geometry;

/// What was fastest on one layer: a row of [`CHOICES`](super::choices::CHOICES), which `cargo xtask choices` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Compute capability that the timed machine code is for.
    pub capability: (i32, i32),
    /// The layer.
    pub layer: Layer,
    /// The kernel's name, tokens of its tile, tiles in shared memory and blocks on a multiprocessor.
    pub kernel: &'static str,
    pub tile_tokens: usize,
    pub stages: usize,
    pub blocks: usize,
    /// What its splits are chosen by, in nanoseconds: [`Candidate::tile_ns`] and [`Candidate::block_ns`].
    pub tile_ns: u32,
    pub block_ns: u32,
}

/// What of a layer decides how fast a kernel serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub latents: Latents,
    pub query_heads: usize,
    pub latent_rank: usize,
    /// Bytes of a token's rotated keys in the cache.
    pub rope_bytes: usize,
}

/// Layers are alike if their sizes are no further apart than this: the product of the ratios of their heads, of their ranks
/// and of their rotated keys.
const FURTHEST: f64 = 2.0;

/// Bytes beside the rotated keys: without any, or with few, these make no difference.
const BESIDE_ROPE: f64 = 64.0;

impl Layer {
    fn of(geometry: &Geometry, layout: &CacheLayout) -> Self {
        Self {
            latents: Latents::of(layout),
            query_heads: geometry.query_heads,
            latent_rank: geometry.latent_rank,
            rope_bytes: layout.rope_tile().row_bytes,
        }
    }

    /// How far another layer is: 1 if it is the same; none if it is not like this one.
    fn distance(&self, other: &Self) -> Option<f64> {
        // Quotients and products are rounded alike on every machine: so is the choice.
        let ratio = |a: f64, b: f64| a.max(b) / a.min(b);
        let sizes =
            |layer: &Self| [layer.query_heads as f64, layer.latent_rank as f64, layer.rope_bytes as f64 + BESIDE_ROPE];
        let distance: f64 = sizes(self).into_iter().zip(sizes(other)).map(|(a, b)| ratio(a, b)).product();
        (self.latents == other.latents && distance <= FURTHEST).then_some(distance)
    }
}

/// The candidates that were fastest on layers like this one, the most alike first. What was fastest there and does not
/// serve this layer is passed over.
pub(super) fn nearest(
    choices: &[&Choice],
    geometry: &Geometry,
    layout: &CacheLayout,
    offered: &[Candidate],
) -> Vec<Candidate> {
    let layer = Layer::of(geometry, layout);
    let mut alike: Vec<(f64, &Choice)> =
        choices.iter().filter_map(|choice| Some((layer.distance(&choice.layer)?, *choice))).collect();
    // Of equally near ones the first.
    alike.sort_by(|(near, _), (far, _)| near.total_cmp(far));
    alike.into_iter().filter_map(|(_, choice)| choice.among(offered)).collect()
}

impl Choice {
    /// The candidate that it names: with as many stages, or, where a layer has room for others, with most.
    fn among(&self, offered: &[Candidate]) -> Option<Candidate> {
        let named = offered.iter().filter(|candidate| {
            let has = (candidate.kernel, candidate.tile_tokens, candidate.blocks_per_multiprocessor);
            has == (self.kernel, self.tile_tokens, self.blocks)
        });
        let stages = |candidate: &&Candidate| candidate.shared.stage_count as usize;
        let chosen = named.max_by_key(|candidate| (stages(candidate) == self.stages, stages(candidate)))?;
        Some(Candidate { tile_ns: self.tile_ns, block_ns: self.block_ns, ..*chosen })
    }
}

#[cfg(test)]
mod tests;
