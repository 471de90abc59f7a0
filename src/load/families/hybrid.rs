//! Models in which some layers have DeepSeek's attention, and the others linear attention, which is refused.

use super::mla::Mla;
use super::{Attention, Layer, Layout};
use crate::error::{Error, Result};
use crate::load::checkpoint::{GateInput, OutputGate};
use crate::load::fields::Fields;
use crate::load::source::linear;

/// What `layer_types` may hold in such a model.
pub(super) const LAYER_TYPES: &[&str] = &["full_attention", "linear_attention"];

/// Which layers attend to all tokens.
pub(super) enum FullLayers {
    /// Those of these numbers.
    Listed(Vec<usize>),
    /// Every fourth, but not the first.
    EveryFourth,
    /// The last of every so many.
    LastOf(usize),
}

impl FullLayers {
    /// Reads `layer_types`; `None` if it is not there.
    pub fn listed(config: Fields, layers: usize) -> Result<Option<Self>> {
        let Some(types) = config.optional_array("layer_types")? else { return Ok(None) };
        if types.len() != layers {
            return Err(config.error(format!("`layer_types` has {} entries, the model {layers} layers", types.len())));
        }
        let full = types.iter().enumerate().filter(|(_, kind)| kind.as_str() == Some(LAYER_TYPES[0]));
        Ok(Some(Self::Listed(full.map(|(layer, _)| layer).collect())))
    }

    fn contains(&self, layer: usize) -> bool {
        match self {
            Self::Listed(layers) => layers.contains(&layer),
            Self::EveryFourth => layer > 0 && layer.is_multiple_of(4),
            Self::LastOf(group) => (layer + 1).is_multiple_of(*group),
        }
    }
}

/// The layers of such a model.
pub(super) struct Hybrid {
    pub mla: Mla,
    pub full: FullLayers,
    /// What a layer calls its attention.
    pub module: &'static str,
    /// The modules of the gates on the layers' heads: one or none.
    pub gate: &'static [&'static str],
}

impl Layout for Hybrid {
    fn attention(&self, layer: &Layer) -> Result<Attention> {
        if self.full.contains(layer.index) {
            return self.mla.attention(layer);
        }
        Err(Error::Unsupported {
            what: format!("attention of layer {} in {}", layer.index, layer.source.path().display()),
            why: "is linear attention (`linear_attention`), which keeps a state and no cache of tokens".into(),
        })
    }

    fn module(&self, index: usize) -> String {
        format!("model.layers.{index}.{}", self.module)
    }

    fn output_gate(&self, layer: &Layer) -> Result<Option<OutputGate>> {
        let gate = self.gate.first().filter(|_| self.full.contains(layer.index));
        let map = |name: &&str| linear(layer.source, &layer.name(name), layer.model.query_heads, layer.model.hidden);
        Ok(gate.map(map).transpose()?.map(|map| OutputGate { map, input: GateInput::Hidden }))
    }

    fn unneeded(&self) -> &'static [&'static str] {
        self.gate
    }
}
