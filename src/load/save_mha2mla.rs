//! Writes a converted model in MHA2MLA's own layout.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::checkpoint::{Checkpoint, ModelParts};
use super::config::ModelConfig;
use super::converted::{base_config, check_count, check_frequencies, check_lost};
use super::families::FREQUENCY_INDEX;
use super::output::{Output, Shard};
use crate::error::{Error, Result};
use crate::rope::{Pairing, PartialRope};
use crate::weights::{LatentAttention, Linear, Matrix};

/// Writes `config.json` and f32 safetensors (one shard per layer and one for the rest, with an index) into `dir`,
/// which is made if it does not exist. Everything but attention comes from `parts`, which is `original` itself, of any
/// format, unless more than the attention was trained.
///
/// [`open`](super::open) reads the same values back, bit for bit. MHA2MLA's own code reads the directory too if the
/// kept pairs follow from its configuration and the latent is not centred; what it has no place for is added as
/// `self_attn.rope_frequency_index` (I32 `[kv_heads, rope_dim/2]`) and `self_attn.kv_proj.down_kv.bias`
/// (the latent's bias, `[L]`). If only one of the two query parts has a bias, the other gets one of zeros.
///
/// Memory holds one layer at a time. Files get their names at the end, `config.json` last, so that an error or a
/// crash leaves nothing that [`open`](super::open) would take for a model.
///
/// # Errors
/// [`Error::Config`] if `dir` already holds a model; [`Error::Unsupported`] if a layer has a part that the layout has no
/// place for (a norm on the latent, interleaved pairs, another softmax scale, ...); [`Error::Shape`] or [`Error::Geometry`] if the
/// layers do not fit the original's sizes; [`Error::Io`] and [`Error::File`] if writing fails; and what reading the
/// original may return.
pub fn save_mha2mla(
    dir: &Path,
    original: &Checkpoint,
    parts: &dyn ModelParts,
    layers: &[LatentAttention],
) -> Result<()> {
    check_layers(original.config(), layers)?;
    let output = Output::create(dir)?;
    let config = converted_config(original, layers)?;
    let attention = |shard: &mut Shard, module: &str, layer: usize| write_attention(shard, module, &layers[layer]);
    output.write_model(parts, layers.len(), attention, &config)
}

/// What errors call it.
const LAYOUT: &str = "MHA2MLA's layout";

/// Refuses what would be lost or could not be read back.
fn check_layers(model: &ModelConfig, layers: &[LatentAttention]) -> Result<()> {
    check_count(LAYOUT, model, layers)?;
    let rope_dim = layers.first().map_or(0, |first| first.geometry.rope_dim);
    for (layer, attention) in layers.iter().enumerate() {
        attention.validate()?;
        let g = attention.geometry;
        let got = [attention.hidden(), g.query_heads, g.kv_heads, g.rope_heads, g.rope_dim + g.nope_dim, g.value_dim];
        let expected =
            [model.hidden, model.query_heads, model.kv_heads, model.kv_heads, model.head_dim, model.head_dim];
        if got != expected || g.rope_dim != rope_dim {
            let sizes = |[hidden, heads, kv, rope, dim, value]: [usize; 6], rope_dim| {
                format!(
                    "hidden {hidden}, query heads {heads}, KV heads {kv}, rope heads {rope}, head {dim}, value {value}, \
                     rotated {rope_dim}"
                )
            };
            return Err(Error::Shape {
                what: "layers",
                expected: format!("{}, as the original and layer 0", sizes(expected, rope_dim)),
                got: format!("{} in layer {layer}", sizes(got, g.rope_dim)),
            });
        }
        check_frequencies(model, layer, attention)?;
        let lost = [
            (attention.query_down.is_some(), "a down-projection of the query"),
            (attention.latent_norm.is_some(), "a norm on the latent"),
            (attention.head_norms.is_some(), "norms over heads"),
            (attention.down.bias.is_some(), "a bias on the down-projection (`latent_bias` does the same)"),
            (attention.pairing != Pairing::Half, "interleaved rotation pairs"),
            (attention.scale != model.score_scale, "a softmax scale other than the original's"),
        ];
        check_lost(LAYOUT, layer, &lost)?;
    }
    Ok(())
}

/// The original's configuration with MHA2MLA's keys.
fn converted_config(original: &Checkpoint, layers: &[LatentAttention]) -> Result<Map<String, Value>> {
    let model = original.config();
    let mut config = base_config(original);
    let rope_dim = layers.first().map_or(0, |first| first.geometry.rope_dim);
    let (version, start) = rope_version(model, rope_dim, layers)?;
    // `low_rank` counts per KV head and holds for all layers; where that does not describe the layers, null leaves
    // the rank to the tensors.
    let per_head = |attention: &LatentAttention| {
        let rank = attention.geometry.latent_rank;
        rank.is_multiple_of(model.kv_heads).then(|| rank / model.kv_heads)
    };
    let low_rank = layers.first().and_then(per_head);
    let low_rank = low_rank.filter(|&rank| layers.iter().all(|attention| per_head(attention) == Some(rank)));
    let own = json!({
        "partial_rope_version": version,
        "rope_dim_for_mla": rope_dim,
        "uniform_start_point": start,
        "qk_tensor_path": null,
        "svd_init_method": "joint",
        "low_rank": low_rank,
        "is_baseline": false,
        "is_gqa2mha2mla": false,
        "is_mla_from_scratch": false,
    });
    config.insert("mha2mla".into(), own);
    Ok(config)
}

/// MHA2MLA's name of the rule that all layers follow, and the first pair of the uniform one.
fn rope_version(model: &ModelConfig, rope_dim: usize, layers: &[LatentAttention]) -> Result<(&'static str, usize)> {
    let follows = |rule: PartialRope| -> Result<bool> {
        let index = rule.select(model.kv_heads, model.head_dim, rope_dim)?;
        Ok(layers.iter().all(|attention| attention.frequencies == index))
    };
    if follows(PartialRope::High)? {
        return Ok(("high", 0));
    }
    if follows(PartialRope::Low)? {
        return Ok(("low", 0));
    }
    let start = layers.first().and_then(|first| first.frequencies.as_slice().first().copied()).unwrap_or(0) as usize;
    let could_be_uniform =
        rope_dim != 0 && model.head_dim.is_multiple_of(rope_dim) && start < model.head_dim / rope_dim;
    if could_be_uniform && follows(PartialRope::Uniform { start })? {
        return Ok(("uniform", start));
    }
    Ok(("2-norm", 0))
}

fn write_attention(shard: &mut Shard, module: &str, attention: &LatentAttention) {
    let named = |name: &str| format!("{module}.{name}");
    shard.linear(&named("q_proj"), stack(&attention.query_rope, &attention.query_nope));
    shard.linear(&named("k_r_proj"), attention.key_rope.clone());
    shard.linear(&named("o_proj"), attention.output.clone());
    shard.matrix(&named("kv_proj.down_kv.weight"), attention.down.weight.clone());
    if let Some(bias) = &attention.latent_bias {
        shard.vector(&named("kv_proj.down_kv.bias"), bias.clone());
    }
    shard.matrix(&named("kv_proj.up_k.weight"), attention.up_key.clone());
    shard.matrix(&named("kv_proj.up_v.weight"), attention.up_value.clone());
    if let Some(bias) = &attention.value_bias {
        shard.vector(&named("kv_proj.up_v.bias"), bias.clone());
        // MHA2MLA's code has both biases or none; one of zeros keeps it from making one up.
        shard.vector(&named("kv_proj.up_k.bias"), vec![0.0; attention.up_key.rows()]);
    }
    let index = &attention.frequencies;
    shard.integers(&named(FREQUENCY_INDEX), vec![index.rope_heads(), index.pairs()], index.as_slice());
}

/// One linear map that yields the outputs of both.
fn stack(first: &Linear, second: &Linear) -> Linear {
    let (rows, cols) = (first.weight.rows(), first.weight.cols());
    let weight = Matrix::from_fn(rows + second.weight.rows(), cols, |row, col| match row.checked_sub(rows) {
        None => first.weight.row(row)[col],
        Some(row) => second.weight.row(row)[col],
    });
    let bias = (first.bias.is_some() || second.bias.is_some()).then(|| {
        let part = |linear: &Linear| linear.bias.clone().unwrap_or_else(|| vec![0.0; linear.weight.rows()]);
        [part(first), part(second)].concat()
    });
    Linear { weight, bias }
}
