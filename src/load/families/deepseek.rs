//! The attention of DeepSeek V2, V3 and R1.

use super::{Attention, AttentionSizes, Biases, Family, Frame, Layer, Layout, Name, check_width};
use crate::error::Result;
use crate::geometry::Geometry;
use crate::load::config::DeepSeekDims;
use crate::load::fields::Fields;
use crate::load::rope_object::{RopeRules, RopeType};
use crate::load::source::{linear, matrix};
use crate::rope::{FrequencyIndex, Pairing};
use crate::weights::{LatentAttention, Linear, Matrix, QueryDown, RmsNorm};

/// Epsilon of the norms over the latents of queries and of keys and values. DeepSeek's own code and transformers build
/// both without naming one, so that they have their class's default whatever `rms_norm_eps` says.
const LATENT_NORM_EPSILON: f32 = 1e-6;

const V2: Name = Name { class: "DeepseekV2ForCausalLM", model_type: "deepseek_v2" };
const V3: Name = Name { class: "DeepseekV3ForCausalLM", model_type: "deepseek_v3" };

pub(super) const FAMILY: Family = Family {
    names: &[V2, V3],
    gguf: None,
    rope: RopeRules {
        types: &[RopeType::DEFAULT, RopeType::LINEAR, RopeType::LLAMA3, RopeType::YARN],
        scales_softmax: true,
    },
    biases: Biases::AsConfigured,
    parse,
    conversions: &[],
};

fn parse(name: &Name, config: Fields, Frame { query_heads, .. }: Frame) -> Result<AttentionSizes> {
    let pairing = pairing(name, config)?;
    let geometry = Geometry::deepseek(
        query_heads,
        config.size("kv_lora_rank")?,
        config.count("qk_rope_head_dim")?,
        config.count("qk_nope_head_dim")?,
        config.size("v_head_dim")?,
    )?;
    check_width(config, query_heads, geometry.value_dim)?;
    let dims = DeepSeekDims { geometry, query_rank: config.optional_size("q_lora_rank")?, pairing };
    Ok(AttentionSizes {
        kv_heads: query_heads,
        head_dim: geometry.rope_dim + geometry.nope_dim,
        rope_dim: geometry.rope_dim,
        deepseek: Some(dims),
        layout: Box::new(dims),
    })
}

/// Which dimensions of a rope head make a pair: neighbours, unless DeepSeek-V3 says otherwise. V2 has no say.
fn pairing(name: &Name, config: Fields) -> Result<Pairing> {
    let interleaved = *name == V2 || config.switch("rope_interleave", true)?;
    Ok(if interleaved { Pairing::Interleaved } else { Pairing::Half })
}

impl Layout for DeepSeekDims {
    fn attention(&self, layer: &Layer) -> Result<Attention> {
        latent_attention(self, layer).map(Attention::Latent)
    }
}

/// A query head's rows are its unrotated ones, then its rotated ones; a head's rows of `kv_b_proj` are those of
/// the key, then those of the value; `kv_a_proj_with_mqa` yields the latent, then the shared rotated key.
fn latent_attention(dims: &DeepSeekDims, layer: &Layer) -> Result<LatentAttention> {
    let (g, source, model) = (dims.geometry, layer.source, layer.model);
    let named = |name: &str| layer.name(name);
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
