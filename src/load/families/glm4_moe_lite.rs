//! GLM-4.7-Flash and its like: DeepSeek-V3's attention.

use super::{Family, Name, deepseek};

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "Glm4MoeLiteForCausalLM", model_type: "glm4_moe_lite" }],
    parse: deepseek::parse_as_configured,
    ..Family::PLAIN
};
