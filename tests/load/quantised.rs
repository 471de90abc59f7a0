//! Quantised weights in directories: FP8 in blocks is read as the numbers that it stands for, all else refused by name.

use latent_attention::load::{Checkpoint, open, save_mha2mla};
use safetensors::Dtype;
use serde_json::{Value, json};

use super::deepseek;
use super::fixture::*;
use super::save::converted;

/// Rows and columns of a block: neither divides the matrices' sizes.
const BLOCK: [usize; 2] = [6, 20];

fn fp8(changes: Value) -> Value {
    with(
        json!({"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": BLOCK}),
        changes,
    )
}

fn quantised(config: Value, changes: Value) -> Value {
    with(config, json!({"quantization_config": fp8(changes)}))
}

/// The number of an e4m3 code, by the format's definition.
fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let magnitude =
        if exponent == 0 { mantissa / 8.0 * 2f32.powi(-6) } else { (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7) };
    if code & 128 == 0 { magnitude } else { -magnitude }
}

/// Codes of finite numbers, different for each seed.
fn codes(seed: &str, len: usize) -> Vec<u8> {
    let code = |x: f32| (((x * 64.0) as i32 + 128) as u8).clamp(0, 0xfe);
    numbers(seed, len).into_iter().map(code).map(|code| if code == 0x7f { 0x7e } else { code }).collect()
}

/// How the factors of blocks are stored.
#[derive(Clone, Copy, PartialEq)]
enum Factors {
    F32,
    Bf16,
    Ue8m0,
}

/// Puts a matrix of codes and its factors, and what they stand for into `plain`.
fn put(
    codes_of: &mut Tensors,
    plain: &mut Tensors,
    name: &str,
    shape: [usize; 2],
    block: [usize; 2],
    factors: Factors,
) {
    let [rows, cols] = shape;
    let grid = [rows.div_ceil(block[0]), cols.div_ceil(block[1])];
    let (codes, exponents) = (codes(name, rows * cols), codes(&format!("{name} factors"), grid[0] * grid[1]));
    // Powers of two from 1/16 to 8, for all three types.
    let exponents: Vec<u8> = exponents.into_iter().map(|code| 123 + code % 8).collect();
    let scales: Vec<f32> = exponents.iter().map(|&e| 2f32.powi(i32::from(e) - 127)).collect();
    let (dtype, bytes) = match factors {
        Factors::F32 => (Dtype::F32, scales.iter().flat_map(|x| (x * 0.75).to_le_bytes()).collect()),
        Factors::Bf16 => (Dtype::BF16, scales.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect()),
        Factors::Ue8m0 => (Dtype::F8_E8M0, exponents),
    };
    let more = if factors == Factors::F32 { 0.75 } else { 1.0 };
    let number = |i: usize| {
        let (row, col) = (i / cols, i % cols);
        e4m3(codes[i]) * (scales[row / block[0] * grid[1] + col / block[1]] * more)
    };
    plain.put(name, &shape, &(0..rows * cols).map(number).collect::<Vec<_>>());
    codes_of.put_bytes(name, Dtype::F8_E4M3, &shape, codes);
    codes_of.put_bytes(&format!("{name}_scale_inv"), dtype, &grid, bytes);
}

/// The model with all matrices of its layers in FP8, and what they stand for.
fn quantise(tensors: &Tensors, factors: Factors) -> (Tensors, Tensors) {
    let (mut codes, mut plain) = (tensors.clone(), tensors.clone());
    for (name, (_, shape, _)) in &tensors.0 {
        if let (true, &[rows, cols]) = (name.contains(".layers."), &shape[..]) {
            put(&mut codes, &mut plain, name, [rows, cols], BLOCK, factors);
        }
    }
    (codes, plain)
}

fn assert_same(read: &Checkpoint, expected: &Checkpoint) {
    assert_eq!(read.config(), expected.config());
    for layer in 0..LAYERS {
        assert_eq!(read.attention(layer).expect("read"), expected.attention(layer).expect("read"));
        assert_eq!(read.block(layer).expect("read"), expected.block(layer).expect("read"));
    }
    assert_eq!(read.embedding().expect("read"), expected.embedding().expect("read"));
}

#[test]
fn fp8_in_blocks_is_read_as_what_it_stands_for_whatever_type_its_factors_have() {
    let config = deepseek::config(json!(deepseek::QUERY_RANK));
    for (factors, changes) in [
        (Factors::F32, json!({})),
        (
            Factors::F32,
            json!({"fmt": null, "activation_scheme": null, "scale_fmt": "float", "ignored_layers": ["lm_head"]}),
        ),
        (Factors::Bf16, json!({"modules_to_not_convert": ["lm_head"], "expert_dtype": "fp8"})),
        (Factors::Ue8m0, json!({"scale_fmt": "ue8m0", "dequantize": false})),
    ] {
        let (codes, plain) = quantise(&deepseek::model(true, true), factors);
        let (_first, read) = reopen(&quantised(config.clone(), changes), &codes);
        let (_second, expected) = reopen(&config, &plain);
        assert_same(&read.expect("a valid model"), &expected.expect("a valid model"));
    }
}

#[test]
fn blocks_of_128_reach_over_edges_that_are_no_multiple_of_128() {
    for shape in [[128, 128], [576, 260], [1, 129], [130, 1], [100, 100]] {
        let (mut codes, mut plain) = (llama(), Tensors::default());
        put(&mut codes, &mut plain, "other.weight", shape, [128, 128], Factors::F32);
        let (_dir, read) = reopen(&quantised(llama_config(), json!({"weight_block_size": [128, 128]})), &codes);
        let numbers = read.expect("a valid model").source().read("other.weight", &shape).expect("read");
        assert_eq!(numbers, plain.floats("other.weight"), "{shape:?}");
    }
}

#[test]
fn a_converted_fp8_model_is_saved_as_one_that_is_not_quantised() {
    let (codes, _) = quantise(&llama(), Factors::F32);
    let (_dir, original) = reopen(&quantised(llama_config(), json!({})), &codes);
    let original = original.expect("a valid model");
    let layers: Vec<_> = (0..LAYERS).map(|layer| converted(layer, 4, 6, &[0, 2, 1, 3], false)).collect();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("saved");
    save_mha2mla(&path, &original, &original, &layers).expect("saved");
    let saved = open(&path).expect("a valid model");
    for layer in 0..LAYERS {
        assert_eq!(saved.block(layer).expect("read"), original.block(layer).expect("read"));
    }
}

#[track_caller]
fn refused(config: &Value, tensors: &Tensors, parts: &[&str]) {
    let (_dir, checkpoint) = reopen(config, tensors);
    let error = checkpoint.expect_err(&format!("{parts:?}")).to_string();
    assert!(parts.iter().all(|part| error.contains(part)) && !error.contains('\n'), "{error}");
}

#[test]
fn other_kinds_of_quantised_weights_are_refused_by_name() {
    let (codes, _) = quantise(&llama(), Factors::F32);
    for method in ["gptq", "awq", "bitsandbytes", "compressed-tensors", "mxfp4", "fbgemm_fp8"] {
        let config = with(llama_config(), json!({"quantization_config": {"quant_method": method}}));
        refused(&config, &codes, &[&format!("quantization_config (quant_method `{method}`)"), "fp8"]);
    }
    for (change, part) in [
        (json!({"fmt": "e5m2"}), "`fmt` `e5m2`"),
        (json!({"activation_scheme": "static"}), "`activation_scheme` `static`"),
        (json!({"expert_dtype": "fp4"}), "`expert_dtype` `fp4`"),
        (json!({"weight_block_size": null}), "`weight_block_size`"),
        (json!({"weight_block_size": [128]}), "two positive sizes, got [128]"),
        (json!({"weight_block_size": [128, 0]}), "two positive sizes, got [128,0]"),
        (json!({"weight_block_size": [128, 1u64 << 63]}), "two positive sizes"),
        (json!({"weight_block_size": 128}), "`weight_block_size` must be an array"),
        (json!({"kv_cache_scheme": {"num_bits": 8}}), "`kv_cache_scheme`"),
        (json!({"fmt": 8}), "`fmt` must be a string"),
    ] {
        refused(&quantised(llama_config(), change), &codes, &[part]);
    }
    refused(&with(llama_config(), json!({"quantization_config": "fp8"})), &codes, &["quant_method `unknown`"]);
}

#[test]
fn weights_of_codes_that_no_configuration_explains_are_refused_by_name_at_open() {
    let name = attention(1, "k_proj.weight");
    let shape = [KV_HEADS * HEAD_DIM, HIDDEN];
    for dtype in [Dtype::I8, Dtype::U8, Dtype::F8_E4M3, Dtype::F8_E5M2] {
        let mut tensors = llama();
        tensors.put_bytes(&name, dtype, &shape, vec![1; shape[0] * shape[1]]);
        refused(&llama_config(), &tensors, &[&name, &dtype.to_string(), "nothing of quantisation"]);
        if dtype != Dtype::F8_E4M3 {
            refused(&quantised(llama_config(), json!({})), &tensors, &[&name, &dtype.to_string(), "F8_E4M3"]);
        }
    }
    // GPTQ's packed codes, beside no weight.
    let mut tensors = llama();
    tensors.put_bytes(&attention(0, "q_proj.qweight"), Dtype::I32, &[4, 32], vec![1; 512]);
    refused(&llama_config(), &tensors, &["q_proj.qweight", "I32"]);
    let mut tensors = llama();
    tensors.put_bytes("lm_head.weight", Dtype::I8, &[VOCAB, HIDDEN], vec![1; VOCAB * HIDDEN]);
    refused(&llama_config(), &tensors, &["lm_head.weight", "I8"]);
}

#[test]
fn factors_that_are_missing_or_do_not_fit_are_refused_by_name() {
    let (codes, _) = quantise(&llama(), Factors::F32);
    let name = attention(1, "v_proj.weight_scale_inv");
    let config = quantised(llama_config(), json!({}));
    let message = |change: &dyn Fn(&mut Tensors)| {
        let mut changed = codes.clone();
        change(&mut changed);
        let (_dir, checkpoint) = reopen(&config, &changed);
        let checkpoint = checkpoint.expect("headers are fine");
        checkpoint.attention(0).expect("a layer that was left alone");
        checkpoint.attention(1).expect_err("a damaged layer").to_string()
    };
    let grid = [3, 2];
    let floats = |x: f32| [1.0, 1.0, 1.0, x, 1.0, 1.0].map(f32::to_le_bytes).concat();
    for (error, parts) in [
        (message(&|t| drop(t.0.remove(&name))), ["[3, 2], the factors of F8_E4M3", "no such tensor"]),
        (message(&|t| t.put(&name, &[2, 3], &[1.0; 6])), ["[3, 2]", "[2, 3] F32"]),
        (message(&|t| t.put_bytes(&name, Dtype::F32, &grid, floats(f32::NAN))), ["finite", "NaN for block [1, 1]"]),
        (
            message(&|t| t.put_bytes(&name, Dtype::F32, &grid, floats(f32::INFINITY))),
            ["finite", "inf for block [1, 1]"],
        ),
        (
            message(&|t| t.put_bytes(&name, Dtype::F8_E8M0, &grid, vec![127, 127, 127, 127, 127, 255])),
            ["finite", "NaN for block [2, 1]"],
        ),
    ] {
        assert!(error.contains(&name) && parts.iter().all(|part| error.contains(part)), "{error}");
    }
    // Factors of a weight that is not quantised are a tensor that nothing reads.
    let error = message(&|t| drop(t.random(&attention(1, "v_proj.weight"), &[KV_HEADS * HEAD_DIM, HIDDEN])));
    assert!(error.contains(&name) && error.contains("makes no use of it"), "{error}");
    let error = message(&|t| {
        drop(t.0.remove(&name));
        t.put_bytes(&attention(1, "q_proj.bias"), Dtype::F8_E4M3, &[HEADS * HEAD_DIM], vec![1; HEADS * HEAD_DIM]);
    });
    assert!(error.contains("q_proj.bias") && error.contains("a matrix"), "{error}");
}
