//! Every family against transformers: tiny checkpoints in `tests/data/oracle`, and what transformers computes with them.
//!
//! `validate/oracle/oracle.py` wrote them. Each layer's attention is computed from what `load` reads, dense layers by
//! their full-rank conversion; where all layers can be read whole, the model's logits are held too.
#![cfg(all(feature = "load", feature = "convert"))]

mod attention;
mod damage;
mod dense;
mod expected;
mod model;
mod refusals;
mod saved;

use std::path::PathBuf;

use latent_attention::convert::{Basis, ConvertOptions, RopeChoice, convert};
use latent_attention::load::{Attention, Checkpoint, ModelConfig, open};
use latent_attention::rope::RopeTables;

use self::attention::Gated;
use self::expected::Expected;

/// Of the largest value. What is left is f32's rounding of weights, cosines and sines.
const TOLERANCE: f64 = 1e-4;

/// Of the largest value, through a cache of bf16 latents and keys: their rounding, through sharp softmaxes.
const CACHED_TOLERANCE: f64 = 0.02;

/// One sequence of vectors.
type Tokens = Vec<Vec<f64>>;

fn folder(family: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/oracle").join(family)
}

fn open_family(family: &str) -> (Checkpoint, Expected) {
    let folder = folder(family);
    (open(&folder).unwrap(), Expected::read(&folder.join("expected.safetensors")))
}

/// A layer in latent terms, dense ones converted at full rank with all their rotations.
fn latent(checkpoint: &Checkpoint, layer: usize) -> Gated {
    let attention = match checkpoint.attention(layer).unwrap() {
        Attention::Latent(latent) => latent,
        Attention::Dense(dense) => {
            let options = ConvertOptions::new(dense.head_dim, dense.kv_heads * dense.head_dim)
                .with_rope(RopeChoice::High)
                .with_basis(Basis::plain());
            convert(&dense, &options, None).unwrap()
        }
    };
    let gate = checkpoint.output_gate(layer).unwrap();
    assert!(gate.is_none() || checkpoint.config().gated_output);
    Gated { attention, gate }
}

fn tables(config: &ModelConfig, layer: usize, positions: &[usize]) -> RopeTables {
    RopeTables::from_frequencies(&config.frequencies(layer), positions.iter().max().unwrap() + 1)
}

/// The largest difference, of the largest expected value.
fn error(got: &Tokens, expected: &Tokens) -> f64 {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().flatten().fold(0.0f64, |largest, x| largest.max(x.abs()));
    let pairs = got.iter().zip(expected).flat_map(|(got, expected)| {
        assert_eq!(got.len(), expected.len());
        got.iter().zip(expected)
    });
    pairs.fold(0.0f64, |most, (got, expected)| most.max((got - expected).abs())) / largest
}

/// The largest error of the attention over all layers and runs.
fn attention_error(checkpoint: &Checkpoint, expected: &Expected) -> f64 {
    let layers = (0..checkpoint.config().layers).filter(|&layer| expected.has_layer(layer));
    let errors = layers.flat_map(|layer| {
        let weights = latent(checkpoint, layer);
        expected::RUNS.map(|run| {
            let positions = expected.positions(run);
            let (input, output) = expected.layer(run, layer);
            let tables = tables(checkpoint.config(), layer, &positions);
            error(&attention::direct(&weights, checkpoint.config(), &tables, &input, &positions), &output)
        })
    });
    errors.fold(0.0, f64::max)
}

#[track_caller]
fn hold(family: &str, what: &str, error: f64, tolerance: f64) {
    println!("{family:18} {what:26} {error:.1e}");
    // Written so that a NaN fails.
    assert!(error <= tolerance, "{family} {what}: {error:e}, at most {tolerance:e}");
}

/// Holds every layer whose attention transformers recorded; returns their numbers.
fn check_attention(family: &str) -> Vec<usize> {
    let (checkpoint, expected) = open_family(family);
    let config = checkpoint.config();
    let layers: Vec<_> = (0..config.layers).filter(|&layer| expected.has_layer(layer)).collect();
    assert!(!layers.is_empty());
    for &layer in &layers {
        let weights = latent(&checkpoint, layer);
        for run in expected::RUNS {
            let positions = expected.positions(run);
            let (input, output) = expected.layer(run, layer);
            let tables = tables(config, layer, &positions);
            let got = attention::direct(&weights, config, &tables, &input, &positions);
            hold(family, &format!("{run} layer {layer}"), error(&got, &output), TOLERANCE);
            let got = attention::cached(&weights, config, &tables, &input, &positions);
            hold(family, &format!("{run} layer {layer} cached"), error(&got, &output), CACHED_TOLERANCE);
        }
    }
    layers
}

/// Holds the attention of all layers and the logits.
fn check_model(family: &str) {
    let layers = check_attention(family);
    let (checkpoint, expected) = open_family(family);
    assert_eq!(layers.len(), checkpoint.config().layers);
    for run in expected::RUNS {
        let logits = model::logits(&checkpoint, &expected.tokens(run), &expected.positions(run));
        hold(family, &format!("{run} logits"), error(&logits, &expected.logits(run)), TOLERANCE);
    }
}

macro_rules! families {
    ($check:ident: $($family:ident),*) => {
        $(#[test]
        fn $family() {
            $check(stringify!($family));
        })*
    };
}

// All layers can be read whole.
families!(check_model: mha2mla_none, mha2mla_none_of_mha, mha2mla_only_key, mha2mla_only_value, mha2mla_gqa);
families!(check_model: llama, llama_yarn, llama_longrope, qwen2, qwen2_yarn, qwen2_dynamic, qwen3, qwen3_yarn, mistral, deepseek_v2, deepseek_v3, ministral, phi3, phi3_longrope, minicpm3_longrope, granite, smollm3, youtu, minicpm3, mistral4, deepseek_v32, glm_moe_dsa, deepseek_v3_yarn, axk1, glm4_moe_lite, sarvam_mla, deepseek_v2_groups, deepseek_v3_groups, mistral4_groups, deepseek_v3_fp8, deepseek_v3_ue8m0);
// Some layers cannot be read whole, or are no attention.
families!(check_attention_alone: qwen3_moe, glm4, glm4_yarn, gemma, gemma2, longcat_flash, kimi_linear, bailing_hybrid, axk2);

fn check_attention_alone(family: &str) {
    check_attention(family);
}
