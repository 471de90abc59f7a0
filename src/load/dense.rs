//! The attention of Llama and Qwen2.

use super::config::ModelConfig;
use super::source::{TensorSource, linear, missing};
use crate::error::Result;
use crate::weights::DenseAttention;

/// Reads `q_proj`, `k_proj`, `v_proj` and `o_proj` below `module`.
pub(crate) fn dense_attention(source: &dyn TensorSource, model: &ModelConfig, module: &str) -> Result<DenseAttention> {
    let query_rows = model.query_heads * model.head_dim;
    let kv_rows = model.kv_heads * model.head_dim;
    let projection = |name: &str, rows| {
        let module = format!("{module}.{name}");
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
        output: linear(source, &format!("{module}.o_proj"), model.hidden, query_rows)?,
    };
    attention.validate()?;
    Ok(attention)
}
