//! GGUF files, written with candle's writer.

use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::gguf_file::{Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use latent_attention::load::{BlockFormat, open};
use latent_attention::rope::{Pairing, RopeTables, rotate_head};

use super::fixture::*;
use super::save::{check_round_trip, converted};
use super::scores::{dot, product};

/// A GGUF file before it is written.
#[derive(Clone)]
pub struct Gguf {
    pub metadata: Vec<(String, Value)>,
    pub tensors: Vec<(String, Arc<QTensor>)>,
}

pub fn quantized(shape: &[usize], data: &[f32], dtype: GgmlDType) -> Arc<QTensor> {
    let tensor = Tensor::from_slice(data, shape, &Device::Cpu).expect("a tensor");
    Arc::new(QTensor::quantize(&tensor, dtype).expect("quantised"))
}

/// llama.cpp's order of query and key rows: the halves of a head interleaved.
fn permuted(data: &[f32], cols: usize, heads: usize) -> Vec<f32> {
    let tensor = Tensor::from_slice(data, (heads, 2, HEAD_DIM / 2, cols), &Device::Cpu).expect("a tensor");
    let swapped = tensor.transpose(1, 2).and_then(|t| t.contiguous()).and_then(|t| t.flatten_all());
    swapped.and_then(|t| t.to_vec1()).expect("values")
}

impl Gguf {
    /// The model of `tensors` as llama.cpp's converter would write it.
    pub fn of(architecture: &str, tensors: &Tensors) -> Self {
        let u32s = [
            ("embedding_length", HIDDEN),
            ("feed_forward_length", INTERMEDIATE),
            ("block_count", LAYERS),
            ("attention.head_count", HEADS),
            ("attention.head_count_kv", KV_HEADS),
            ("rope.dimension_count", HEAD_DIM),
            ("context_length", 64),
        ];
        let key = |name: &str| format!("{architecture}.{name}");
        let mut metadata: Vec<_> = u32s.map(|(name, size)| (key(name), Value::U32(size as u32))).into();
        metadata.push((key("attention.layer_norm_rms_epsilon"), Value::F32(1e-5)));
        metadata.push((key("rope.freq_base"), Value::F32(10_000.0)));
        metadata.push(("general.architecture".into(), Value::String(architecture.into())));
        let strings = |strings: &[&str]| Value::Array(strings.iter().map(|s| Value::String((*s).into())).collect());
        for (name, value) in [
            ("model", Value::String("gpt2".into())),
            ("pre", Value::String("smollm".into())),
            ("tokens", strings(&["<s>", "a", "b", "ab"])),
            ("merges", strings(&["a b"])),
            ("token_type", Value::Array([3, 1, 1, 1].map(Value::I32).into())),
            ("bos_token_id", Value::U32(0)),
            ("eos_token_id", Value::U32(2)),
            ("add_bos_token", Value::Bool(false)),
        ] {
            metadata.push((format!("tokenizer.ggml.{name}"), value));
        }
        let mut own = Vec::new();
        for (name, (_, shape, _)) in &tensors.0 {
            let mut data = tensors.floats(name);
            let cols = if shape.len() == 2 { HIDDEN } else { 1 };
            if architecture == "llama" && name.contains("q_proj") {
                data = permuted(&data, cols, HEADS);
            } else if architecture == "llama" && name.contains("k_proj") {
                data = permuted(&data, cols, KV_HEADS);
            }
            own.push((gguf_name(name), quantized(shape, &data, GgmlDType::F32)));
        }
        Self { metadata, tensors: own }
    }

    pub fn set(&mut self, key: &str, value: Value) {
        self.metadata.retain(|(known, _)| known != key);
        self.metadata.push((key.into(), value));
    }

    /// llama.cpp's table of divisors of the rotation's frequencies.
    pub fn add_divisors(&mut self, divisors: &[f32]) {
        self.tensors.push(("rope_freqs.weight".into(), quantized(&[divisors.len()], divisors, GgmlDType::F32)));
    }

    pub fn write(&self, path: &Path) {
        let metadata: Vec<_> = self.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let tensors: Vec<_> = self.tensors.iter().map(|(name, tensor)| (name.as_str(), &**tensor)).collect();
        let mut file = std::fs::File::create(path).expect("a writable file");
        write(&mut file, &metadata, &tensors).expect("written");
    }
}

fn gguf_name(name: &str) -> String {
    let mut name = name.replace("model.layers.", "blk.");
    for (ours, theirs) in [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ] {
        name = name.replace(ours, theirs);
    }
    name
}

/// Writes a file to a new directory and returns both.
pub fn write_file(gguf: &Gguf) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("model.gguf");
    gguf.write(&path);
    (dir, path)
}

#[test]
fn a_gguf_file_and_a_directory_of_one_model_are_the_same_model() {
    let mut biased = Tensors::default();
    biased.add_frame(false);
    (0..LAYERS).for_each(|layer| biased.add_dense(layer, true));
    let mut normed = llama();
    for layer in 0..LAYERS {
        for name in ["q_norm.weight", "k_norm.weight"] {
            normed.random(&attention(layer, name), &[HEAD_DIM]);
        }
    }
    for (architecture, class, tensors, tied) in [
        ("llama", "LlamaForCausalLM", llama(), true),
        ("qwen2", "Qwen2ForCausalLM", biased.clone(), false),
        ("qwen3", "Qwen3ForCausalLM", normed, true),
    ] {
        let (_dir, path) = write_file(&Gguf::of(architecture, &tensors));
        let gguf = open(&path).expect("a valid file");
        let changes = serde_json::json!({"architectures": [class], "tie_word_embeddings": tied, "bos_token_id": 0,
            "eos_token_id": 2});
        let (_dir, directory) = reopen(&with(llama_config(), changes), &tensors);
        let directory = directory.expect("a valid model");
        assert_eq!(gguf.config(), directory.config());
        for layer in 0..LAYERS {
            assert_eq!(dense(&gguf, layer), dense(&directory, layer));
            assert_eq!(gguf.block(layer).expect("read"), directory.block(layer).expect("read"));
        }
        assert_eq!(gguf.embedding().expect("read"), directory.embedding().expect("read"));
        assert_eq!(gguf.final_norm().expect("read"), directory.final_norm().expect("read"));
        assert_eq!(gguf.lm_head().expect("read"), directory.lm_head().expect("read"));
    }
    // Biases of a Llama model are permuted like the rows they belong to.
    let (_dir, path) = write_file(&Gguf::of("llama", &biased));
    let read = dense(&open(&path).expect("a valid file"), 0);
    assert_eq!(read.query.bias, Some(biased.floats(&attention(0, "q_proj.bias"))));
    assert_eq!(read.key.bias, Some(biased.floats(&attention(0, "k_proj.bias"))));
}

#[test]
fn half_split_rotation_of_what_is_read_scores_as_interleaved_rotation_of_the_file() {
    let (_dir, path) = write_file(&Gguf::of("llama", &llama()));
    let checkpoint = open(&path).expect("a valid file");
    let read = dense(&checkpoint, 0);
    let raw = |part: &str, heads| permuted(&llama().floats(&attention(0, &format!("{part}.weight"))), HIDDEN, heads);
    let tables = RopeTables::from_frequencies(&checkpoint.config().inverse_frequencies, 20);
    let score = |query: &[f32], key: &[f32], pairing, head: usize| {
        let rotated = |weights: &[f32], head: usize, seed, position| {
            let mut part = product(weights, None, &numbers(seed, HIDDEN))[head * HEAD_DIM..][..HEAD_DIM].to_vec();
            rotate_head(&mut part, &[0, 1, 2, 3], pairing, &tables, position);
            part
        };
        dot(&rotated(query, head, "q", 17), &rotated(key, head / (HEADS / KV_HEADS), "k", 4))
    };
    for head in 0..HEADS {
        let ours = score(read.query.weight.data(), read.key.weight.data(), Pairing::Half, head);
        let theirs = score(&raw("q_proj", HEADS), &raw("k_proj", KV_HEADS), Pairing::Interleaved, head);
        assert!((ours - theirs).abs() < 1e-3 * theirs.abs().max(1.0), "{ours} {theirs}");
    }
}

#[test]
fn quantised_tensors_are_dequantised() {
    let mut gguf = Gguf::of("llama", &llama());
    let expected = llama().floats("model.layers.0.mlp.up_proj.weight");
    for dtype in [GgmlDType::Q8_0, GgmlDType::Q4_1, GgmlDType::F16, GgmlDType::BF16] {
        for (name, tensor) in &mut gguf.tensors {
            if name == "blk.0.ffn_up.weight" {
                *tensor = quantized(&[INTERMEDIATE, HIDDEN], &expected, dtype);
            }
        }
        let (_dir, path) = write_file(&gguf);
        let read = open(&path).expect("a valid file").block(0).expect("a block").up.weight;
        let worst = read.data().iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 0.2, "{dtype:?}: {worst}");
    }
}

/// The numbers of a block, by the formats' definition.
fn numbers_of(format: BlockFormat, block: &[u8]) -> Vec<f32> {
    let half = |at: usize| half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
    let nibbles = |codes: &[u8]| -> Vec<f32> {
        codes.iter().map(|code| code & 15).chain(codes.iter().map(|code| code >> 4)).map(f32::from).collect()
    };
    match format {
        BlockFormat::Q4_0 => nibbles(&block[2..]).iter().map(|code| (code - 8.0) * half(0)).collect(),
        BlockFormat::Q4_1 => nibbles(&block[4..]).iter().map(|code| code * half(0) + half(2)).collect(),
        BlockFormat::Q8_0 => block[2..].iter().map(|&code| f32::from(code.cast_signed()) * half(0)).collect(),
        other => panic!("{other:?} has no definition here"),
    }
}

#[test]
fn blocks_are_what_the_numbers_were_dequantised_of_in_the_same_order() {
    let name = "model.layers.0.self_attn.q_proj.weight";
    let mut gguf = Gguf::of("llama", &llama());
    let data = permuted(&llama().floats(name), HIDDEN, HEADS);
    for (dtype, format) in [
        (GgmlDType::Q4_0, Some(BlockFormat::Q4_0)),
        (GgmlDType::Q4_1, Some(BlockFormat::Q4_1)),
        (GgmlDType::Q8_0, Some(BlockFormat::Q8_0)),
        (GgmlDType::Q5_0, None),
        (GgmlDType::F32, None),
    ] {
        for (own, tensor) in &mut gguf.tensors {
            if own == "blk.0.attn_q.weight" {
                *tensor = quantized(&[HEADS * HEAD_DIM, HIDDEN], &data, dtype);
            }
        }
        let (_dir, path) = write_file(&gguf);
        let checkpoint = open(&path).expect("a valid file");
        let shape = [HEADS * HEAD_DIM, HIDDEN];
        let blocks = checkpoint.source().read_blocks(name, shape[0], shape[1]).expect("read");
        assert_eq!(blocks.as_ref().map(|blocks| blocks.format), format);
        let Some(blocks) = blocks else { continue };
        let numbers: Vec<f32> =
            blocks.bytes.chunks(blocks.format.bytes()).flat_map(|block| numbers_of(blocks.format, block)).collect();
        assert_eq!(numbers, checkpoint.source().read(name, &shape).expect("read"));
        let message = checkpoint.source().read_blocks(name, shape[1], shape[0] + 1).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("[32, 33]"), "{message}");
    }
}

#[test]
fn the_tokenizer_is_plain_data() {
    let (_dir, path) = write_file(&Gguf::of("llama", &llama()));
    let checkpoint = open(&path).expect("a valid file");
    let tokenizer = checkpoint.tokenizer().expect("a tokenizer");
    assert_eq!((tokenizer.model.as_str(), tokenizer.pre_tokenizer.as_deref()), ("gpt2", Some("smollm")));
    assert_eq!(tokenizer.tokens, ["<s>", "a", "b", "ab"]);
    assert_eq!(tokenizer.merges, ["a b"]);
    assert_eq!(tokenizer.token_types, [3, 1, 1, 1]);
    assert_eq!((tokenizer.bos, tokenizer.eos, tokenizer.add_bos), (Some(0), Some(2), Some(false)));
}

/// A Llama model with a table of divisors, and with these keys besides.
fn with_divisors(keys: &[(&str, Value)]) -> Gguf {
    let mut gguf = Gguf::of("llama", &llama());
    gguf.add_divisors(&[1.0, 1.0, 3.0, 8.0]);
    keys.iter().for_each(|(key, value)| gguf.set(key, value.clone()));
    gguf
}

#[test]
fn a_table_of_frequency_divisors_survives_saving() {
    let linear = Value::String("linear".into());
    for (keys, factor) in
        [(&[][..], 1.0), (&[("llama.rope.scaling.type", linear), ("llama.rope.scaling.factor", Value::F32(4.0))], 4.0)]
    {
        let (_dir, path) = write_file(&with_divisors(keys));
        let original = open(&path).expect("a valid file");
        let expected = [1.0, 0.1, 0.01 / 3.0, 0.001 / 8.0].map(|frequency: f32| frequency / factor);
        assert_eq!(original.config().inverse_frequencies, expected);
        let layers: Vec<_> = (0..LAYERS).map(|layer| converted(layer, 4, 6, &[0, 2, 1, 3], false)).collect();
        check_round_trip(&original, &layers);
    }
}

#[test]
fn linear_scaling_is_read_under_all_its_names_with_and_without_a_table_of_divisors() {
    let text = |kind: &str| Value::String(kind.into());
    for (keys, factor) in [
        (vec![("scaling.type", text("linear")), ("scaling.factor", Value::F32(2.0))], 2.0),
        (vec![("scaling.factor", Value::F32(2.0))], 2.0),
        (vec![("scale_linear", Value::F32(2.0))], 2.0),
        (vec![("scaling.type", text("linear")), ("scale_linear", Value::F32(2.0))], 2.0),
        (vec![("scaling.factor", Value::F32(2.0)), ("scale_linear", Value::F32(3.0))], 2.0),
        (vec![("scaling.type", text("none")), ("scaling.factor", Value::F32(2.0))], 1.0),
        (vec![("scaling.attn_factor", Value::F32(1.0))], 1.0),
    ] {
        let keys: Vec<_> = keys.into_iter().map(|(key, value)| (format!("llama.rope.{key}"), value)).collect();
        let mut plain = Gguf::of("llama", &llama());
        keys.iter().for_each(|(key, value)| plain.set(key, value.clone()));
        let mut divided = plain.clone();
        divided.add_divisors(&[1.0, 1.0, 3.0, 8.0]);
        for (gguf, divisors) in [(plain, [1.0; 4]), (divided, [1.0, 1.0, 3.0, 8.0])] {
            let (_dir, path) = write_file(&gguf);
            let read = open(&path).expect("a valid file").config().inverse_frequencies.clone();
            let frequencies = [1.0, 0.1, 0.01, 0.001].into_iter().zip(divisors);
            let expected: Vec<f32> = frequencies.map(|(frequency, divisor)| frequency / divisor / factor).collect();
            assert_eq!(read, expected, "{keys:?}");
        }
    }
}
