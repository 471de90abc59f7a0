//! Kimi Linear: some layers have DeepSeek's attention, in which nothing is rotated; the others' linear attention is refused.

use super::hybrid::{FullLayers, Hybrid, LAYER_TYPES};
use super::mla::Mla;
use super::{AttentionSizes, Family, Frame, Keys, Name, refuse_key};
use crate::error::Result;
use crate::load::fields::Fields;
use crate::load::rope_object::RopeRules;
use crate::rope::Pairing;

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "KimiLinearForCausalLM", model_type: "kimi_linear" }],
    rope: RopeRules::NONE,
    parse,
    keys: Keys { positions: "model_max_length", ..Keys::USUAL },
    layer_types: LAYER_TYPES,
    ..Family::PLAIN
};

fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    if !config.switch("mla_use_nope", true)? {
        return refuse_key(config, "mla_use_nope", "false", "only models of this family that rotate nothing are known");
    }
    let mla = Mla::parse(config, frame, Pairing::Interleaved, None)?;
    let full = full_layers(config)?;
    Ok(mla.sizes(Hybrid { mla, full, module: "self_attn", gate: &[] }))
}

/// Reads `layer_types`, or else the list in `linear_attn_config`, which counts layers from 1. Where nothing is said, it is
/// every fourth layer but the first, as in transformers.
fn full_layers(config: Fields) -> Result<FullLayers> {
    let layers = config.size(FAMILY.keys.layers)?;
    if let Some(full) = FullLayers::listed(config, layers)? {
        return Ok(full);
    }
    let own = config.optional_object("linear_attn_config")?;
    let Some(listed) = own.map(|own| own.optional_array("full_attn_layers")).transpose()?.flatten() else {
        return Ok(FullLayers::EveryFourth);
    };
    let number = |value: &serde_json::Value| {
        let number = value.as_u64().filter(|&number| (1..=layers as u64).contains(&number));
        number.map(|number| number as usize - 1).ok_or_else(|| {
            config.error(format!("`linear_attn_config.full_attn_layers` must hold numbers 1..={layers}, got {value}"))
        })
    };
    Ok(FullLayers::Listed(listed.iter().map(number).collect::<Result<_>>()?))
}
