//! Mistral 4: DeepSeek-V3's attention, YaRN always, and queries that grow with their position.

use super::mla::Mla;
use super::{AttentionSizes, Family, Frame, Name, Routing};
use crate::error::{Error, Result};
use crate::load::config::QueryScaling;
use crate::load::fields::Fields;
use crate::load::rope_object::{QUERY_SCALING_KEY, RopeObject, RopeRules, RopeType, RotatedPart};
use crate::rope::Pairing;

pub(super) const FAMILY: Family = Family {
    names: &[Name { class: "Mistral4ForCausalLM", model_type: "mistral4" }],
    rope: ROPE,
    parse,
    ..Family::PLAIN
};

const ROPE: RopeRules = RopeRules { types: &[RopeType::YARN_BESIDE_QUERY_SCALING], ..RopeRules::LATENT };

fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    let interleaved = config.switch("rope_interleave", true)?;
    let pairing = if interleaved { Pairing::Interleaved } else { Pairing::Half };
    let mla = Mla { routing: Some(Routing::Mistral4), ..Mla::parse(config, frame, pairing, None)? };
    let geometry = mla.dims.geometry;
    // Unlike in the other families, `partial_rotary_factor` is a part of the whole head.
    let rotated = RotatedPart { dim: geometry.rope_dim, of: geometry.rope_dim + geometry.nope_dim };
    Ok(AttentionSizes { rotated, query_scaling: Some(query_scaling(config)?), ..mla.sizes(mla) })
}

/// Reads the factor's two numbers from the object about rotation; if there are two of these, they have to agree.
fn query_scaling(config: Fields) -> Result<QueryScaling> {
    let mut found: Option<QueryScaling> = None;
    for name in ["rope_parameters", "rope_scaling"] {
        let Some(object) = RopeObject::find(config, name, &ROPE)? else { continue };
        let beta = object.own.optional_number(QUERY_SCALING_KEY)?;
        let beta = beta.ok_or_else(|| config.error(format!("`{name}.{QUERY_SCALING_KEY}` is missing")))?;
        let scaling = QueryScaling { beta, original_positions: object.original_positions()? };
        if let Some(other) = found.filter(|other| *other != scaling) {
            return Err(Error::Config {
                what: format!("`rope_parameters` and `rope_scaling` in {}", config.path.display()),
                why: format!("scale queries differently: {other:?} and {scaling:?}; keep one"),
            });
        }
        found = Some(scaling);
    }
    found.ok_or_else(|| config.error("`rope_parameters` is missing".into()))
}
