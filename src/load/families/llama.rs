//! Llama, and everything that calls itself so.

use super::{Biases, CONVERSIONS, Family, GgufLayers, GgufName, Name, dense};
use crate::load::rope_object::RopeRules;

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "LlamaForCausalLM", model_type: "llama" }],
    gguf: Some(GgufName { architecture: "llama", reordered: true, divisors: true, layers: GgufLayers::Dense }),
    rope: RopeRules::DENSE,
    biases: Biases::AsConfigured,
    parse: dense::parse,
    conversions: CONVERSIONS,
    ..Family::PLAIN
};
