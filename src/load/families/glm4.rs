//! GLM-4: Llama's attention, of which a part of each head is rotated, in neighbouring dimensions.

use super::dense::{Dense, rotated_part};
use super::{AttentionSizes, Biases, Family, Frame, Name};
use crate::error::Result;
use crate::load::fields::Fields;
use crate::load::rope_object::RopeRules;
use crate::rope::Pairing;

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "Glm4ForCausalLM", model_type: "glm4" }],
    rope: RopeRules::DENSE,
    biases: Biases::UnlessOff,
    parse,
    // Layers cannot be saved without their MLPs.
    conversions: &[],
    ..Family::PLAIN
};

/// `head_dim`, `num_key_value_heads` and `partial_rotary_factor` of a configuration without these keys, as in transformers.
const DEFAULTS: (usize, usize, f64) = (128, 2, 0.5);

fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    let head_dim = config.optional_size("head_dim")?.unwrap_or(DEFAULTS.0);
    let kv_heads = config.optional_size("num_key_value_heads")?.unwrap_or(DEFAULTS.1);
    let rotated = rotated_part(config, head_dim, DEFAULTS.2)?;
    let block_refusal =
        Some("stands between norms behind the attention and the MLP, of which only the attention can be read");
    let dense = Dense { rotated, pairing: Pairing::Interleaved, block_refusal, ..Dense::plain(head_dim) };
    dense.sizes(frame, kv_heads)
}
