//! MHA2MLA's own layouts: the rows of a converted model give the scores of whole heads with masked rotation.

use std::path::Path;

use latent_attention::load::{Checkpoint, open};
use latent_attention::rope::RopeTables;
use safetensors::Dtype;
use serde_json::{Value, json};

use super::fixture::*;
use super::scores::{Token, dot, latent_score, product, rotate_kept};

const ROPE: usize = 4;
const NOPE: usize = HEAD_DIM - ROPE;
const LOW_RANK: usize = 3;
const RANK: usize = LOW_RANK * KV_HEADS;

/// Kept pairs of each KV head under the 2-norm strategy.
const TWO_NORM: [[u32; ROPE / 2]; KV_HEADS] = [[0, 3], [1, 2]];

#[derive(Clone, Copy, PartialEq)]
enum Naming {
    Main,
    Legacy,
}

/// Rows of `heads` heads that are rotated, and those that are not, by scanning a mask from the first row to the last.
fn scan(kept: &[[u32; ROPE / 2]; KV_HEADS], heads: usize) -> (Vec<usize>, Vec<usize>) {
    (0..heads * HEAD_DIM).partition(|row| {
        let kv_head = row / HEAD_DIM / (heads / KV_HEADS);
        kept[kv_head].contains(&((row % HEAD_DIM % (HEAD_DIM / 2)) as u32))
    })
}

/// One layer as whole heads: query rows, and keys whose unrotated part comes from a latent.
struct WholeHeads {
    kept: [[u32; ROPE / 2]; KV_HEADS],
    query: Vec<f32>,
    key_rope: Vec<f32>,
    down: Vec<f32>,
    up_key: Vec<f32>,
}

impl WholeHeads {
    /// What the layer scores, computed with masks over whole heads.
    fn score(&self, tables: &RopeTables, head: usize, query: Token, key: Token) -> f64 {
        let kv_head = head / (HEADS / KV_HEADS);
        let mut q = product(&self.query, None, &query.hidden())[head * HEAD_DIM..][..HEAD_DIM].to_vec();
        let rotated = product(&self.key_rope, None, &key.hidden());
        let unrotated = product(&self.up_key, None, &product(&self.down, None, &key.hidden()));
        let mut all = [0.0; KV_HEADS * HEAD_DIM];
        let (rope_rows, nope_rows) = scan(&self.kept, KV_HEADS);
        rope_rows.iter().zip(&rotated).for_each(|(&row, &x)| all[row] = x);
        nope_rows.iter().zip(&unrotated).for_each(|(&row, &x)| all[row] = x);
        let mut k = all[kv_head * HEAD_DIM..][..HEAD_DIM].to_vec();
        rotate_kept(&mut q, &self.kept[kv_head], tables, query.position);
        rotate_kept(&mut k, &self.kept[kv_head], tables, key.position);
        dot(&q, &k) / (HEAD_DIM as f64).sqrt()
    }
}

/// Writes one layer in either naming; returns it as whole heads.
fn add_layer(tensors: &mut Tensors, naming: Naming, layer: usize, kept: [[u32; ROPE / 2]; KV_HEADS]) -> WholeHeads {
    let name = |part: &str| attention(layer, part);
    let query = numbers(&name("query"), HEADS * HEAD_DIM * HIDDEN);
    let [key, down, up_k, up_v] = match naming {
        Naming::Main => ["k_r_proj", "kv_proj.down_kv", "kv_proj.up_k", "kv_proj.up_v"],
        Naming::Legacy => ["W_k_r", "W_down_k", "W_up_k", "W_up_v"],
    };
    let stored = match naming {
        Naming::Main => {
            let (rope, nope) = scan(&kept, HEADS);
            rows(&query, HIDDEN, rope.into_iter().chain(nope))
        }
        Naming::Legacy => query.clone(),
    };
    tensors.put(&name("q_proj.weight"), &[HEADS * HEAD_DIM, HIDDEN], &stored);
    let weight = |part: &str| name(&format!("{part}.weight"));
    tensors.random(&weight("o_proj"), &[HIDDEN, HEADS * HEAD_DIM]);
    tensors.random(&weight(up_v), &[KV_HEADS * HEAD_DIM, RANK]);
    WholeHeads {
        kept,
        query,
        key_rope: tensors.random(&weight(key), &[KV_HEADS * ROPE, HIDDEN]),
        down: tensors.random(&weight(down), &[RANK, HIDDEN]),
        up_key: tensors.random(&weight(up_k), &[KV_HEADS * NOPE, RANK]),
    }
}

fn model(naming: Naming, kept: [[u32; ROPE / 2]; KV_HEADS]) -> (Tensors, Vec<WholeHeads>) {
    let mut tensors = Tensors::default();
    tensors.add_frame(true);
    let layers = (0..LAYERS).map(|layer| add_layer(&mut tensors, naming, layer, kept)).collect();
    (tensors, layers)
}

fn main_config(own: Value) -> Value {
    let base = json!({"rope_dim_for_mla": ROPE, "low_rank": LOW_RANK, "svd_init_method": "joint",
        "partial_rope_version": "high", "uniform_start_point": 0, "qk_tensor_path": null, "is_baseline": false});
    with(llama_config(), json!({"mha2mla": with(base, own)}))
}

fn legacy_config(rope: Value) -> Value {
    let base = json!({"top_k_rope_dim": ROPE / 2, "last_k_rope_dim": 0, "uniform_start_point": 0, "uniform_step": 1,
        "qk_tensor_path": "", "n_gqa_group": HEADS / KV_HEADS});
    with(llama_config(), json!({"RoPE": with(base, rope), "SVD": {"method": 7, "low_rank": LOW_RANK}}))
}

fn check_scores(checkpoint: &Checkpoint, layers: &[WholeHeads]) {
    let tables = RopeTables::from_frequencies(&checkpoint.config().inverse_frequencies, 40);
    for (layer, whole) in layers.iter().enumerate() {
        let read = latent(checkpoint, layer);
        for head in 0..HEADS {
            for (query, key) in [(0, 0), (5, 2), (39, 1)] {
                let query = Token { seed: "query token", position: query };
                let key = Token { seed: "key token", position: key };
                let (got, expected) =
                    (latent_score(&read, &tables, head, query, key), whole.score(&tables, head, query, key));
                assert!((got - expected).abs() < 1e-3 * expected.abs().max(1.0), "{got} {expected}");
            }
        }
    }
}

#[test]
fn every_strategy_and_naming_gives_the_scores_of_whole_heads() {
    let everywhere = |head: [u32; 2]| [head; KV_HEADS];
    for (config, kept) in [
        (main_config(json!({})), everywhere([0, 1])),
        (main_config(json!({"low_rank": null})), everywhere([0, 1])),
        (main_config(json!({"partial_rope_version": "low"})), everywhere([2, 3])),
        (main_config(json!({"partial_rope_version": "uniform", "uniform_start_point": 1})), everywhere([1, 3])),
    ] {
        let (tensors, layers) = model(Naming::Main, kept);
        let (_dir, checkpoint) = reopen(&config, &tensors);
        check_scores(&checkpoint.expect("a valid model"), &layers);
    }
    for (rope, kept) in [
        (json!({"partial_rope_version": 1}), [0, 1]),
        (json!({"partial_rope_version": 2, "uniform_step": 2, "uniform_start_point": 1}), [1, 3]),
        (json!({"partial_rope_version": 3, "top_k_rope_dim": 1, "last_k_rope_dim": 1}), [0, 3]),
        (json!({"partial_rope_version": 5, "last_k_rope_dim": 2}), [2, 3]),
    ] {
        let (tensors, layers) = model(Naming::Legacy, everywhere(kept));
        let (_dir, checkpoint) = reopen(&legacy_config(rope), &tensors);
        check_scores(&checkpoint.expect("a valid model"), &layers);
    }
}

/// Ranks of [`TWO_NORM`] in both layers, as bytes.
fn ranks() -> Vec<u8> {
    let ranks = |kept: &[u32; 2]| {
        let (mut first, mut last) = (0..2, 2..);
        let half: Vec<u8> = (0..4u32)
            .map(|pair| if kept.contains(&pair) { first.next() } else { last.next() }.expect("a rank"))
            .collect();
        half.repeat(2)
    };
    TWO_NORM.iter().flat_map(ranks).collect::<Vec<u8>>().repeat(LAYERS)
}

fn write_ranks(path: &Path, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) {
    let mut file = Tensors::default();
    file.put_bytes("ranks", dtype, shape, bytes);
    file.write(path);
}

#[test]
fn two_norm_pairs_come_from_ranks_scores_or_the_checkpoint_itself() {
    let by_rank = json!({"partial_rope_version": "2-norm", "qk_tensor_path": "utils/ranks.pth"});
    let legacy = json!({"partial_rope_version": 4, "qk_tensor_path": "ranks.safetensors"});
    let shape = [LAYERS, KV_HEADS, HEAD_DIM];
    for (naming, config) in [(Naming::Main, main_config(by_rank)), (Naming::Legacy, legacy_config(legacy))] {
        let (tensors, layers) = model(naming, TWO_NORM);
        let (dir, checkpoint) = reopen(&config, &tensors);
        let file = dir.path().join("ranks.safetensors");
        let error = checkpoint.expect("headers are fine").attention(0).expect_err("no ranks").to_string();
        assert!(error.contains("ranks.safetensors") && error.contains("[2, 2, 8]"), "{error}");

        write_ranks(&file, Dtype::U8, &shape, ranks());
        check_scores(&open(dir.path()).expect("a valid model"), &layers);
        let wide = ranks().iter().flat_map(|&rank| i64::from(rank).to_le_bytes()).collect();
        write_ranks(&file, Dtype::I64, &shape, wide);
        check_scores(&open(dir.path()).expect("a valid model"), &layers);
        let scores: Vec<f32> =
            ranks().chunks(8).flat_map(|head| head[..4].iter().map(|&rank| -f32::from(rank))).collect();
        let bytes = scores.iter().flat_map(|x| x.to_le_bytes()).collect();
        write_ranks(&file, Dtype::F32, &[LAYERS, KV_HEADS, HEAD_DIM / 2], bytes);
        check_scores(&open(dir.path()).expect("a valid model"), &layers);

        // Ranks beside shards are not a shard.
        std::fs::rename(dir.path().join("model.safetensors"), dir.path().join("part.safetensors")).expect("renamed");
        let checkpoint = open(dir.path()).expect("a valid model");
        assert!(checkpoint.source().shape("ranks").is_none());
    }

    let (mut tensors, layers) = model(Naming::Main, TWO_NORM);
    let config = main_config(json!({"partial_rope_version": "2-norm"}));
    let (_dir, checkpoint) = reopen(&config, &tensors);
    let error = checkpoint.expect("headers are fine").attention(0).expect_err("no ranks").to_string();
    assert!(error.contains("rope_frequency_index") && error.contains("qk_tensor_path"), "{error}");
    let bytes: Vec<u8> = TWO_NORM.concat().iter().flat_map(|pair| pair.to_le_bytes()).collect();
    for layer in 0..LAYERS {
        tensors.put_bytes(&attention(layer, "rope_frequency_index"), Dtype::I32, &[KV_HEADS, 2], bytes.clone());
    }
    let (_dir, checkpoint) = reopen(&config, &tensors);
    check_scores(&checkpoint.expect("a valid model"), &layers);

    tensors.put_bytes(&attention(0, "rope_frequency_index"), Dtype::U8, &[KV_HEADS, 2], vec![0, 1, 4, 2]);
    let (_dir, checkpoint) = reopen(&config, &tensors);
    let error = checkpoint.expect("headers are fine").attention(0).expect_err("pair 4 of 4").to_string();
    assert!(error.contains("rope_frequency_index") && error.contains("0..4"), "{error}");
}

#[test]
fn damaged_ranks_are_named() {
    let config = main_config(json!({"partial_rope_version": "2-norm", "qk_tensor_path": "r.safetensors"}));
    let (tensors, _) = model(Naming::Main, TWO_NORM);
    let (dir, checkpoint) = reopen(&config, &tensors);
    let checkpoint = checkpoint.expect("headers are fine");
    let shape = [LAYERS, KV_HEADS, HEAD_DIM];
    let message = |shape: &[usize], bytes: Vec<u8>| {
        write_ranks(&dir.path().join("r.safetensors"), Dtype::U8, shape, bytes);
        checkpoint.attention(0).expect_err("damaged ranks").to_string()
    };
    assert!(message(&shape, vec![0; 32]).contains("4 pairs have a rank below 2"));
    let mut uneven = ranks();
    uneven[0] = 9;
    assert!(message(&shape, uneven).contains("differ in rank"));
    let error = message(&[LAYERS, KV_HEADS, 6], vec![0; 24]);
    assert!(error.contains("[2, 2, 8]") && error.contains("[2, 2, 6]"), "{error}");
}

#[test]
fn separate_latents_of_key_and_value_become_one() {
    for naming in [Naming::Main, Naming::Legacy] {
        let (mut tensors, mut layers) = model(naming, [[0, 1]; KV_HEADS]);
        let (config, [down_k, down_v, up_v]) = match naming {
            Naming::Main => (
                main_config(json!({"svd_init_method": "split"})),
                ["kv_proj.down_k.weight", "kv_proj.down_v.weight", "kv_proj.up_v.weight"],
            ),
            Naming::Legacy => (
                with(legacy_config(json!({"partial_rope_version": 1})), json!({"SVD": {"method": 2, "low_rank": 3}})),
                ["W_down_k.weight", "W_down_v.weight", "W_up_v.weight"],
            ),
        };
        for (layer, whole) in layers.iter_mut().enumerate() {
            tensors.0.remove(&attention(layer, "kv_proj.down_kv.weight"));
            whole.down = tensors.random(&attention(layer, down_k), &[RANK, HIDDEN]);
            tensors.random(&attention(layer, down_v), &[RANK, HIDDEN]);
        }
        let (_dir, checkpoint) = reopen(&config, &tensors);
        let checkpoint = checkpoint.expect("a valid model");
        check_scores(&checkpoint, &layers);
        let read = latent(&checkpoint, 0);
        assert_eq!(read.geometry.latent_rank, 2 * RANK);
        let x = numbers("x", HIDDEN);
        let stored = |part: &str| tensors.floats(&attention(0, part));
        let expected = product(&stored(up_v), None, &product(&stored(down_v), None, &x));
        assert_eq!(product(read.up_value.data(), None, &super::scores::apply(&read.down, &x)), expected);

        tensors.0.remove(&attention(0, down_k));
        let (_dir, checkpoint) = reopen(&config, &tensors);
        let error = checkpoint.expect("headers are fine").attention(0).expect_err("half a latent").to_string();
        assert!(error.contains(down_k), "{error}");
    }
}

#[test]
fn a_checkpoint_whose_tensors_do_not_fit_its_method_is_refused_by_their_names() {
    // Its tensors are those of a joint latent, whose up-projections have that latent's width.
    let (tensors, _) = model(Naming::Main, [[0, 1]; KV_HEADS]);
    for (method, tensor) in
        [("only_key", "kv_proj.down_k.weight"), ("only_value", "kv_proj.up_k.weight"), ("none", "kv_proj.up_k.weight")]
    {
        let (_dir, checkpoint) = reopen(&main_config(json!({"svd_init_method": method})), &tensors);
        let error = checkpoint.expect("headers are fine").attention(0).expect_err(method).to_string();
        assert!(error.contains(tensor), "{error}");
    }
}

#[test]
fn biases_go_where_they_act_and_that_of_the_key_up_projection_is_dropped() {
    let (mut tensors, _) = model(Naming::Main, [[0, 1]; KV_HEADS]);
    let query = tensors.random(&attention(0, "q_proj.bias"), &[HEADS * HEAD_DIM]);
    let key = tensors.random(&attention(0, "k_r_proj.bias"), &[KV_HEADS * ROPE]);
    tensors.random(&attention(0, "kv_proj.up_k.bias"), &[KV_HEADS * NOPE]);
    let value = tensors.random(&attention(0, "kv_proj.up_v.bias"), &[KV_HEADS * HEAD_DIM]);
    let centre = tensors.random(&attention(0, "kv_proj.down_kv.bias"), &[RANK]);
    let (_dir, checkpoint) = reopen(&main_config(json!({})), &tensors);
    let read = latent(&checkpoint.expect("a valid model"), 0);
    assert_eq!(read.query_rope.bias.as_deref(), Some(&query[..HEADS * ROPE]));
    assert_eq!(read.query_nope.bias.as_deref(), Some(&query[HEADS * ROPE..]));
    assert_eq!(read.key_rope.bias, Some(key));
    assert_eq!(read.value_bias, Some(value));
    assert_eq!(read.latent_bias, Some(centre));
    assert_eq!(read.down.bias, None);
}

#[test]
fn unknown_strategies_and_methods_list_the_known_ones() {
    let (tensors, _) = model(Naming::Main, [[0, 1]; KV_HEADS]);
    for (config, part) in [
        (main_config(json!({"svd_init_method": "both"})), "joint, split, only_key, only_value and none"),
        (main_config(json!({"partial_rope_version": "middle"})), "high, low, uniform and 2-norm"),
        (main_config(json!({"rope_dim_for_mla": 3})), "even"),
        (main_config(json!({"rope_dim_for_mla": 10})), "head_dim"),
        (main_config(json!({"is_gqa2mha2mla": 1})), "`is_gqa2mha2mla` must be true or false"),
        (main_config(json!({"is_gqa2mha2mla": true, "partial_rope_version": "2-norm"})), "is_gqa2mha2mla"),
        (legacy_config(json!({"partial_rope_version": 0})), "4 (2-norm)"),
        (legacy_config(json!({"partial_rope_version": 2, "uniform_step": 3})), "uniform_step 3"),
        (legacy_config(json!({"partial_rope_version": 3, "top_k_rope_dim": 4, "last_k_rope_dim": 1})), "head_dim"),
    ] {
        let (_dir, checkpoint) = reopen(&config, &tensors);
        let error = checkpoint.expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    }
    // A baseline of theirs is an unconverted model.
    let (_dir, checkpoint) = reopen(&main_config(json!({"is_baseline": true})), &llama());
    dense(&checkpoint.expect("a valid model"), 0);
}

#[test]
fn a_tensor_that_a_converted_layer_has_no_use_for_is_refused_by_name() {
    let legacy = legacy_config(json!({"partial_rope_version": 1}));
    for (naming, config) in [(Naming::Main, main_config(json!({}))), (Naming::Legacy, legacy)] {
        for extra in ["q_norm.weight", "k_proj.weight", "kv_proj.down_k.weight"] {
            let (mut tensors, _) = model(naming, [[0, 1]; KV_HEADS]);
            tensors.random(&attention(0, extra), &[HEAD_DIM]);
            let (_dir, checkpoint) = reopen(&config, &tensors);
            let error = checkpoint.expect("headers are fine").attention(0).expect_err(extra).to_string();
            assert!(error.contains(&attention(0, extra)) && error.contains("makes no use of it"), "{error}");
        }
    }
}
