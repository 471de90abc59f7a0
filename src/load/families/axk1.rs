//! A.X K1: DeepSeek-V3's attention, with low-rank queries in every model.

use super::{Family, Name, deepseek};

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "AXK1ForCausalLM", model_type: "axk1" }],
    parse: deepseek::parse_as_configured,
    ..Family::PLAIN
};
