//! Phi-3 and Phi-4: Llama's attention with projections in one tensor, of which a part of each head may be rotated.

use super::dense::{Dense, head_dim, rotated_part};
use super::{AttentionSizes, Biases, CONVERSIONS, Family, Frame, Name, mistral};
use crate::error::Result;
use crate::load::fields::Fields;
use crate::load::rope_object::{RopeRules, RopeType};

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "Phi3ForCausalLM", model_type: "phi3" }],
    rope: RopeRules {
        types: &[RopeType::DEFAULT, RopeType::LONGROPE, RopeType::SU],
        original_positions: Some(ORIGINAL_POSITIONS),
        ..RopeRules::DENSE
    },
    biases: Biases::Never,
    parse,
    // Converted models have separate projections, of the MLP too: the layouts that are read as converted say so.
    conversions: CONVERSIONS,
    ..Family::PLAIN
};

/// `original_max_position_embeddings` of a configuration without it at the top, as in transformers, whatever the object about
/// rotation says.
const ORIGINAL_POSITIONS: f64 = 4096.0;

fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    mistral::refuse_window(config, None)?;
    let kv_heads = config.optional_size("num_key_value_heads")?.unwrap_or(frame.query_heads);
    let rotated = rotated_part(config, head_dim(config, frame)?, 1.0)?;
    Dense { rotated, fused: true, ..Dense::plain(rotated.of) }.sizes(frame, kv_heads)
}
