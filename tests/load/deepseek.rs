//! DeepSeek's layout.

use latent_attention::load::Architecture;
use latent_attention::rope::Pairing;
use serde_json::{Value, json};

use super::fixture::*;

pub const KV_RANK: usize = 12;
pub const QUERY_RANK: usize = 10;
pub const ROPE: usize = 4;
pub const NOPE: usize = 6;
pub const VALUE: usize = 5;

pub fn config(query_rank: Value) -> Value {
    with(
        llama_config(),
        json!({
            "architectures": ["DeepseekV3ForCausalLM"], "kv_lora_rank": KV_RANK, "q_lora_rank": query_rank,
            "qk_rope_head_dim": ROPE, "qk_nope_head_dim": NOPE, "v_head_dim": VALUE, "head_dim": null,
            "num_key_value_heads": HEADS
        }),
    )
}

pub fn model(low_rank_query: bool, bias: bool) -> Tensors {
    let mut tensors = Tensors::default();
    tensors.add_frame(true);
    for layer in 0..LAYERS {
        let name = |part: &str| attention(layer, part);
        if low_rank_query {
            tensors.random(&name("q_a_proj.weight"), &[QUERY_RANK, HIDDEN]);
            tensors.random(&name("q_a_layernorm.weight"), &[QUERY_RANK]);
            tensors.random(&name("q_b_proj.weight"), &[HEADS * (NOPE + ROPE), QUERY_RANK]);
        } else {
            tensors.random(&name("q_proj.weight"), &[HEADS * (NOPE + ROPE), HIDDEN]);
        }
        tensors.random(&name("kv_a_proj_with_mqa.weight"), &[KV_RANK + ROPE, HIDDEN]);
        if bias {
            tensors.random(&name("kv_a_proj_with_mqa.bias"), &[KV_RANK + ROPE]);
        }
        tensors.random(&name("kv_a_layernorm.weight"), &[KV_RANK]);
        tensors.random(&name("kv_b_proj.weight"), &[HEADS * (NOPE + VALUE), KV_RANK]);
        tensors.random(&name("o_proj.weight"), &[HIDDEN, HEADS * VALUE]);
    }
    tensors
}

/// The rows of each head of `per_head` rows that lie in `range`.
fn head_rows(data: &[f32], cols: usize, per_head: usize, range: std::ops::Range<usize>) -> Vec<f32> {
    rows(data, cols, (0..HEADS).flat_map(|head| range.clone().map(move |row| head * per_head + row)))
}

#[test]
fn heads_are_split_into_unrotated_then_rotated_and_key_then_value_rows() {
    for low_rank in [false, true] {
        let tensors = model(low_rank, true);
        let rank = if low_rank { json!(QUERY_RANK) } else { Value::Null };
        let (_dir, checkpoint) = reopen(&config(rank), &tensors);
        let checkpoint = checkpoint.expect("a valid model");
        assert_eq!(checkpoint.config().architecture, Architecture::DeepSeek);
        let read = latent(&checkpoint, 1);
        let stored = |part: &str| tensors.floats(&attention(1, part));

        let (query, inputs) = if low_rank { ("q_b_proj.weight", QUERY_RANK) } else { ("q_proj.weight", HIDDEN) };
        let query = stored(query);
        assert_eq!(read.query_nope.weight.data(), head_rows(&query, inputs, NOPE + ROPE, 0..NOPE));
        assert_eq!(read.query_rope.weight.data(), head_rows(&query, inputs, NOPE + ROPE, NOPE..NOPE + ROPE));
        match &read.query_down {
            Some(stage) => {
                assert_eq!(stage.down.weight.data(), stored("q_a_proj.weight"));
                assert_eq!(stage.norm.gain, stored("q_a_layernorm.weight"));
            }
            None => assert!(!low_rank),
        }
        let kv = stored("kv_a_proj_with_mqa.weight");
        assert_eq!(read.down.weight.data(), &kv[..KV_RANK * HIDDEN]);
        assert_eq!(read.key_rope.weight.data(), &kv[KV_RANK * HIDDEN..]);
        let bias = stored("kv_a_proj_with_mqa.bias");
        assert_eq!(read.down.bias.as_deref(), Some(&bias[..KV_RANK]));
        assert_eq!(read.key_rope.bias.as_deref(), Some(&bias[KV_RANK..]));
        let up = stored("kv_b_proj.weight");
        assert_eq!(read.up_key.data(), head_rows(&up, KV_RANK, NOPE + VALUE, 0..NOPE));
        assert_eq!(read.up_value.data(), head_rows(&up, KV_RANK, NOPE + VALUE, NOPE..NOPE + VALUE));
        assert_eq!(read.latent_norm.as_ref().map(|norm| &norm.gain), Some(&stored("kv_a_layernorm.weight")));
        assert_eq!(read.pairing, Pairing::Interleaved);
        assert_eq!(read.scale, 1.0 / 10f64.sqrt());
        assert_eq!(read.frequencies.as_slice(), [0, 1]);
    }
}

#[test]
fn yarn_scales_the_score_and_an_uneven_mscale_the_rotated_query() {
    let yarn = |mscale: f64| {
        json!({"rope_scaling": {"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096,
            "mscale": mscale, "mscale_all_dim": 0.5}})
    };
    let tensors = model(false, false);
    let read = |mscale: f64| {
        let (_dir, checkpoint) = reopen(&with(config(Value::Null), yarn(mscale)), &tensors);
        latent(&checkpoint.expect("a valid model"), 0)
    };
    let factor = |mscale: f64| 0.1 * mscale * 40f64.ln() + 1.0;
    let even = read(0.5);
    assert!((even.scale - factor(0.5).powi(2) / 10f64.sqrt()).abs() < 1e-12);
    let uneven = read(1.0);
    assert_eq!(uneven.query_nope, even.query_nope);
    let gain = (factor(1.0) / factor(0.5)).powi(2);
    for (&scaled, &plain) in uneven.query_rope.weight.data().iter().zip(even.query_rope.weight.data()) {
        assert!((f64::from(scaled) - gain * f64::from(plain)).abs() < 1e-6);
    }
}

#[test]
fn a_mixture_of_experts_keeps_its_attention_readable() {
    let mut tensors = model(false, false);
    tensors.random("model.layers.1.mlp.gate.weight", &[4, HIDDEN]);
    let (_dir, checkpoint) = reopen(&config(Value::Null), &tensors);
    let checkpoint = checkpoint.expect("a valid model");
    checkpoint.attention(1).expect("attention");
    checkpoint.block(0).expect("a dense layer");
    let error = checkpoint.block(1).expect_err("experts").to_string();
    assert!(error.contains("mixture of experts") && error.contains("layer 1"), "{error}");
}

#[test]
fn rope_interleave_is_heard_by_v3_where_null_is_off_and_not_by_v2() {
    let (v2, v3) = ("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM");
    for (class, key, expected) in [
        (v3, json!({}), Pairing::Interleaved),
        (v3, json!({"rope_interleave": true}), Pairing::Interleaved),
        (v3, json!({"rope_interleave": false}), Pairing::Half),
        (v3, json!({"rope_interleave": null}), Pairing::Half),
        (v2, json!({}), Pairing::Interleaved),
        (v2, json!({"rope_interleave": true}), Pairing::Interleaved),
        (v2, json!({"rope_interleave": false}), Pairing::Interleaved),
        (v2, json!({"rope_interleave": null}), Pairing::Interleaved),
    ] {
        let changed = with(with(config(Value::Null), json!({"architectures": [class]})), key.clone());
        let (_dir, checkpoint) = reopen(&changed, &model(false, false));
        let checkpoint = checkpoint.expect("a valid model");
        assert_eq!(latent(&checkpoint, 0).pairing, expected, "{class} {key}");
    }
}

#[test]
fn latents_are_normed_with_an_epsilon_of_their_own_whatever_the_configuration_says() {
    for class in ["DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"] {
        for epsilon in [1e-5f32, 1e-6, 0.25] {
            let changes = json!({"architectures": [class], "rms_norm_eps": epsilon});
            let (_dir, checkpoint) = reopen(&with(config(json!(QUERY_RANK)), changes), &model(true, false));
            let checkpoint = checkpoint.expect("a valid model");
            let read = latent(&checkpoint, 0);
            assert_eq!(read.latent_norm.expect("a norm").epsilon, 1e-6, "{class}");
            assert_eq!(read.query_down.expect("a low-rank query").norm.epsilon, 1e-6, "{class}");
            assert_eq!(checkpoint.block(0).expect("a dense layer").attention_norm.epsilon, epsilon);
            assert_eq!(checkpoint.final_norm().expect("a norm").epsilon, epsilon);
        }
    }
}

#[test]
fn a_tensor_that_deepseeks_attention_has_no_use_for_is_refused_by_name() {
    for extra in ["kv_b_proj.bias", "q_a_layernorm.weight", "kv_a_layernorm.bias", "indexer.wk.weight"] {
        let mut tensors = model(false, true);
        tensors.random(&attention(1, extra), &[HEADS * (NOPE + VALUE)]);
        let (_dir, checkpoint) = reopen(&config(Value::Null), &tensors);
        let checkpoint = checkpoint.expect("headers are fine");
        checkpoint.attention(0).expect("a layer without it");
        let error = checkpoint.attention(1).expect_err(extra).to_string();
        assert!(error.contains(&attention(1, extra)) && error.contains("DeepSeek's attention"), "{error}");
    }
}

#[test]
fn layers_behind_the_last_one_are_left_alone() {
    let mut tensors = model(true, false);
    tensors.random(&attention(LAYERS, "q_a_proj.weight"), &[QUERY_RANK, HIDDEN]);
    tensors.random(&format!("model.layers.{LAYERS}.eh_proj.weight"), &[HIDDEN, 2 * HIDDEN]);
    let (dir, checkpoint) = reopen(&config(json!(QUERY_RANK)), &tensors);
    checkpoint.expect("a valid model");
    read_everything(dir.path()).expect("DeepSeek-V3 predicts further tokens with such a layer");
}
