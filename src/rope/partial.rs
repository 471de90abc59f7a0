//! Which pairs of an MHA/GQA head keep their rotation (MHA2MLA, arXiv 2502.14837, section 3.1).

use super::FrequencyIndex;
use crate::error::{Error, Result, check_len};

/// A rule that picks, for every KV head, the `rope_dim/2` pairs that stay rotated.
///
/// Pair `p` of a head is the two dimensions `(p, p + head_dim/2)`, rotated by frequency `p`; a small `p` is a high
/// frequency. Kept pairs stand in ascending order. The query heads of a group follow their KV head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PartialRope<'a> {
    /// The highest frequencies: `p < rope_dim/2`.
    High,
    /// The lowest frequencies: the last `rope_dim/2` pairs.
    Low,
    /// Every `head_dim/rope_dim`-th pair, beginning with pair `start`.
    Uniform {
        /// First pair, less than `head_dim/rope_dim`.
        start: usize,
    },
    /// The pairs with the largest scores, `[kv_heads, head_dim/2]`; the smaller pair wins a tie.
    /// `Calibration::two_norm_scores` (feature `convert`) computes MHA2MLA's scores from text.
    TwoNorm {
        /// Finite numbers, larger is more important.
        scores: &'a [f32],
    },
}

impl PartialRope<'_> {
    /// The kept pairs of each KV head; pair index and frequency index are the same number.
    ///
    /// # Errors
    /// [`Error::Geometry`] if `rope_dim` is odd or exceeds `head_dim`, [`Error::Config`] if `Uniform` does not
    /// divide or a score is not finite, [`Error::Shape`] if there are too few or too many scores.
    pub fn select(&self, kv_heads: usize, head_dim: usize, rope_dim: usize) -> Result<FrequencyIndex> {
        if !rope_dim.is_multiple_of(2) || rope_dim > head_dim {
            return Err(Error::Geometry {
                field: "rope_dim",
                expected: format!("even and at most head_dim = {head_dim}"),
                got: rope_dim,
            });
        }
        let (pairs, kept) = (head_dim / 2, rope_dim / 2);
        let same_in_every_head = |pairs: Vec<usize>| -> Vec<usize> { pairs.repeat(kv_heads) };
        let indices = match *self {
            Self::High => same_in_every_head((0..kept).collect()),
            Self::Low => same_in_every_head((pairs - kept..pairs).collect()),
            Self::Uniform { start } => same_in_every_head(uniform(pairs, kept, start)?),
            Self::TwoNorm { scores } => {
                check_len("2-norm scores", scores.len(), &[("kv heads", kv_heads), ("pairs", pairs)])?;
                if let Some(bad) = scores.iter().find(|score| !score.is_finite()) {
                    return Err(Error::Config {
                        what: "2-norm scores".into(),
                        why: format!("must be finite, got {bad}"),
                    });
                }
                scores.chunks_exact(pairs).flat_map(|head| largest(head, kept)).collect()
            }
        };
        FrequencyIndex::new(kv_heads, indices.into_iter().map(|pair| pair as u32).collect())
    }
}

fn uniform(pairs: usize, kept: usize, start: usize) -> Result<Vec<usize>> {
    let divides = kept != 0 && pairs.is_multiple_of(kept);
    if !divides || start >= pairs / kept {
        return Err(Error::Config {
            what: format!("uniform partial RoPE from pair {start}"),
            why: format!("{kept} kept pairs must divide {pairs} pairs, and start before pair pairs/kept"),
        });
    }
    Ok((start..pairs).step_by(pairs / kept).collect())
}

/// The indices of the `kept` largest scores, in ascending order.
fn largest(scores: &[f32], kept: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(kept);
    order.sort_unstable();
    order
}
