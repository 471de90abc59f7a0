//! What a caller can choose.

use super::calibration::Calibration;
use crate::error::{Error, Result};
use crate::rope::{FrequencyIndex, PartialRope};
use crate::weights::DenseAttention;

/// How [`convert`](super::convert) makes its layer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConvertOptions {
    /// Which pairs of every head keep their rotation.
    pub rope: RopeChoice,
    /// Rotated dimensions per head that are left (two per pair); 0 to `head_dim`.
    pub rope_dim: usize,
    /// Dimensions of the latent in total, L; the paper's `d_kv` times the number of KV heads.
    pub latent_rank: usize,
    /// Whether keys and values share the latent.
    pub factorization: Factorization,
    /// Minimises the error on the calibration's inputs instead of the weights' own. Needs a calibration.
    pub whiten: bool,
    /// The coordinates in which the latent is cached.
    pub basis: Basis,
}

impl ConvertOptions {
    /// MHA2MLA's best published choices, 2-norm pairs and the joint factorisation, in the basis that quantises best.
    ///
    /// They need a calibration; [`RopeChoice::High`] in [`Basis::plain`] or [`Basis::rotated`] does not.
    #[must_use]
    pub fn new(rope_dim: usize, latent_rank: usize) -> Self {
        Self {
            rope: RopeChoice::TwoNorm,
            rope_dim,
            latent_rank,
            factorization: Factorization::Joint,
            whiten: false,
            basis: Basis::default(),
        }
    }

    /// The same with another choice of pairs.
    #[must_use]
    pub fn with_rope(self, rope: RopeChoice) -> Self {
        Self { rope, ..self }
    }

    /// The same with another factorisation.
    #[must_use]
    pub fn with_factorization(self, factorization: Factorization) -> Self {
        Self { factorization, ..self }
    }

    /// The same with or without whitening.
    #[must_use]
    pub fn with_whiten(self, whiten: bool) -> Self {
        Self { whiten, ..self }
    }

    /// The same in another basis.
    #[must_use]
    pub fn with_basis(self, basis: Basis) -> Self {
        Self { basis, ..self }
    }
}

/// Which pairs of a head keep their rotation; see [`PartialRope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeChoice {
    /// The highest frequencies.
    High,
    /// The lowest frequencies.
    Low,
    /// Evenly spaced frequencies.
    Uniform {
        /// First pair, less than `head_dim/rope_dim`.
        start: usize,
    },
    /// The pairs that contribute most to the scores on sample text, for each KV head. Needs a calibration.
    TwoNorm,
}

impl RopeChoice {
    /// The kept pairs of each KV head.
    pub(super) fn select(
        self,
        layer: &DenseAttention,
        rope_dim: usize,
        calibration: Option<&Calibration>,
    ) -> Result<FrequencyIndex> {
        let scores;
        let rule = match self {
            Self::High => PartialRope::High,
            Self::Low => PartialRope::Low,
            Self::Uniform { start } => PartialRope::Uniform { start },
            Self::TwoNorm => {
                let instead = "choose RopeChoice::High, Low or Uniform";
                scores = need(calibration, "RopeChoice::TwoNorm", instead)?.two_norm_scores();
                PartialRope::TwoNorm { scores: &scores }
            }
        };
        rule.select(layer.kv_heads, layer.head_dim, rope_dim)
    }
}

/// Whether keys and values share the latent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factorization {
    /// One SVD of the stacked key and value projections. At the same rank its error in the weights (on the inputs,
    /// when whitened) is never larger than that of [`Factorization::Split`].
    Joint,
    /// Keys and values apart, half of the latent each; what one of them cannot use goes to the other.
    Split,
}

/// The coordinates in which the latent is cached. None of them changes what the layer computes, only how well its
/// latent quantises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis {
    /// Turns the latent by a random orthogonal matrix, so that all of its dimensions have alike ranges.
    pub rotate: bool,
    /// Subtracts the latent's mean. Needs a calibration.
    ///
    /// It shortens most tokens' ranges but lengthens that of an *attention sink*, typically the first token, whose
    /// latent is close to zero while most of the attention rests on it. On SmolLM2-135M centring lowers the error
    /// where no sink is in view and doubles or triples it in the deeper layers where one is
    /// (`docs/measurements.md`), so it is not the default.
    pub centre: bool,
    /// Picks the rotation.
    pub seed: u64,
}

impl Default for Basis {
    /// Rotated, seed 0, not centred.
    fn default() -> Self {
        Self::rotated(0)
    }
}

impl Basis {
    /// The factorisation's own coordinates.
    #[must_use]
    pub fn plain() -> Self {
        Self { rotate: false, centre: false, seed: 0 }
    }

    /// Rotated but not centred, which needs no calibration.
    #[must_use]
    pub fn rotated(seed: u64) -> Self {
        Self { rotate: true, centre: false, seed }
    }

    /// The same and centred.
    #[must_use]
    pub fn centred(self) -> Self {
        Self { centre: true, ..self }
    }
}

/// The calibration, or the error that says which option needs it and what else to do.
pub(super) fn need<'a>(calibration: Option<&'a Calibration>, option: &str, instead: &str) -> Result<&'a Calibration> {
    let missing = match calibration {
        Some(calibration) if calibration.tokens() > 0 => return Ok(calibration),
        Some(_) => "a calibration that has observed tokens, this one has none",
        None => "a calibration, none was given",
    };
    Err(Error::Config {
        what: option.into(),
        why: format!("needs {missing}: feed the layer's inputs to Calibration::observe, or {instead}"),
    })
}
