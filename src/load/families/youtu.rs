//! Youtu-LLM: DeepSeek-V3's attention in a dense model.

use super::{Family, Name, deepseek};

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "YoutuForCausalLM", model_type: "youtu" }],
    parse: deepseek::parse_as_configured,
    tied: true,
    ..Family::PLAIN
};
