//! A model's configuration, from `config.json` or from what a GGUF file says.

use super::families::{self, AnyLayout, Architecture, Family, Frame, Keys, check_width};
use super::fields::Fields;
use super::frequencies::{Rescaling, Rotation};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::rope::Pairing;

/// The object of a configuration that holds this crate's own keys.
pub(crate) const OWN_KEYS: &str = "latent_attention";

/// The sizes of DeepSeek's attention, and of the families that share it.
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

/// How queries grow with their position (Mistral 4): by `1 + beta ln(1 + floor(position / original_positions))`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueryScaling {
    /// How fast they grow.
    pub beta: f64,
    /// Positions from which on they do.
    pub original_positions: f64,
}

impl QueryScaling {
    /// The factor on all queries, rotated and unrotated, of the token at `position`.
    #[must_use]
    pub fn factor(&self, position: usize) -> f64 {
        1.0 + self.beta * (1.0 + (position as f64 / self.original_positions).floor()).ln()
    }
}

/// Factors that belong to the model around its attention. All parts that are read carry theirs already.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Factors {
    /// On the embedding.
    pub embedding: f64,
    /// On what an attention and an MLP add to the residual stream.
    pub residual: f64,
    /// On the logits.
    pub logits: f64,
    /// What a norm adds to the gain that is stored.
    pub norm_offset: f32,
}

impl Factors {
    /// Those of a model without any.
    pub const NONE: Self = Self { embedding: 1.0, residual: 1.0, logits: 1.0, norm_offset: 0.0 };
}

/// Which layers rotate their queries and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RotatedLayers {
    /// All of them.
    All,
    /// Those of which this says so. Layers behind the last one are none of the model's.
    Listed(Vec<bool>),
    /// All but every so many: with 4 layers 3, 7, 11 and so on do not.
    AllButEvery(usize),
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
    /// Number of attention layers.
    pub layers: usize,
    /// Query heads, H.
    pub query_heads: usize,
    /// KV heads, G; divides `query_heads`.
    pub kv_heads: usize,
    /// Query/key dimensions per head; for DeepSeek rotated and unrotated ones together.
    pub head_dim: usize,
    /// Size of the vocabulary.
    pub vocab: usize,
    /// Longest context the model was made for, or up to which it is computed exactly: see
    /// [`sparse_beyond`](Self::sparse_beyond) and [`rescaled_beyond`](Self::rescaled_beyond).
    pub max_positions: usize,
    /// Tokens of the longest context in which each token attends to all before it, in models whose tokens attend to a
    /// choice of so many beyond (DeepSeek-V3.2's `index_topk`). Longer contexts are not computed here.
    pub sparse_beyond: Option<usize>,
    /// Epsilon of the RMSNorms over the residual stream. Those over DeepSeek's latents have one of their own, 1e-6,
    /// which [`Checkpoint::attention`](super::Checkpoint::attention) puts into the layer.
    pub norm_epsilon: f32,
    /// Base of the rotation frequencies, before scaling.
    pub rope_theta: f32,
    /// Radians per token of each pair, scaling included: `head_dim/2` numbers, for DeepSeek `rope_dim/2`. Pairs that are not
    /// rotated have 0.
    /// [`RopeTables::from_frequencies`](crate::rope::RopeTables::from_frequencies) makes tables of them. They hold for the
    /// layers that rotate: see [`frequencies`](Self::frequencies).
    pub inverse_frequencies: Vec<f32>,
    /// Factor on every score before softmax: `1/sqrt(head_dim)`, for YaRN times its `mscale` squared.
    pub score_scale: f64,
    /// Factor that YaRN and LongRoPE want on every cosine and sine, 1 in other models. It is not left to the tables: the
    /// rotated query rows of [`Checkpoint::attention`](super::Checkpoint::attention) carry its square already.
    pub rotation_gain: f64,
    /// Tokens of the longest context with these frequencies, in models that rotate by others in longer ones
    /// (`longrope`'s `original_max_position_embeddings`, the `max_position_embeddings` of `dynamic`). Longer contexts are not
    /// computed here.
    pub rescaled_beyond: Option<usize>,
    /// A factor on queries that depends on their position, so that no weight can carry it: whoever projects the queries
    /// multiplies them by it. `None` for most models.
    pub query_scaling: Option<QueryScaling>,
    /// Whether what the heads yield is multiplied by gates before the output projection, so that no weight can carry them:
    /// whoever projects it multiplies it by what [`Checkpoint::output_gate`](super::Checkpoint::output_gate) yields. False
    /// for most models.
    pub gated_output: bool,
    /// Whether the output head is the embedding. A head of its own in the files counts more than what the configuration
    /// says.
    pub tied_embeddings: bool,
    /// Whether queries, keys and values have biases.
    pub attention_bias: bool,
    /// Token that begins a text.
    pub bos: Option<u32>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// Sizes of latent attention, DeepSeek's and that of the families that share it; `None` for MHA and GQA.
    pub deepseek: Option<DeepSeekDims>,
    /// Of a model that was converted to a shared key: tokens of the longest sequence that the conversion looked at, where it
    /// was noted. Nothing was measured of how the converted model attends over longer distances.
    pub calibrated_positions: Option<usize>,
    /// [`rescaled_beyond`](Self::rescaled_beyond), with what comes then.
    pub(crate) rescaling: Option<Rescaling>,
    pub(crate) rotated_layers: RotatedLayers,
    pub(crate) factors: Factors,
    /// Whether the files hold the output head as the embedding, whatever factors lie between the two.
    pub(crate) head_is_embedding: bool,
}

impl ModelConfig {
    /// Reads Hugging Face's keys, and how the layers lie in the files of a model that was not converted. Everything that
    /// later code multiplies or allocates by is bounded here.
    pub(super) fn parse(config: Fields) -> Result<(Self, AnyLayout)> {
        let (architecture, name) = families::find(config)?;
        let family = architecture.family();
        refuse_what_is_not_computed(config, family)?;
        let hidden = config.size("hidden_size")?;
        let query_heads = config.size("num_attention_heads")?;
        let sizes = (family.parse)(name, config, Frame { hidden, query_heads })?;
        check_width(config, query_heads, sizes.head_dim)?;
        let mut rotation = Rotation::parse(config, sizes.rotated, &family.rope)?;
        if sizes.deepseek.is_none() {
            // Heads of dense layers are rotated as a whole, what is not rotated by no angle.
            rotation.inverse_frequencies.resize(sizes.head_dim / 2, 0.0);
        }
        let eos = config.token_ids("eos_token_id")?;
        let own = config.optional_object(OWN_KEYS)?;
        let calibrated_positions = own.map(|own| own.optional_size("calibrated_positions")).transpose()?.flatten();
        // transformers takes either name where a family has one of its own.
        let positions =
            match config.optional_size(family.keys.positions)?.or(config.optional_size(Keys::USUAL.positions)?) {
                Some(positions) => positions,
                None => config.size(family.keys.positions)?,
            };
        let rescaled_beyond = rotation.rescaling.map(|rescaling| rescaling.beyond);
        let mut model = Self {
            architecture,
            hidden,
            intermediate: config.size(family.keys.intermediate)?,
            layers: config.size(family.keys.layers)? * family.keys.attentions_per_layer,
            query_heads,
            kv_heads: sizes.kv_heads,
            head_dim: sizes.head_dim,
            vocab: config.size("vocab_size")?,
            max_positions: [sizes.sparse_beyond, rescaled_beyond].into_iter().flatten().fold(positions, usize::min),
            rescaled_beyond,
            rescaling: rotation.rescaling,
            sparse_beyond: sizes.sparse_beyond,
            norm_epsilon: config.positive("rms_norm_eps")? as f32,
            rope_theta: rotation.theta,
            inverse_frequencies: rotation.inverse_frequencies,
            score_scale: rotation.score_factor / (sizes.head_dim as f64).sqrt(),
            rotation_gain: rotation.gain,
            query_scaling: sizes.query_scaling,
            gated_output: sizes.gated_output,
            tied_embeddings: false,
            attention_bias: family.biases.parse(config)?,
            bos: config.token_ids("bos_token_id")?.first().copied(),
            eos,
            deepseek: sizes.deepseek,
            calibrated_positions,
            rotated_layers: sizes.rotated_layers,
            factors: sizes.factors,
            head_is_embedding: false,
        };
        model.tie(config.switch("tie_word_embeddings", family.tied)?);
        Ok((model, sizes.layout))
    }

    /// Notes whether the files hold the head as the embedding. With a factor on the embedding it is another matrix.
    pub(super) fn tie(&mut self, head_is_embedding: bool) {
        self.head_is_embedding = head_is_embedding;
        self.tied_embeddings = head_is_embedding && self.factors.embedding == 1.0;
    }

    /// Radians per token of each pair in one layer: [`inverse_frequencies`](Self::inverse_frequencies), or as many zeros in
    /// a layer that rotates nothing (every fourth of SmolLM3's). What converts or runs a layer takes its own.
    #[must_use]
    pub fn frequencies(&self, layer: usize) -> Vec<f32> {
        if self.rotates(layer) {
            return self.inverse_frequencies.clone();
        }
        vec![0.0; self.inverse_frequencies.len()]
    }

    /// Whether all layers have the same frequencies, so that one table is enough.
    #[must_use]
    pub fn same_frequencies(&self) -> bool {
        match &self.rotated_layers {
            RotatedLayers::All => true,
            RotatedLayers::Listed(listed) => listed.iter().take(self.layers).all(|&rotated| rotated),
            RotatedLayers::AllButEvery(interval) => self.layers < *interval,
        }
    }

    fn rotates(&self, layer: usize) -> bool {
        match &self.rotated_layers {
            RotatedLayers::All => true,
            RotatedLayers::Listed(listed) => listed.get(layer).copied().unwrap_or(true),
            RotatedLayers::AllButEvery(interval) => layer % interval != interval - 1,
        }
    }

    /// The factor on a layer's rotated queries that does what [`rotation_gain`](Self::rotation_gain) on every cosine and
    /// sine would.
    pub(crate) fn query_gain(&self, layer: usize) -> f64 {
        if self.rotates(layer) { self.rotation_gain * self.rotation_gain } else { 1.0 }
    }

    /// Refuses a context of so many tokens if the model computes there what this crate does not.
    ///
    /// # Errors
    /// [`Error::Unsupported`] beyond [`sparse_beyond`](Self::sparse_beyond) or [`rescaled_beyond`](Self::rescaled_beyond), with
    /// that number and `tokens`.
    pub fn check_context(&self, tokens: usize) -> Result<()> {
        if let Some(Rescaling { beyond, how }) = self.rescaling.filter(|rescaling| tokens > rescaling.beyond) {
            return Err(Error::Unsupported {
                what: format!("a context of {tokens} tokens"),
                why: format!("this model rotates by {how} {beyond} tokens, which is not computed"),
            });
        }
        match self.sparse_beyond.filter(|&most| tokens > most) {
            None => Ok(()),
            Some(most) => Err(Error::Unsupported {
                what: format!("a context of {tokens} tokens"),
                why: format!(
                    "this model attends to a choice of `index_topk` {most} tokens there, which is not computed; up to {most} \
                     tokens it attends to all"
                ),
            }),
        }
    }
}

/// Switches that change what a layer computes in a way this crate does not.
fn refuse_what_is_not_computed(config: Fields, family: &Family) -> Result<()> {
    let layer_types = family.layer_types;
    let refuse = |what: String, why: &str| {
        Err(Error::Unsupported { what: format!("{what} in {}", config.path.display()), why: why.into() })
    };
    if let Some(other) = config.optional_text("hidden_act")?.filter(|act| !family.activations.contains(act)) {
        let why = format!("the only one known for this architecture is {}", family.activations.join(" or "));
        return refuse(format!("hidden_act `{other}`"), &why);
    }
    if config.flag("use_sliding_window")? {
        return refuse("use_sliding_window".into(), "attention over a sliding window is not supported");
    }
    if config.value("per_layer_config").is_some() {
        return refuse("per_layer_config".into(), "layers that differ in their configuration cannot be read");
    }
    for (layer, kind) in config.optional_array("layer_types")?.into_iter().flatten().enumerate() {
        if !kind.as_str().is_some_and(|kind| layer_types.contains(&kind)) {
            let known = layer_types.join(", ");
            let why = format!(
                "only layers of full attention can be read (the types known for this architecture are {known})"
            );
            return refuse(format!("layer_types[{layer}] = {kind}"), &why);
        }
    }
    Ok(())
}
