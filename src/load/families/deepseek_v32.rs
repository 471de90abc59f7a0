//! DeepSeek-V3.2: DeepSeek's attention to the `index_topk` tokens that an indexer chooses, which are all of them in contexts
//! up to that length.

use super::mla::Mla;
use super::{AttentionSizes, Family, Frame, Name, Routing};
use crate::error::Result;
use crate::load::fields::Fields;
use crate::rope::Pairing;

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "DeepseekV32ForCausalLM", model_type: "deepseek_v32" }],
    parse,
    layer_types: &["indexed_attention", "full_attention", "attention"],
    ..Family::PLAIN
};

/// As the families have it whose layers have an indexer.
pub(super) fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    let mla = Mla::parse(config, frame, Pairing::Interleaved, None)?;
    let mla = Mla { unneeded: &["indexer"], routing: Some(Routing::DeepSeekV3), ..mla };
    // The indexer reads the queries' latent too.
    config.size("q_lora_rank")?;
    let sparse_beyond = Some(config.size("index_topk")?);
    Ok(AttentionSizes { sparse_beyond, ..mla.sizes(mla) })
}
