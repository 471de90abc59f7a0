//! A.X K2: DeepSeek-V3.2's attention with a gate on every value; queries and gates read their latent with and without its
//! norm.

use super::mla::{Mla, split_heads};
use super::{Attention, AttentionSizes, Family, Frame, Layer, Layout, Name, deepseek_v32};
use crate::error::Result;
use crate::load::checkpoint::{GateInput, OutputGate};
use crate::load::fields::Fields;
use crate::load::source::linear;
use crate::rope::Pairing;
use crate::weights::{Linear, QueryDown};

pub(super) const FAMILY: Family =
    Family { names: &[Name { class: "AXK2ForCausalLM", model_type: "axk2" }], parse, ..deepseek_v32::FAMILY };

fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    let mla = Mla::parse(config, frame, Pairing::Interleaved, None)?;
    let query_rank = config.size("q_lora_rank")?;
    let sparse_beyond = Some(config.size("index_topk")?);
    Ok(AttentionSizes { sparse_beyond, gated_output: true, ..mla.sizes(Axk2 { mla, query_rank }) })
}

struct Axk2 {
    mla: Mla,
    query_rank: usize,
}

impl Axk2 {
    /// The maps of queries and of gates, which the checkpoint has in one tensor: of each head the rows of its query, then
    /// those of its gates.
    fn queries_and_gates(&self, layer: &Layer) -> Result<(Linear, Linear)> {
        let g = self.mla.dims.geometry;
        let query = g.nope_dim + g.rope_dim;
        let rows = g.query_heads * (query + g.value_dim);
        let both = linear(layer.source, &layer.name("q_b_proj"), rows, 2 * self.query_rank)?;
        Ok(split_heads(&both, g.query_heads, query))
    }
}

impl Layout for Axk2 {
    fn attention(&self, layer: &Layer) -> Result<Attention> {
        let stage = QueryDown { with_unnormed: true, ..self.mla.query_down(layer, self.query_rank)? };
        let (query, _) = self.queries_and_gates(layer)?;
        self.mla.with_query(layer, Some(stage), &query).map(Attention::Latent)
    }

    fn output_gate(&self, layer: &Layer) -> Result<Option<OutputGate>> {
        let (_, map) = self.queries_and_gates(layer)?;
        Ok(Some(OutputGate { map, input: GateInput::Query }))
    }

    fn unneeded(&self) -> &'static [&'static str] {
        &["indexer"]
    }

    fn block_refusal(&self) -> Option<&'static str> {
        Some("stands behind norms with gates of their own, as the attention does, of which only that can be read")
    }
}
