//! A model of random numbers on disk, small enough to convert and train within a second.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

#[path = "../../../lm/src/noise.rs"]
mod noise;

pub use noise::noise;

const HIDDEN: usize = 24;
const INNER: usize = 32;
const HEADS: usize = 4;
const GROUPS: usize = 2;
const DIM: usize = 8;
const LAYERS: usize = 2;
/// Size of the vocabulary.
pub const TOKENS: usize = 60;

/// Writes a Llama model of random numbers with the given vocabulary of [`TOKENS`] tokens, of which the first begins texts and
/// the second stands for what is not in it, and a tokenizer that splits by `pre_tokenizer`.
pub fn write_model(dir: &Path, vocabulary: &[String], pre_tokenizer: &Value) {
    assert_eq!(vocabulary.len(), TOKENS);
    fs::create_dir_all(dir).unwrap();
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![TOKENS, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let matrices = [
            ("self_attn.q_proj", HEADS * DIM, HIDDEN),
            ("self_attn.k_proj", GROUPS * DIM, HIDDEN),
            ("self_attn.v_proj", GROUPS * DIM, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HEADS * DIM),
            ("mlp.gate_proj", INNER, HIDDEN),
            ("mlp.up_proj", INNER, HIDDEN),
            ("mlp.down_proj", HIDDEN, INNER),
        ];
        let named = |name: &str| format!("model.layers.{layer}.{name}.weight");
        shapes.extend(matrices.map(|(name, rows, cols)| (named(name), vec![rows, cols])));
        shapes.extend(["input_layernorm", "post_attention_layernorm"].map(|name| (named(name), vec![HIDDEN])));
    }
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .enumerate()
        .map(|(seed, (name, shape))| {
            let (mut next, is_norm) = (noise(seed as u32), shape.len() == 1);
            let mut number = || if is_norm { 1.0 + 0.1 * next() } else { 0.4 * next() };
            let count = shape.iter().product();
            let bytes = (0..count).flat_map(|_| number().to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let tensors: HashMap<_, _> = bytes
        .iter()
        .map(|(name, shape, bytes)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()))
        .collect();
    safetensors::serialize_to_file(&tensors, None, &dir.join("model.safetensors")).unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "head_dim": DIM,
        "vocab_size": TOKENS, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
        "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 1,
    });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let ids: serde_json::Map<_, _> = vocabulary.iter().cloned().zip((0..TOKENS).map(|id| json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": vocabulary[1]},
    });
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}
