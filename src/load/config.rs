//! A model's configuration, from `config.json` or from what a GGUF file says.

use serde_json::Value;

use super::families::{self, AnyLayout, Architecture, Frame, check_width};
use super::fields::Fields;
use super::frequencies::Rotation;
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::rope::Pairing;

/// The object of a configuration that holds this crate's own keys.
pub(crate) const OWN_KEYS: &str = "latent_attention";

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
    /// Reads Hugging Face's keys, and how the layers lie in the files of a model that was not converted. Everything that
    /// later code multiplies or allocates by is bounded here.
    pub(super) fn parse(config: Fields) -> Result<(Self, AnyLayout)> {
        let (architecture, name) = families::find(config)?;
        let family = architecture.family();
        refuse_what_is_not_computed(config)?;
        let hidden = config.size("hidden_size")?;
        let query_heads = config.size("num_attention_heads")?;
        let sizes = (family.parse)(name, config, Frame { hidden, query_heads })?;
        check_width(config, query_heads, sizes.head_dim)?;
        let rotation = Rotation::parse(config, sizes.rope_dim, &family.rope)?;
        let eos = config.token_ids("eos_token_id")?;
        let own = config.optional_object(OWN_KEYS)?;
        let calibrated_positions = own.map(|own| own.optional_size("calibrated_positions")).transpose()?.flatten();
        let model = Self {
            architecture,
            hidden,
            intermediate: config.size("intermediate_size")?,
            layers: config.size("num_hidden_layers")?,
            query_heads,
            kv_heads: sizes.kv_heads,
            head_dim: sizes.head_dim,
            vocab: config.size("vocab_size")?,
            max_positions: config.size("max_position_embeddings")?,
            norm_epsilon: config.positive("rms_norm_eps")? as f32,
            rope_theta: rotation.theta,
            inverse_frequencies: rotation.inverse_frequencies,
            score_scale: rotation.score_factor / (sizes.head_dim as f64).sqrt(),
            rotation_gain: rotation.gain,
            tied_embeddings: config.flag("tie_word_embeddings")?,
            attention_bias: family.biases.parse(config)?,
            bos: config.token_ids("bos_token_id")?.first().copied(),
            eos,
            deepseek: sizes.deepseek,
            calibrated_positions,
        };
        Ok((model, sizes.layout))
    }
}

/// Switches that change what a layer computes in a way this crate does not.
fn refuse_what_is_not_computed(config: Fields) -> Result<()> {
    let refuse = |what: String, why: &str| {
        Err(Error::Unsupported { what: format!("{what} in {}", config.path.display()), why: why.into() })
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
