//! The attention of DeepSeek V2, V3 and R1.

use super::mla::Mla;
use super::{AttentionSizes, Family, Frame, GgufLayers, GgufName, Name, Routing};
use crate::error::Result;
use crate::load::fields::Fields;
use crate::rope::Pairing;

const V2: Name = Name { class: "DeepseekV2ForCausalLM", model_type: "deepseek_v2" };
const V3: Name = Name { class: "DeepseekV3ForCausalLM", model_type: "deepseek_v3" };

pub(super) const FAMILY: Family = Family {
    names: &[V2, V3],
    gguf: Some(GgufName { architecture: "deepseek2", reordered: false, divisors: false, layers: GgufLayers::Latent }),
    parse,
    ..Family::PLAIN
};

fn parse(name: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    // V2 has no say.
    if *name == V2 {
        let mla = Mla::parse(config, frame, Pairing::Interleaved, None)?;
        return Ok(mla.sizes(Mla { routing: Some(Routing::DeepSeekV2), ..mla }));
    }
    parse_as_configured(name, config, frame)
}

/// As the families have it whose `rope_interleave` says which dimensions of a rope head make a pair: neighbours without
/// the key.
pub(super) fn parse_as_configured(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    let mla = as_configured(config, frame)?;
    Ok(mla.sizes(Mla { routing: Some(Routing::DeepSeekV3), ..mla }))
}

/// The layers of a model whose `rope_interleave` is heard, without experts.
pub(super) fn as_configured(config: Fields, frame: Frame) -> Result<Mla> {
    let interleaved = config.switch("rope_interleave", true)?;
    Mla::parse(config, frame, if interleaved { Pairing::Interleaved } else { Pairing::Half }, None)
}
