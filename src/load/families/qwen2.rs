//! Qwen2 and Qwen1.5: Llama's layout, with biases on queries, keys and values.

use super::{Biases, CONVERSIONS, Family, GgufLayers, GgufName, Name, dense};
use crate::load::rope_object::RopeRules;

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "Qwen2ForCausalLM", model_type: "qwen2" }],
    gguf: Some(GgufName { architecture: "qwen2", reordered: false, divisors: false, layers: GgufLayers::Dense }),
    rope: RopeRules::DENSE,
    biases: Biases::Always,
    parse: dense::parse,
    conversions: CONVERSIONS,
    ..Family::PLAIN
};
