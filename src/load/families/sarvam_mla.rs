//! Sarvam's models with latent attention: DeepSeek-V3's. transformers gives them its class too when it saves them.

use super::{Family, Name, deepseek};
use crate::load::rope_object::{RopeRules, RopeType};

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "SarvamMLAForCausalLM", model_type: "sarvam_mla" }],
    rope: RopeRules {
        types: &[
            RopeType::DEFAULT,
            RopeType::LINEAR,
            RopeType::LLAMA3,
            RopeType::YARN,
            // Their own name of the same.
            RopeType::DEEPSEEK_YARN,
        ],
        ..RopeRules::LATENT
    },
    parse: deepseek::parse_as_configured,
    ..Family::PLAIN
};
