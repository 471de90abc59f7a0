//! The attention of DeepSeek V2, V3 and R1.

use super::config::{DeepSeekDims, ModelConfig};
use super::source::{TensorSource, linear, matrix};
use crate::error::Result;
use crate::rope::FrequencyIndex;
use crate::weights::{LatentAttention, Linear, Matrix, QueryDown, RmsNorm};

/// Epsilon of the norms over the latents of queries and of keys and values. DeepSeek's own code and transformers build
/// both without naming one, so that they have their class's default whatever `rms_norm_eps` says.
const LATENT_NORM_EPSILON: f32 = 1e-6;

/// Reads one layer below `module`.
///
/// A query head's rows are its unrotated ones, then its rotated ones; a head's rows of `kv_b_proj` are those of
/// the key, then those of the value; `kv_a_proj_with_mqa` yields the latent, then the shared rotated key.
pub(crate) fn deepseek_attention(
    source: &dyn TensorSource,
    model: &ModelConfig,
    dims: &DeepSeekDims,
    module: &str,
) -> Result<LatentAttention> {
    let g = dims.geometry;
    let named = |name: &str| format!("{module}.{name}");
    let norm = |name: &str, len| {
        let gain = source.read(&named(name), &[len])?;
        Ok::<_, crate::Error>(RmsNorm { gain, epsilon: LATENT_NORM_EPSILON })
    };
    let (query_down, query_name, query_inputs) = match dims.query_rank {
        None => (None, "q_proj", model.hidden),
        Some(rank) => {
            let down = linear(source, &named("q_a_proj"), rank, model.hidden)?;
            (Some(QueryDown { down, norm: norm("q_a_layernorm.weight", rank)? }), "q_b_proj", rank)
        }
    };
    let query = linear(source, &named(query_name), g.query_heads * (g.nope_dim + g.rope_dim), query_inputs)?;
    let (query_nope, mut query_rope) = split_heads(&query, g.query_heads, g.nope_dim);
    scale_outputs(&mut query_rope, model.rotation_gain * model.rotation_gain);

    let kv = linear(source, &named("kv_a_proj_with_mqa"), g.latent_rank + g.rope_dim, model.hidden)?;
    let (down, key_rope) = split_heads(&kv, 1, g.latent_rank);
    let up = matrix(source, &named("kv_b_proj.weight"), g.kv_heads * (g.nope_dim + g.value_dim), g.latent_rank)?;
    let (up_key, up_value) = split_heads(&Linear::new(up), g.kv_heads, g.nope_dim);
    let attention = LatentAttention {
        geometry: g,
        query_down,
        query_rope,
        query_nope,
        key_rope,
        down,
        latent_norm: Some(norm("kv_a_layernorm.weight", g.latent_rank)?),
        latent_bias: None,
        up_key: up_key.weight,
        up_value: up_value.weight,
        value_bias: None,
        output: linear(source, &named("o_proj"), model.hidden, g.query_heads * g.value_dim)?,
        frequencies: FrequencyIndex::all(g.rope_heads, g.rope_dim),
        pairing: dims.pairing,
        scale: model.score_scale,
    };
    attention.validate()?;
    Ok(attention)
}

/// Splits the rows of each head after its first `first` ones.
pub(super) fn split_heads(linear: &Linear, heads: usize, first: usize) -> (Linear, Linear) {
    let per_head = linear.weight.rows() / heads;
    let (before, after): (Vec<usize>, Vec<usize>) =
        (0..linear.weight.rows()).partition(|row| row % per_head.max(1) < first);
    (linear.select_outputs(&before), linear.select_outputs(&after))
}

/// Scores are products of a rotated query and a rotated key. A factor on every cosine and sine multiplies both,
/// so its square on the query does the same and leaves the tables plain.
fn scale_outputs(linear: &mut Linear, factor: f64) {
    if factor == 1.0 {
        return;
    }
    let scaled = |x: &f32| (f64::from(*x) * factor) as f32;
    let (rows, cols) = (linear.weight.rows(), linear.weight.cols());
    linear.weight = Matrix::from_fn(rows, cols, |row, col| scaled(&linear.weight.row(row)[col]));
    if let Some(bias) = &mut linear.bias {
        bias.iter_mut().for_each(|x| *x = scaled(x));
    }
}
