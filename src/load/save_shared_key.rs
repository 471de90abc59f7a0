//! Writes a model that was converted to one shared rotated key, in DeepSeek's layout.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::checkpoint::{Checkpoint, ModelParts};
use super::config::{ModelConfig, OWN_KEYS};
use super::converted::{base_config, check_count, check_frequencies, check_lost};
use super::families::SHARED_KEY_CLASS;
use super::output::{Output, Shard};
use crate::error::{Error, Result};
use crate::rope::Pairing;
use crate::weights::{LatentAttention, Linear, Matrix};

/// Writes `config.json` and f32 safetensors (one shard per layer and one for the rest, with an index) into `dir`, which is
/// made if it does not exist: the attention of `layers`, everything else from `parts`, which is `original` itself unless
/// more than the attention was trained.
///
/// Tensors have DeepSeek's names and row orders: `q_proj` (each head's unrotated rows, then its rotated ones),
/// `kv_a_proj_with_mqa` (the latent, then the shared rotated key), `kv_b_proj` (each head's key rows, then its value
/// rows; its bias holds the values') and `o_proj`. The configuration is the original's, with `architectures`
/// `LatentAttentionForCausalLM` and these keys in the object `latent_attention`:
///
/// | key | holds |
/// |---|---|
/// | `converted_from` | the original's class |
/// | `calibrated_positions` | tokens of the longest sequence that the conversion looked at, where it is known |
/// | `layers` | for each layer `kv_lora_rank` (L), `qk_rope_head_dim` (R) and `rope_frequency_index`: which of the original's pairs each rotated pair turns with; pairs are `(j, j + R/2)` |
///
/// What a reader of DeepSeek's layout has to do otherwise: there is no norm on the latent, scores are divided by the root of
/// the original's `head_dim` (which is `qk_nope_head_dim` and `v_head_dim` too), and the frequencies of the original's
/// `head_dim/2` pairs follow from its own keys for rotation (where those say nothing, as for some GGUF files, from
/// `latent_attention.inverse_frequencies`).
/// [`open`](super::open) reads the same values back, bit for bit. If only one of the two query parts has a bias, the other
/// gets one of zeros.
///
/// Memory holds one layer at a time. Files get their names at the end, `config.json` last, so that an error or a crash
/// leaves nothing that [`open`](super::open) would take for a model.
///
/// # Errors
/// [`Error::Config`] if `dir` already holds a model; [`Error::Unsupported`] if a layer has a part that the layout has no
/// place for (several rotated keys, a norm on the latent, ...); [`Error::Shape`], [`Error::Index`] or [`Error::Geometry`] if the layers do not fit the
/// original's sizes; [`Error::Io`] and [`Error::File`] if writing fails; and what reading the parts may return.
pub fn save_shared_key(
    dir: &Path,
    original: &Checkpoint,
    parts: &dyn ModelParts,
    layers: &[LatentAttention],
    calibrated_positions: Option<usize>,
) -> Result<()> {
    check_layers(original.config(), layers)?;
    let output = Output::create(dir)?;
    let attention = |shard: &mut Shard, module: &str, layer: usize| write_attention(shard, module, &layers[layer]);
    output.write_model(parts, layers.len(), attention, &converted_config(original, layers, calibrated_positions))
}

/// What errors call it.
const LAYOUT: &str = "DeepSeek's layout with a shared key";

/// Refuses what would be lost or could not be read back.
fn check_layers(model: &ModelConfig, layers: &[LatentAttention]) -> Result<()> {
    check_count(LAYOUT, model, layers)?;
    for (layer, attention) in layers.iter().enumerate() {
        attention.validate()?;
        let g = attention.geometry;
        let got = [attention.hidden(), g.query_heads, g.kv_heads, g.rope_heads, g.nope_dim, g.value_dim];
        let expected = [model.hidden, model.query_heads, model.query_heads, 1, model.head_dim, model.head_dim];
        if got != expected {
            let sizes = |[hidden, heads, kv, rope, nope, value]: [usize; 6]| {
                format!(
                    "hidden {hidden}, query heads {heads}, KV heads {kv}, rope heads {rope}, unrotated {nope}, value {value}"
                )
            };
            return Err(Error::Shape {
                what: "layers",
                expected: format!("{}, as the original has with one shared key", sizes(expected)),
                got: format!("{} in layer {layer}", sizes(got)),
            });
        }
        check_frequencies(model, layer, attention)?;
        let lost = [
            (attention.query_down.is_some(), "a down-projection of the query"),
            (attention.latent_norm.is_some(), "a norm on the latent"),
            (attention.head_norms.is_some(), "norms over heads"),
            (
                attention.latent_bias.is_some(),
                "a bias behind the latent's norm (one on the down-projection does the same)",
            ),
            (attention.pairing != Pairing::Half, "interleaved rotation pairs"),
            (attention.scale != model.score_scale, "a softmax scale other than the original's"),
        ];
        check_lost(LAYOUT, layer, &lost)?;
    }
    Ok(())
}

/// The original's configuration with this crate's keys.
fn converted_config(
    original: &Checkpoint,
    layers: &[LatentAttention],
    calibrated_positions: Option<usize>,
) -> Map<String, Value> {
    let model = original.config();
    let mut config = base_config(original);
    config.insert("architectures".into(), json!([SHARED_KEY_CLASS]));
    config.insert("model_type".into(), json!("latent_attention"));
    config.insert("qk_nope_head_dim".into(), json!(model.head_dim));
    config.insert("v_head_dim".into(), json!(model.head_dim));
    let mut own = config.get(OWN_KEYS).and_then(Value::as_object).cloned().unwrap_or_default();
    let layer = |attention: &LatentAttention| {
        json!({
            "kv_lora_rank": attention.geometry.latent_rank,
            "qk_rope_head_dim": attention.geometry.rope_dim,
            "rope_frequency_index": attention.frequencies.as_slice(),
        })
    };
    own.insert("layers".into(), layers.iter().map(layer).collect());
    own.insert("converted_from".into(), json!(model.architecture.family().class()));
    match calibrated_positions {
        Some(positions) => own.insert("calibrated_positions".into(), json!(positions)),
        None => own.remove("calibrated_positions"),
    };
    config.insert(OWN_KEYS.into(), own.into());
    config
}

fn write_attention(shard: &mut Shard, module: &str, attention: &LatentAttention) {
    let (g, named) = (attention.geometry, |name: &str| format!("{module}.{name}"));
    shard.linear(&named("q_proj"), by_head(&attention.query_nope, &attention.query_rope, g.query_heads));
    shard.linear(&named("kv_a_proj_with_mqa"), by_head(&attention.down, &attention.key_rope, 1));
    let value = Linear { weight: attention.up_value.clone(), bias: attention.value_bias.clone() };
    shard.linear(&named("kv_b_proj"), by_head(&Linear::new(attention.up_key.clone()), &value, g.kv_heads));
    shard.linear(&named("o_proj"), attention.output.clone());
}

/// One linear map that yields, for each head, its rows of `first` and then those of `second`.
fn by_head(first: &Linear, second: &Linear, heads: usize) -> Linear {
    let (cols, of_first, of_second) = (first.weight.cols(), first.weight.rows() / heads, second.weight.rows() / heads);
    let row = |row: usize| -> (&Linear, usize) {
        let (head, inside) = (row / (of_first + of_second), row % (of_first + of_second));
        match inside.checked_sub(of_first) {
            None => (first, head * of_first + inside),
            Some(inside) => (second, head * of_second + inside),
        }
    };
    let rows = heads * (of_first + of_second);
    let weight = Matrix::from_fn(rows, cols, |at, col| {
        let (linear, row) = row(at);
        linear.weight.row(row)[col]
    });
    let bias = (first.bias.is_some() || second.bias.is_some()).then(|| {
        let number = |at: usize| {
            let (linear, row) = row(at);
            linear.bias.as_ref().map_or(0.0, |bias| bias[row])
        };
        (0..rows).map(number).collect()
    });
    Linear { weight, bias }
}
