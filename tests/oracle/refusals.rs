//! What the families' configurations may not say, by the text of the error: the checkpoints with one key changed.

use std::fs;

use latent_attention::Result;
use latent_attention::load::{Attention, Checkpoint, GateInput, open, save_mha2mla};
use latent_attention::rope::Pairing;
use serde_json::{Value, json};

use crate::{attention_error, folder, open_family};

/// Opens the family's checkpoint after `change` of its configuration.
pub fn changed(family: &str, change: impl Fn(&mut Value)) -> Result<Checkpoint> {
    let directory = tempfile::tempdir().unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(folder(family).join("config.json")).unwrap()).unwrap();
    change(&mut config);
    fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    fs::copy(folder(family).join("model.safetensors"), directory.path().join("model.safetensors")).unwrap();
    open(directory.path())
}

/// What is changed in a configuration.
type Change<'a> = &'a dyn Fn(&mut Value);

pub fn with(family: &str, key: &str, value: Value) -> Result<Checkpoint> {
    changed(family, |config| config[key] = value.clone())
}

pub fn without(family: &str, key: &str) -> Result<Checkpoint> {
    changed(family, |config| drop(config.as_object_mut().unwrap().remove(key)))
}

#[track_caller]
pub fn refused<T>(result: Result<T>, parts: &[&str]) {
    let error = result.err().expect("an error").to_string();
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn every_latent_family_is_found_by_model_type_alone_and_needs_its_sizes() {
    for family in [
        "axk1",
        "axk2",
        "youtu",
        "glm4_moe_lite",
        "sarvam_mla",
        "minicpm3",
        "mistral4",
        "longcat_flash",
        "deepseek_v32",
        "glm_moe_dsa",
        "kimi_linear",
        "bailing_hybrid",
    ] {
        let named = open_family(family).0.config().architecture;
        let found = without(family, "architectures").unwrap().config().architecture;
        // transformers saves Sarvam's models under DeepSeek-V3's class.
        assert!(found == named || family == "sarvam_mla", "{family}: {found:?}");
        for key in ["kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "rms_norm_eps"] {
            refused(without(family, key), &[&format!("`{key}` is missing")]);
            refused(with(family, key, json!("8")), &[&format!("`{key}` must be"), "got \"8\""]);
        }
    }
    let sarvam = changed("sarvam_mla", |config| config["architectures"] = json!(["SarvamMLAForCausalLM"])).unwrap();
    assert_eq!(sarvam.config().architecture, latent_attention::load::Architecture::SarvamMla);
}

#[test]
fn families_that_compute_more_stay_refused_by_their_class() {
    for (class, model_type, why) in [
        ("HYV4ForCausalLM", "hy_v4", "a sink in its softmax"),
        ("Dots3NoteForCausalLM", "dots3_note_text", "rotated key has a norm"),
        ("Dots3NoteForConditionalGeneration", "dots3_note", "rotated key has a norm"),
        ("Glm5NextForConditionalGeneration", "glm5_next", "language and images"),
        ("MistralLarge4ForConditionalGeneration", "mistral_large4", "latents of others"),
    ] {
        let parts = [class, why, "known architectures are", "AXK1ForCausalLM"];
        refused(with("axk1", "architectures", json!([class])), &parts);
        let by_type = changed("axk1", |config| {
            config["architectures"] = Value::Null;
            config["model_type"] = json!(model_type);
        });
        refused(by_type, &[model_type, why, "known architectures are"]);
    }
}

#[test]
fn what_the_families_have_of_their_own_counts_in_what_transformers_computed() {
    let rope =
        |key: &'static str, value: Value| move |config: &mut Value| config["rope_parameters"][key] = value.clone();
    let top = |key: &'static str, value: Value| move |config: &mut Value| config[key] = value.clone();
    let class = |class: &'static str| top("architectures", json!([class]));
    let cases: [(&str, Change); 16] = [
        ("deepseek_v3", &top("rope_interleave", json!(false))),
        ("axk1", &rope("mscale_all_dim", json!(1.0))),
        ("axk1", &rope("factor", json!(20.0))),
        ("minicpm3", &class("DeepseekV2ForCausalLM")),
        ("minicpm3", &top("scale_depth", json!(1.0))),
        ("mistral4", &rope("llama_4_scaling_beta", json!(0.0))),
        ("kimi_linear", &|config| {
            config["architectures"] = json!(["DeepseekV2ForCausalLM"]);
            config["max_position_embeddings"] = json!(131_072);
            config["layer_types"] = Value::Null;
            config["num_hidden_layers"] = json!(1);
        }),
        ("llama", &rope("factor", json!(4.0))),
        ("llama_yarn", &rope("mscale", json!(0.0))),
        ("llama_longrope", &rope("short_factor", json!([1.0, 1.0, 1.0, 1.0]))),
        ("qwen2_yarn", &rope("original_max_position_embeddings", json!(1024))),
        ("glm4_yarn", &rope("attention_factor", json!(1.0))),
        ("gemma2", &top("query_pre_attn_scalar", json!(8))),
        ("mha2mla_gqa", &|config| config["mha2mla"]["uniform_start_point"] = json!(1)),
        ("smollm3", &top("no_rope_layers", json!([1, 1]))),
        ("smollm3", &top("no_rope_layers", json!([0, 0]))),
    ];
    for (family, change) in cases {
        let (_, expected) = open_family(family);
        let error = attention_error(&changed(family, change).unwrap(), &expected);
        assert!(error > 1e-2, "{family}: {error:e}");
    }
}

#[test]
fn rope_interleave_is_heard_by_the_families_with_deepseek_v3s_attention() {
    for (family, off) in [
        ("axk1", Pairing::Half),
        ("youtu", Pairing::Half),
        ("glm4_moe_lite", Pairing::Half),
        ("mistral4", Pairing::Half),
        ("deepseek_v32", Pairing::Interleaved),
        ("longcat_flash", Pairing::Interleaved),
    ] {
        let pairing = |value: bool| match with(family, "rope_interleave", json!(value)).unwrap().attention(0).unwrap() {
            Attention::Latent(latent) => latent.pairing,
            Attention::Dense(_) => panic!("{family} is latent"),
        };
        assert_eq!((pairing(true), pairing(false)), (Pairing::Interleaved, off), "{family}");
    }
}

#[test]
fn windows_of_the_dense_families_are_refused_unless_no_layer_has_one() {
    // All layers are of full attention, and have none whatever `sliding_window` says.
    let types = |value: Value| with("ministral", "layer_types", value);
    types(json!(["full_attention", "full_attention"])).unwrap();
    refused(types(json!(["full_attention", "sliding_attention"])), &["layer_types[1]"]);
    refused(types(Value::Null), &["sliding_window 4 in"]);
    let unsaid = changed("ministral", |config| {
        config["layer_types"] = Value::Null;
        drop(config.as_object_mut().unwrap().remove("sliding_window"));
    });
    refused(unsaid, &["sliding_window 4096 in"]);
    refused(with("phi3", "sliding_window", json!(2047)), &["sliding_window 2047 in", "131072"]);
    with("phi3", "sliding_window", json!(131_072)).unwrap();
    without("phi3", "sliding_window").unwrap();
}

#[test]
fn partial_rotation_is_read_from_either_place_and_has_to_be_whole_pairs() {
    let top = |family: &str, part: Value| {
        changed(family, |config| {
            config["rope_parameters"].as_object_mut().unwrap().remove("partial_rotary_factor");
            config["partial_rotary_factor"] = part.clone();
        })
    };
    let frequencies = |result: Result<Checkpoint>| {
        result.unwrap().config().inverse_frequencies.iter().filter(|&&frequency| frequency != 0.0).count()
    };
    for (family, unsaid) in [("phi3", 4), ("glm4", 2)] {
        assert_eq!(frequencies(top(family, Value::Null)), unsaid, "{family}");
        assert_eq!(frequencies(top(family, json!(0.25))), 1);
        assert_eq!(frequencies(top(family, json!(1))), 4);
        refused(top(family, json!(0.4)), &["`partial_rotary_factor` 0.4 of 8 dimensions", "even"]);
        refused(top(family, json!(1.5)), &["`partial_rotary_factor` 1.5"]);
        refused(top(family, json!("half")), &["`partial_rotary_factor` must be"]);
        // One place may not contradict the other.
        refused(
            with(family, "partial_rotary_factor", json!(1.0)),
            &["partial_rotary_factor 1 in", "4 of 8 dimensions"],
        );
    }
    refused(with("llama", "partial_rotary_factor", json!(0.5)), &["rotate whole heads"]);
}

#[test]
fn granites_factors_are_1_without_their_keys_and_models_without_their_mlps_are_not_saved() {
    let weights = |result: Result<Checkpoint>| match result.unwrap().attention(0).unwrap() {
        Attention::Dense(dense) => dense.query.weight.data()[0],
        Attention::Latent(_) => panic!("Granite is dense"),
    };
    let (given, unsaid) =
        (weights(with("granite", "head_dim", json!(8))), weights(without("granite", "attention_multiplier")));
    assert!((unsaid / given - 2.0).abs() < 1e-6, "the checkpoint's is 0.5");
    refused(with("granite", "logits_scaling", json!(0)), &["`logits_scaling` must be a positive number, got 0"]);
    for (family, why) in
        [("glm4", "around its attention"), ("gemma2", "around its attention"), ("youtu", "latent already")]
    {
        let (original, _) = open_family(family);
        let directory = tempfile::tempdir().unwrap();
        refused(save_mha2mla(directory.path(), &original, &original, &[]), &[why]);
    }
    refused(open_family("glm4").0.block(0), &["MLP of layer 0", "norms behind"]);
    assert!(without("glm4", "attention_bias").unwrap().config().attention_bias);
}

#[test]
fn longrope_holds_up_to_the_original_length_and_is_refused_beyond_by_name() {
    for family in ["phi3_longrope", "minicpm3_longrope"] {
        let (checkpoint, _) = open_family(family);
        let config = checkpoint.config();
        assert_eq!((config.rescaled_beyond, config.max_positions), (Some(100_010), 100_010));
        config.check_context(100_010).unwrap();
        refused(config.check_context(100_011), &["100011 tokens", "`original_max_position_embeddings` 100010"]);
        let object = |key: &str, value: Value| changed(family, |config| config["rope_parameters"][key] = value.clone());
        for list in [json!([1.0]), json!(["a", "b"]), json!([0.0, 1.0]), Value::Null] {
            refused(object("short_factor", list.clone()), &["`short_factor` must be", "positive numbers"]);
            refused(object("long_factor", list), &["`long_factor` must be", "positive numbers"]);
        }
        refused(object("low_freq_factor", json!(1.0)), &["rope_parameters.low_freq_factor", "short_factor"]);
        // The same divisors for all lengths end nowhere.
        let same = changed(family, |config| {
            config["rope_parameters"]["long_factor"] = config["rope_parameters"]["short_factor"].clone();
        });
        assert_eq!(same.unwrap().config().rescaled_beyond, None);
    }
    let unsaid = without("phi3_longrope", "original_max_position_embeddings").unwrap();
    assert_eq!(unsaid.config().rescaled_beyond, Some(4096));
    let one = with("phi3_longrope", "original_max_position_embeddings", json!(1));
    refused(one, &["`original_max_position_embeddings` must be more than 1"]);
}

#[test]
fn contexts_beyond_index_topk_are_refused_by_its_name() {
    for family in ["deepseek_v32", "glm_moe_dsa", "axk2"] {
        let (checkpoint, _) = open_family(family);
        let config = checkpoint.config();
        assert_eq!((config.sparse_beyond, config.max_positions), (Some(16), 16));
        config.check_context(16).unwrap();
        refused(config.check_context(17), &["17 tokens", "`index_topk` 16"]);
        refused(without(family, "index_topk"), &["`index_topk` is missing"]);
        refused(without(family, "q_lora_rank"), &["`q_lora_rank` is missing"]);
        refused(with(family, "layer_types", json!(["sliding_attention"])), &["layer_types[0]", "indexed_attention"]);
    }
    open_family("axk1").0.config().check_context(usize::MAX).unwrap();
}

#[test]
fn minicpm3s_factors_have_their_defaults_and_null_switches_two_of_them_off() {
    let read = |change: &dyn Fn(&mut Value)| {
        let checkpoint = changed("minicpm3", change).unwrap();
        let sum = |values: &[f32]| values.iter().map(|x| f64::from(x.abs())).sum::<f64>();
        let block = checkpoint.block(0).unwrap();
        [
            sum(checkpoint.embedding().unwrap().data()),
            sum(block.down.weight.data()),
            sum(&checkpoint.final_norm().unwrap().gain),
        ]
    };
    let (scaled, plain) = (
        read(&|_| ()),
        read(&|config| {
            config["scale_emb"] = json!(1);
            config["scale_depth"] = Value::Null;
            config["dim_model_base"] = Value::Null;
        }),
    );
    let defaults = read(&|config| {
        for key in ["scale_emb", "scale_depth", "dim_model_base"] {
            config.as_object_mut().unwrap().remove(key);
        }
    });
    for (part, (factor, default)) in
        [(12.0, 12.0), (1.4 / 2f64.sqrt(), 1.4 / 2f64.sqrt()), (8.0 / 32.0, 256.0 / 32.0)].into_iter().enumerate()
    {
        assert!((scaled[part] / plain[part] - factor).abs() < 1e-6);
        assert!((defaults[part] / plain[part] - default).abs() < 1e-6);
    }
    refused(with("minicpm3", "scale_emb", Value::Null), &["`scale_emb` is missing"]);
    refused(with("minicpm3", "scale_emb", json!(0)), &["`scale_emb` must be a positive number, got 0"]);
    // The embedding that carries a factor is no longer the head.
    let (checkpoint, _) = open_family("minicpm3");
    assert!(!checkpoint.config().tied_embeddings && checkpoint.lm_head().unwrap().is_some());
    let untied = changed("minicpm3", |config| config["scale_emb"] = json!(1)).unwrap();
    assert!(untied.config().tied_embeddings && untied.lm_head().unwrap().is_none());
    assert!(without("minicpm3", "tie_word_embeddings").unwrap().lm_head().unwrap().is_some());
}

#[test]
fn mistral4_needs_its_yarn_and_the_factor_on_queries() {
    let scaling = open_family("mistral4").0.config().query_scaling.unwrap();
    assert_eq!((scaling.factor(0), scaling.factor(4095)), (1.0, 1.0));
    assert_eq!(scaling.factor(4096), 1.0 + 0.1 * 2f64.ln());
    refused(without("mistral4", "rope_parameters"), &["`rope_parameters` is missing"]);
    let change = |key: &str, value: Value| changed("mistral4", |config| config["rope_parameters"][key] = value.clone());
    refused(change("llama_4_scaling_beta", Value::Null), &["`rope_parameters.llama_4_scaling_beta` is missing"]);
    refused(change("llama_4_scaling_beta", json!("big")), &["`llama_4_scaling_beta` must be a number, got \"big\""]);
    refused(change("partial_rotary_factor", json!(0.5)), &["partial_rotary_factor 0.5", "8 of 14 dimensions"]);
    refused(change("rope_type", json!("default")), &["`default`", "are yarn"]);
    refused(
        changed("mistral4", |config| {
            config["rope_scaling"] = config["rope_parameters"].clone();
            config["rope_scaling"]["llama_4_scaling_beta"] = json!(0.2);
        }),
        &["scale queries differently", "0.1", "0.2"],
    );
    // Other families' queries do not grow.
    refused(
        changed("axk1", |config| config["rope_parameters"]["llama_4_scaling_beta"] = json!(0.1)),
        &["unknown key `rope_parameters.llama_4_scaling_beta`"],
    );
}

#[test]
fn longcat_has_two_attentions_a_layer_and_its_latents_are_scaled() {
    let (checkpoint, _) = open_family("longcat_flash");
    assert_eq!(checkpoint.config().layers, 2);
    refused(checkpoint.block(0), &["MLP of layer 0", "two attentions"]);
    refused(checkpoint.attention(2), &["layer", "0..2"]);
    for key in ["mla_scale_q_lora", "mla_scale_kv_lora"] {
        refused(with("longcat_flash", key, json!(false)), &[&format!("{key} false")]);
    }
    refused(with("longcat_flash", "qk_head_dim", json!(15)), &["`qk_head_dim` 15", "= 14"]);
    refused(with("longcat_flash", "num_hidden_layers", json!(3)), &["`num_hidden_layers` 3", "`num_layers`, 2"]);
    refused(without("longcat_flash", "ffn_hidden_size"), &["`ffn_hidden_size` is missing"]);
    let theta = changed("longcat_flash", |config| config["rope_parameters"] = Value::Null).unwrap().config().rope_theta;
    assert_eq!(theta, 10_000_000.0);
}

#[test]
fn kimis_linear_layers_are_refused_one_by_one() {
    let (checkpoint, _) = open_family("kimi_linear");
    assert_eq!(checkpoint.config().inverse_frequencies, [0.0; 4]);
    refused(checkpoint.attention(1), &["attention of layer 1", "linear attention"]);
    // Without types of layers, the list that the published models have, which counts from 1.
    let listed = |layers: Value| {
        changed("kimi_linear", |config| {
            config["layer_types"] = Value::Null;
            config["linear_attn_config"] = json!({"full_attn_layers": layers, "kda_layers": [2]});
        })
    };
    let read = listed(json!([1, 3])).unwrap();
    read.attention(0).unwrap();
    read.attention(2).unwrap();
    refused(read.attention(1), &["linear attention"]);
    refused(listed(json!([0])), &["full_attn_layers", "1..=3", "got 0"]);
    refused(listed(json!([4])), &["got 4"]);
    refused(with("kimi_linear", "layer_types", json!(["full_attention"])), &["1 entries", "3 layers"]);
    refused(with("kimi_linear", "mla_use_nope", json!(false)), &["mla_use_nope `false`"]);
    // Every fourth layer, but not the first, where nothing is said.
    let unsaid = without("kimi_linear", "layer_types").unwrap();
    refused(unsaid.attention(0), &["attention of layer 0"]);
}

#[test]
fn bailings_gates_are_read_of_its_layers_of_full_attention_and_no_others() {
    let (checkpoint, expected) = open_family("bailing_hybrid");
    assert!(checkpoint.config().gated_output && !open_family("kimi_linear").0.config().gated_output);
    refused(checkpoint.attention(1), &["attention of layer 1", "linear attention"]);
    assert_eq!(checkpoint.output_gate(1).unwrap(), None);
    refused(checkpoint.output_gate(3), &["layer", "0..3"]);
    let gate = checkpoint.output_gate(2).unwrap().unwrap();
    let factors = gate.factors(&[0.25; 32]).unwrap();
    let logits = gate.map.apply(&[0.25; 32]).unwrap();
    for (factor, logit) in factors.iter().zip(logits) {
        assert!((factor - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-6);
    }
    // What they are is no detail: attention without them is another.
    assert!(attention_error(&checkpoint, &expected) < 1e-5);
    let weights = crate::Gated { gate: None, ..crate::latent(&checkpoint, 0) };
    let (input, output) = expected.layer("near", 0);
    let positions = expected.positions("near");
    let tables = crate::tables(checkpoint.config(), 0, &positions);
    let ungated = crate::attention::direct(&weights, checkpoint.config(), &tables, &input, &positions);
    assert!(crate::error(&ungated, &output) > 0.1);
    // The rest of the model is read where it is plain.
    checkpoint.block(0).unwrap();
    checkpoint.embedding().unwrap();
    // Without types, the last of every group has full attention.
    let unsaid = without("bailing_hybrid", "layer_types").unwrap();
    unsaid.output_gate(1).unwrap_err();
    assert_eq!(unsaid.output_gate(0).unwrap(), None);
    refused(with("bailing_hybrid", "layer_types", json!(["full_attention"])), &["1 entries", "3 layers"]);
    let theta =
        changed("bailing_hybrid", |config| config["rope_parameters"] = Value::Null).unwrap().config().rope_theta;
    assert_eq!(theta, 6_000_000.0);
    let renamed = changed("bailing_hybrid", |config| {
        let positions = config.as_object_mut().unwrap().remove("model_max_length").unwrap();
        config["max_position_embeddings"] = positions;
    });
    assert_eq!(renamed.unwrap().config().max_positions, 131_072);
}

#[test]
fn ax_k2s_gates_and_queries_are_rows_of_one_tensor_and_its_blocks_are_refused() {
    let (checkpoint, _) = open_family("axk2");
    let Attention::Latent(layer) = checkpoint.attention(0).unwrap() else { panic!("A.X K2 is latent") };
    let stage = layer.query_down.unwrap();
    assert!(stage.with_unnormed && checkpoint.config().gated_output);
    assert_eq!((stage.outputs(), layer.query_nope.weight.cols()), (20, 20));
    let gate = checkpoint.output_gate(0).unwrap().unwrap();
    assert_eq!((gate.map.weight.rows(), gate.map.weight.cols(), gate.input), (4 * 6, 20, GateInput::Query));
    let stored = checkpoint.source().read("model.layers.0.self_attn.q_b_proj.weight", &[80, 20]).unwrap();
    // Each head has 14 rows of its query before 6 of its gates.
    assert_eq!(gate.map.weight.row(6), &stored[(20 + 14) * 20..][..20]);
    assert_eq!(layer.query_nope.weight.row(6), &stored[20 * 20..][..20]);
    refused(checkpoint.block(0), &["MLP of layer 0", "norms with gates of their own"]);
    refused(checkpoint.mixture(1), &["MLP of layer 1", "norms with gates of their own"]);
    refused(checkpoint.expert(1, 0), &["MLP of layer 1", "norms with gates of their own"]);
}
