//! Small checkpoints written by hand.

use std::collections::BTreeMap;
use std::path::Path;

use latent_attention::Result;
use latent_attention::load::{Attention, Checkpoint, open};
use latent_attention::weights::{DenseAttention, LatentAttention};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

pub const HIDDEN: usize = 32;
pub const INTERMEDIATE: usize = 64;
pub const HEADS: usize = 4;
pub const KV_HEADS: usize = 2;
pub const HEAD_DIM: usize = 8;
pub const LAYERS: usize = 2;
pub const VOCAB: usize = 20;

/// Numbers that f16 and bf16 hold exactly, different for each seed.
pub fn numbers(seed: &str, len: usize) -> Vec<f32> {
    let mut state = seed
        .bytes()
        .fold(0x9e37_79b9_7f4a_7c15_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 56) as i64 - 128) as f32 / 64.0
    };
    (0..len).map(|_| next()).collect()
}

/// The tensors of a safetensors file.
#[derive(Clone, Default)]
pub struct Tensors(pub BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl Tensors {
    pub fn put(&mut self, name: &str, shape: &[usize], data: &[f32]) {
        assert_eq!(shape.iter().product::<usize>(), data.len());
        let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.0.insert(name.into(), (Dtype::F32, shape.to_vec(), bytes));
    }

    pub fn put_bytes(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) {
        self.0.insert(name.into(), (dtype, shape.to_vec(), bytes));
    }

    /// Adds a tensor of numbers and returns them.
    pub fn random(&mut self, name: &str, shape: &[usize]) -> Vec<f32> {
        let data = numbers(name, shape.iter().product());
        self.put(name, shape, &data);
        data
    }

    /// The numbers of an f32 tensor.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        let (_, _, bytes) = &self.0[name];
        bytes.as_chunks().0.iter().map(|&raw| f32::from_le_bytes(raw)).collect()
    }

    /// Everything a Llama-like model has besides attention.
    pub fn add_frame(&mut self, tied: bool) {
        self.random("model.embed_tokens.weight", &[VOCAB, HIDDEN]);
        self.random("model.norm.weight", &[HIDDEN]);
        if !tied {
            self.random("lm_head.weight", &[VOCAB, HIDDEN]);
        }
        for layer in 0..LAYERS {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            self.random(&name("input_layernorm"), &[HIDDEN]);
            self.random(&name("post_attention_layernorm"), &[HIDDEN]);
            self.random(&name("mlp.gate_proj"), &[INTERMEDIATE, HIDDEN]);
            self.random(&name("mlp.up_proj"), &[INTERMEDIATE, HIDDEN]);
            self.random(&name("mlp.down_proj"), &[HIDDEN, INTERMEDIATE]);
        }
    }

    pub fn add_dense(&mut self, layer: usize, bias: bool) {
        let (query, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
        for (part, rows) in [("q_proj", query), ("k_proj", kv), ("v_proj", kv)] {
            self.random(&attention(layer, &format!("{part}.weight")), &[rows, HIDDEN]);
            if bias {
                self.random(&attention(layer, &format!("{part}.bias")), &[rows]);
            }
        }
        self.random(&attention(layer, "o_proj.weight"), &[HIDDEN, query]);
    }

    pub fn write(&self, path: &Path) {
        let views = self.0.iter().map(|(name, (dtype, shape, bytes))| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).expect("a consistent tensor"))
        });
        let file = safetensors::serialize(views, None).expect("serialisable");
        std::fs::write(path, file).expect("a writable file");
    }
}

/// The name of a tensor of a layer's attention.
pub fn attention(layer: usize, part: &str) -> String {
    format!("model.layers.{layer}.self_attn.{part}")
}

pub fn llama_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM,
        "vocab_size": VOCAB, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "rope_scaling": null, "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": [2, 3],
        "torch_dtype": "bfloat16"
    })
}

/// `config` with some keys replaced.
pub fn with(mut config: Value, changes: Value) -> Value {
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config
}

/// A dense Llama model, tied.
pub fn llama() -> Tensors {
    let mut tensors = Tensors::default();
    tensors.add_frame(true);
    (0..LAYERS).for_each(|layer| tensors.add_dense(layer, false));
    tensors
}

pub fn write_model(dir: &Path, config: &Value, tensors: &Tensors) {
    std::fs::write(dir.join("config.json"), config.to_string()).expect("a writable file");
    tensors.write(&dir.join("model.safetensors"));
}

/// Writes a model to a new directory and opens it.
pub fn reopen(config: &Value, tensors: &Tensors) -> (tempfile::TempDir, Result<Checkpoint>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    write_model(dir.path(), config, tensors);
    let checkpoint = open(dir.path());
    (dir, checkpoint)
}

pub fn dense(checkpoint: &Checkpoint, layer: usize) -> DenseAttention {
    match checkpoint.attention(layer).expect("a readable layer") {
        Attention::Dense(attention) => attention,
        Attention::Latent(_) => panic!("layer {layer} should be dense"),
    }
}

pub fn latent(checkpoint: &Checkpoint, layer: usize) -> LatentAttention {
    match checkpoint.attention(layer).expect("a readable layer") {
        Attention::Latent(attention) => attention,
        Attention::Dense(_) => panic!("layer {layer} should be latent"),
    }
}

/// Reads every part of a model.
pub fn read_everything(path: &Path) -> Result<()> {
    let checkpoint = open(path)?;
    checkpoint.embedding()?;
    checkpoint.final_norm()?;
    checkpoint.lm_head()?;
    for layer in 0..checkpoint.config().layers {
        checkpoint.attention(layer)?;
        checkpoint.output_gate(layer)?;
        match checkpoint.mixture(layer)? {
            None => drop(checkpoint.block(layer)?),
            Some(mixture) => {
                mixture.router.choose(&vec![0.5; checkpoint.config().hidden])?;
                checkpoint.expert(layer, 0)?;
            }
        }
    }
    Ok(())
}

/// The rows of a row-major matrix.
pub fn rows(data: &[f32], cols: usize, rows: impl IntoIterator<Item = usize>) -> Vec<f32> {
    rows.into_iter().flat_map(|row| data[row * cols..][..cols].to_vec()).collect()
}
