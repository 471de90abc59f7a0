//! The attention of models that were converted to one shared rotated key (`convert::shared_key`), in DeepSeek's layout.
//!
//! Tensors have DeepSeek's names and row orders. What DeepSeek's configuration has no key for stands under
//! `latent_attention.layers`: for each layer its own latent rank, its rotated width, and the frequency of each pair.

use super::mla::{scaled_outputs, split_heads};
use super::{AnyLayout, Attention, Conversion, Layer, Layout};
use crate::error::Result;
use crate::geometry::Geometry;
use crate::load::config::{ModelConfig, OWN_KEYS};
use crate::load::fields::Fields;
use crate::load::source::linear;
use crate::rope::{FrequencyIndex, Pairing};
use crate::weights::{LatentAttention, Linear};

/// The class that a converted model with a shared key has in `architectures`: one that no other program knows, so that
/// none takes its layers for those of the original.
pub(in crate::load) const SHARED_KEY_CLASS: &str = "LatentAttentionForCausalLM";

pub(super) const CONVERSION: Conversion = Conversion {
    keys: &[],
    parse: |config, model| {
        let own = SharedKeyConfig::parse(config, model)?;
        Ok(own.map(|own| Box::new(own) as AnyLayout))
    },
};

/// What the configuration says about each layer.
#[derive(Clone, Debug)]
struct SharedKeyConfig {
    layers: Vec<LayerSizes>,
}

#[derive(Clone, Debug)]
struct LayerSizes {
    geometry: Geometry,
    frequencies: FrequencyIndex,
}

impl SharedKeyConfig {
    /// Reads `latent_attention.layers`; `None` if the model is not one of these.
    fn parse(config: Fields, model: &ModelConfig) -> Result<Option<Self>> {
        let class = config.optional_array("architectures")?.and_then(|names| names.first()).and_then(|v| v.as_str());
        if class != Some(SHARED_KEY_CLASS) {
            return Ok(None);
        }
        let own = config.optional_object(OWN_KEYS)?;
        let listed = own.map(|own| own.optional_array("layers")).transpose()?.flatten();
        let wrong = |why: String| config.error(format!("`{OWN_KEYS}.layers` {why}"));
        let listed = listed.ok_or_else(|| wrong("is missing".into()))?;
        if listed.len() != model.layers {
            return Err(wrong(format!("has {} entries, the model {} layers", listed.len(), model.layers)));
        }
        let sizes = |(index, layer): (usize, &serde_json::Value)| {
            let map = layer.as_object().ok_or_else(|| wrong(format!("[{index}] must be an object")))?;
            LayerSizes::parse(Fields { path: config.path, map }, index, model)
        };
        Ok(Some(Self { layers: listed.iter().enumerate().map(sizes).collect::<Result<_>>()? }))
    }
}

impl LayerSizes {
    fn parse(layer: Fields, index: usize, model: &ModelConfig) -> Result<Self> {
        let (rank, head) = (layer.size("kv_lora_rank")?, model.head_dim);
        let pairs = model.inverse_frequencies.len();
        let listed = layer.optional_array("rope_frequency_index")?.map(Vec::as_slice).unwrap_or_default();
        let one = |value: &serde_json::Value| {
            value.as_u64().filter(|&frequency| frequency < pairs as u64).map(|frequency| frequency as u32)
        };
        let frequencies: Option<Vec<u32>> = listed.iter().map(one).collect();
        let frequencies = frequencies.ok_or_else(|| {
            layer.error(format!(
                "`{OWN_KEYS}.layers[{index}].rope_frequency_index` must hold numbers of frequencies, 0..{pairs}"
            ))
        })?;
        let geometry = Geometry::deepseek(model.query_heads, rank, 2 * frequencies.len(), head, head)?;
        Ok(Self { geometry, frequencies: FrequencyIndex::new(1, frequencies)? })
    }
}

impl Layout for SharedKeyConfig {
    fn attention(&self, layer: &Layer) -> Result<Attention> {
        latent_attention(&self.layers[layer.index], layer).map(Attention::Latent)
    }
}

fn latent_attention(sizes: &LayerSizes, layer: &Layer) -> Result<LatentAttention> {
    let LayerSizes { geometry: g, frequencies } = sizes.clone();
    let (source, model) = (layer.source, layer.model);
    let named = |name: &str| layer.name(name);
    let query = linear(source, &named("q_proj"), g.query_heads * (g.nope_dim + g.rope_dim), model.hidden)?;
    let (query_nope, query_rope) = split_heads(&query, g.query_heads, g.nope_dim);
    let kv = linear(source, &named("kv_a_proj_with_mqa"), g.latent_rank + g.rope_dim, model.hidden)?;
    let (mut down, key_rope) = split_heads(&kv, 1, g.latent_rank);
    // A bias of zeros is that of the rotated key alone.
    down.bias = down.bias.filter(|bias| bias.iter().any(|x| x.to_bits() != 0));
    let up = linear(source, &named("kv_b_proj"), g.kv_heads * (g.nope_dim + g.value_dim), g.latent_rank)?;
    let (up_key, up_value) = split_heads(&up, g.kv_heads, g.nope_dim);
    let Linear { weight: up_value, bias: value_bias } = up_value;
    let attention = LatentAttention {
        geometry: g,
        query_down: None,
        // What this crate writes carries the factor on cosines and sines, and says that there is none.
        query_rope: scaled_outputs(query_rope, model.query_gain(layer.index)),
        query_nope,
        key_rope,
        down,
        latent_norm: None,
        latent_bias: None,
        // A bias of keys would shift all scores of a query alike, which softmax ignores.
        up_key: up_key.weight,
        up_value,
        value_bias,
        output: linear(source, &named("o_proj"), model.hidden, g.query_heads * g.value_dim)?,
        frequencies,
        pairing: Pairing::Half,
        scale: model.score_scale,
        head_norms: None,
    };
    attention.validate()?;
    Ok(attention)
}
