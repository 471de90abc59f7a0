//! A model's configuration, from `config.json` or from what a GGUF file says.

use serde_json::Value;

use super::fields::Fields;
use super::frequencies::Rotation;
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::rope::Pairing;

/// The object of a configuration that holds this crate's own keys.
pub(crate) const OWN_KEYS: &str = "latent_attention";

/// The class that a converted model with a shared key has in `architectures`: one that no other program knows, so that
/// none takes its layers for those of the original.
pub(crate) const SHARED_KEY_CLASS: &str = "LatentAttentionForCausalLM";

/// The model families whose layers can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// Llama and everything that shares its layout (SmolLM among others): MHA or GQA, no biases unless said.
    Llama,
    /// Qwen2 and Qwen1.5: as Llama, with biases on queries, keys and values.
    Qwen2,
    /// DeepSeek V2, V3 and R1: latent attention with one shared rotated key.
    DeepSeek,
}

impl Architecture {
    /// The class that a model of the family has in `architectures`.
    pub(crate) fn class(self) -> &'static str {
        KnownClass::ALL.iter().find(|known| known.family == self).map_or("none", |known| known.class)
    }
}

/// A class of models, by the names that configurations give it.
struct KnownClass {
    /// In `architectures`.
    class: &'static str,
    /// In `model_type`.
    kind: &'static str,
    family: Architecture,
    /// Whether `rope_interleave` says how dimensions pair.
    pairs_key: bool,
}

impl KnownClass {
    const ALL: &[Self] = &[
        Self { class: "LlamaForCausalLM", kind: "llama", family: Architecture::Llama, pairs_key: false },
        Self { class: "Qwen2ForCausalLM", kind: "qwen2", family: Architecture::Qwen2, pairs_key: false },
        Self { class: "DeepseekV2ForCausalLM", kind: "deepseek_v2", family: Architecture::DeepSeek, pairs_key: false },
        Self { class: "DeepseekV3ForCausalLM", kind: "deepseek_v3", family: Architecture::DeepSeek, pairs_key: true },
    ];

    fn parse(config: Fields) -> Result<&'static Self> {
        let mut class =
            config.optional_array("architectures")?.and_then(|names| names.first()).and_then(|v| v.as_str());
        let model_type = config.optional_text("model_type")?;
        if class == Some(SHARED_KEY_CLASS) {
            // One of ours, whose other layers are those of the class it was converted from.
            let own = config.optional_object(OWN_KEYS)?;
            class = Some(own.map(|own| own.text("converted_from")).transpose()?.unwrap_or("none"));
        }
        let known = Self::ALL.iter().find(|known| match class {
            Some(class) => known.class == class,
            None => Some(known.kind) == model_type,
        });
        known.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|known| known.class).collect();
            Error::Config {
                what: format!("architecture `{}` in {}", class.or(model_type).unwrap_or("none"), config.path.display()),
                why: format!("known architectures are {}", names.join(", ")),
            }
        })
    }

    /// Which dimensions of a rope head make a pair: neighbours, unless DeepSeek-V3 says otherwise. V2 has no say.
    fn pairing(&self, config: Fields) -> Result<Pairing> {
        let interleaved = !self.pairs_key || config.switch("rope_interleave", true)?;
        Ok(if interleaved { Pairing::Interleaved } else { Pairing::Half })
    }
}

/// The sizes of DeepSeek's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeepSeekDims {
    /// Sizes of every layer.
    pub geometry: Geometry,
    /// Rank of the query's own down-projection; `None` if queries are made directly.
    pub query_rank: Option<usize>,
    /// Which dimensions of a rope head make a pair.
    pub pairing: Pairing,
}

/// What a checkpoint says about its model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModelConfig {
    /// The model family.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside a (dense) MLP.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads, H.
    pub query_heads: usize,
    /// KV heads, G; divides `query_heads`.
    pub kv_heads: usize,
    /// Query/key dimensions per head; for DeepSeek rotated and unrotated ones together.
    pub head_dim: usize,
    /// Size of the vocabulary.
    pub vocab: usize,
    /// Longest context the model was made for.
    pub max_positions: usize,
    /// Epsilon of the RMSNorms over the residual stream. Those over DeepSeek's latents have one of their own, 1e-6,
    /// which [`Checkpoint::attention`](super::Checkpoint::attention) puts into the layer.
    pub norm_epsilon: f32,
    /// Base of the rotation frequencies, before scaling.
    pub rope_theta: f32,
    /// Radians per token of each pair, scaling included: `head_dim/2` numbers, for DeepSeek `rope_dim/2`.
    /// [`RopeTables::from_frequencies`](crate::rope::RopeTables::from_frequencies) makes tables of them.
    pub inverse_frequencies: Vec<f32>,
    /// Factor on every score before softmax: `1/sqrt(head_dim)`, for YaRN times its `mscale` squared.
    pub score_scale: f64,
    /// Factor that YaRN wants on every cosine and sine, 1 in other models. It is not left to the tables: the
    /// rotated query rows of [`Checkpoint::attention`](super::Checkpoint::attention) carry its square already.
    pub rotation_gain: f64,
    /// Whether the output head is the embedding. A head of its own in the files counts more than what the configuration
    /// says.
    pub tied_embeddings: bool,
    /// Whether queries, keys and values have biases.
    pub attention_bias: bool,
    /// Token that begins a text.
    pub bos: Option<u32>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// Sizes of DeepSeek's attention; `None` for the other families.
    pub deepseek: Option<DeepSeekDims>,
    /// Of a model that was converted to a shared key: tokens of the longest sequence that the conversion looked at, where it
    /// was noted. Nothing was measured of how the converted model attends over longer distances.
    pub calibrated_positions: Option<usize>,
}

impl ModelConfig {
    /// Reads Hugging Face's keys. Everything that later code multiplies or allocates by is bounded here.
    pub(crate) fn parse(config: Fields) -> Result<Self> {
        let known = KnownClass::parse(config)?;
        let architecture = known.family;
        refuse_what_is_not_computed(config)?;
        let hidden = config.size("hidden_size")?;
        let query_heads = config.size("num_attention_heads")?;
        let deepseek = match architecture {
            Architecture::DeepSeek => Some(parse_deepseek(config, query_heads, known.pairing(config)?)?),
            Architecture::Llama | Architecture::Qwen2 => None,
        };
        let (kv_heads, head_dim, rotated) = match &deepseek {
            Some(DeepSeekDims { geometry: g, .. }) => (query_heads, g.rope_dim + g.nope_dim, g.rope_dim),
            None => {
                let kv_heads = config.optional_size("num_key_value_heads")?.unwrap_or(query_heads);
                let head_dim = dense_head_dim(config, hidden, query_heads)?;
                Geometry::mha2mla(query_heads, kv_heads, head_dim, head_dim, head_dim)?;
                (kv_heads, head_dim, head_dim)
            }
        };
        check_width(config, query_heads, head_dim)?;
        let rotation = Rotation::parse(config, rotated, deepseek.is_some())?;
        let eos = config.token_ids("eos_token_id")?;
        let own = config.optional_object(OWN_KEYS)?;
        let calibrated_positions = own.map(|own| own.optional_size("calibrated_positions")).transpose()?.flatten();
        Ok(Self {
            architecture,
            hidden,
            intermediate: config.size("intermediate_size")?,
            layers: config.size("num_hidden_layers")?,
            query_heads,
            kv_heads,
            head_dim,
            vocab: config.size("vocab_size")?,
            max_positions: config.size("max_position_embeddings")?,
            norm_epsilon: config.positive("rms_norm_eps")? as f32,
            rope_theta: rotation.theta,
            inverse_frequencies: rotation.inverse_frequencies,
            score_scale: rotation.score_factor / (head_dim as f64).sqrt(),
            rotation_gain: rotation.gain,
            tied_embeddings: config.flag("tie_word_embeddings")?,
            attention_bias: architecture == Architecture::Qwen2 || config.flag("attention_bias")?,
            bos: config.token_ids("bos_token_id")?.first().copied(),
            eos,
            deepseek,
            calibrated_positions,
        })
    }
}

fn dense_head_dim(config: Fields, hidden: usize, query_heads: usize) -> Result<usize> {
    match config.optional_size("head_dim")? {
        Some(head_dim) => Ok(head_dim),
        None if hidden.is_multiple_of(query_heads) => Ok(hidden / query_heads),
        None => Err(config.error(format!(
            "`hidden_size` {hidden} does not divide among `num_attention_heads` {query_heads}, and `head_dim` is missing"
        ))),
    }
}

fn parse_deepseek(config: Fields, query_heads: usize, pairing: Pairing) -> Result<DeepSeekDims> {
    let geometry = Geometry::deepseek(
        query_heads,
        config.size("kv_lora_rank")?,
        config.count("qk_rope_head_dim")?,
        config.count("qk_nope_head_dim")?,
        config.size("v_head_dim")?,
    )?;
    check_width(config, query_heads, geometry.value_dim)?;
    Ok(DeepSeekDims { geometry, query_rank: config.optional_size("q_lora_rank")?, pairing })
}

/// Index tables are made from these two sizes before any tensor is seen.
fn check_width(config: Fields, heads: usize, head_dim: usize) -> Result<()> {
    const MAX_WIDTH: usize = 1 << 24;
    if heads * head_dim <= MAX_WIDTH {
        return Ok(());
    }
    Err(config.error(format!("{heads} heads of {head_dim} dimensions are more than {MAX_WIDTH} dimensions")))
}

/// Switches that change what a layer computes in a way this crate does not.
fn refuse_what_is_not_computed(config: Fields) -> Result<()> {
    let refuse = |what: String, why: &str| {
        Err(Error::Config { what: format!("{what} in {}", config.path.display()), why: why.into() })
    };
    if let Some(other) = config.optional_text("hidden_act")?.filter(|act| *act != "silu") {
        return refuse(format!("hidden_act `{other}`"), "only silu is known");
    }
    if config.flag("use_sliding_window")? {
        return refuse("use_sliding_window".into(), "attention over a sliding window is not supported");
    }
    if let Some(quantised) = config.value("quantization_config") {
        let method = quantised.get("quant_method").and_then(Value::as_str).unwrap_or("unknown");
        let what = format!("quantization_config (quant_method `{method}`)");
        return refuse(what, "quantised weights can be read from GGUF files only");
    }
    if config.value("per_layer_config").is_some() {
        return refuse("per_layer_config".into(), "layers that differ in their configuration cannot be read");
    }
    for (layer, kind) in config.optional_array("layer_types")?.into_iter().flatten().enumerate() {
        // The second name is an older one of the first.
        if !matches!(kind.as_str(), Some("full_attention" | "attention")) {
            return refuse(format!("layer_types[{layer}] = {kind}"), "only layers of full attention can be read");
        }
    }
    Ok(())
}
