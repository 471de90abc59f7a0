//! Qwen3, with one MLP or with experts: Llama's layout, with norms over heads of queries and keys.

use super::{AttentionSizes, CONVERSIONS, Family, Frame, GgufLayers, GgufName, Name, dense};
use crate::error::Result;
use crate::load::fields::Fields;
use crate::load::rope_object::RopeRules;

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "Qwen3ForCausalLM", model_type: "qwen3" }, EXPERTS],
    gguf: Some(GgufName { architecture: "qwen3", reordered: false, divisors: false, layers: GgufLayers::HeadNorms }),
    rope: RopeRules::DENSE,
    parse,
    conversions: CONVERSIONS,
    ..Family::PLAIN
};

const EXPERTS: Name = Name { class: "Qwen3MoeForCausalLM", model_type: "qwen3_moe" };

/// As transformers builds them without the keys: 32 KV heads of 128 dimensions, and with experts 4 of the width's share.
fn parse(name: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    let has_experts = *name == EXPERTS;
    let kv_heads = config.optional_size("num_key_value_heads")?.unwrap_or(if has_experts { 4 } else { 32 });
    let head_dim = match config.optional_size("head_dim")? {
        None if has_experts => dense::head_dim(config, frame)?,
        head_dim => head_dim.unwrap_or(128),
    };
    let block_refusal = has_experts.then_some("its MLPs are mixtures of experts");
    dense::Dense { head_norms: true, block_refusal, ..dense::Dense::plain(head_dim) }.sizes(frame, kv_heads)
}
