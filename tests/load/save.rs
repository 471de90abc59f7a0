//! What `save_mha2mla` writes is what `open` reads.

use std::path::Path;

use latent_attention::load::{Checkpoint, ModelParts, open, save_mha2mla};
use latent_attention::rope::{FrequencyIndex, Pairing};
use latent_attention::weights::{HeadNorms, LatentAttention, Linear, Matrix, RmsNorm};
use latent_attention::{Error, Geometry};
use serde_json::{Value, json};

use super::fixture::*;

pub fn linear(seed: &str, rows: usize, cols: usize, bias: bool) -> Linear {
    let weight = Matrix::new(rows, cols, numbers(seed, rows * cols)).expect("a matrix");
    Linear { weight, bias: bias.then(|| numbers(&format!("{seed} bias"), rows)) }
}

/// A layer as a conversion of the fixture's model could yield it.
pub fn converted(layer: usize, rope: usize, rank: usize, frequencies: &[u32], bias: bool) -> LatentAttention {
    let geometry = Geometry::mha2mla(HEADS, KV_HEADS, HEAD_DIM, rope, 1)
        .and_then(|g| g.with_latent_rank(rank))
        .expect("a geometry");
    let nope = HEAD_DIM - rope;
    let linear = |part: &str, rows, cols, bias| linear(&format!("{part} {layer}"), rows, cols, bias);
    LatentAttention {
        geometry,
        query_down: None,
        query_rope: linear("query rope", HEADS * rope, HIDDEN, bias),
        query_nope: linear("query nope", HEADS * nope, HIDDEN, bias),
        key_rope: linear("key rope", KV_HEADS * rope, HIDDEN, bias),
        down: linear("down", rank, HIDDEN, false),
        latent_norm: None,
        latent_bias: bias.then(|| numbers("latent bias", rank)),
        up_key: linear("up key", KV_HEADS * nope, rank, false).weight,
        up_value: linear("up value", KV_HEADS * HEAD_DIM, rank, false).weight,
        value_bias: bias.then(|| numbers("value bias", KV_HEADS * HEAD_DIM)),
        output: linear("output", HIDDEN, HEADS * HEAD_DIM, false),
        frequencies: FrequencyIndex::new(KV_HEADS, frequencies.to_vec()).expect("an index"),
        pairing: Pairing::Half,
        scale: geometry.default_scale(),
        head_norms: None,
    }
}

fn both_layers(rope: usize, rank: usize, frequencies: &[u32], bias: bool) -> Vec<LatentAttention> {
    (0..LAYERS).map(|layer| converted(layer, rope, rank, frequencies, bias)).collect()
}

/// Compares what was read, but for the configuration, with the layers and the other parts that were saved.
pub fn check_parts(read: &Checkpoint, parts: &dyn ModelParts, layers: &[LatentAttention]) {
    for (layer, expected) in layers.iter().enumerate() {
        assert_eq!(&latent(read, layer), expected);
        assert_eq!(read.block(layer).expect("a block"), parts.block(layer).expect("a block"));
    }
    assert_eq!(read.embedding().expect("read"), parts.embedding().expect("read"));
    assert_eq!(read.final_norm().expect("read"), parts.final_norm().expect("read"));
    assert_eq!(read.lm_head().expect("read"), parts.lm_head().expect("read"));
}

/// Saves, opens again, and compares everything.
pub fn check_round_trip(original: &Checkpoint, layers: &[LatentAttention]) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("made/on/the/way");
    save_mha2mla(&target, original, original, layers).expect("saved");
    let read = open(&target).expect("a valid model");
    check_parts(&read, original, layers);
    assert_eq!(read.config(), original.config());
    let leftovers = names(&target).into_iter().filter(|name| name.ends_with(".partial")).count();
    assert_eq!(leftovers, 0);
    let text = std::fs::read_to_string(target.join("config.json")).expect("read");
    serde_json::from_str(&text).expect("JSON")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_saved_model_is_read_back_bit_for_bit() {
    let (_dir, original) = reopen(&llama_config(), &llama());
    let original = original.expect("a valid model");
    for (rope, rank, frequencies, bias, version, low_rank) in [
        (4, 6, &[0, 1, 0, 1][..], false, "high", json!(3)),
        (4, 6, &[2, 3, 2, 3], true, "low", json!(3)),
        (4, 6, &[1, 3, 1, 3], false, "uniform", json!(3)),
        (4, 7, &[3, 0, 1, 2], true, "2-norm", Value::Null),
        (8, 4, &[0, 1, 2, 3, 0, 1, 2, 3], false, "high", json!(2)),
        (0, 4, &[], false, "high", json!(2)),
    ] {
        let config = check_round_trip(&original, &both_layers(rope, rank, frequencies, bias));
        assert_eq!(config["mha2mla"]["partial_rope_version"], version);
        assert_eq!(config["mha2mla"]["low_rank"], low_rank);
        assert_eq!(config["torch_dtype"], "float32");
        assert_eq!(config["architectures"], json!(["LlamaForCausalLM"]));
    }
}

#[test]
fn layers_may_differ_in_rank_and_hold_any_bits() {
    let (_dir, original) = reopen(&llama_config(), &llama());
    let mut layers = vec![converted(0, 4, 6, &[0, 1, 2, 3], false), converted(1, 4, 10, &[0, 1, 0, 1], true)];
    layers[0].up_key =
        Matrix::from_fn(8, 6, |row, col| f32::from_bits(0x3f80_0001 + (row * 6 + col) as u32 * 0x10_0003));
    layers[0].up_value = Matrix::from_fn(16, 6, |row, _| [0.0, -0.0, f32::MIN_POSITIVE / 2.0, f32::MAX][row % 4]);
    check_round_trip(&original.expect("a valid model"), &layers);
}

#[test]
fn an_untied_model_with_scaled_rotation_keeps_both() {
    let mut tensors = Tensors::default();
    tensors.add_frame(false);
    (0..LAYERS).for_each(|layer| tensors.add_dense(layer, true));
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32});
    let changes = json!({"architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": false, "rope_scaling": scaling});
    let (_dir, original) = reopen(&with(llama_config(), changes), &tensors);
    check_round_trip(&original.expect("a valid model"), &both_layers(4, 6, &[0, 1, 0, 1], true));
}

#[test]
fn what_the_layout_cannot_hold_is_refused_and_nothing_is_written() {
    let (_dir, original) = reopen(&llama_config(), &llama());
    let original = original.expect("a valid model");
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("model");
    let good = || both_layers(4, 6, &[0, 1, 0, 1], false);
    let refused = |change: &dyn Fn(&mut Vec<LatentAttention>), part: &str| {
        let mut layers = good();
        change(&mut layers);
        let error = save_mha2mla(&target, &original, &original, &layers).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
        assert!(!target.exists());
    };
    refused(&|layers| layers[1].latent_norm = Some(RmsNorm { gain: vec![1.0; 6], epsilon: 1e-6 }), "norm");
    let normalise = |layer: &mut LatentAttention| {
        let g = layer.geometry;
        layer.geometry = g.with_key_norm(true);
        let query = vec![1.0; g.kv_heads * (g.rope_dim + g.nope_dim)];
        layer.head_norms = Some(HeadNorms { query, key: vec![1.0; g.rope_width()], epsilon: 1e-6 });
    };
    refused(&|layers| normalise(&mut layers[1]), "norms over heads");
    refused(&|layers| layers[1].down.bias = Some(vec![0.0; 6]), "latent_bias");
    refused(&|layers| layers[0].pairing = Pairing::Interleaved, "interleaved");
    refused(&|layers| layers[0].scale *= 2.0, "scale");
    refused(&|layers| layers.truncate(1), "layers");
    refused(&|layers| layers[1] = converted(1, 2, 6, &[0, 0], false), "layer 1");
    refused(&|layers| layers[1].up_key = Matrix::from_fn(8, 5, |_, _| 0.0), "[8, 6]");
    refused(&|layers| layers[0].frequencies = FrequencyIndex::new(2, vec![0, 4, 0, 1]).expect("an index"), "0..4");
}

#[test]
fn a_failure_on_the_way_leaves_nothing_and_a_model_is_not_overwritten() {
    let mut tensors = llama();
    tensors.0.remove("model.layers.1.mlp.up_proj.weight");
    let (source_dir, original) = reopen(&llama_config(), &tensors);
    let original = original.expect("headers are fine");
    let layers = both_layers(4, 6, &[0, 1, 0, 1], false);
    let dir = tempfile::tempdir().expect("a directory");
    let error = save_mha2mla(&dir.path().join("new"), &original, &original, &layers).expect_err("a missing tensor");
    assert!(error.to_string().contains("mlp.up_proj"), "{error}");
    assert!(!dir.path().join("new").exists());
    std::fs::write(dir.path().join("notes.txt"), "kept").expect("written");
    save_mha2mla(dir.path(), &original, &original, &layers).expect_err("a missing tensor");
    assert_eq!(names(dir.path()), ["notes.txt"]);

    let error = save_mha2mla(source_dir.path(), &original, &original, &layers).expect_err("a model is there");
    assert!(matches!(error, Error::Config { .. }) && error.to_string().contains("already holds"), "{error}");
    assert_eq!(names(source_dir.path()).len(), 2);
}
