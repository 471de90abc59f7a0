//! SmolLM3: Llama's layout, in which some layers rotate nothing.

use serde_json::Value;

use super::{AttentionSizes, Biases, CONVERSIONS, Family, Frame, Name, dense};
use crate::error::Result;
use crate::load::config::RotatedLayers;
use crate::load::fields::Fields;
use crate::load::rope_object::RopeRules;

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "SmolLM3ForCausalLM", model_type: "smollm3" }],
    rope: RopeRules { theta: 2_000_000.0, ..RopeRules::DENSE },
    biases: Biases::AsConfigured,
    parse,
    conversions: CONVERSIONS,
    tied: true,
    ..Family::PLAIN
};

/// `num_key_value_heads` and `no_rope_layer_interval` of a configuration without these keys, as in transformers.
const DEFAULTS: (usize, usize) = (4, 4);

fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    let kv_heads = config.size_unless_null("num_key_value_heads", DEFAULTS.0)?.unwrap_or(frame.query_heads);
    Ok(AttentionSizes { rotated_layers: rotated_layers(config)?, ..dense::sizes(config, frame, kv_heads)? })
}

/// Reads `no_rope_layers`, which despite its name holds 1 for each layer that rotates, or else the interval of those that do
/// not.
fn rotated_layers(config: Fields) -> Result<RotatedLayers> {
    let layers = config.size(FAMILY.keys.layers)?;
    let Some(listed) = config.optional_array("no_rope_layers")? else {
        let interval = config.optional_size("no_rope_layer_interval")?;
        return Ok(RotatedLayers::AllButEvery(interval.unwrap_or(DEFAULTS.1)));
    };
    if listed.len() < layers {
        return Err(config.error(format!("`no_rope_layers` has {} entries, the model {layers} layers", listed.len())));
    }
    let rotated = |value: &Value| match (value.as_u64(), value.as_bool()) {
        (Some(0), _) | (_, Some(false)) => Ok(false),
        (Some(1), _) | (_, Some(true)) => Ok(true),
        _ => Err(config.error(format!("`no_rope_layers` must hold 0 or 1 for each layer, got {value}"))),
    };
    Ok(RotatedLayers::Listed(listed.iter().map(rotated).collect::<Result<_>>()?))
}
