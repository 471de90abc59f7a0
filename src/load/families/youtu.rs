//! Youtu-LLM: DeepSeek-V3's attention in a dense model.

use super::{AttentionSizes, Family, Frame, Name, deepseek};
use crate::error::Result;
use crate::load::fields::Fields;

pub(super) const FAMILY: Family =
    Family { names: &[Name { class: "YoutuForCausalLM", model_type: "youtu" }], parse, tied: true, ..Family::PLAIN };

fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    let mla = deepseek::as_configured(config, frame)?;
    Ok(mla.sizes(mla))
}
