//! GLM-5: DeepSeek-V3.2's attention, in which some layers use the choice of the one before.

use super::{Family, Name, deepseek_v32};

pub(super) const FAMILY: Family =
    Family { names: &[Name { class: "GlmMoeDsaForCausalLM", model_type: "glm_moe_dsa" }], ..deepseek_v32::FAMILY };
