//! What `save_shared_key` writes is what `open` reads.

use latent_attention::load::{Block, Checkpoint, ModelParts, open, save_shared_key};
use latent_attention::rope::{FrequencyIndex, Pairing};
use latent_attention::weights::{LatentAttention, Matrix, RmsNorm};
use latent_attention::{Geometry, Result};
use serde_json::{Value, json};

use super::fixture::*;
use super::save::{check_parts, linear};

/// A layer as a conversion of the fixture's model to one shared key could yield it.
pub fn converted(layer: usize, rank: usize, frequencies: &[u32], bias: bool) -> LatentAttention {
    let rope = 2 * frequencies.len();
    let geometry = Geometry::deepseek(HEADS, rank, rope, HEAD_DIM, HEAD_DIM).expect("a geometry");
    let linear = |part: &str, rows, cols, bias| linear(&format!("{part} {layer}"), rows, cols, bias);
    LatentAttention {
        geometry,
        query_down: None,
        query_rope: linear("query rope", HEADS * rope, HIDDEN, bias),
        query_nope: linear("query nope", HEADS * HEAD_DIM, HIDDEN, bias),
        key_rope: linear("key rope", rope, HIDDEN, bias),
        down: linear("down", rank, HIDDEN, false),
        latent_norm: None,
        latent_bias: None,
        up_key: linear("up key", HEADS * HEAD_DIM, rank, false).weight,
        up_value: linear("up value", HEADS * HEAD_DIM, rank, false).weight,
        value_bias: bias.then(|| numbers("value bias", HEADS * HEAD_DIM)),
        output: linear("output", HIDDEN, HEADS * HEAD_DIM, false),
        frequencies: FrequencyIndex::new(1, frequencies.to_vec()).expect("an index"),
        pairing: Pairing::Half,
        scale: 1.0 / (HEAD_DIM as f64).sqrt(),
        head_norms: None,
    }
}

/// Saves, opens again, and compares everything.
pub fn check_round_trip(original: &Checkpoint, parts: &dyn ModelParts, layers: &[LatentAttention]) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    save_shared_key(dir.path(), original, parts, layers, None).expect("saved");
    let read = open(dir.path()).expect("a valid model");
    check_parts(&read, parts, layers);
    assert_eq!(read.config(), original.config());
    let text = std::fs::read_to_string(dir.path().join("config.json")).expect("read");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn layers_of_their_own_sizes_are_read_back_bit_for_bit() {
    let (_dir, original) = reopen(&llama_config(), &llama());
    let original = original.expect("a valid model");
    for bias in [false, true] {
        // Frequencies may repeat, and a layer may do without rotation.
        for (first, second) in [(&[0, 1, 1, 3][..], &[2, 2][..]), (&[], &[0, 1, 2, 3, 0, 1, 2, 3])] {
            let layers = [converted(0, 6, first, bias), converted(1, 9, second, bias)];
            let config = check_round_trip(&original, &original, &layers);
            assert_eq!(config["architectures"], json!(["LatentAttentionForCausalLM"]));
            assert_eq!(config["latent_attention"]["converted_from"], "LlamaForCausalLM");
            assert_eq!(config["latent_attention"]["layers"][1]["kv_lora_rank"], 9);
            assert_eq!(config["latent_attention"]["layers"][0]["rope_frequency_index"], json!(first));
        }
    }
}

#[test]
fn the_length_that_a_conversion_looked_at_is_kept() {
    let (_dir, original) = reopen(&llama_config(), &llama());
    let original = original.expect("a valid model");
    assert_eq!(original.config().calibrated_positions, None);
    let layers = [converted(0, 6, &[0, 2], false), converted(1, 6, &[1, 3], false)];
    let dir = tempfile::tempdir().expect("a directory");
    let first = dir.path().join("first");
    save_shared_key(&first, &original, &original, &layers, Some(77)).expect("saved");
    assert_eq!(open(&first).expect("a valid model").config().calibrated_positions, Some(77));
}

/// The name of the variable that tells a test that it runs with a limit on the size of files.
#[cfg(unix)]
const LIMITED: &str = "LATENT_ATTENTION_TEST_FOLDER";

/// Writing fails behind the first 16 kB of a file, as on a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_no_model_and_no_files() {
    let name = "save_shared_key::a_full_disk_leaves_no_model_and_no_files";
    let Some(folder) = std::env::var_os(LIMITED) else {
        let (dir, _) = reopen(&llama_config(), &llama());
        let program = std::env::current_exe().expect("this program");
        // Without the signal, writing more than the limit is an error. The unit is 512 or 1024 bytes.
        let script = format!("trap '' XFSZ; ulimit -f 8; exec \"$0\" --exact {name}");
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(script).arg(program).env(LIMITED, dir.path());
        let output = command.output().expect("a shell");
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("1 passed"), "{told}");
        return;
    };
    let folder = std::path::Path::new(&folder);
    let original = open(folder).expect("a valid model");
    // The limit is larger than a layer's file is here, but not than one of a latent this wide.
    let layers = [converted(0, 6, &[0, 2], false), converted(1, 600, &[1, 3], false)];
    let target = folder.join("saved");
    let error = save_shared_key(&target, &original, &original, &layers, None).expect_err("no room").to_string();
    assert!(error.contains("saved"), "{error}");
    assert!(!target.exists(), "{:?} is left", std::fs::read_dir(target).map(|entries| entries.count()));
}

#[test]
fn tensors_have_deepseeks_names_and_row_orders() {
    let (_dir, original) = reopen(&llama_config(), &llama());
    let original = original.expect("a valid model");
    let layers = [converted(0, 6, &[0, 2], true), converted(1, 6, &[1, 3], true)];
    let dir = tempfile::tempdir().expect("a directory");
    save_shared_key(dir.path(), &original, &original, &layers, Some(77)).expect("saved");
    let read = open(dir.path()).expect("a valid model");
    let module = "model.layers.1.self_attn";
    let rows = |name: &str, rows: usize, cols: usize| -> Matrix {
        let data = read.source().read(&format!("{module}.{name}.weight"), &[rows, cols]).expect("a tensor");
        Matrix::new(rows, cols, data).expect("a matrix")
    };
    let layer = &layers[1];
    let (query, kv) = (rows("q_proj", HEADS * (HEAD_DIM + 4), HIDDEN), rows("kv_a_proj_with_mqa", 10, HIDDEN));
    let up = rows("kv_b_proj", HEADS * 2 * HEAD_DIM, 6);
    for head in 0..HEADS {
        let start = head * (HEAD_DIM + 4);
        assert_eq!(query.row(start + 1), layer.query_nope.weight.row(head * HEAD_DIM + 1));
        assert_eq!(query.row(start + HEAD_DIM + 3), layer.query_rope.weight.row(head * 4 + 3));
        assert_eq!(up.row(head * 2 * HEAD_DIM + 2), layer.up_key.row(head * HEAD_DIM + 2));
        assert_eq!(up.row((head * 2 + 1) * HEAD_DIM + 2), layer.up_value.row(head * HEAD_DIM + 2));
    }
    assert_eq!(kv.row(5), layer.down.weight.row(5));
    assert_eq!(kv.row(6), layer.key_rope.weight.row(0));
}

/// An original whose other parts were trained further.
struct Trained<'a>(&'a Checkpoint);

impl ModelParts for Trained<'_> {
    fn block(&self, layer: usize) -> Result<Block> {
        let mut block = self.0.block(layer)?;
        block.gate = linear("trained gate", block.gate.weight.rows(), block.gate.weight.cols(), false);
        block.mlp_norm = RmsNorm { gain: numbers("trained norm", HIDDEN), ..block.mlp_norm };
        Ok(block)
    }

    fn embedding(&self) -> Result<Matrix> {
        let embedding = self.0.embedding()?;
        Ok(linear("trained embedding", embedding.rows(), embedding.cols(), false).weight)
    }

    fn final_norm(&self) -> Result<RmsNorm> {
        self.0.final_norm()
    }

    fn lm_head(&self) -> Result<Option<Matrix>> {
        self.0.lm_head()
    }
}

#[test]
fn parts_that_were_trained_further_are_those_that_are_saved() {
    let (_dir, original) = reopen(&llama_config(), &llama());
    let original = original.expect("a valid model");
    let layers = [converted(0, 6, &[0, 2], false), converted(1, 6, &[1, 3], false)];
    check_round_trip(&original, &Trained(&original), &layers);
}

#[test]
fn what_the_layout_cannot_hold_is_refused_and_nothing_is_written() {
    let (_dir, original) = reopen(&llama_config(), &llama());
    let original = original.expect("a valid model");
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("model");
    let refused = |change: &dyn Fn(&mut Vec<LatentAttention>), part: &str| {
        let mut layers = vec![converted(0, 6, &[0, 2], false), converted(1, 6, &[1, 3], false)];
        change(&mut layers);
        let error = save_shared_key(&target, &original, &original, &layers, Some(77)).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
        assert!(!target.exists());
    };
    refused(
        &|layers| layers[1].latent_norm = Some(RmsNorm { gain: vec![1.0; 6], epsilon: 1e-6 }),
        "norm on the latent",
    );
    refused(&|layers| layers[1].latent_bias = Some(vec![0.0; 6]), "bias behind");
    refused(&|layers| layers[0].pairing = Pairing::Interleaved, "interleaved");
    refused(&|layers| layers[0].scale *= 2.0, "scale");
    refused(&|layers| layers.truncate(1), "layers");
    refused(&|layers| layers[0] = super::save::converted(0, 4, 6, &[0, 1, 0, 1], false), "rope heads 1");
    refused(&|layers| layers[0].frequencies = FrequencyIndex::new(1, vec![0, 4]).expect("an index"), "0..4");
}

#[test]
fn damaged_keys_are_named() {
    let (_dir, original) = reopen(&llama_config(), &llama());
    let original = original.expect("a valid model");
    let layers = [converted(0, 6, &[0, 2], false), converted(1, 6, &[1, 3], false)];
    let dir = tempfile::tempdir().expect("a directory");
    save_shared_key(dir.path(), &original, &original, &layers, Some(77)).expect("saved");
    let path = dir.path().join("config.json");
    let good: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("read")).expect("JSON");
    let message = |change: &dyn Fn(&mut Value)| {
        let mut config = good.clone();
        change(&mut config);
        std::fs::write(&path, config.to_string()).expect("written");
        let opened = open(dir.path()).and_then(|read| read.attention(0).map(|_| ()));
        opened.expect_err("damaged").to_string()
    };
    let layers = |config: &mut Value| config["latent_attention"]["layers"].take();
    let missing = message(&|config| drop(layers(config)));
    assert!(missing.contains("`latent_attention.layers` is missing"), "{missing}");
    let short = message(&|config| config["latent_attention"]["layers"] = json!([]));
    assert!(short.contains("has 0 entries, the model 2 layers"), "{short}");
    let far = message(&|config| config["latent_attention"]["layers"][0]["rope_frequency_index"][0] = json!(4));
    assert!(far.contains("layers[0].rope_frequency_index` must hold numbers of frequencies, 0..4"), "{far}");
    let rank = message(&|config| config["latent_attention"]["layers"][0]["kv_lora_rank"] = json!(7));
    assert!(rank.contains("kv_a_proj_with_mqa.weight"), "{rank}");
    let class = message(&|config| config["latent_attention"]["converted_from"] = json!("GptForCausalLM"));
    assert!(class.contains("architecture `GptForCausalLM`"), "{class}");
    let none = message(&|config| drop(config["latent_attention"]["converted_from"].take()));
    assert!(none.contains("`converted_from` is missing"), "{none}");
    let positions = message(&|config| config["latent_attention"]["calibrated_positions"] = json!("many"));
    assert!(positions.contains("`calibrated_positions`"), "{positions}");
}
