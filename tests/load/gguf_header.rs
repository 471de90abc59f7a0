//! Headers of GGUF files: what is refused, and what is heeded.

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use latent_attention::load::open;

use super::backtrace::assert_passes_with_backtraces;
use super::fixture::*;
use super::gguf::{Gguf, quantized, write_file};

#[test]
fn files_that_cannot_be_right_are_refused_by_key_or_tensor() {
    let message = |change: &dyn Fn(&mut Gguf)| {
        let mut gguf = Gguf::of("llama", &llama());
        change(&mut gguf);
        let (_dir, path) = write_file(&gguf);
        read_everything(&path).expect_err("refused").to_string()
    };
    let set = |key: &'static str, value: Value| message(&move |gguf: &mut Gguf| gguf.set(key, value.clone()));
    for (error, part) in [
        (set("general.architecture", Value::String("mamba".into())), "llama, qwen2, deepseek2 and qwen3"),
        (set("general.alignment", Value::U32(0)), "alignment"),
        (set("general.alignment", Value::U8(0)), "alignment"),
        (
            set("general.alignment", Value::U64(32)),
            "`general.alignment` must be a u32, as the format has it, got U64(32)",
        ),
        (set("general.alignment", Value::I64(64)), "general.alignment"),
        (set("general.alignment", Value::U8(32)), "general.alignment"),
        (set("general.alignment", Value::String("32".into())), "general.alignment"),
        (set("general.alignment", Value::U32(12)), "multiple of 8, got 12"),
        (set("general.alignment", Value::U32(4096)), "multiple of 4096 bytes"),
        (set("llama.attention.head_count_kv", Value::U32(0)), "num_key_value_heads"),
        (set("llama.attention.head_count", Value::U32(0)), "llama.attention.head_count"),
        (set("llama.attention.head_count", Value::String("4".into())), "llama.attention.head_count"),
        (set("llama.expert_count", Value::U32(8)), "experts"),
        (set("llama.rope.dimension_count", Value::U32(4)), "llama.rope.dimension_count"),
        (set("llama.rope.scaling.type", Value::String("yarn".into())), "yarn"),
        (set("llama.rope.scaling.attn_factor", Value::F32(1.2)), "`llama.rope.scaling.attn_factor` = 1.2"),
        (set("llama.rope.scaling.attn_factor", Value::U32(1)), "llama.rope.scaling.attn_factor"),
        (set("llama.rope.scaling.factor", Value::U32(4)), "llama.rope.scaling.factor"),
        (set("llama.rope.scale_linear", Value::String("4".into())), "llama.rope.scale_linear"),
        (set("llama.rope.freq_base", Value::U32(10_000)), "llama.rope.freq_base"),
        (set("llama.rope.freq_base", Value::F32(f32::NAN)), "llama.rope.freq_base"),
        (set("llama.attention.layer_norm_rms_epsilon", Value::U8(0)), "llama.attention.layer_norm_rms_epsilon"),
        (set("llama.attention.causal", Value::Bool(false)), "llama.attention.causal"),
        (set("split.count", Value::U16(2)), "split.count"),
        (set("tokenizer.ggml.tokens", Value::U32(1)), "tokenizer.ggml.tokens"),
        (set("tokenizer.ggml.bos_token_id", Value::F32(1.0)), "tokenizer.ggml.bos_token_id"),
        (set("tokenizer.ggml.add_bos_token", Value::U8(1)), "tokenizer.ggml.add_bos_token"),
        (message(&|gguf| gguf.metadata.retain(|(key, _)| key != "llama.block_count")), "llama.block_count"),
        (message(&|gguf| gguf.tensors.retain(|(name, _)| name != "token_embd.weight")), "embed_tokens"),
        (message(&|gguf| gguf.tensors.retain(|(name, _)| name != "blk.1.attn_v.weight")), "layers.1.self_attn.v_proj"),
    ] {
        assert!(error.contains(part) && error.lines().count() == 1, "{part}: {error}");
    }
    let error = message(&|gguf| {
        let tensor = gguf.tensors.iter_mut().find(|(name, _)| name == "blk.0.attn_k.weight").expect("a key");
        tensor.1 = quantized(&[15, HIDDEN], &numbers("k", 15 * HIDDEN), GgmlDType::F32);
    });
    assert!(error.contains("k_proj.weight") && error.contains("[16, 32]") && error.contains("[15, 32]"), "{error}");
}

#[test]
fn tensors_that_nobody_reads_are_refused_by_name() {
    let refused = |architecture: &str, name: &str| {
        let mut gguf = Gguf::of(architecture, &llama());
        gguf.tensors.push((name.into(), quantized(&[4], &[1.0; 4], GgmlDType::F32)));
        let (_dir, path) = write_file(&gguf);
        let error = open(&path).expect_err(name).to_string();
        let expected = format!("none of this name in a `{architecture}` model of {LAYERS} layers");
        assert!(error.contains(&format!("`{name}`")) && error.contains(&expected), "{error}");
    };
    // Norms of a Qwen3, a layer too many, a second name of layer 0, and a table that llama.cpp has for Llama alone.
    refused("llama", "blk.0.attn_q_norm.weight");
    refused("llama", "blk.1.attn_q.scale");
    refused("llama", "blk.2.attn_q.weight");
    refused("llama", "blk.00.attn_q.weight");
    refused("llama", "output.bias");
    refused("qwen2", "rope_freqs.weight");
}

/// Such as are known by name are missed where their layer is read.
#[test]
fn a_norms_bias_is_refused_with_its_layer() {
    let mut gguf = Gguf::of("llama", &llama());
    gguf.tensors.push(("blk.0.attn_norm.bias".into(), quantized(&[HIDDEN], &[1.0; HIDDEN], GgmlDType::F32)));
    let (_dir, path) = write_file(&gguf);
    let error = read_everything(&path).expect_err("refused").to_string();
    assert!(error.contains("`model.layers.0.input_layernorm.bias`") && error.contains("makes no use of it"), "{error}");
}

#[test]
fn a_table_of_divisors_that_cannot_be_applied_is_refused() {
    let refused = |divisors: &[f32], keys: &[(&str, Value)], part: &str| {
        let mut gguf = Gguf::of("llama", &llama());
        gguf.add_divisors(divisors);
        keys.iter().for_each(|(key, value)| gguf.set(key, value.clone()));
        let (_dir, path) = write_file(&gguf);
        let error = open(&path).expect_err(part).to_string();
        assert!(error.contains("rope_freqs.weight") && error.contains(part), "{error}");
    };
    refused(&[1.0; 3], &[], "[4]");
    refused(&[1.0, 0.0, 1.0, 1.0], &[], "positive");
    refused(&[1.0, f32::NAN, 1.0, 1.0], &[], "positive");
    let scaled = |kind: &str, factor| {
        let kind = ("llama.rope.scaling.type", Value::String(kind.into()));
        [kind, ("llama.rope.scaling.factor", Value::F32(factor))]
    };
    refused(&[1.0; 4], &scaled("yarn", 4.0), "yarn");
    refused(&[1.0; 4], &scaled("longrope", 4.0), "longrope");
    refused(&[1.0; 4], &scaled("linear", 0.0), "positive factor");
}

#[test]
fn an_alignment_that_the_format_allows_is_heeded() {
    let plain = Gguf::of("llama", &llama());
    let (_dir, path) = write_file(&plain);
    let expected = open(&path).expect("a valid file");
    // All tensors are multiples of 128 bytes long, so that only the place of the first one changes.
    for alignment in [8, 32, 64, 128] {
        let mut gguf = plain.clone();
        gguf.set("general.alignment", Value::U32(alignment as u32));
        let (_dir, path) = write_file(&gguf);
        let mut bytes = std::fs::read(&path).expect("read");
        // The writer pads to 32 bytes whatever the key says, with zeros behind the last tensor's offset.
        let data: usize = gguf.tensors.iter().map(|(_, tensor)| tensor.storage_size_in_bytes()).sum();
        let padded = bytes.len() - data;
        let last_offset = (data - gguf.tensors.last().expect("a tensor").1.storage_size_in_bytes()) as u64;
        let header = bytes[..padded].windows(8).rposition(|window| window == last_offset.to_le_bytes());
        let header = header.expect("the last tensor's offset") + 8;
        bytes.splice(header..padded, vec![0; header.next_multiple_of(alignment) - header]);
        std::fs::write(&path, bytes).expect("written");
        let read = open(&path).expect("a valid file");
        assert_eq!(read.embedding().expect("read"), expected.embedding().expect("read"), "{alignment}");
        assert_eq!(read.block(1).expect("read"), expected.block(1).expect("read"), "{alignment}");
    }
}

#[test]
fn files_of_another_byte_order_or_kind_are_refused_as_such() {
    let (_dir, path) = write_file(&Gguf::of("llama", &llama()));
    let bytes = std::fs::read(&path).expect("read");
    for (magic, version, part) in [
        (*b"GGUF", [0, 0, 0, 3], "is a big-endian GGUF file (version 3); only little-endian ones can be read"),
        (*b"GGUF", [0, 0, 0, 2], "is a big-endian GGUF file (version 2)"),
        (*b"GGUF", [9, 0, 0, 0], "unsupported"),
        (*b"FUGG", [3, 0, 0, 0], "does not begin with `GGUF`"),
        (*b"lmgg", [1, 0, 0, 0], "does not begin with `GGUF`"),
    ] {
        let changed = [&magic[..], &version, &bytes[8..]].concat();
        std::fs::write(&path, changed).expect("written");
        let error = open(&path).expect_err(part).to_string();
        assert!(error.contains("model.gguf") && error.contains(part) && error.lines().count() == 1, "{error}");
    }
    // Versions that are read.
    for version in [2, 3] {
        std::fs::write(&path, [&bytes[..4], &[version, 0, 0, 0], &bytes[8..]].concat()).expect("written");
        read_everything(&path).expect("a valid file");
    }
}

#[test]
fn messages_are_the_same_where_candle_appends_backtraces() {
    assert_passes_with_backtraces("gguf_header::files_of_another_byte_order_or_kind_are_refused_as_such");
    assert_passes_with_backtraces("gguf_header::files_that_cannot_be_right_are_refused_by_key_or_tensor");
}
