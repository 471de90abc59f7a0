//! What a model is: the sizes of one latent-attention layer.
//!
//! Names follow the field: `query_heads` H, `kv_heads` G, `latent_rank` L, `rope_heads` Gr, `rope_dim` R,
//! `nope_dim` Dn, `value_dim` Dv. Query head `h` reads KV head `h / (H/G)` and rope head `h / (H/Gr)`.

use crate::error::{Error, Result};

/// The sizes of one latent-attention layer.
///
/// The cache of one token is a latent of `latent_rank` numbers and `rope_heads * rope_dim` rotated key numbers.
///
/// ```
/// use latent_attention::Geometry;
///
/// // Llama2-7B after MHA2MLA at d_kv = 64: the latent has 32 heads * 64 = 2048 dimensions.
/// let geometry = Geometry::llama2_7b(64)?;
/// assert_eq!((geometry.latent_rank, geometry.rope_heads, geometry.rope_dim), (2048, 32, 16));
/// # Ok::<(), latent_attention::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Geometry {
    /// Query heads, H.
    pub query_heads: usize,
    /// Heads with an up-projection of their own, G; divides `query_heads`.
    pub kv_heads: usize,
    /// Dimensions of the cached latent, L.
    pub latent_rank: usize,
    /// Heads with a rotated key of their own, Gr; divides `kv_heads`. G in MHA2MLA, 1 in DeepSeek.
    pub rope_heads: usize,
    /// Rotated dimensions per rope head, R; even, may be 0 (no positional part).
    pub rope_dim: usize,
    /// Unrotated query/key dimensions per head, Dn; may be 0 (everything is rotated).
    pub nope_dim: usize,
    /// Value dimensions per head, Dv.
    pub value_dim: usize,
    /// Whether keys are normalised head by head ([`HeadNorms`](crate::weights::HeadNorms)). The cache then holds a factor
    /// for each KV head of a token, and every KV head has a rotated key of its own.
    pub key_norm: bool,
}

/// Largest size of any kind. Far beyond real models, and small enough that a product of three sizes fits in 64 bits,
/// so that sizes read from a damaged file cannot overflow.
const LARGEST: usize = 1 << 20;

/// A named geometry: the name used by command lines and reports, and its constructor.
pub type Named = (&'static str, fn() -> Result<Geometry>);

impl Geometry {
    /// A model converted by MHA2MLA: `head_dim` splits into `rope_dim` rotated and the remaining unrotated
    /// dimensions, every KV head keeps its own rotated key, and the latent has `kv_heads * d_kv` dimensions
    /// (`d_kv` is per KV head, as in the paper, arXiv 2502.14837).
    ///
    /// # Errors
    /// [`Error::Geometry`] as for [`Geometry::validate`], or if `rope_dim > head_dim`.
    pub fn mha2mla(query_heads: usize, kv_heads: usize, head_dim: usize, rope_dim: usize, d_kv: usize) -> Result<Self> {
        let nope_dim = head_dim.checked_sub(rope_dim).ok_or_else(|| Error::Geometry {
            field: "rope_dim",
            expected: format!("at most head_dim = {head_dim}"),
            got: rope_dim,
        })?;
        Self {
            query_heads,
            kv_heads,
            latent_rank: kv_heads.saturating_mul(d_kv),
            rope_heads: kv_heads,
            rope_dim,
            nope_dim,
            value_dim: head_dim,
            key_norm: false,
        }
        .validate()
    }

    /// DeepSeek's own layout: every query head has its own up-projections, all share one rotated key.
    ///
    /// # Errors
    /// [`Error::Geometry`] as for [`Geometry::validate`].
    pub fn deepseek(
        query_heads: usize,
        latent_rank: usize,
        rope_dim: usize,
        nope_dim: usize,
        value_dim: usize,
    ) -> Result<Self> {
        Self::unchecked(query_heads, query_heads, latent_rank, 1, rope_dim, nope_dim, value_dim).validate()
    }

    /// These sizes, whether or not they fit together: [`validate`](Self::validate) says, as do the layouts and operations
    /// that are made of them. For sizes that another program or a file names one by one.
    #[must_use]
    pub fn unchecked(
        query_heads: usize,
        kv_heads: usize,
        latent_rank: usize,
        rope_heads: usize,
        rope_dim: usize,
        nope_dim: usize,
        value_dim: usize,
    ) -> Self {
        Self { query_heads, kv_heads, latent_rank, rope_heads, rope_dim, nope_dim, value_dim, key_norm: false }
    }

    /// The same layer with keys that are normalised head by head, or not.
    #[must_use]
    pub fn with_key_norm(self, key_norm: bool) -> Self {
        Self { key_norm, ..self }
    }

    /// The same layer with another latent rank.
    ///
    /// # Errors
    /// [`Error::Geometry`] if `latent_rank` is 0.
    pub fn with_latent_rank(self, latent_rank: usize) -> Result<Self> {
        Self { latent_rank, ..self }.validate()
    }

    /// Checks that the sizes fit together and returns them.
    ///
    /// # Errors
    /// [`Error::Geometry`] names the field, the rule and the value: no head count, latent rank or value
    /// dimension may be 0, `kv_heads` divides `query_heads`, `rope_heads` divides `kv_heads`, `rope_dim` is
    /// even, a query head has at least one dimension, every KV head has its own rotated key if keys are normalised, and no
    /// size exceeds 2^20.
    pub fn validate(self) -> Result<Self> {
        let bad = |field, expected: String, got| Err(Error::Geometry { field, expected, got });
        for (field, got) in [
            ("query_heads", self.query_heads),
            ("kv_heads", self.kv_heads),
            ("latent_rank", self.latent_rank),
            ("rope_heads", self.rope_heads),
            ("value_dim", self.value_dim),
        ] {
            if got == 0 {
                return bad(field, "at least 1".into(), got);
            }
            if got > LARGEST {
                return bad(field, format!("at most {LARGEST}"), got);
            }
        }
        for (field, got) in [("rope_dim", self.rope_dim), ("nope_dim", self.nope_dim)] {
            if got > LARGEST {
                return bad(field, format!("at most {LARGEST}"), got);
            }
        }
        if !self.query_heads.is_multiple_of(self.kv_heads) {
            let expected = format!("a divisor of query_heads = {}", self.query_heads);
            return bad("kv_heads", expected, self.kv_heads);
        }
        if !self.kv_heads.is_multiple_of(self.rope_heads) {
            let expected = format!("a divisor of kv_heads = {}", self.kv_heads);
            return bad("rope_heads", expected, self.rope_heads);
        }
        if !self.rope_dim.is_multiple_of(2) {
            return bad("rope_dim", "even".into(), self.rope_dim);
        }
        if self.key_norm && self.rope_heads != self.kv_heads {
            return bad(
                "rope_heads",
                format!("kv_heads = {} where keys are normalised", self.kv_heads),
                self.rope_heads,
            );
        }
        if self.rope_dim + self.nope_dim == 0 {
            return bad("nope_dim", "at least 1 when rope_dim is 0".into(), 0);
        }
        Ok(self)
    }

    /// The KV head whose up-projections query head `head` uses.
    #[must_use]
    pub fn kv_head_of(&self, head: usize) -> usize {
        head / (self.query_heads / self.kv_heads)
    }

    /// The rope head whose rotated key query head `head` is scored against.
    #[must_use]
    pub fn rope_head_of(&self, head: usize) -> usize {
        head / (self.query_heads / self.rope_heads)
    }

    /// Rotated key numbers cached per token, over all rope heads: `Gr * R`.
    #[must_use]
    pub fn rope_width(&self) -> usize {
        self.rope_heads * self.rope_dim
    }

    /// Factors that are cached per token: one for each KV head if keys are normalised, else none.
    #[must_use]
    pub fn key_factors(&self) -> usize {
        if self.key_norm { self.kv_heads } else { 0 }
    }

    /// Returns [`Error::Config`] unless a norm over keys is given where keys are normalised, and only there.
    pub(crate) fn check_key_norm(&self, is_given: bool) -> Result<()> {
        let why = match (self.key_norm, is_given) {
            (true, false) => "is missing: the geometry says that keys are normalised",
            (false, true) => "is given, but the geometry says that keys are not normalised",
            _ => return Ok(()),
        };
        Err(Error::Config { what: "key norm".into(), why: why.into() })
    }

    /// Bytes per token and layer that the uncompressed bf16 K and V of the same heads take.
    #[must_use]
    pub fn uncompressed_bytes_per_token(&self) -> usize {
        2 * self.kv_heads * (self.rope_dim + self.nope_dim + self.value_dim)
    }

    /// `1/sqrt(R + Dn)`, the softmax scale of an unscaled model.
    #[must_use]
    pub fn default_scale(&self) -> f64 {
        1.0 / ((self.rope_dim + self.nope_dim) as f64).sqrt()
    }
}

/// Named models. Sizes from the MHA2MLA paper (table 1) and the models' published configurations.
impl Geometry {
    /// Llama2-7B: 32 heads of 128, 16 rotated. The paper's `d_kv` is 64, 32 or 16 (latent 2048, 1024, 512).
    ///
    /// # Errors
    /// [`Error::Geometry`] if `d_kv` is 0; the same holds for every constructor below.
    pub fn llama2_7b(d_kv: usize) -> Result<Self> {
        Self::mha2mla(32, 32, 128, 16, d_kv)
    }

    /// Llama2-13B: 40 heads of 128, 16 rotated.
    pub fn llama2_13b(d_kv: usize) -> Result<Self> {
        Self::mha2mla(40, 40, 128, 16, d_kv)
    }

    /// Llama3-8B: 32 query heads, 8 KV heads of 128, 16 rotated. `d_kv` 64 gives a latent of 512.
    pub fn llama3_8b(d_kv: usize) -> Result<Self> {
        Self::mha2mla(32, 8, 128, 16, d_kv)
    }

    /// SmolLM-135M and SmolLM2-135M: 9 query heads, 3 KV heads of 64, 8 rotated. `d_kv` 32, 16 or 8.
    pub fn smollm_135m(d_kv: usize) -> Result<Self> {
        Self::mha2mla(9, 3, 64, 8, d_kv)
    }

    /// SmolLM-360M: 15 query heads, 5 KV heads of 64, 8 rotated. `d_kv` 32, 16 or 8.
    pub fn smollm_360m(d_kv: usize) -> Result<Self> {
        Self::mha2mla(15, 5, 64, 8, d_kv)
    }

    /// SmolLM-1.7B: 32 heads of 64, 8 rotated. `d_kv` 32, 16 or 8 (latent 1024, 512, 256).
    pub fn smollm_1_7b(d_kv: usize) -> Result<Self> {
        Self::mha2mla(32, 32, 64, 8, d_kv)
    }

    /// DeepSeek-V2-Lite: 16 heads, latent 512, shared rope key of 64.
    pub fn deepseek_v2_lite() -> Result<Self> {
        Self::deepseek(16, 512, 64, 128, 128)
    }

    /// DeepSeek-V3 and R1: 128 heads, latent 512, shared rope key of 64.
    pub fn deepseek_v3() -> Result<Self> {
        Self::deepseek(128, 512, 64, 128, 128)
    }

    /// MiniCPM3-4B: 40 heads, latent 256, shared rope key of 32.
    pub fn minicpm3_4b() -> Result<Self> {
        Self::deepseek(40, 256, 32, 64, 64)
    }

    /// Mistral-Small-4: 32 heads, latent 256, shared rope key of 64.
    pub fn mistral_small_4() -> Result<Self> {
        Self::deepseek(32, 256, 64, 64, 128)
    }

    /// Every named model, with `d_kv` spelled out where there is one.
    pub const NAMED: &[Named] = &[
        ("llama2-7b-d64", || Self::llama2_7b(64)),
        ("llama2-7b-d32", || Self::llama2_7b(32)),
        ("llama2-7b-d16", || Self::llama2_7b(16)),
        ("llama2-13b-d64", || Self::llama2_13b(64)),
        ("llama3-8b-d64", || Self::llama3_8b(64)),
        ("smollm-135m-d32", || Self::smollm_135m(32)),
        ("smollm-135m-d16", || Self::smollm_135m(16)),
        ("smollm-135m-d8", || Self::smollm_135m(8)),
        ("smollm-360m-d32", || Self::smollm_360m(32)),
        ("smollm-360m-d16", || Self::smollm_360m(16)),
        ("smollm-360m-d8", || Self::smollm_360m(8)),
        ("smollm-1.7b-d32", || Self::smollm_1_7b(32)),
        ("smollm-1.7b-d16", || Self::smollm_1_7b(16)),
        ("smollm-1.7b-d8", || Self::smollm_1_7b(8)),
        ("deepseek-v2-lite", Self::deepseek_v2_lite),
        ("deepseek-v3", Self::deepseek_v3),
        ("minicpm3-4b", Self::minicpm3_4b),
        ("mistral-small-4", Self::mistral_small_4),
    ];

    /// Looks a model up in [`Geometry::NAMED`].
    ///
    /// # Errors
    /// [`Error::Config`] lists the known names.
    pub fn named(name: &str) -> Result<Self> {
        match Self::NAMED.iter().find(|(known, _)| *known == name) {
            Some((_, build)) => build(),
            None => {
                let known: Vec<_> = Self::NAMED.iter().map(|(known, _)| *known).collect();
                Err(Error::Config {
                    what: format!("model name `{name}`"),
                    why: format!("known names are {}", known.join(", ")),
                })
            }
        }
    }
}
