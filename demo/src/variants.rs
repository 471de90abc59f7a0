//! What the demo compares: ways of conversion, and sizes of the cache.

use anyhow::{Result, ensure};
use latent_attention::cache::CacheFormat;
use latent_attention::load::ModelConfig;
use latent_attention_lm::conversion::Sizes;

/// The two number formats that every conversion is evaluated with.
pub const FORMATS: [(&str, CacheFormat); 2] = [("bf16", CacheFormat::BF16), ("int4", CacheFormat::INT4)];

/// How a row's attention was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// Not converted.
    Original,
    /// All rotations and the full rank: a change of form that changes nothing.
    Whole,
    /// MHA2MLA's, before fine-tuning.
    Mha2mla,
    /// One shared rotated key, in closed form.
    SharedKey,
    /// The same, distilled from the original.
    Recovered,
    /// As the model came.
    Latent,
}

impl Recipe {
    /// What the table calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Whole => "full rank, full RoPE",
            Self::Mha2mla => "MHA2MLA's recipe",
            Self::SharedKey => "shared key",
            Self::Recovered => "shared key, recovered",
            Self::Latent => "latent",
        }
    }

    /// Whether its rows differ in size and are drawn as a line.
    #[must_use]
    pub fn is_series(self) -> bool {
        matches!(self, Self::Mha2mla | Self::SharedKey | Self::Recovered)
    }
}

/// Numbers cached per token and layer, as shares of the original's keys and values, and which of them are rotated. With int4
/// codes the three save 81.25, 92.19 and 95.31 %.
const SHARES: [((usize, usize), (usize, usize)); 3] = [((3, 4), (1, 8)), ((5, 16), (1, 16)), ((3, 16), (1, 24))];

/// Which of [`sizes`] is recovered and saved.
pub const MAIN: usize = 1;

/// The sizes of shared keys and latents to compare, largest first.
#[must_use]
pub fn sizes(config: &ModelConfig) -> Vec<Sizes> {
    let all = 2 * config.kv_heads * config.head_dim;
    let of = |((part, whole), (rotated, of)): ((usize, usize), (usize, usize))| {
        let rope_dim = all * rotated / of / 2 * 2;
        Sizes { rope_dim, latent_rank: (all * part / whole - rope_dim).min(config.hidden).max(1) }
    };
    SHARES.into_iter().map(of).collect()
}

/// The rank at which nothing is lost but rotations.
#[must_use]
pub fn full_rank(config: &ModelConfig, rope_dim: usize) -> usize {
    config.hidden.min(config.kv_heads * (2 * config.head_dim - rope_dim))
}

/// MHA2MLA's sizes with as many cached numbers as `sizes`: rotated dimensions of each KV head, and the latent's rank.
///
/// # Errors
/// If `rope_dim` is odd or larger than a head.
pub fn mha2mla_sizes(config: &ModelConfig, sizes: &[Sizes], rope_dim: Option<usize>) -> Result<Vec<Sizes>> {
    let head = config.head_dim;
    let rope_dim = rope_dim.unwrap_or(head / 8 / 2 * 2);
    ensure!(
        rope_dim <= head && rope_dim.is_multiple_of(2),
        "--rope-dim must be even and at most {head}, not {rope_dim}"
    );
    let of = |sizes: &Sizes| {
        let numbers = sizes.rope_dim + sizes.latent_rank;
        let latent_rank = numbers.saturating_sub(config.kv_heads * rope_dim).min(full_rank(config, rope_dim));
        ensure!(latent_rank > 0, "--rope-dim {rope_dim} leaves no room for a latent among {numbers} numbers");
        Ok(Sizes { rope_dim, latent_rank })
    };
    sizes.iter().map(of).collect()
}
