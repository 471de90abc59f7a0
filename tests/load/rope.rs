//! The rotation that configurations mean. Expected numbers are what transformers 5.24.0 computed (`inv_freq`,
//! `attention_scaling` and `scaling` of its modules) for the same `config.json`, unless said otherwise.

use latent_attention::Error;
use latent_attention::load::Checkpoint;
use serde_json::{Value, json};

use super::fixture::*;

/// Opens a Llama model with some keys replaced. Only headers are read, so any tensors will do.
fn llama_with(changes: Value) -> latent_attention::Result<Checkpoint> {
    reopen(&with(llama_config(), changes), &llama()).1
}

/// Opens a DeepSeek model, 8 of whose 14 dimensions per head are rotated, with some keys replaced.
fn deepseek_with(class: &str, changes: Value) -> latent_attention::Result<Checkpoint> {
    let base = json!({
        "architectures": [class], "kv_lora_rank": 12, "q_lora_rank": 10, "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 6, "v_head_dim": 5, "head_dim": null, "num_key_value_heads": HEADS,
        "max_position_embeddings": 163_840
    });
    reopen(&with(with(llama_config(), base), changes), &llama()).1
}

const DEEPSEEK: [&str; 2] = ["DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"];

/// DeepSeek-V3's values, with some keys replaced.
fn yarn(changes: Value) -> Value {
    let base = json!({"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
        "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0});
    with(base, changes)
}

fn llama3(changes: Value) -> Value {
    let base = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16});
    with(base, changes)
}

/// Radians per token of four pairs, factor on cosines and sines, softmax scale.
struct Expected([f64; 4], f64, f64);

/// Transformers computes frequencies in f32, so that they may be off by some roundings of 6e-8.
fn check(checkpoint: latent_attention::Result<Checkpoint>, expected: &Expected, case: &str) {
    let close = |got: f64, expected: f64| (got - expected).abs() <= 2.5e-7 * expected.abs();
    let checkpoint = checkpoint.unwrap_or_else(|error| panic!("{case}: {error}"));
    let config = checkpoint.config();
    let &Expected(frequencies, gain, scale) = expected;
    assert_eq!(config.inverse_frequencies.len(), 4, "{case}");
    for (&got, expected) in config.inverse_frequencies.iter().zip(frequencies) {
        assert!(close(got.into(), expected), "{case}: {:?}, expected {frequencies:?}", config.inverse_frequencies);
    }
    assert!(close(config.rotation_gain, gain), "{case}: {}, expected {gain}", config.rotation_gain);
    assert!(close(config.score_scale, scale), "{case}: {}, expected {scale}", config.score_scale);
}

/// What this crate does not compute, refused with these parts in the message.
fn refused(checkpoint: latent_attention::Result<Checkpoint>, parts: &[&str]) {
    let error = checkpoint.expect_err("should be refused");
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    mentions(&error, parts);
}

/// A configuration that says two things.
fn contradicts_itself(checkpoint: latent_attention::Result<Checkpoint>, parts: &[&str]) {
    let error = checkpoint.expect_err("should be refused");
    assert!(matches!(error, Error::Config { .. }), "{error:?}");
    mentions(&error, parts);
}

fn mentions(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn rotations_of_llama_are_those_of_transformers() {
    let scale = 0.353553390593;
    for (changes, frequencies) in [
        (json!({"rope_theta": 5e5}), [1.0, 0.0376060307, 0.00141421345, 5.31829573e-05]),
        (
            json!({"rope_theta": 5e5, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
            [1.0, 0.0316227786, 0.00100000005, 3.16227743e-05],
        ),
        (
            json!({"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 2}}),
            [0.5, 0.0158113893, 0.000500000024, 1.58113871e-05],
        ),
        (
            json!({"rope_theta": 5e5, "rope_scaling": llama3(json!({}))}),
            [0.576056361, 0.00470075384, 0.000176776681, 6.64786967e-06],
        ),
    ] {
        check(llama_with(changes.clone()), &Expected(frequencies, 1.0, scale), &changes.to_string());
    }
}

#[test]
fn the_original_context_at_the_top_goes_before_the_nested_one_and_the_context_stands_in_for_both() {
    let top = "original_max_position_embeddings";
    let llama_scale = 0.353553390593;
    let long = [1.0, 0.00470075384, 0.000176776681, 6.64786967e-06];
    for changes in [
        json!({"rope_scaling": llama3(json!({})), top: 32}),
        json!({"rope_scaling": llama3(json!({top: null})), top: 32}),
        json!({"rope_scaling": llama3(json!({top: null})), "max_position_embeddings": 64}),
    ] {
        let changes = with(changes, json!({"rope_theta": 5e5}));
        check(llama_with(changes.clone()), &Expected(long, 1.0, llama_scale), &changes.to_string());
    }
    for class in DEEPSEEK {
        for (changes, frequencies) in [
            (json!({"rope_scaling": yarn(json!({}))}), [1.0, 0.1, 0.00512499968, 2.49999994e-05]),
            (json!({"rope_scaling": yarn(json!({})), top: 8192}), [1.0, 0.1, 0.00674999924, 0.000349999988]),
            (json!({"rope_scaling": yarn(json!({top: null})), top: 8192}), [1.0, 0.1, 0.00674999924, 0.000349999988]),
            (
                json!({"rope_scaling": yarn(json!({top: null})), "max_position_embeddings": 2048}),
                [1.0, 0.1, 0.00512499968, 2.49999994e-05],
            ),
        ] {
            let expected = Expected(frequencies, 1.0, 0.50080860255);
            check(deepseek_with(class, changes.clone()), &expected, &format!("{class} {changes}"));
        }
    }
}

#[test]
fn yarn_without_truncation_ramps_between_parts_of_pairs() {
    for class in DEEPSEEK {
        for (truncate, third) in
            [(json!(true), 0.00512499968), (json!(false), 0.00552406255), (Value::Null, 0.00552406255)]
        {
            let changes = json!({"rope_scaling": yarn(json!({"truncate": truncate}))});
            let expected = Expected([1.0, 0.1, third, 2.49999994e-05], 1.0, 0.50080860255);
            check(deepseek_with(class, changes.clone()), &expected, &format!("{class} {changes}"));
        }
    }
}

#[test]
fn every_scaling_of_deepseek_takes_its_softmax_factor() {
    let linear = [0.25, 0.025, 0.0025, 0.00025];
    for class in DEEPSEEK {
        for (scaling, frequencies, scale) in [
            (json!({"type": "linear", "factor": 4.0}), linear, 0.267261241912),
            (json!({"type": "linear", "factor": 4.0, "mscale_all_dim": 1.0}), linear, 0.346498051201),
            (llama3(json!({"mscale_all_dim": 0.5})), [0.576056361, 0.0125, 0.00125, 0.000125], 0.32572580036),
        ] {
            let changes = json!({"rope_scaling": scaling});
            let expected = Expected(frequencies, 1.0, scale);
            check(deepseek_with(class, changes.clone()), &expected, &format!("{class} {changes}"));
        }
    }
}

#[test]
fn factors_of_yarn_are_those_of_transformers_where_both_mscales_are_there_or_neither() {
    for (mscales, gain, scale) in [
        (json!({"mscale": 0.707}), 0.921042355316, 0.50080860255),
        (json!({"mscale": null, "mscale_all_dim": null}), 1.36888794541, 0.267261241912),
        (json!({"attention_factor": 1.2}), 1.2, 0.50080860255),
    ] {
        let changes = json!({"rope_scaling": yarn(mscales)});
        let expected = Expected([1.0, 0.1, 0.00512499968, 2.49999994e-05], gain, scale);
        check(deepseek_with(DEEPSEEK[1], changes.clone()), &expected, &changes.to_string());
    }
}

/// Transformers 5.24 has a gain of 1.36888794541 in both cases.
#[test]
fn one_mscale_alone_follows_the_formula_that_deepseek_published() {
    let attention = |mscale: f64| 0.1 * mscale * 40f64.ln() + 1.0;
    let plain = 1.0 / 14f64.sqrt();
    for (mscales, gain, scale) in [
        (json!({"mscale": 0.707, "mscale_all_dim": null}), attention(0.707), plain),
        (
            json!({"mscale": null, "mscale_all_dim": 0.707}),
            attention(1.0) / attention(0.707),
            plain * attention(0.707).powi(2),
        ),
    ] {
        let changes = json!({"rope_scaling": yarn(mscales)});
        let expected = Expected([1.0, 0.1, 0.00512499968, 2.49999994e-05], gain, scale);
        check(deepseek_with(DEEPSEEK[1], changes.clone()), &expected, &changes.to_string());
    }
}

#[test]
fn two_objects_that_say_the_same_are_read() {
    let expected = Expected([0.5, 0.0158113893, 0.000500000024, 1.58113871e-05], 1.0, 0.353553390593);
    let linear = |more: Value| with(json!({"rope_type": "linear", "factor": 2.0}), more);
    for (parameters, scaling) in [
        (linear(json!({"rope_theta": 1e6})), json!({"type": "linear", "factor": 2})),
        (linear(json!({})), linear(json!({}))),
        (linear(json!({"rope_theta": 1e6})), Value::Null),
        (Value::Null, linear(json!({}))),
    ] {
        let changes = json!({"rope_theta": 1e6, "rope_parameters": parameters, "rope_scaling": scaling});
        check(llama_with(changes.clone()), &expected, &changes.to_string());
    }
    // What is written out on one side is the default that the other leaves to the reader.
    let spelled = yarn(json!({"rope_theta": 1e4, "attention_factor": 1.0, "truncate": true}));
    let changes = json!({"rope_parameters": spelled, "rope_scaling": yarn(json!({"beta_fast": null}))});
    let expected = Expected([1.0, 0.1, 0.00512499968, 2.49999994e-05], 1.0, 0.50080860255);
    check(deepseek_with(DEEPSEEK[1], changes.clone()), &expected, &changes.to_string());
    // An error that both have is told as if there were one.
    let unknown = json!({"rope_type": "proportional"});
    let changes = json!({"rope_parameters": unknown, "rope_scaling": unknown});
    refused(llama_with(changes), &["rope_parameters type `proportional`", "default, linear, llama3"]);
}

#[test]
fn two_objects_that_differ_are_refused_with_what_each_would_mean() {
    let default = json!({"rope_type": "default", "rope_theta": 1e6});
    for (changes, parts) in [
        (
            json!({"rope_parameters": default, "rope_scaling": {"type": "yarn", "factor": 4.0}}),
            &["`rope_parameters` means type `default` with rope_theta 1000000", "`rope_scaling` means type `yarn`"][..],
        ),
        (
            json!({"rope_parameters": {}, "rope_scaling": {"type": "yarn", "factor": 4.0}}),
            &[
                "`rope_parameters` means type `default`",
                "`rope_scaling` means type `yarn`",
                "rope_theta 10000, factor 4",
            ],
        ),
        (
            json!({"rope_parameters": {}, "rope_scaling": {"type": "linear", "factor": 2}}),
            &["`rope_parameters` means type `default`", "`rope_scaling` means type `linear`", "factor 2"],
        ),
        (
            json!({"rope_parameters": {}, "rope_scaling": llama3(json!({}))}),
            &["`rope_scaling` means type `llama3`", "low_freq_factor 1"],
        ),
        (
            json!({"rope_parameters": llama3(json!({})), "rope_scaling": {}}),
            &["`rope_parameters` means type `llama3`", "`rope_scaling` means type `default`"],
        ),
        // Transformers loses the theta of the first: 1e6 becomes 10000.
        (
            json!({"rope_parameters": default, "rope_scaling": {"rope_type": "default"}, "rope_theta": null}),
            &["with rope_theta 1000000;", "`rope_scaling` means type `default` with rope_theta 10000;"],
        ),
    ] {
        contradicts_itself(llama_with(changes), parts);
    }
    for class in DEEPSEEK {
        let changes = json!({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
            "rope_scaling": yarn(json!({}))});
        contradicts_itself(deepseek_with(class, changes), &["`rope_scaling` means type `yarn`", "factor 40"]);
    }
}

#[test]
fn what_no_rule_reads_is_refused_by_name() {
    let nested = json!({"full_attention": {"rope_type": "default", "rope_theta": 1e6}});
    for (changes, parts) in [
        (json!({"rope_parameters": nested}), &["`rope_parameters.full_attention`", "types of layers"][..]),
        (
            json!({"rope_scaling": {"type": "linear", "factor": 2, "mscale_all_dim": 1}}),
            &["`rope_scaling.mscale_all_dim`"],
        ),
        (
            json!({"rope_scaling": {"type": "linear", "factor": 2, "foo": 1}}),
            &["`rope_scaling.foo`", "knows", "factor"],
        ),
        (json!({"rope_scaling": {"rope_type": "default", "factor": 2}}), &["`rope_scaling.factor`", "`default`"]),
        (json!({"rope_scaling": llama3(json!({"beta_fast": 32}))}), &["`rope_scaling.beta_fast`", "low_freq_factor"]),
        (json!({"rope_parameters": {"partial_rotary_factor": 0.5}}), &["partial_rotary_factor 0.5"]),
        (json!({"partial_rotary_factor": 0.5}), &["partial_rotary_factor 0.5"]),
    ] {
        refused(llama_with(changes), parts);
    }
    for (scaling, part) in [
        (yarn(json!({"mscale_some_dim": 1})), "`rope_scaling.mscale_some_dim`"),
        (json!({"type": "linear", "factor": 4, "mscale": 1}), "`rope_scaling.mscale`"),
        (json!({"type": "default", "mscale_all_dim": 1}), "`rope_scaling.mscale_all_dim`"),
    ] {
        refused(deepseek_with(DEEPSEEK[1], json!({"rope_scaling": scaling})), &[part]);
    }
}

#[test]
fn two_types_in_one_object_are_refused() {
    let changes = json!({"rope_scaling": {"rope_type": "default", "type": "linear"}});
    contradicts_itself(llama_with(changes), &["`rope_type` says `default`", "`linear`"]);
}

#[test]
fn keys_that_change_nothing_are_read() {
    let plain = Expected([1.0, 0.1, 0.01, 0.001], 1.0, 0.353553390593);
    for changes in [
        json!({"rope_scaling": {"rope_type": "default", "type": "default", "partial_rotary_factor": 1.0}}),
        json!({"rope_scaling": {"type": "linear", "factor": 1.0, "mscale": null}}),
        json!({"rope_scaling": {}}),
        json!({"rope_scaling": null, "rope_parameters": {"rope_theta": 1e4}}),
        json!({"original_max_position_embeddings": 32}),
    ] {
        check(llama_with(changes.clone()), &plain, &changes.to_string());
    }
}

#[test]
fn a_factor_that_is_not_finite_is_refused() {
    for mscales in [json!({"mscale": 1e308, "mscale_all_dim": 1e308}), json!({"mscale_all_dim": 1e200})] {
        let error =
            deepseek_with(DEEPSEEK[1], json!({"rope_scaling": yarn(mscales)})).expect_err("overflow").to_string();
        assert!(error.contains("rope_scaling `yarn` yields"), "{error}");
    }
}

#[test]
fn frequencies_that_are_written_out_are_not_scaled_again() {
    let own = json!({"inverse_frequencies": [1.0, 0.5, 0.25, 0.125]});
    let written = Expected([1.0, 0.5, 0.25, 0.125], 1.0, 0.353553390593);
    for scaling in [Value::Null, json!({"type": "linear", "factor": 1.0})] {
        let changes = json!({"latent_attention": own, "rope_scaling": scaling});
        check(llama_with(changes.clone()), &written, &changes.to_string());
    }
    let changes = json!({"latent_attention": own, "rope_scaling": {"type": "linear", "factor": 2.0}});
    contradicts_itself(llama_with(changes), &["latent_attention.inverse_frequencies", "scaling"]);
}
