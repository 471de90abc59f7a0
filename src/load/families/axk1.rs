//! A.X K1: DeepSeek-V3's attention, with low-rank queries in every model, and a norm behind the mixtures of experts.

use super::mla::Mla;
use super::{AttentionSizes, Family, Frame, Name, Routing, deepseek};
use crate::error::Result;
use crate::load::fields::Fields;

pub(super) const FAMILY: Family =
    Family { names: &[Name { class: "AXK1ForCausalLM", model_type: "axk1" }], parse, ..Family::PLAIN };

fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    let mla = deepseek::as_configured(config, frame)?;
    // Published checkpoints have the norm in layers with a plain MLP too, which make no use of it.
    Ok(mla.sizes(Mla { routing: Some(Routing::Axk1), unneeded_beside: &["post_mlp_layernorm"], ..mla }))
}
