//! The workspace of a plan.

use crate::geometry::Geometry;
use crate::ops::schedule::{SPLIT_WORDS, ScheduleConfig};

/// Of the workspace, and of everything in it.
pub(super) const ALIGNMENT: usize = 256;

/// Where things lie in the workspace, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workspace {
    pub splits: usize,
    pub split_count: usize,
    pub split_starts: usize,
    pub merges: usize,
    pub o_partial: usize,
    pub lse_partial: usize,
    pub bytes: usize,
}

impl Workspace {
    /// For a batch of `query_tokens`, each of which `merge_tiles` tiles of heads merge in the kernel itself. No region is
    /// smaller for more query tokens, so that what suffices for the most of them does for all, although more of them may
    /// leave nothing to merge.
    pub fn new(schedule: &ScheduleConfig, geometry: &Geometry, merge_tiles: usize, query_tokens: usize) -> Self {
        let (partials, heads) = (schedule.max_partials(), geometry.query_heads);
        let mut bytes = 0usize;
        let mut region = |sizes: &[usize]| {
            let start = bytes;
            let size = sizes.iter().fold(1, |product: usize, &n| product.saturating_mul(n));
            bytes = start.saturating_add(size.saturating_add(ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
            start
        };
        Self {
            splits: region(&[schedule.max_batch_splits(query_tokens), SPLIT_WORDS, size_of::<u32>()]),
            split_count: region(&[size_of::<u32>()]),
            split_starts: region(&[query_tokens + 1, size_of::<i32>()]),
            merges: region(&[query_tokens, merge_tiles, size_of::<u64>()]),
            o_partial: region(&[partials, heads, geometry.latent_rank, size_of::<f32>()]),
            lse_partial: region(&[partials, heads, size_of::<f32>()]),
            bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::SplitPolicy;

    #[test]
    fn what_suffices_for_the_most_query_tokens_does_for_fewer() {
        let geometry = Geometry {
            query_heads: 128,
            kv_heads: 128,
            rope_heads: 1,
            latent_rank: 512,
            nope_dim: 128,
            rope_dim: 64,
            value_dim: 128,
            key_norm: false,
        };
        for policy in [SplitPolicy::Balanced, SplitPolicy::Fixed { tokens: 4096 }] {
            for target in [1, 27, 66] {
                // Batches of 4 times as many query tokens are not cut any more.
                for most in [target, 4 * target - 1, 4 * target, 4 * target + 1, 5 * target, 9 * target] {
                    let schedule = ScheduleConfig::new(policy, most, 1 << 20, 64, 64, target);
                    let bytes = |tokens| Workspace::new(&schedule, &geometry, 4, tokens).bytes;
                    for tokens in 0..=most {
                        assert!(bytes(tokens) <= bytes(most), "{policy:?} {target} {most}: {tokens}");
                    }
                }
            }
        }
    }
}
