//! Dense models in Hugging Face's layout, and configurations.

use half::{bf16, f16};
use latent_attention::Error;
use latent_attention::load::{Architecture, TensorSource, open};
use safetensors::Dtype;
use serde_json::json;

use super::fixture::*;
use super::save::{check_round_trip, converted};

#[test]
fn a_llama_model_is_read_as_written() {
    let tensors = llama();
    let (_dir, checkpoint) = reopen(&llama_config(), &tensors);
    let checkpoint = checkpoint.expect("a valid model");
    let config = checkpoint.config();
    assert_eq!(config.architecture, Architecture::Llama);
    assert_eq!((config.bos, config.eos.as_slice()), (Some(1), &[2, 3][..]));
    assert_eq!(config.score_scale, 1.0 / 8f64.sqrt());
    assert_eq!(config.inverse_frequencies, [1.0, 0.1, 0.01, 0.001]);
    for layer in 0..LAYERS {
        let read = dense(&checkpoint, layer);
        assert_eq!((read.query_heads, read.kv_heads, read.head_dim), (HEADS, KV_HEADS, HEAD_DIM));
        for (part, linear) in
            [("q_proj", &read.query), ("k_proj", &read.key), ("v_proj", &read.value), ("o_proj", &read.output)]
        {
            assert_eq!(linear.weight.data(), tensors.floats(&attention(layer, &format!("{part}.weight"))), "{part}");
            assert_eq!(linear.bias, None);
        }
        let block = checkpoint.block(layer).expect("a block");
        let stored = |part: &str| tensors.floats(&format!("model.layers.{layer}.{part}.weight"));
        assert_eq!(block.attention_norm.gain, stored("input_layernorm"));
        assert_eq!(block.attention_norm.epsilon, 1e-5);
        assert_eq!(block.mlp_norm.gain, stored("post_attention_layernorm"));
        assert_eq!(block.gate.weight.data(), stored("mlp.gate_proj"));
        assert_eq!(block.up.weight.data(), stored("mlp.up_proj"));
        assert_eq!(block.down.weight.data(), stored("mlp.down_proj"));
    }
    assert_eq!(checkpoint.embedding().expect("read").data(), tensors.floats("model.embed_tokens.weight"));
    assert_eq!(checkpoint.final_norm().expect("read").gain, tensors.floats("model.norm.weight"));
    assert_eq!(checkpoint.lm_head().expect("read"), None);
    assert!(checkpoint.tokenizer().is_none());
}

#[test]
fn qwen2_has_biases_and_an_untied_model_its_own_head() {
    let mut tensors = Tensors::default();
    tensors.add_frame(false);
    (0..LAYERS).for_each(|layer| tensors.add_dense(layer, true));
    let config = with(llama_config(), json!({"architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": false}));
    let (_dir, checkpoint) = reopen(&config, &tensors);
    let checkpoint = checkpoint.expect("a valid model");
    let read = dense(&checkpoint, 1);
    for (part, linear) in [("q_proj", &read.query), ("k_proj", &read.key), ("v_proj", &read.value)] {
        assert_eq!(linear.bias, Some(tensors.floats(&attention(1, &format!("{part}.bias")))));
    }
    let head = checkpoint.lm_head().expect("read").expect("an untied head");
    assert_eq!(head.data(), tensors.floats("lm_head.weight"));

    tensors.0.remove(&attention(1, "k_proj.bias"));
    let (_dir, checkpoint) = reopen(&config, &tensors);
    let error = checkpoint.expect("headers are fine").attention(1).expect_err("a bias is missing").to_string();
    assert!(error.contains("layers.1.self_attn.k_proj.bias") && error.contains("no such tensor"), "{error}");
}

#[test]
fn half_precision_tensors_are_widened_exactly() {
    let expected = llama();
    let mut tensors = expected.clone();
    let name = attention(0, "q_proj.weight");
    let shape = [HEADS * HEAD_DIM, HIDDEN];
    let f16_bytes = expected.floats(&name).iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
    tensors.put_bytes(&name, Dtype::F16, &shape, f16_bytes);
    let other = attention(1, "q_proj.weight");
    let bf16_bytes = expected.floats(&other).iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    tensors.put_bytes(&other, Dtype::BF16, &shape, bf16_bytes);
    let (_dir, checkpoint) = reopen(&llama_config(), &tensors);
    let checkpoint = checkpoint.expect("a valid model");
    assert_eq!(dense(&checkpoint, 0).query.weight.data(), expected.floats(&name));
    assert_eq!(dense(&checkpoint, 1).query.weight.data(), expected.floats(&other));
}

/// Splits a model in two files, `a.safetensors` and `b.safetensors`; returns the index of the shards.
fn write_shards(dir: &std::path::Path, tensors: &Tensors) -> serde_json::Value {
    let mut map = serde_json::Map::new();
    let (mut first, mut second) = (Tensors::default(), Tensors::default());
    for (i, (name, tensor)) in tensors.0.iter().enumerate() {
        let (shard, file) = if i % 2 == 0 { (&mut first, "a") } else { (&mut second, "b") };
        shard.0.insert(name.clone(), tensor.clone());
        map.insert(name.clone(), json!(format!("{file}.safetensors")));
    }
    std::fs::write(dir.join("config.json"), llama_config().to_string()).expect("written");
    first.write(&dir.join("a.safetensors"));
    second.write(&dir.join("b.safetensors"));
    json!({"metadata": {}, "weight_map": map})
}

#[test]
fn shards_are_found_with_and_without_an_index() {
    let dir = tempfile::tempdir().expect("a directory");
    let index = write_shards(dir.path(), &llama());
    read_everything(dir.path()).expect("shards without an index");
    let index_path = dir.path().join("model.safetensors.index.json");
    std::fs::write(&index_path, index.to_string()).expect("written");
    read_everything(dir.path()).expect("shards with an index");

    let mut wrong = index.clone();
    wrong["weight_map"]["model.norm.weight"] = json!("a.safetensors");
    wrong["weight_map"]["model.norm.bias"] = json!("a.safetensors");
    std::fs::write(&index_path, wrong.to_string()).expect("written");
    let error = open(dir.path()).expect_err("a tensor is missing").to_string();
    assert!(error.contains("model.norm."), "{error}");

    std::fs::remove_file(&index_path).expect("removed");
    std::fs::copy(dir.path().join("a.safetensors"), dir.path().join("c.safetensors")).expect("copied");
    let error = open(dir.path()).expect_err("a tensor is there twice").to_string();
    assert!(error.contains("is also in"), "{error}");
}

#[test]
fn shards_may_lie_anywhere_inside_the_directory_and_nowhere_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = dir.path().join("model");
    std::fs::create_dir_all(model.join("deep/down")).expect("made");
    let index = write_shards(&model, &llama()).to_string();
    let open_with = |shard: &str| {
        let index = index.replace("\"a.safetensors\"", &json!(shard).to_string());
        std::fs::write(model.join("model.safetensors.index.json"), index).expect("written");
        read_everything(&model)
    };
    std::fs::copy(model.join("a.safetensors"), model.join("deep/down/c.safetensors")).expect("copied");
    for inside in [
        "a.safetensors",
        "./a.safetensors",
        "././a.safetensors",
        "deep/down/c.safetensors",
        "./deep/./down/c.safetensors",
    ] {
        open_with(inside).expect(inside);
    }
    // One file by two names is one shard.
    let first = index.replacen("\"a.safetensors\"", "\"./a.safetensors\"", 1);
    std::fs::write(model.join("model.safetensors.index.json"), first).expect("written");
    read_everything(&model).expect("both names");
    std::fs::copy(model.join("a.safetensors"), dir.path().join("a.safetensors")).expect("copied");
    let absolute = dir.path().join("a.safetensors");
    for outside in
        ["../a.safetensors", "deep/../a.safetensors", "deep/../../a.safetensors", "./../a.safetensors", "..", ".", ""]
    {
        let error = open_with(outside).expect_err(outside).to_string();
        assert!(error.contains("outside of its directory") && error.contains(&format!("`{outside}`")), "{error}");
    }
    let error = open_with(absolute.to_str().expect("UTF-8")).expect_err("absolute").to_string();
    assert!(error.contains("outside of its directory"), "{error}");
}

#[test]
fn a_head_of_its_own_is_kept_though_the_configuration_ties_it() {
    let mut tensors = llama();
    let embedding = tensors.0["model.embed_tokens.weight"].clone();
    let checkpoint = |tensors: &Tensors| reopen(&llama_config(), tensors);
    // A copy of the embedding, as many files have it, is no head of its own.
    tensors.0.insert("lm_head.weight".into(), embedding);
    let (_dir, copied) = checkpoint(&tensors);
    let copied = copied.expect("a valid model");
    assert!(copied.config().tied_embeddings);
    assert_eq!(copied.lm_head().expect("read"), None);

    let head = tensors.random("lm_head.weight", &[VOCAB, HIDDEN]);
    let (_dir, own) = checkpoint(&tensors);
    let own = own.expect("a valid model");
    assert!(!own.config().tied_embeddings);
    assert_eq!(own.lm_head().expect("read").expect("a head").data(), head);
    assert_eq!(own.embedding().expect("read").data(), tensors.floats("model.embed_tokens.weight"));

    // What is saved says so, for readers that believe the configuration.
    let layers: Vec<_> = (0..LAYERS).map(|layer| converted(layer, 4, 6, &[0, 1, 0, 1], false)).collect();
    assert_eq!(check_round_trip(&own, &layers)["tie_word_embeddings"], false);
    assert_eq!(check_round_trip(&copied, &layers)["tie_word_embeddings"], true);
}

#[test]
fn an_unfit_tensor_is_named_with_both_shapes_and_types() {
    let name = attention(0, "k_proj.weight");
    let attention_error = |tensors: &Tensors| {
        let (_dir, checkpoint) = reopen(&llama_config(), tensors);
        let error = checkpoint.expect("headers are fine").attention(0).expect_err("unfit");
        assert!(matches!(error, Error::Tensor { .. }), "{error:?}");
        error.to_string()
    };
    let mut tensors = llama();
    tensors.random(&name, &[15, HIDDEN]);
    let error = attention_error(&tensors);
    assert!(error.contains(&name) && error.contains("[16, 32]") && error.contains("[15, 32]"), "{error}");

    tensors.put_bytes(&name, Dtype::F64, &[16, HIDDEN], vec![0; 8 * 16 * HIDDEN]);
    let error = attention_error(&tensors);
    assert!(error.contains(&name) && error.contains("F32 or F16 or BF16") && error.contains("F64"), "{error}");

    tensors.0.remove(&name);
    let error = attention_error(&tensors);
    assert!(error.contains(&name) && error.contains("[16, 32]") && error.contains("no such tensor"), "{error}");

    let mut tensors = llama();
    tensors.random("model.embed_tokens.weight", &[VOCAB, HIDDEN + 1]);
    let (_dir, checkpoint) = reopen(&llama_config(), &tensors);
    let error = checkpoint.expect("headers are fine").embedding().expect_err("mis-shaped").to_string();
    assert!(error.contains("[20, 32]") && error.contains("[20, 33]"), "{error}");
}

#[test]
fn integers_are_not_read_as_numbers_nor_numbers_as_integers() {
    let mut tensors = llama();
    tensors.put_bytes("ids", Dtype::I64, &[2], [7i64.to_le_bytes(), (-1i64).to_le_bytes()].concat());
    let (_dir, checkpoint) = reopen(&llama_config(), &tensors);
    let checkpoint = checkpoint.expect("a valid model");
    let source: &dyn TensorSource = checkpoint.source();
    assert_eq!(source.read_integers("ids", &[2]).expect("integers"), [7, -1]);
    assert!(source.read("ids", &[2]).expect_err("integers").to_string().contains("I64"));
    let error = source.read_integers("model.norm.weight", &[HIDDEN]).expect_err("floats").to_string();
    assert!(error.contains("U8 or I32 or I64") && error.contains("F32"), "{error}");
}

#[test]
fn a_layer_that_does_not_exist_is_an_index_error() {
    let (_dir, checkpoint) = reopen(&llama_config(), &llama());
    let checkpoint = checkpoint.expect("a valid model");
    for layer in [LAYERS, usize::MAX] {
        assert!(matches!(checkpoint.attention(layer), Err(Error::Index { .. })));
        assert!(matches!(checkpoint.block(layer), Err(Error::Index { .. })));
    }
}

#[test]
fn configurations_that_cannot_be_right_are_refused_by_key() {
    for (change, part) in [
        (json!({"architectures": ["MambaForCausalLM"]}), "MambaForCausalLM"),
        (json!({"architectures": ["MambaForCausalLM"]}), "LlamaForCausalLM, Qwen2ForCausalLM, Deepseek"),
        (json!({"num_key_value_heads": 0}), "num_key_value_heads"),
        (json!({"num_key_value_heads": 3}), "kv_heads"),
        (json!({"num_attention_heads": -4}), "num_attention_heads"),
        (json!({"num_attention_heads": 1u64 << 60}), "num_attention_heads"),
        (
            json!({"num_attention_heads": 1 << 20, "num_key_value_heads": 1 << 20, "head_dim": 1 << 20}),
            "latent_rank must be at most",
        ),
        (json!({"head_dim": 7}), "even"),
        (json!({"head_dim": null, "num_attention_heads": 3, "num_key_value_heads": 3}), "does not divide"),
        (json!({"hidden_size": "wide"}), "hidden_size"),
        (json!({"vocab_size": null}), "vocab_size"),
        (json!({"rms_norm_eps": 1e300}), "rms_norm_eps"),
        (json!({"rope_scaling": {"rope_type": "longrope"}}), "`short_factor` must be 4 positive numbers"),
        (
            json!({"rope_scaling": {"rope_type": "proportional", "factor": 4.0}}),
            "default, linear, llama3, yarn, dynamic, longrope",
        ),
        (json!({"rope_scaling": {"type": "linear"}}), "factor"),
        (json!({"hidden_act": "gelu"}), "gelu"),
        (json!({"use_sliding_window": true}), "sliding"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (json!({"layer_types": ["full_attention", "sliding_attention"]}), "layer_types[1] = \"sliding_attention\""),
        (json!({"layer_types": ["chunked_attention"]}), "chunked_attention"),
        (json!({"layer_types": "full_attention"}), "layer_types"),
        (json!({"per_layer_config": {"1": {"sliding_window": 8}}}), "per_layer_config"),
        (json!({"quantization_config": {"quant_method": "gptq"}}), "quantization_config (quant_method `gptq`)"),
        (json!({"quantization_config": {}}), "quantization_config"),
        (json!({"eos_token_id": [1, "x"]}), "eos_token_id"),
    ] {
        let (_dir, checkpoint) = reopen(&with(llama_config(), change.clone()), &llama());
        let error = checkpoint.expect_err(&change.to_string()).to_string();
        assert!(error.contains(part), "{change}: {error}");
    }
}

#[test]
fn keys_that_say_what_is_computed_anyway_are_read() {
    for change in [
        json!({"layer_types": ["full_attention", "attention"]}),
        json!({"layer_types": null, "quantization_config": null, "per_layer_config": null}),
        json!({"sliding_window": 4096, "use_sliding_window": false}),
    ] {
        let (_dir, checkpoint) = reopen(&with(llama_config(), change.clone()), &llama());
        checkpoint.unwrap_or_else(|error| panic!("{change}: {error}"));
    }
}

#[test]
fn a_tensor_that_nothing_in_a_layer_reads_is_refused_by_name() {
    for extra in ["q_norm.weight", "k_norm.weight", "sub_norm.weight", "sinks", "q_proj.weight_scale", "g_proj.weight"]
    {
        let mut tensors = llama();
        tensors.random(&attention(1, extra), &[HEAD_DIM]);
        let (_dir, checkpoint) = reopen(&llama_config(), &tensors);
        let checkpoint = checkpoint.expect("headers are fine");
        checkpoint.attention(0).expect("a layer without it");
        checkpoint.block(1).expect("what is beside the attention");
        let error = checkpoint.attention(1).expect_err(extra);
        assert!(matches!(error, Error::Tensor { .. }), "{error:?}");
        let text = error.to_string();
        let parts = [&attention(1, extra), "Llama's attention makes no use of it", "got [8]"];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    for extra in [
        "post_feedforward_layernorm.weight",
        "input_layernorm.bias",
        "post_attention_layernorm.bias",
        "mlp.ffn_layernorm.weight",
        "self_attn_norm.weight",
    ] {
        let mut tensors = llama();
        let name = format!("model.layers.1.{extra}");
        tensors.random(&name, &[HIDDEN]);
        let (_dir, checkpoint) = reopen(&llama_config(), &tensors);
        let checkpoint = checkpoint.expect("headers are fine");
        checkpoint.attention(1).expect("the attention");
        checkpoint.block(0).expect("a layer without it");
        let error = checkpoint.block(1).expect_err(extra).to_string();
        assert!(error.contains(&name) && error.contains("a layer of Llama makes no use of it"), "{error}");
    }
}

#[test]
fn buffers_of_old_checkpoints_and_every_bias_of_a_projection_are_read() {
    let mut tensors = llama();
    for layer in 0..LAYERS {
        tensors.random(&attention(layer, "rotary_emb.inv_freq"), &[HEAD_DIM / 2]);
        for (part, rows) in [
            ("self_attn.q_proj", HEADS * HEAD_DIM),
            ("self_attn.o_proj", HIDDEN),
            ("mlp.gate_proj", INTERMEDIATE),
            ("mlp.down_proj", HIDDEN),
        ] {
            tensors.random(&format!("model.layers.{layer}.{part}.bias"), &[rows]);
        }
    }
    // A layer whose number begins with the digits of another's.
    tensors.random("model.layers.10.self_attn.q_norm.weight", &[HEAD_DIM]);
    let (dir, checkpoint) = reopen(&llama_config(), &tensors);
    read_everything(dir.path()).expect("a valid model");
    let checkpoint = checkpoint.expect("a valid model");
    assert_eq!(dense(&checkpoint, 1).output.bias, Some(tensors.floats(&attention(1, "o_proj.bias"))));
    let down = checkpoint.block(0).expect("a block").down;
    assert_eq!(down.bias, Some(tensors.floats("model.layers.0.mlp.down_proj.bias")));
}

#[test]
fn what_is_no_model_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let message = || open(dir.path()).expect_err("no model").to_string();
    assert!(message().contains("config.json"));
    std::fs::write(dir.path().join("config.json"), "{").expect("written");
    assert!(message().contains("config.json"));
    std::fs::write(dir.path().join("config.json"), llama_config().to_string()).expect("written");
    assert!(message().contains("*.safetensors"));
    let file = dir.path().join("model.bin");
    std::fs::write(&file, "x").expect("written");
    assert!(open(&file).expect_err("a file").to_string().contains(".gguf"));
    assert!(matches!(open(&dir.path().join("absent")), Err(Error::Io { .. })));
}
