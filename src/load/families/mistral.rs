//! Mistral's dense models: Llama's layout, without biases. A window over which attention slides is refused.

use super::{AttentionSizes, Biases, CONVERSIONS, Family, Frame, Name, dense};
use crate::error::{Error, Result};
use crate::load::fields::Fields;
use crate::load::rope_object::RopeRules;

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "MistralForCausalLM", model_type: "mistral" }],
    // llama.cpp's converter calls these models `llama`.
    gguf: None,
    rope: RopeRules::DENSE,
    biases: Biases::Never,
    parse,
    conversions: CONVERSIONS,
    ..Family::PLAIN
};

/// `sliding_window` of a configuration that does not have the key, as in transformers.
const DEFAULT_WINDOW: usize = 4096;

/// `num_key_value_heads` of a configuration that does not have the key, as in transformers.
const DEFAULT_KV_HEADS: usize = 8;

fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    refuse_window(config, Some(DEFAULT_WINDOW))?;
    parse_without_window(config, frame)
}

/// The sizes of a model that has no window.
pub(super) fn parse_without_window(config: Fields, frame: Frame) -> Result<AttentionSizes> {
    // Null means as many as query heads, as it does for Llama; only a missing key does not.
    let kv_heads = config.size_unless_null("num_key_value_heads", DEFAULT_KV_HEADS)?.unwrap_or(frame.query_heads);
    dense::sizes(config, frame, kv_heads)
}

/// Refuses a window that is shorter than the longest context. Each token sees itself and the `window - 1` tokens before
/// it, so that a window of `max_position_embeddings` tokens hides none; null is no window. `absent` is the family's without
/// the key.
pub(super) fn refuse_window(config: Fields, absent: Option<usize>) -> Result<()> {
    let window =
        if config.map.contains_key("sliding_window") { config.optional_size("sliding_window")? } else { absent };
    let positions = config.size("max_position_embeddings")?;
    match window.filter(|&window| window < positions) {
        None => Ok(()),
        Some(window) => Err(Error::Unsupported {
            what: format!("sliding_window {window} in {}", config.path.display()),
            why: format!(
                "attention over a sliding window is not supported, and `max_position_embeddings` {positions} is longer"
            ),
        }),
    }
}
