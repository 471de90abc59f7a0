//! Bailing's hybrid models (Ling 3): some layers have DeepSeek's attention with a gate on each head's output; the others'
//! linear attention is refused.

use super::hybrid::{FullLayers, Hybrid, LAYER_TYPES};
use super::mla::Mla;
use super::{AttentionSizes, Family, Frame, Keys, Name};
use crate::error::Result;
use crate::load::fields::Fields;
use crate::load::rope_object::RopeRules;
use crate::rope::Pairing;

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "BailingHybridForCausalLM", model_type: "bailing_hybrid" }],
    rope: RopeRules { theta: 6_000_000.0, ..RopeRules::LATENT },
    parse,
    keys: Keys { positions: "model_max_length", embedding: "model.word_embeddings.weight", ..Keys::USUAL },
    layer_types: LAYER_TYPES,
    ..Family::PLAIN
};

/// `layer_group_size` of configurations without it and without `layer_types`, as in transformers.
const GROUP: usize = 6;

fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    let mla = Mla { output: "dense", ..Mla::parse(config, frame, Pairing::Interleaved, None)? };
    let full = match FullLayers::listed(config, config.size(FAMILY.keys.layers)?)? {
        Some(full) => full,
        None => FullLayers::LastOf(config.optional_size("layer_group_size")?.unwrap_or(GROUP)),
    };
    let layout = Hybrid { mla, full, module: "attention", gate: &["g_proj"] };
    Ok(AttentionSizes { gated_output: true, ..mla.sizes(layout) })
}
