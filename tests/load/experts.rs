//! Mixtures of experts, in DeepSeek's layout.

use latent_attention::load::{Checkpoint, GatedMlp, GroupRank, Mixture, Scores};
use serde_json::{Value, json};

use super::deepseek;
use super::fixture::*;

pub const EXPERTS: usize = 8;
pub const WIDTH: usize = 24;
const V2: &str = "DeepseekV2ForCausalLM";

/// A model of DeepSeek-V3's kind, whose second layer is a mixture.
pub fn config() -> Value {
    with(
        deepseek::config(json!(deepseek::QUERY_RANK)),
        json!({
            "moe_intermediate_size": WIDTH, "n_routed_experts": EXPERTS, "n_shared_experts": 2, "num_experts_per_tok": 3,
            "n_group": 4, "topk_group": 2, "norm_topk_prob": true, "routed_scaling_factor": 2.5
        }),
    )
}

pub fn mlp(part: &str) -> String {
    format!("model.layers.1.mlp.{part}")
}

/// Its tensors; V2's have no correction.
pub fn model(correction: bool) -> Tensors {
    let mut tensors = deepseek::model(true, false);
    tensors.0.retain(|name, _| !name.contains("layers.1.mlp."));
    tensors.random(&mlp("gate.weight"), &[EXPERTS, HIDDEN]);
    if correction {
        tensors.random(&mlp("gate.e_score_correction_bias"), &[EXPERTS]);
    }
    let experts = (0..EXPERTS).map(|expert| (format!("experts.{expert}"), WIDTH));
    for (module, width) in experts.chain([("shared_experts".to_owned(), 2 * WIDTH)]) {
        tensors.random(&mlp(&format!("{module}.gate_proj.weight")), &[width, HIDDEN]);
        tensors.random(&mlp(&format!("{module}.up_proj.weight")), &[width, HIDDEN]);
        tensors.random(&mlp(&format!("{module}.down_proj.weight")), &[HIDDEN, width]);
    }
    tensors
}

fn opened(config: &Value, tensors: &Tensors) -> Checkpoint {
    reopen(config, tensors).1.expect("headers are fine")
}

fn mixture(config: &Value, tensors: &Tensors) -> Mixture {
    opened(config, tensors).mixture(1).expect("a mixture").expect("of experts")
}

fn assert_stored(read: &GatedMlp, tensors: &Tensors, module: &str) {
    for (map, name) in [(&read.gate, "gate_proj"), (&read.up, "up_proj"), (&read.down, "down_proj")] {
        assert_eq!(map.weight.data(), tensors.floats(&mlp(&format!("{module}.{name}.weight"))));
        assert_eq!(map.bias, None);
    }
}

#[test]
fn a_mixture_is_read_as_it_stands_in_the_file_and_its_experts_one_by_one() {
    let tensors = model(true);
    let checkpoint = opened(&config(), &tensors);
    assert_eq!(checkpoint.mixture(0).expect("a plain MLP"), None);
    checkpoint.block(0).expect("a plain MLP");
    let read = checkpoint.mixture(1).expect("read").expect("a mixture");
    assert_eq!(read.mlp_norm.gain, tensors.floats("model.layers.1.post_attention_layernorm.weight"));
    assert_eq!(read.attention_norm.gain, tensors.floats("model.layers.1.input_layernorm.weight"));
    assert_eq!(read.output_norm, None);
    assert_stored(&read.shared.expect("a shared MLP"), &tensors, "shared_experts");
    let router = read.router;
    assert_eq!(router.weight.data(), tensors.floats(&mlp("gate.weight")));
    assert_eq!(router.correction, Some(tensors.floats(&mlp("gate.e_score_correction_bias"))));
    assert_eq!((router.scores, router.rank), (Scores::Sigmoid, GroupRank::TwoLargest));
    assert_eq!((router.groups, router.chosen_groups, router.chosen), (4, 2, 3));
    assert_eq!((router.normalised, router.factor), (true, 2.5));
    for expert in 0..EXPERTS {
        assert_stored(&checkpoint.expert(1, expert).expect("an expert"), &tensors, &format!("experts.{expert}"));
    }
    for (result, parts) in [
        (checkpoint.expert(1, EXPERTS), ["expert of layer 1 = 8", "0..8"]),
        (checkpoint.expert(0, 0), ["an expert of layer 0", "Checkpoint::block"]),
        (checkpoint.expert(LAYERS, 0), ["layer = 2", "0..2"]),
    ] {
        let error = result.expect_err("no such expert").to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    let error = checkpoint.block(1).expect_err("a mixture").to_string();
    assert!(error.contains("MLP of layer 1") && error.contains("mixture of experts"), "{error}");
}

#[test]
fn deepseek_v2_routes_by_a_softmax_from_all_groups_or_from_those_with_the_largest() {
    let v2 = |changes: Value| {
        let config = with(with(config(), json!({"architectures": [V2], "norm_topk_prob": false})), changes);
        mixture(&config, &model(false)).router
    };
    for (router, groups) in [
        (v2(json!({})), (1, 1)),
        (v2(json!({"topk_method": "greedy", "n_group": null, "topk_group": null})), (1, 1)),
        (v2(json!({"topk_method": "group_limited_greedy", "scoring_func": "softmax"})), (4, 2)),
    ] {
        assert_eq!((router.groups, router.chosen_groups), groups);
        assert_eq!((router.scores, router.rank), (Scores::Softmax, GroupRank::Largest));
        assert_eq!((router.correction, router.normalised, router.factor), (None, false, 2.5));
    }
}

#[test]
fn a_mixture_without_shared_experts_has_none() {
    let mut tensors = model(true);
    tensors.0.retain(|name, _| !name.contains("shared_experts"));
    for count in [json!(0), Value::Null] {
        assert_eq!(mixture(&with(config(), json!({"n_shared_experts": count})), &tensors).shared, None);
    }
}

#[test]
fn keys_that_are_missing_or_contradict_the_tensors_are_refused_by_name() {
    let refused = |changes: Value, parts: &[&str]| {
        let checkpoint = opened(&with(config(), changes), &model(true));
        checkpoint.attention(1).expect("the attention needs none of this");
        let error = checkpoint.mixture(1).expect_err(&format!("{parts:?}")).to_string();
        assert!(parts.iter().all(|part| error.contains(part)) && !error.contains('\n'), "{error}");
    };
    for key in [
        "moe_intermediate_size",
        "n_group",
        "topk_group",
        "num_experts_per_tok",
        "routed_scaling_factor",
        "norm_topk_prob",
    ] {
        refused(json!({key: null}), &[&format!("`{key}` is missing")]);
    }
    refused(json!({"n_routed_experts": 7}), &["mlp.gate.weight", "[7, 32], as `n_routed_experts` says", "[8, 32]"]);
    refused(json!({"moe_intermediate_size": 23}), &["experts.0.gate_proj.weight", "[23, 32]", "[24, 32]"]);
    refused(json!({"n_shared_experts": 3}), &["shared_experts.gate_proj.weight", "[72, 32]", "[48, 32]"]);
    refused(json!({"n_group": 3}), &["router of 8 experts", "`n_group`"]);
    refused(json!({"n_group": 8}), &["router of 8 experts", "at least 2 each"]);
    refused(json!({"topk_group": 5}), &["`topk_group`"]);
    refused(json!({"num_experts_per_tok": 5}), &["5 experts (`num_experts_per_tok`) cannot be chosen among 4"]);
    refused(json!({"scoring_func": "softmax"}), &["scoring_func `softmax`", "`sigmoid`"]);
    refused(json!({"topk_method": "greedy"}), &["topk_method `greedy`", "noaux_tc"]);
    refused(json!({"routed_scaling_factor": 0}), &["`routed_scaling_factor` must be a positive number"]);
    refused(json!({"architectures": [V2]}), &["norm_topk_prob `true`", "divides by the sum"]);
    refused(
        json!({"architectures": [V2], "norm_topk_prob": false, "topk_method": "noaux_tc"}),
        &["topk_method `noaux_tc`"],
    );
}

#[test]
fn tensors_of_a_mixture_that_are_missing_or_unread_are_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Tensors), parts: &[&str]| {
        let mut tensors = model(true);
        change(&mut tensors);
        let error = opened(&config(), &tensors).mixture(1).expect_err(&format!("{parts:?}")).to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    refused(&|t| drop(t.0.remove(&mlp("experts.5.up_proj.weight"))), &["experts.5.up_proj.weight", "no such tensor"]);
    refused(&|t| drop(t.0.remove(&mlp("gate.e_score_correction_bias"))), &["e_score_correction_bias", "[8]"]);
    refused(
        &|t| drop(t.random(&mlp("experts.8.up_proj.weight"), &[WIDTH, HIDDEN])),
        &["experts.8.up_proj.weight", "no use"],
    );
    refused(&|t| drop(t.random(&mlp("experts.0.up_proj.bias"), &[WIDTH])), &["experts.0.up_proj.bias", "no use"]);
    refused(
        &|t| drop(t.random(&mlp("shared_expert_gate.weight"), &[1, HIDDEN])),
        &["shared_expert_gate.weight", "no use"],
    );
    refused(
        &|t| drop(t.random("model.layers.1.post_mlp_layernorm.weight", &[HIDDEN])),
        &["post_mlp_layernorm", "no use"],
    );
    refused(&|t| drop(t.random(&mlp("gate.weight"), &[EXPERTS, HIDDEN + 1])), &["mlp.gate.weight", "[any, 32]"]);
}

#[test]
fn ax_k1_norms_what_its_mixtures_yield_and_needs_no_correction() {
    let config = with(config(), json!({"architectures": ["AXK1ForCausalLM"]}));
    for correction in [true, false] {
        let mut tensors = model(correction);
        let gain = tensors.random("model.layers.1.post_mlp_layernorm.weight", &[HIDDEN]);
        // Published checkpoints have it in plain layers too.
        tensors.random("model.layers.0.post_mlp_layernorm.weight", &[HIDDEN]);
        opened(&config, &tensors).block(0).expect("a plain layer");
        let read = mixture(&config, &tensors);
        assert_eq!(read.output_norm.map(|norm| norm.gain), Some(gain));
        assert_eq!(read.router.correction.is_some(), correction);
    }
}

#[test]
fn experts_of_families_that_have_none_are_refused() {
    for (class, rank) in
        [("YoutuForCausalLM", json!(deepseek::QUERY_RANK)), ("MiniCPM3ForCausalLM", json!(deepseek::QUERY_RANK))]
    {
        let checkpoint = opened(&with(config(), json!({"architectures": [class], "q_lora_rank": rank})), &model(true));
        let error = checkpoint.mixture(1).expect_err(class).to_string();
        assert!(error.contains("MLP of layer 1") && error.contains("only the attention can be read"), "{error}");
        assert!(checkpoint.expert(1, 0).is_err());
    }
}

#[test]
fn experts_in_two_tensors_are_read_one_by_one_too() {
    let separate = model(true);
    let mut stacked = separate.clone();
    stacked.0.retain(|name, _| !name.contains(".experts."));
    let all = |map: &str| -> Vec<Vec<f32>> {
        (0..EXPERTS).map(|expert| separate.floats(&mlp(&format!("experts.{expert}.{map}.weight")))).collect()
    };
    let both: Vec<f32> =
        all("gate_proj").into_iter().zip(all("up_proj")).flat_map(|(gate, up)| [gate, up].concat()).collect();
    stacked.put(&mlp("experts.gate_up_proj"), &[EXPERTS, 2 * WIDTH, HIDDEN], &both);
    stacked.put(&mlp("experts.down_proj"), &[EXPERTS, HIDDEN, WIDTH], &all("down_proj").concat());
    let (read, expected) = (opened(&config(), &stacked), opened(&config(), &separate));
    assert_eq!(read.mixture(1).expect("read"), expected.mixture(1).expect("read"));
    for expert in 0..EXPERTS {
        assert_eq!(read.expert(1, expert).expect("read"), expected.expert(1, expert).expect("read"));
    }
    let error = read.source().read_one_of(&mlp("experts.down_proj"), [EXPERTS, HIDDEN, WIDTH], EXPERTS);
    assert!(error.expect_err("one too many").to_string().contains("of which number 8"));
    stacked.put(&mlp("experts.down_proj"), &[EXPERTS, WIDTH, HIDDEN], &all("down_proj").concat());
    let error = opened(&config(), &stacked).mixture(1).expect_err("transposed").to_string();
    assert!(error.contains("experts.down_proj") && error.contains("[8, 32, 24]"), "{error}");
}
