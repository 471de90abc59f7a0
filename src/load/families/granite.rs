//! Granite: Llama's layout, with a factor on scores instead of `1/sqrt(head_dim)`, and factors around the layers.

use serde_json::{Map, Value, json};

use super::dense::{Dense, head_dim};
use super::{AttentionSizes, Biases, CONVERSIONS, Family, Frame, Name};
use crate::error::Result;
use crate::load::config::{Factors, ModelConfig};
use crate::load::fields::Fields;
use crate::load::rope_object::RopeRules;

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "GraniteForCausalLM", model_type: "granite" }],
    rope: RopeRules::DENSE,
    biases: Biases::AsConfigured,
    parse,
    conversions: CONVERSIONS,
    fold,
    ..Family::PLAIN
};

fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    let head_dim = head_dim(config, frame)?;
    let kv_heads = config.optional_size("num_key_value_heads")?.unwrap_or(frame.query_heads);
    // transformers takes 1 for each that is missing, for scores too.
    let factor = |key: &str| Ok::<_, crate::Error>(config.optional_positive(key)?.unwrap_or(1.0));
    let dense = Dense {
        score_factor: factor("attention_multiplier")? * (head_dim as f64).sqrt(),
        factors: Factors {
            embedding: factor("embedding_multiplier")?,
            residual: factor("residual_multiplier")?,
            logits: 1.0 / factor("logits_scaling")?,
            ..Factors::NONE
        },
        ..Dense::plain(head_dim)
    };
    dense.sizes(frame, kv_heads)
}

/// What is read carries all factors, so that a converted model has those that do nothing.
fn fold(config: &mut Map<String, Value>, model: &ModelConfig) {
    for key in ["embedding_multiplier", "residual_multiplier", "logits_scaling"] {
        config.insert(key.into(), json!(1.0));
    }
    config.insert("attention_multiplier".into(), json!(1.0 / (model.head_dim as f64).sqrt()));
}
