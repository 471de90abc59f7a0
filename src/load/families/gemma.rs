//! Gemma: Llama's attention. What stands around it is of another kind: norms whose gain is one more than what is stored, and
//! MLPs with GELU, which are not read.

use super::dense::Dense;
use super::{AttentionSizes, Biases, Family, Frame, Name};
use crate::error::{Error, Result};
use crate::load::config::Factors;
use crate::load::fields::Fields;
use crate::load::rope_object::RopeRules;

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "GemmaForCausalLM", model_type: "gemma" }],
    rope: RopeRules::DENSE,
    biases: Biases::AsConfigured,
    parse,
    // Layers cannot be saved without their MLPs.
    conversions: &[],
    tied: true,
    activations: &["gelu_pytorch_tanh", "gelu"],
    ..Family::PLAIN
};

/// `num_key_value_heads` of a configuration without the key, as in transformers.
const DEFAULT_KV_HEADS: usize = 16;

fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    dense(config, frame)?.sizes(frame, config.optional_size("num_key_value_heads")?.unwrap_or(DEFAULT_KV_HEADS))
}

/// What all generations have alike.
pub(super) fn dense(config: Fields, frame: Frame) -> Result<Dense> {
    if config.flag("use_bidirectional_attention")? {
        return Err(Error::Unsupported {
            what: format!("use_bidirectional_attention in {}", config.path.display()),
            why: "only causal attention can be read".into(),
        });
    }
    // 256 without the key, whatever the width says, as in transformers.
    let head_dim = config.optional_size("head_dim")?.unwrap_or(256);
    Ok(Dense {
        factors: Factors { embedding: (frame.hidden as f64).sqrt(), norm_offset: 1.0, ..Factors::NONE },
        block_refusal: Some(
            "has GELU, and stands between norms of another kind, of which only the attention can be read",
        ),
        ..Dense::plain(head_dim)
    })
}
