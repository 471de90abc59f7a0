//! MiniCPM3: DeepSeek's attention with pairs of halves, and factors on the embedding, on what layers add to the residual
//! stream and on the logits.

use super::mla::Mla;
use super::{AttentionSizes, Family, Frame, Name};
use crate::error::Result;
use crate::load::config::Factors;
use crate::load::fields::Fields;
use crate::load::rope_object::{RopeRules, RopeType};
use crate::rope::Pairing;

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "MiniCPM3ForCausalLM", model_type: "minicpm3" }],
    rope: RopeRules {
        types: &[RopeType::DEFAULT, RopeType::LINEAR, RopeType::LLAMA3, RopeType::YARN, RopeType::LONGROPE],
        ..RopeRules::LATENT
    },
    parse,
    tied: true,
    ..Family::PLAIN
};

/// `scale_emb`, `scale_depth` and `dim_model_base` of configurations without these keys, as in transformers.
const DEFAULTS: [f64; 3] = [12.0, 1.4, 256.0];

fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    let factors = factors(config, frame)?;
    let whole_heads = frame.hidden.is_multiple_of(frame.query_heads).then(|| frame.hidden / frame.query_heads);
    let mla = Mla::parse(config, frame, Pairing::Half, whole_heads)?;
    let mla = Mla { output_factor: factors.residual, ..mla };
    Ok(AttentionSizes { factors, ..mla.sizes(mla) })
}

/// Null switches the second and third factor off; the first has to be a number.
fn factors(config: Fields, frame: Frame) -> Result<Factors> {
    let [embedding, depth, base] = DEFAULTS;
    let embedding = match config.positive_unless_null("scale_emb", embedding)? {
        Some(embedding) => embedding,
        None => config.positive("scale_emb")?,
    };
    let layers = config.size("num_hidden_layers")? as f64;
    let residual = config.positive_unless_null("scale_depth", depth)?.map_or(1.0, |depth| depth / layers.sqrt());
    let hidden = frame.hidden as f64;
    let logits = config.positive_unless_null("dim_model_base", base)?.map_or(1.0, |base| base / hidden);
    Ok(Factors { embedding, residual, logits, ..Factors::NONE })
}
