//! Gemma 2: Gemma's attention with a scale of its own on scores, as far as there is no soft cap on them and no window.

use super::dense::Dense;
use super::{AttentionSizes, Family, Frame, Name, gemma, mistral};
use crate::error::{Error, Result};
use crate::load::fields::Fields;

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "Gemma2ForCausalLM", model_type: "gemma2" }],
    parse,
    layer_types: &["full_attention", "sliding_attention"],
    ..gemma::FAMILY
};

/// `num_key_value_heads`, `sliding_window`, `query_pre_attn_scalar` and `attn_logit_softcapping` of a configuration without these
/// keys, as in transformers.
const DEFAULTS: (usize, usize, f64, f64) = (4, 4096, 256.0, 50.0);

fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    let (kv_heads, window, scalar, cap) = DEFAULTS;
    if let Some(cap) = config.positive_unless_null("attn_logit_softcapping", cap)? {
        return Err(Error::Unsupported {
            what: format!("attn_logit_softcapping {cap} in {}", config.path.display()),
            why: "a soft cap on scores is not computed; only models in which it is null can be read".into(),
        });
    }
    // Every other layer slides where no types are given, the first among them.
    let slides = match config.optional_array("layer_types")? {
        Some(types) => types.iter().any(|kind| kind.as_str() == Some("sliding_attention")),
        None => true,
    };
    if slides {
        mistral::refuse_window(config, Some(window))?;
    }
    let dense = gemma::dense(config, frame)?;
    let scalar = config.optional_positive("query_pre_attn_scalar")?.unwrap_or(scalar);
    let score_factor = (dense.rotated.of as f64 / scalar).sqrt();
    let kv_heads = config.optional_size("num_key_value_heads")?.unwrap_or(kv_heads);
    Dense { score_factor, ..dense }.sizes(frame, kv_heads)
}
