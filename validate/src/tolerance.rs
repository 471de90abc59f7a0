//! What an output may differ by, and why. The derivations stand at the head of the tests named here.

use latent_attention::cache::LatentFormat;
use serde::Serialize;

/// Half a step of bf16 is at most this part of a number of 8 significant bits.
const BF16: f64 = 1.0 / 256.0;

/// f32 sums: 2^-24 of what they have reached, 16 times at its worst.
const F32_SUM: f64 = 1.0 / (1 << 20) as f64;

/// By which rule an output passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The same bits.
    Exact,
    /// Products with the up-projections.
    Product,
    /// Attended latents.
    Attended,
    /// Log-sum-exp of scores.
    Lse,
    /// Merged latents.
    Merged,
    /// Merged log-sum-exp.
    MergedLse,
    /// Keys and values.
    Projected,
    /// A whole step.
    Step,
}

impl Rule {
    /// Its name in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Product => "product",
            Self::Attended => "attended",
            Self::Lse => "lse",
            Self::Merged => "merged",
            Self::MergedLse => "merged lse",
            Self::Projected => "projected",
            Self::Step => "step",
        }
    }

    /// What it allows, and where that comes from.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Exact => {
                "the same bits; NaN equals NaN (the cache, its numbers and the rotation are specified to the bit)"
            }
            Self::Product => {
                "|want|/256 + sum of |terms| * 2^-20: rounding to bf16, f32 sums (tests/kernels/absorb.rs)"
            }
            Self::Attended => {
                "the larger of |want| * 2/128 and 8e-4 of the largest latent, and a cosine distance of 5e-6 over all \
                 beside 2^-12 of the largest latent: rounding to bf16, weights of 11 bits; FlashMLA's bounds \
                 (tests/kernels/decode.rs)"
            }
            Self::Lse => "1e-5 * max(1, |want|): f32 sums (tests/kernels/decode.rs)",
            Self::Merged => {
                "|want|/256 + 4e-6 of the largest partial: rounding to bf16, f32 sums (tests/kernels/combine.rs)"
            }
            Self::MergedLse => "1e-6 * max(1, |want|): f32 sums (tests/kernels/combine.rs)",
            Self::Projected => {
                "|want|/256 + what rounding the latents to bf16 can move the sum by, f32 sums; rotated keys that the \
                 cache holds in bf16 are copied (tests/kernels/up_project.rs)"
            }
            Self::Step => {
                "root mean square of the error at most 3 sqrt(5) * 2^-9 of the output's and its terms': five roundings \
                 to bf16 (tests/kernels/layer.rs)"
            }
        }
    }
}

/// For a product whose terms' magnitudes sum to `magnitude`.
pub(crate) fn product(want: f64, magnitude: f64) -> f64 {
    want.abs() * BF16 + magnitude * F32_SUM
}

/// For a mean of latents whose largest number is `largest`.
pub(crate) fn attended(want: f64, largest: f64) -> f64 {
    (want.abs() * 2.0 / 128.0).max(8e-4 * largest)
}

/// Most cosine distance of means of latents whose largest number is `largest`, over all of them: FlashMLA's bound, but
/// of few numbers what rounding to bf16 alone can make; and errors of 2^-12 of the largest where means cancel.
pub(crate) fn attended_cosine(want: &[f64], largest: f64) -> f64 {
    let rounding = if want.len() < 100 { BF16 * BF16 / 2.0 } else { 5e-6 };
    let sizes = 2.0 * want.iter().map(|x| x * x).sum::<f64>();
    rounding + want.len() as f64 * (largest / 4096.0).powi(2) / sizes.max(f64::MIN_POSITIVE)
}

/// For the logarithm of a sum of exponentials of scores.
pub(crate) fn lse(want: f64) -> f64 {
    1e-5 * want.abs().max(1.0)
}

/// For a mean of partials whose largest number is `largest`.
pub(crate) fn merged(want: f64, largest: f64) -> f64 {
    want.abs() * BF16 + 4e-6 * largest
}

/// For a merged logarithm.
pub(crate) fn merged_lse(want: f64) -> f64 {
    1e-6 * want.abs().max(1.0)
}

/// For a product of latents with weights that may moreover be off by `slack`.
pub(crate) fn projected(want: f64, slack: f64) -> f64 {
    want.abs() * BF16 + slack
}

/// What the roundings of a latent and of f32 sums may cost the product with a row of weights: `sum` and `square` are of
/// the magnitudes of its terms, `weights` is the sum of the weights' magnitudes, `largest` the latent's largest number.
///
/// Latents are rounded to bf16 independently of each other, each by at most `a_i = 2^-8 |w_i c_i|` after
/// multiplication: together beyond `4 sqrt(sum a_i^2)` once in 1500 times at the very worst (Hoeffding; of uniform
/// errors those 4 are 7 standard deviations), never beyond `sum a_i`. Their dequantisation in f32 adds at most 2^-13 of
/// a step, 2/15 of the largest number. Those of bf16 are not rounded.
pub(crate) fn latent_slack(latent: LatentFormat, [sum, square, weights]: [f64; 3], largest: f64) -> f64 {
    let rounding = match latent {
        LatentFormat::Bf16 => 0.0,
        LatentFormat::Int4 { .. } => sum.min(4.0 * square.sqrt()) * BF16 + weights * largest / (1 << 15) as f64,
    };
    rounding + sum * F32_SUM
}

/// What adding a bias of up to 1 in f32 can cost beside.
pub(crate) const BIAS: f64 = 1e-6;

/// What dequantising a rotated key in f32 can cost.
pub(crate) const DEQUANTISED_KEY: f64 = 2e-6;

/// Most root mean square error of a step, of the root mean square of its outputs and what they are sums of:
/// `q_rotated`, `q_latent`, the weights, `o_latent` and the output are each rounded to bf16, and scores turn errors of
/// the query into errors of the weights, for which a factor of 3.
pub(crate) fn step() -> f64 {
    3.0 * 5f64.sqrt() / 512.0
}
