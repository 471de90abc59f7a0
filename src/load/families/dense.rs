//! MHA and GQA in Llama's layout, which several families share.

use super::{Attention, AttentionSizes, Frame, Layer, Layout, Name};
use crate::error::Result;
use crate::geometry::Geometry;
use crate::load::config::Factors;
use crate::load::fields::Fields;
use crate::load::rope_object::RotatedPart;
use crate::load::source::{linear, missing};
use crate::weights::DenseAttention;

/// Reads the number of KV heads (that of the query heads, where it is missing) and the size of a head.
pub(super) fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    let kv_heads = config.optional_size("num_key_value_heads")?.unwrap_or(frame.query_heads);
    sizes(config, frame, kv_heads)
}

/// The sizes with that many KV heads.
pub(super) fn sizes(config: Fields, Frame { hidden, query_heads }: Frame, kv_heads: usize) -> Result<AttentionSizes> {
    let head_dim = match config.optional_size("head_dim")? {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(query_heads) => hidden / query_heads,
        None => {
            return Err(config.error(format!(
                "`hidden_size` {hidden} does not divide among `num_attention_heads` {query_heads}, and `head_dim` is missing"
            )));
        }
    };
    Geometry::mha2mla(query_heads, kv_heads, head_dim, head_dim, head_dim)?;
    Ok(AttentionSizes {
        kv_heads,
        head_dim,
        rotated: RotatedPart { dim: head_dim, of: head_dim },
        deepseek: None,
        factors: Factors::NONE,
        query_scaling: None,
        sparse_beyond: None,
        layout: Box::new(Dense),
    })
}

/// `q_proj`, `k_proj`, `v_proj` and `o_proj`.
struct Dense;

impl Layout for Dense {
    fn attention(&self, layer: &Layer) -> Result<Attention> {
        let (source, model) = (layer.source, layer.model);
        let query_rows = model.query_heads * model.head_dim;
        let kv_rows = model.kv_heads * model.head_dim;
        let projection = |name: &str, rows| {
            let module = layer.name(name);
            let projection = linear(source, &module, rows, model.hidden)?;
            if model.attention_bias && projection.bias.is_none() {
                return Err(missing(source, &format!("{module}.bias"), &format!("[{rows}]")));
            }
            Ok(projection)
        };
        let attention = DenseAttention {
            query_heads: model.query_heads,
            kv_heads: model.kv_heads,
            head_dim: model.head_dim,
            query: projection("q_proj", query_rows)?,
            key: projection("k_proj", kv_rows)?,
            value: projection("v_proj", kv_rows)?,
            output: linear(source, &layer.name("o_proj"), model.hidden, query_rows)?,
        };
        attention.validate()?;
        Ok(Attention::Dense(attention))
    }
}
