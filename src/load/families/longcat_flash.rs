//! LongCat-Flash: two attentions in each layer, DeepSeek's with factors on both latents.

use super::mla::Mla;
use super::{Attention, AttentionSizes, Family, Frame, Keys, Layer, Layout, Name};
use crate::error::{Error, Result};
use crate::load::fields::Fields;
use crate::load::rope_object::RopeRules;
use crate::rope::Pairing;

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "LongcatFlashForCausalLM", model_type: "longcat_flash" }],
    rope: RopeRules { theta: 10_000_000.0, ..RopeRules::LATENT },
    parse,
    keys: Keys { layers: "num_layers", attentions_per_layer: 2, intermediate: "ffn_hidden_size", ..Keys::USUAL },
    ..Family::PLAIN
};

fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    let mla = Mla::parse(config, frame, Pairing::Interleaved, None)?;
    let (geometry, hidden) = (mla.dims.geometry, frame.hidden as f64);
    let query_rank = config.size("q_lora_rank")?;
    let head_dim = geometry.rope_dim + geometry.nope_dim;
    if let Some(other) = config.optional_size("qk_head_dim")?.filter(|&given| given != head_dim) {
        return Err(
            config.error(format!("`qk_head_dim` {other} must be `qk_nope_head_dim` + `qk_rope_head_dim` = {head_dim}"))
        );
    }
    let layers = 2 * config.size(FAMILY.keys.layers)?;
    if let Some(other) = config.optional_size("num_hidden_layers")?.filter(|&given| given != layers) {
        return Err(config.error(format!("`num_hidden_layers` {other} must be twice `num_layers`, {layers}")));
    }
    // transformers scales both, whatever these two say.
    for key in ["mla_scale_q_lora", "mla_scale_kv_lora"] {
        if !config.switch(key, true)? {
            return Err(Error::Unsupported {
                what: format!("{key} false in {}", config.path.display()),
                why: "only models that scale their latents are known".into(),
            });
        }
    }
    let mla = Mla {
        query_factor: (hidden / query_rank as f64).sqrt(),
        latent_factor: (hidden / geometry.latent_rank as f64).sqrt(),
        ..mla
    };
    Ok(mla.sizes(Longcat(mla)))
}

struct Longcat(Mla);

impl Layout for Longcat {
    fn attention(&self, layer: &Layer) -> Result<Attention> {
        self.0.attention(layer)
    }

    fn module(&self, index: usize) -> String {
        format!("model.layers.{}.self_attn.{}", index / 2, index % 2)
    }

    fn block_refusal(&self) -> Option<&'static str> {
        Some("stands beside a mixture of experts that spans two attentions, of which only these can be read")
    }
}
