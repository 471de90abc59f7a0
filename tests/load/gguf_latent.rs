//! DeepSeek's models in GGUF files, as llama.cpp's converter writes them.

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use latent_attention::load::{BlockFormat, Checkpoint, open};
use serde_json::json;

use super::deepseek::{self, KV_RANK, NOPE, ROPE, VALUE};
use super::experts::{self, EXPERTS, WIDTH};
use super::fixture::*;
use super::gguf::{Gguf, quantized, write_file};

/// The tensors of a model of DeepSeek's kind as the converter writes them: `kv_b_proj` in two, of which the keys are
/// transposed head by head, and experts in stacks.
fn converted(tensors: &Tensors) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut own: Vec<(String, Vec<usize>, Vec<f32>)> = vec![];
    for (name, (_, shape, _)) in &tensors.0 {
        let data = tensors.floats(name);
        if name.contains("kv_b_proj") {
            let rows: Vec<&[f32]> = data.chunks(KV_RANK).collect();
            let heads = || rows.chunks(NOPE + VALUE);
            let keys =
                heads().flat_map(|head| (0..KV_RANK).flat_map(|col| head[..NOPE].iter().map(move |row| row[col])));
            let values = heads().flat_map(|head| head[NOPE..].concat());
            own.push((own_name(&name.replace("kv_b", "k_b")), vec![HEADS, KV_RANK, NOPE], keys.collect()));
            own.push((own_name(&name.replace("kv_b", "v_b")), vec![HEADS, VALUE, KV_RANK], values.collect()));
        } else if let Some((layer, rest)) = name.split_once("experts.").filter(|(layer, _)| !layer.ends_with("shared_"))
        {
            let (number, map) = rest.split_once('.').expect("an expert's map");
            if number == "0" {
                let all = (0..EXPERTS).flat_map(|expert| tensors.floats(&format!("{layer}experts.{expert}.{map}")));
                own.push((
                    own_name(&format!("{layer}experts.{map}")),
                    [&[EXPERTS], &shape[..]].concat(),
                    all.collect(),
                ));
            }
        } else {
            own.push((own_name(name), shape.clone(), data));
        }
    }
    own
}

fn own_name(name: &str) -> String {
    let mut name = name.replace("model.layers.", "blk.");
    for (ours, theirs) in [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.q_a_proj", "attn_q_a"),
        ("self_attn.q_a_layernorm", "attn_q_a_norm"),
        ("self_attn.q_b_proj", "attn_q_b"),
        ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
        ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
        ("self_attn.k_b_proj", "attn_k_b"),
        ("self_attn.v_b_proj", "attn_v_b"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate.e_score_correction_bias", "exp_probs_b.bias"),
        ("mlp.gate.", "ffn_gate_inp."),
        ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
        ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
        ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
        ("mlp.experts.gate_proj", "ffn_gate_exps"),
        ("mlp.experts.up_proj", "ffn_up_exps"),
        ("mlp.experts.down_proj", "ffn_down_exps"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ] {
        name = name.replace(ours, theirs);
    }
    name
}

fn key(name: &str) -> String {
    format!("deepseek2.{name}")
}

/// The model as a GGUF file, with a mixture in its second layer where `sigmoid` says which scores it has.
pub fn gguf(tensors: &Tensors, query_rank: Option<usize>, sigmoid: Option<bool>) -> Gguf {
    let mut gguf = Gguf::of("llama", &llama());
    gguf.metadata.retain(|(key, _)| !key.starts_with("llama."));
    gguf.set("general.architecture", Value::String("deepseek2".into()));
    for (name, size) in [
        ("embedding_length", HIDDEN),
        ("feed_forward_length", INTERMEDIATE),
        ("block_count", LAYERS),
        ("context_length", 64),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", 1),
        ("attention.kv_lora_rank", KV_RANK),
        ("attention.key_length", KV_RANK + ROPE),
        ("attention.value_length", KV_RANK),
        ("attention.key_length_mla", NOPE + ROPE),
        ("attention.value_length_mla", VALUE),
        ("rope.dimension_count", ROPE),
        ("leading_dense_block_count", 1),
        ("expert_shared_count", 2),
        ("expert_feed_forward_length", WIDTH),
    ] {
        gguf.set(&key(name), Value::U32(size as u32));
    }
    gguf.set(&key("attention.layer_norm_rms_epsilon"), Value::F32(1e-5));
    gguf.set(&key("rope.freq_base"), Value::F32(10_000.0));
    if let Some(rank) = query_rank {
        gguf.set(&key("attention.q_lora_rank"), Value::U32(rank as u32));
    }
    if let Some(sigmoid) = sigmoid {
        for (name, number) in [
            ("expert_count", EXPERTS as u32),
            ("expert_used_count", 3),
            ("expert_group_count", 4),
            ("expert_group_used_count", 2),
            ("expert_gating_func", if sigmoid { 2 } else { 1 }),
        ] {
            gguf.set(&key(name), Value::U32(number));
        }
        gguf.set(&key("expert_weights_scale"), Value::F32(2.5));
        gguf.set(&key("expert_weights_norm"), Value::Bool(sigmoid));
    }
    gguf.tensors = converted(tensors)
        .into_iter()
        .map(|(name, shape, data)| (name, quantized(&shape, &data, GgmlDType::F32)))
        .collect();
    gguf
}

fn assert_same(read: &Checkpoint, expected: &Checkpoint) {
    let config = expected.config();
    assert_eq!(read.config(), config);
    for layer in 0..config.layers {
        assert_eq!(read.attention(layer).expect("read"), expected.attention(layer).expect("read"));
        let mixture = expected.mixture(layer).expect("read");
        assert_eq!(read.mixture(layer).expect("read"), mixture);
        match mixture {
            None => assert_eq!(read.block(layer).expect("read"), expected.block(layer).expect("read")),
            Some(_) => (0..EXPERTS).for_each(|expert| {
                assert_eq!(read.expert(layer, expert).expect("read"), expected.expert(layer, expert).expect("read"));
            }),
        }
    }
    assert_eq!(read.embedding().expect("read"), expected.embedding().expect("read"));
    assert_eq!(read.final_norm().expect("read"), expected.final_norm().expect("read"));
}

/// What the tokenizer of the fixture's file says.
fn tokens() -> serde_json::Value {
    json!({"bos_token_id": 0, "eos_token_id": 2, "rms_norm_eps": 1e-5})
}

#[test]
fn a_gguf_file_and_a_directory_of_one_latent_model_are_the_same_model() {
    for query_rank in [None, Some(deepseek::QUERY_RANK)] {
        let tensors = deepseek::model(query_rank.is_some(), false);
        let (_first, path) = write_file(&gguf(&tensors, query_rank, None));
        let config = with(with(deepseek::config(json!(query_rank)), tokens()), json!({"attention_bias": null}));
        let (_second, expected) = reopen(&config, &tensors);
        assert_same(&open(&path).expect("a valid file"), &expected.expect("a valid model"));
    }
}

#[test]
fn mixtures_are_read_of_stacks_by_the_scores_that_the_file_names() {
    for sigmoid in [true, false] {
        let tensors = experts::model(sigmoid);
        let (_first, path) = write_file(&gguf(&tensors, Some(deepseek::QUERY_RANK), Some(sigmoid)));
        let v2 = json!({
            "architectures": ["DeepseekV2ForCausalLM"], "topk_method": "group_limited_greedy", "norm_topk_prob": false
        });
        let config = with(experts::config(), tokens());
        let (_second, expected) = reopen(&if sigmoid { config } else { with(config, v2) }, &tensors);
        assert_same(&open(&path).expect("a valid file"), &expected.expect("a valid model"));
    }
}

#[test]
fn yarns_multiplier_is_a_tenth_of_mscale_all_dim_and_scales_the_softmax_alone() {
    let tensors = deepseek::model(false, false);
    for (multiplier, mscale) in [(0.0707f32, 0.707), (0.1, 1.0), (0.05, 0.5)] {
        let mut file = gguf(&tensors, None, None);
        file.set(&key("rope.scaling.type"), Value::String("yarn".into()));
        file.set(&key("rope.scaling.factor"), Value::F32(40.0));
        file.set(&key("rope.scaling.original_context_length"), Value::U32(4096));
        file.set(&key("rope.scaling.yarn_beta_fast"), Value::F32(16.0));
        file.set(&key("rope.scaling.yarn_log_multiplier"), Value::F32(multiplier));
        let (_first, path) = write_file(&file);
        let scaling = json!({"rope_scaling": {"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096,
            "beta_fast": 16.0, "beta_slow": 1.0, "mscale": mscale, "mscale_all_dim": mscale}});
        let config = with(with(deepseek::config(json!(null)), tokens()), scaling);
        let (_second, expected) = reopen(&config, &tensors);
        let (read, expected) = (open(&path).expect("a valid file"), expected.expect("a valid model"));
        let factor = 0.1 * mscale * 40f64.ln() + 1.0;
        assert!((read.config().score_scale - factor * factor / 10f64.sqrt()).abs() < 1e-12);
        assert_eq!(read.config().rotation_gain, 1.0);
        assert_same(&read, &expected);
    }
}

#[test]
fn quantised_stacks_and_halves_are_dequantised_and_experts_have_their_own_blocks() {
    // Rows of whole blocks, which the fixture's sizes are not.
    let tensors = experts::model(true);
    let mut file = gguf(&tensors, Some(deepseek::QUERY_RANK), Some(true));
    for (name, tensor) in &mut file.tensors {
        if name == "blk.1.ffn_up_exps.weight" {
            let data: Vec<f32> = (0..EXPERTS)
                .flat_map(|e| tensors.floats(&experts::mlp(&format!("experts.{e}.up_proj.weight"))))
                .collect();
            *tensor = quantized(&[EXPERTS, WIDTH, HIDDEN], &data, GgmlDType::Q8_0);
        }
    }
    let (_dir, path) = write_file(&file);
    let checkpoint = open(&path).expect("a valid file");
    for expert in 0..EXPERTS {
        let name = experts::mlp(&format!("experts.{expert}.up_proj.weight"));
        let read = checkpoint.expert(1, expert).expect("read").up.weight;
        let worst = read.data().iter().zip(tensors.floats(&name)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 0.02, "{worst}");
        let blocks = checkpoint.source().read_blocks(&name, WIDTH, HIDDEN).expect("read").expect("blocks");
        assert_eq!((blocks.format, blocks.bytes.len()), (BlockFormat::Q8_0, WIDTH * HIDDEN / 32 * 34));
        let first = half::f16::from_le_bytes([blocks.bytes[0], blocks.bytes[1]]).to_f32()
            * f32::from(blocks.bytes[2].cast_signed());
        assert_eq!(first, read.data()[0]);
    }
    let split = attention(0, "kv_b_proj.weight");
    let shape = [HEADS * (NOPE + VALUE), KV_RANK];
    assert_eq!(checkpoint.source().shape(&split), Some(shape.to_vec()));
    assert_eq!(checkpoint.source().read_blocks(&split, shape[0], shape[1]).expect("read"), None);
}

#[test]
fn files_that_are_no_latent_model_of_the_current_converter_are_refused_by_key_or_tensor() {
    let tensors = experts::model(true);
    let message = |change: &dyn Fn(&mut Gguf)| {
        let mut file = gguf(&tensors, Some(deepseek::QUERY_RANK), Some(true));
        change(&mut file);
        let (_dir, path) = write_file(&file);
        read_everything(&path).expect_err("refused").to_string()
    };
    let set = |name: &'static str, value: Value| message(&move |file: &mut Gguf| file.set(&key(name), value.clone()));
    let without =
        |name: &'static str| message(&move |file: &mut Gguf| file.metadata.retain(|(known, _)| *known != key(name)));
    let renamed = |from: &'static str, to: &'static str| {
        message(&move |file: &mut Gguf| {
            let tensor = file.tensors.iter_mut().find(|(name, _)| name == from).expect("a tensor");
            tensor.0 = to.into();
        })
    };
    let yarn = |changes: &'static [(&'static str, Value)]| {
        message(&move |file: &mut Gguf| {
            file.set(&key("rope.scaling.type"), Value::String("yarn".into()));
            file.set(&key("rope.scaling.factor"), Value::F32(40.0));
            changes.iter().for_each(|(name, value)| file.set(&key(name), value.clone()));
        })
    };
    for (error, part) in [
        (without("attention.key_length_mla"), "`attn_kv_b` is one tensor"),
        (without("attention.value_length_mla"), "`deepseek2.attention.value_length_mla` is missing"),
        (without("attention.kv_lora_rank"), "`deepseek2.attention.kv_lora_rank` is missing"),
        (set("attention.key_length_mla", Value::U32(3)), "must be more than the 4 rotated dimensions"),
        (set("attention.head_count_kv", Value::U32(4)), "`deepseek2.attention.head_count_kv` = 4"),
        (set("attention.key_length", Value::U32(10)), "must be 16"),
        (set("attention.value_length", Value::U32(10)), "must be 12"),
        (set("nextn_predict_layers", Value::U32(1)), "`deepseek2.nextn_predict_layers` = 1"),
        (set("attention.temperature_scale", Value::F32(0.1)), "`deepseek2.attention.temperature_scale` = 0.1"),
        (set("expert_gating_func", Value::U32(3)), "`deepseek2.expert_gating_func` = 3"),
        (set("expert_count", Value::U32(7)), "`n_routed_experts`"),
        (set("expert_used_count", Value::U32(5)), "num_experts_per_tok"),
        (set("rope.scaling.yarn_log_multiplier", Value::F32(0.1)), "beside type `yarn` only"),
        (yarn(&[]), "`deepseek2.rope.scaling.yarn_log_multiplier` is missing or 0"),
        (yarn(&[("rope.scaling.yarn_log_multiplier", Value::F32(0.0))]), "is missing or 0"),
        (yarn(&[("rope.scaling.yarn_ext_factor", Value::F32(0.5))]), "`deepseek2.rope.scaling.yarn_ext_factor` = 0.5"),
        (yarn(&[("rope.scaling.yarn_attn_factor", Value::F32(1.2))]), "yarn_attn_factor` = 1.2"),
        (renamed("blk.1.attn_k_b.weight", "blk.1.attn_kv_b.weight"), "blk.1.attn_kv_b.weight"),
        (renamed("blk.1.attn_q_a_norm.weight", "blk.1.attn_q_norm.weight"), "blk.1.attn_q_norm.weight"),
        (
            renamed("blk.1.ffn_gate_exps.weight", "blk.0.ffn_gate_exps.weight"),
            "model.layers.0.mlp.experts.0.gate_proj.weight",
        ),
        (
            message(&|file| file.tensors.retain(|(name, _)| name != "blk.1.attn_k_b.weight")),
            "layers.1.self_attn.kv_b_proj",
        ),
        (message(&|file| file.tensors.retain(|(name, _)| name != "blk.1.ffn_up_exps.weight")), "experts.0.up_proj"),
        (
            message(&|file| {
                let halves = file.tensors.iter_mut().find(|(name, _)| name == "blk.0.attn_v_b.weight").expect("values");
                halves.1 =
                    quantized(&[HEADS + 1, VALUE, KV_RANK], &vec![0.5; (HEADS + 1) * VALUE * KV_RANK], GgmlDType::F32);
            }),
            "layers.0.self_attn.kv_b_proj",
        ),
        (
            message(&|file| {
                let tensor = quantized(&[HIDDEN], &[0.5; HIDDEN], GgmlDType::F32);
                file.tensors.push(("blk.0.attn_output.bias".into(), tensor));
            }),
            "blk.0.attn_output.bias",
        ),
    ] {
        assert!(error.contains(part) && error.lines().count() == 1, "{part}: {error}");
    }
    // DeepSeek's names in another family's file mean nothing.
    let mut file = Gguf::of("llama", &llama());
    file.tensors.push(("blk.0.attn_q_a.weight".into(), quantized(&[HIDDEN], &[0.5; HIDDEN], GgmlDType::F32)));
    let (_dir, path) = write_file(&file);
    assert!(open(&path).expect_err("refused").to_string().contains("blk.0.attn_q_a.weight"));
}
