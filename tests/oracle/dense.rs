//! What dense families read and refuse: the checkpoints with one key changed, by what is read or by the text of the error.

use latent_attention::Result;
use latent_attention::load::Checkpoint;
use serde_json::{Value, json};

use crate::refusals::{changed, refused, with, without};
use crate::{latent, open_family};

#[test]
fn scaled_rotations_of_the_dense_families_hold_as_far_as_they_are_the_same() {
    let (checkpoint, _) = open_family("llama_longrope");
    assert_eq!(checkpoint.config().rescaled_beyond, Some(100_010));
    let (checkpoint, _) = open_family("qwen2_dynamic");
    let config = checkpoint.config();
    assert_eq!((config.rescaled_beyond, config.max_positions), (Some(131_072), 131_072));
    config.check_context(131_072).unwrap();
    refused(config.check_context(131_073), &["131073 tokens", "`dynamic`", "`max_position_embeddings` 131072"]);
    let object =
        |key: &str, value: Value| changed("qwen2_dynamic", |config| config["rope_parameters"][key] = value.clone());
    refused(object("factor", Value::Null), &["`factor` is missing"]);
    refused(object("factor", json!(-1.0)), &["`factor` must be a positive number"]);
    refused(object("original_max_position_embeddings", json!(64)), &["original_max_position_embeddings", "`dynamic`"]);
    for family in ["llama_yarn", "qwen2_yarn", "glm4_yarn"] {
        let config = open_family(family).0.config().clone();
        assert_eq!(config.rescaled_beyond, None);
        // The softmax has its usual scale, whatever `mscale_all_dim` says.
        assert_eq!(config.score_scale, 1.0 / (config.head_dim as f64).sqrt());
        assert!(config.rotation_gain > 1.0);
    }
}

#[test]
fn smollm3_rotates_the_layers_that_its_list_or_its_interval_names() {
    let still = |checkpoint: Result<Checkpoint>| {
        let config = checkpoint.unwrap().config().clone();
        let still: Vec<_> =
            (0..config.layers).filter(|&layer| config.frequencies(layer).iter().all(|&f| f == 0.0)).collect();
        assert_eq!(still.is_empty(), config.same_frequencies());
        still
    };
    let listed = |list: Value| with("smollm3", "no_rope_layers", list);
    assert_eq!(still(listed(json!([1, 0]))), [1]);
    assert_eq!(still(listed(json!([false, true, 0]))), [0]);
    assert_eq!(still(listed(json!([1, 1]))), [0; 0]);
    // The interval counts without the list only, and is 4 without its key.
    let interval = |interval: Value| {
        changed("smollm3", |config| {
            config["no_rope_layers"] = Value::Null;
            config["no_rope_layer_interval"] = interval.clone();
            config["num_hidden_layers"] = json!(9);
        })
    };
    assert_eq!(still(interval(json!(3))), [2, 5, 8]);
    assert_eq!(still(interval(Value::Null)), [3, 7]);
    assert_eq!(still(interval(json!(1))).len(), 9);
    assert_eq!(still(interval(json!(10))), [0; 0]);
    refused(interval(json!(0)), &["`no_rope_layer_interval` must be at least 1"]);
    refused(listed(json!([1])), &["`no_rope_layers` has 1 entries, the model 2 layers"]);
    refused(listed(json!([1, 2])), &["`no_rope_layers` must hold 0 or 1", "got 2"]);
    refused(listed(json!("1, 0")), &["`no_rope_layers` must be an array"]);
    refused(with("smollm3", "use_sliding_window", json!(true)), &["use_sliding_window"]);

    // Keys that are missing have SmolLM3's own defaults.
    let sizes = changed("smollm3", |config| {
        let map = config.as_object_mut().unwrap();
        map.retain(|key, _| !["num_key_value_heads", "rope_parameters", "tie_word_embeddings"].contains(&key.as_str()));
    });
    let config = sizes.unwrap().config().clone();
    assert_eq!((config.kv_heads, config.rope_theta), (4, 2_000_000.0));
    // The files have a head of their own, which counts.
    assert!(!config.tied_embeddings);
}

#[test]
fn gemmas_embedding_and_norms_carry_what_the_class_adds() {
    for family in ["gemma", "gemma2"] {
        let (checkpoint, _) = open_family(family);
        let stored = |name: &str, shape: &[usize]| checkpoint.source().read(name, shape).unwrap();
        let (embedding, gain) = (stored("model.embed_tokens.weight", &[32, 32]), stored("model.norm.weight", &[32]));
        for (read, stored) in checkpoint.embedding().unwrap().data().iter().zip(&embedding) {
            assert_eq!(*read, (f64::from(*stored) * 32f64.sqrt()) as f32);
        }
        for (read, stored) in checkpoint.final_norm().unwrap().gain.iter().zip(&gain) {
            assert_eq!(*read, stored + 1.0);
        }
        // The head is the embedding without that factor.
        assert_eq!(checkpoint.lm_head().unwrap().unwrap().data(), embedding);
        refused(checkpoint.block(0), &["MLP of layer 0", "GELU", "norms"]);
        refused(with(family, "use_bidirectional_attention", json!(true)), &["use_bidirectional_attention"]);
        refused(with(family, "hidden_act", json!("silu")), &["hidden_act `silu`", "gelu_pytorch_tanh"]);
        refused(without(family, "head_dim").and_then(|read| read.attention(0)), &["q_proj", "1024"]);
    }
    let refused_kv = without("gemma", "num_key_value_heads");
    refused(refused_kv, &["16"]);
}

#[test]
fn gemma2s_soft_cap_and_windows_are_refused_by_name_unless_they_do_nothing() {
    refused(with("gemma2", "attn_logit_softcapping", json!(30.0)), &["attn_logit_softcapping 30 in", "soft cap"]);
    refused(without("gemma2", "attn_logit_softcapping"), &["attn_logit_softcapping 50 in"]);
    refused(
        with("gemma2", "attn_logit_softcapping", json!(0)),
        &["`attn_logit_softcapping` must be a positive number"],
    );
    refused(with("gemma2", "sliding_window", json!(131_071)), &["sliding_window 131071 in", "131072"]);
    refused(without("gemma2", "sliding_window"), &["sliding_window 4096 in"]);
    with("gemma2", "sliding_window", Value::Null).unwrap();
    // Without types the first layer slides; where none does, the window counts nowhere.
    let types = |types: Value| {
        changed("gemma2", |config| {
            config["sliding_window"] = json!(16);
            config["layer_types"] = types.clone();
        })
    };
    refused(types(Value::Null), &["sliding_window 16 in"]);
    refused(types(json!(["full_attention", "sliding_attention"])), &["sliding_window 16 in"]);
    refused(types(json!(["full_attention", "chunked_attention"])), &["layer_types[1]"]);
    types(json!(["full_attention", "full_attention"])).unwrap();
}

#[test]
fn families_whose_layers_have_no_place_for_something_say_for_what() {
    for (class, model_type, why) in [
        ("Gemma3ForCausalLM", "gemma3_text", "attend over windows"),
        ("Gemma3ForConditionalGeneration", "gemma3", "attend over windows"),
        ("Olmo2ForCausalLM", "olmo2", "a factor for each token that no weight can carry"),
    ] {
        refused(with("llama", "architectures", json!([class])), &[&format!("architecture `{class}`"), why]);
        let unnamed = changed("llama", |config| {
            config["architectures"] = Value::Null;
            config["model_type"] = json!(model_type);
        });
        refused(unnamed, &[&format!("architecture `{model_type}`"), why]);
    }
}

#[test]
fn what_mha2mla_leaves_without_a_latent_takes_the_fewer_of_its_inputs_and_outputs() {
    let rank = |family: &str| latent(&open_family(family).0, 0).attention.geometry.latent_rank;
    // Of 2 KV heads 4 unrotated dimensions and 8 of values; 3 latent ones for each KV head that has a latent.
    assert_eq!(rank("mha2mla_none"), 2 * 4 + 2 * 8);
    assert_eq!(rank("mha2mla_only_key"), 2 * 3 + 2 * 8);
    assert_eq!(rank("mha2mla_only_value"), 2 * 4 + 2 * 3);
    assert_eq!(rank("mha2mla_gqa"), 2 * 3);
    // With 4 KV heads those are 48, the hidden state has 32.
    assert_eq!(rank("mha2mla_none_of_mha"), 32);
}
