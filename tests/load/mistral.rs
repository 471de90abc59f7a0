//! Mistral: Llama's layout, if attention does not slide over a window.

use latent_attention::Error;
use latent_attention::load::Architecture;
use serde_json::{Value, json};

use super::fixture::*;
use super::{save, save_shared_key};

fn config() -> Value {
    with(
        llama_config(),
        json!({"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": null}),
    )
}

fn without(mut config: Value, key: &str) -> Value {
    config.as_object_mut().expect("an object").remove(key);
    config
}

#[test]
fn a_mistral_model_is_read_as_written_and_has_no_biases() {
    let tensors = llama();
    for config in [
        config(),
        without(config(), "architectures"),
        // transformers' class does not know the key.
        with(config(), json!({"attention_bias": true})),
    ] {
        let (dir, checkpoint) = reopen(&config, &tensors);
        read_everything(dir.path()).expect("a valid model");
        let checkpoint = checkpoint.expect("a valid model");
        assert_eq!(checkpoint.config().architecture, Architecture::Mistral);
        assert!(!checkpoint.config().attention_bias);
        for layer in 0..LAYERS {
            let read = dense(&checkpoint, layer);
            assert_eq!((read.query_heads, read.kv_heads, read.head_dim), (HEADS, KV_HEADS, HEAD_DIM));
            for (part, linear) in
                [("q_proj", &read.query), ("k_proj", &read.key), ("v_proj", &read.value), ("o_proj", &read.output)]
            {
                let stored = tensors.floats(&attention(layer, &format!("{part}.weight")));
                assert_eq!((linear.weight.data(), &linear.bias), (stored.as_slice(), &None), "{part}");
            }
        }
    }
}

#[test]
fn a_window_shorter_than_the_context_is_refused_and_no_key_is_one_of_4096() {
    // The fixture's context is 64 tokens.
    for accepted in [
        config(),
        with(config(), json!({"sliding_window": 64})),
        with(config(), json!({"sliding_window": 4096})),
        with(without(config(), "sliding_window"), json!({"max_position_embeddings": 4096})),
    ] {
        let (_dir, checkpoint) = reopen(&accepted, &llama());
        checkpoint.unwrap_or_else(|error| panic!("{accepted}: {error}"));
    }
    for (refused, window) in [
        (with(config(), json!({"sliding_window": 63})), 63),
        (with(config(), json!({"sliding_window": 4096, "max_position_embeddings": 32768})), 4096),
        (with(without(config(), "sliding_window"), json!({"max_position_embeddings": 4097})), 4096),
    ] {
        let (_dir, checkpoint) = reopen(&refused, &llama());
        let error = checkpoint.expect_err("a window");
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        let error = error.to_string();
        assert!(error.contains(&format!("sliding_window {window} in ")) && error.contains("not supported"), "{error}");
    }
    let (_dir, checkpoint) = reopen(&with(config(), json!({"sliding_window": "all"})), &llama());
    assert!(checkpoint.expect_err("no number").to_string().contains("`sliding_window` must be a whole number"));
}

#[test]
fn kv_heads_are_8_without_a_key_and_those_of_the_queries_with_null() {
    let sixteen = with(config(), json!({"num_attention_heads": 16, "head_dim": 2}));
    for (config, expected) in [
        (without(sixteen.clone(), "num_key_value_heads"), 8),
        (with(sixteen.clone(), json!({"num_key_value_heads": null})), 16),
        (with(sixteen, json!({"num_key_value_heads": 4})), 4),
    ] {
        let (_dir, checkpoint) = reopen(&config, &llama());
        assert_eq!(checkpoint.expect("headers are fine").config().kv_heads, expected);
    }
}

#[test]
fn a_tensor_that_mistrals_attention_has_no_use_for_is_refused_by_name() {
    let mut tensors = llama();
    tensors.random(&attention(1, "q_norm.weight"), &[HEAD_DIM]);
    let (_dir, checkpoint) = reopen(&config(), &tensors);
    let error = checkpoint.expect("headers are fine").attention(1).expect_err("a norm").to_string();
    assert!(error.contains("q_norm.weight") && error.contains("Mistral's attention makes no use of it"), "{error}");
}

#[test]
fn converted_models_are_read_back_bit_for_bit_and_still_call_themselves_mistral() {
    let (_dir, original) = reopen(&config(), &llama());
    let original = original.expect("a valid model");
    let layers: Vec<_> = (0..LAYERS).map(|layer| save::converted(layer, 4, 6, &[0, 1, 0, 1], false)).collect();
    let saved = save::check_round_trip(&original, &layers);
    assert_eq!(saved["architectures"], json!(["MistralForCausalLM"]));

    let layers = [0, 1].map(|layer| save_shared_key::converted(layer, 6, &[0, 1, 1, 3], false));
    let saved = save_shared_key::check_round_trip(&original, &original, &layers);
    assert_eq!(saved["latent_attention"]["converted_from"], "MistralForCausalLM");
}
