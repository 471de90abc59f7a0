//! Kimi Linear: some layers have DeepSeek's attention, in which nothing is rotated; the others' linear attention is refused.

use super::mla::Mla;
use super::{Attention, AttentionSizes, Family, Frame, Keys, Layer, Layout, Name};
use crate::error::{Error, Result};
use crate::load::fields::Fields;
use crate::load::rope_object::RopeRules;
use crate::rope::Pairing;

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "KimiLinearForCausalLM", model_type: "kimi_linear" }],
    rope: RopeRules::NONE,
    parse,
    keys: Keys { positions: "model_max_length", ..Keys::USUAL },
    layer_types: &["full_attention", "linear_attention"],
    ..Family::PLAIN
};

fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    if !config.switch("mla_use_nope", true)? {
        return Err(Error::Unsupported {
            what: format!("mla_use_nope false in {}", config.path.display()),
            why: "only models of this family that rotate nothing are known".into(),
        });
    }
    let mla = Mla::parse(config, frame, Pairing::Interleaved, None)?;
    let full = FullLayers::parse(config)?;
    Ok(mla.sizes(KimiLinear { mla, full }))
}

/// Which layers attend to all tokens.
enum FullLayers {
    /// Those of these numbers.
    Listed(Vec<usize>),
    /// Every fourth, but not the first: what transformers does where nothing is said.
    EveryFourth,
}

impl FullLayers {
    /// Reads `layer_types`, or else the list in `linear_attn_config`, which counts layers from 1.
    fn parse(config: Fields) -> Result<Self> {
        let layers = config.size(FAMILY.keys.layers)?;
        if let Some(types) = config.optional_array("layer_types")? {
            if types.len() != layers {
                return Err(
                    config.error(format!("`layer_types` has {} entries, the model {layers} layers", types.len()))
                );
            }
            let full = types.iter().enumerate().filter(|(_, kind)| kind.as_str() == Some("full_attention"));
            return Ok(Self::Listed(full.map(|(layer, _)| layer).collect()));
        }
        let own = config.optional_object("linear_attn_config")?;
        let Some(listed) = own.map(|own| own.optional_array("full_attn_layers")).transpose()?.flatten() else {
            return Ok(Self::EveryFourth);
        };
        let number = |value: &serde_json::Value| {
            let number = value.as_u64().filter(|&number| (1..=layers as u64).contains(&number));
            number.map(|number| number as usize - 1).ok_or_else(|| {
                config
                    .error(format!("`linear_attn_config.full_attn_layers` must hold numbers 1..={layers}, got {value}"))
            })
        };
        Ok(Self::Listed(listed.iter().map(number).collect::<Result<_>>()?))
    }

    fn contains(&self, layer: usize) -> bool {
        match self {
            Self::Listed(layers) => layers.contains(&layer),
            Self::EveryFourth => layer > 0 && layer.is_multiple_of(4),
        }
    }
}

struct KimiLinear {
    mla: Mla,
    full: FullLayers,
}

impl Layout for KimiLinear {
    fn attention(&self, layer: &Layer) -> Result<Attention> {
        if self.full.contains(layer.index) {
            return self.mla.attention(layer);
        }
        Err(Error::Unsupported {
            what: format!("attention of layer {} in {}", layer.index, layer.source.path().display()),
            why: "is linear attention (`linear_attention`), which keeps a state and no cache of tokens".into(),
        })
    }
}
