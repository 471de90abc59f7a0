//! What both layouts of converted models have in common when they are written.

use serde_json::{Map, Value, json};

use super::checkpoint::Checkpoint;
use super::config::ModelConfig;
use super::families::CONVERSIONS;
use crate::error::{Error, Result};
use crate::weights::LatentAttention;

/// The error for something that a layout cannot hold.
pub(super) fn no_place(layout: &str, what: &str, why: &str) -> Error {
    Error::Unsupported { what: format!("{what} in {layout}"), why: why.into() }
}

/// Refuses layers that are not a conversion of the model's.
pub(super) fn check_count(layout: &str, model: &ModelConfig, layers: &[LatentAttention]) -> Result<()> {
    if model.architecture.family().conversions.is_empty() {
        let why = match model.deepseek {
            Some(_) => "its attention is latent already",
            None => "what stands around its attention cannot be read",
        };
        return Err(no_place(layout, &format!("a {:?} model", model.architecture), why));
    }
    if layers.len() != model.layers {
        return Err(Error::Shape {
            what: "layers",
            expected: format!("{}, as many as the original has", model.layers),
            got: layers.len().to_string(),
        });
    }
    Ok(())
}

/// Refuses frequencies that the original does not have.
pub(super) fn check_frequencies(model: &ModelConfig, layer: usize, attention: &LatentAttention) -> Result<()> {
    let pairs = model.head_dim as u32 / 2;
    match attention.frequencies.as_slice().iter().find(|&&index| index >= pairs) {
        None => Ok(()),
        Some(&index) => Err(Error::Index {
            what: format!("frequency index of layer {layer}"),
            got: index.into(),
            bound: format!("0..{pairs}"),
        }),
    }
}

/// Refuses the first part of a layer that is there and would be lost, by its description.
pub(super) fn check_lost(layout: &str, layer: usize, lost: &[(bool, &str)]) -> Result<()> {
    match lost.iter().find(|(is_lost, _)| *is_lost) {
        None => Ok(()),
        Some((_, what)) => {
            Err(no_place(layout, &format!("layer {layer}"), &format!("the layout has no place for {what}")))
        }
    }
}

/// The original's configuration without keys of earlier conversions, with what is written instead: f32, whatever the
/// original's weights were quantised to, and the head that
/// the original has, which need not be what its configuration says.
pub(super) fn base_config(original: &Checkpoint) -> Map<String, Value> {
    let mut config = original.json().clone();
    for key in CONVERSIONS.iter().flat_map(|conversion| conversion.keys) {
        config.remove(*key);
    }
    config.remove("quantization_config");
    for kind in ["torch_dtype", "dtype"] {
        if kind == "torch_dtype" || config.contains_key(kind) {
            config.insert(kind.into(), json!("float32"));
        }
    }
    let model = original.config();
    (model.architecture.family().fold)(&mut config, model);
    if model.rotation_gain != 1.0 {
        // The rotated queries carry it, so that whoever rotates the saved model must not bring it in again.
        for name in ["rope_parameters", "rope_scaling"] {
            if let Some(object) = config.get_mut(name).and_then(Value::as_object_mut) {
                object.insert("attention_factor".into(), json!(1.0));
            }
        }
    }
    config.insert("tie_word_embeddings".into(), json!(original.config().tied_embeddings));
    config
}
