//! Ministral: Mistral's attention, with a type for each layer.

use super::{AttentionSizes, Family, Frame, Name, mistral};
use crate::error::Result;
use crate::load::fields::Fields;

pub(super) const FAMILY: Family =
    Family { names: &[Name { class: "MinistralForCausalLM", model_type: "ministral" }], parse, ..mistral::FAMILY };

/// The types go before the window: layers of full attention know none. Without types, all layers have the window.
fn parse(name: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    if config.value("layer_types").is_some() {
        return mistral::parse_without_window(config, frame);
    }
    (mistral::FAMILY.parse)(name, config, frame)
}
