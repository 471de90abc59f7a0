//! Writes a converted model in MHA2MLA's own layout.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::checkpoint::Checkpoint;
use super::config::{Architecture, ModelConfig};
use super::mha2mla::FREQUENCY_INDEX;
use crate::error::{Error, Result};
use crate::host_tensor::HostTensor;
use crate::rope::{FrequencyIndex, Pairing, PartialRope};
use crate::weights::{LatentAttention, Linear, Matrix};

/// Writes `config.json` and f32 safetensors (one shard per layer and one for the rest, with an index) into `dir`,
/// which is made if it does not exist. Everything but attention is copied from `original`, of any format.
///
/// [`open`](super::open) reads the same values back, bit for bit. MHA2MLA's own code reads the directory too if the
/// kept pairs follow from its configuration and the latent is not centred; what it has no place for is added as
/// `self_attn.rope_frequency_index` (I32 `[kv_heads, rope_dim/2]`) and `self_attn.kv_proj.down_kv.bias`
/// (the latent's bias, `[L]`). If only one of the two query parts has a bias, the other gets one of zeros.
///
/// Memory holds one layer at a time. Files get their names at the end, `config.json` last, so that an error or a
/// crash leaves nothing that [`open`](super::open) would take for a model.
///
/// # Errors
/// [`Error::Config`] if `dir` already holds a model, or a layer has a part that the layout has no place for (a norm
/// on the latent, interleaved pairs, another softmax scale, ...); [`Error::Shape`] or [`Error::Geometry`] if the
/// layers do not fit the original's sizes; [`Error::Io`] and [`Error::File`] if writing fails; and what reading the
/// original may return.
pub fn save_mha2mla(dir: &Path, original: &Checkpoint, layers: &[LatentAttention]) -> Result<()> {
    check_layers(original.config(), layers)?;
    let mut output = Output::create(dir)?;
    let config = converted_config(original, layers)?;

    let mut rest = Shard::default();
    rest.matrix("model.embed_tokens.weight", original.embedding()?);
    rest.vector("model.norm.weight", original.final_norm()?.gain);
    if let Some(head) = original.lm_head()? {
        rest.matrix("lm_head.weight", head);
    }
    let shards = layers.len() + 1;
    output.write_shard(rest, 1, shards)?;
    for (layer, attention) in layers.iter().enumerate() {
        let mut shard = Shard::default();
        let block = original.block(layer)?;
        let module = format!("model.layers.{layer}");
        shard.vector(&format!("{module}.input_layernorm.weight"), block.attention_norm.gain);
        shard.vector(&format!("{module}.post_attention_layernorm.weight"), block.mlp_norm.gain);
        shard.linear(&format!("{module}.mlp.gate_proj"), block.gate);
        shard.linear(&format!("{module}.mlp.up_proj"), block.up);
        shard.linear(&format!("{module}.mlp.down_proj"), block.down);
        shard.attention(&format!("{module}.self_attn"), attention);
        output.write_shard(shard, layer + 2, shards)?;
    }
    output.write_json("model.safetensors.index.json", &output.index())?;
    output.write_json("config.json", &config)?;
    output.publish()
}

/// Refuses what would be lost or could not be read back.
fn check_layers(model: &ModelConfig, layers: &[LatentAttention]) -> Result<()> {
    if model.architecture == Architecture::DeepSeek {
        return Err(no_place("a DeepSeek model", "its attention is latent already"));
    }
    if layers.len() != model.layers {
        return Err(Error::Shape {
            what: "layers",
            expected: format!("{}, as many as the original has", model.layers),
            got: layers.len().to_string(),
        });
    }
    let rope_dim = layers.first().map_or(0, |first| first.geometry.rope_dim);
    for (layer, attention) in layers.iter().enumerate() {
        attention.validate()?;
        let g = attention.geometry;
        let got = [attention.hidden(), g.query_heads, g.kv_heads, g.rope_heads, g.rope_dim + g.nope_dim, g.value_dim];
        let expected =
            [model.hidden, model.query_heads, model.kv_heads, model.kv_heads, model.head_dim, model.head_dim];
        if got != expected || g.rope_dim != rope_dim {
            let sizes = |[hidden, heads, kv, rope, dim, value]: [usize; 6], rope_dim| {
                format!(
                    "hidden {hidden}, query heads {heads}, KV heads {kv}, rope heads {rope}, head {dim}, value {value}, \
                     rotated {rope_dim}"
                )
            };
            return Err(Error::Shape {
                what: "layers",
                expected: format!("{}, as the original and layer 0", sizes(expected, rope_dim)),
                got: format!("{} in layer {layer}", sizes(got, g.rope_dim)),
            });
        }
        let pairs = model.head_dim as u32 / 2;
        if let Some(&index) = attention.frequencies.as_slice().iter().find(|&&index| index >= pairs) {
            let what = format!("frequency index of layer {layer}");
            return Err(Error::Index { what, got: index.into(), bound: format!("0..{pairs}") });
        }
        let lost = [
            (attention.query_down.is_some(), "a down-projection of the query"),
            (attention.latent_norm.is_some(), "a norm on the latent"),
            (attention.down.bias.is_some(), "a bias on the down-projection (`latent_bias` does the same)"),
            (attention.pairing != Pairing::Half, "interleaved rotation pairs"),
            (attention.scale != model.score_scale, "a softmax scale other than the original's"),
        ];
        if let Some((_, what)) = lost.iter().find(|(is_lost, _)| *is_lost) {
            return Err(no_place(&format!("layer {layer}"), &format!("the layout has no place for {what}")));
        }
    }
    Ok(())
}

fn no_place(what: &str, why: &str) -> Error {
    Error::Config { what: format!("{what} in MHA2MLA's layout"), why: why.into() }
}

/// The original's configuration with MHA2MLA's keys.
fn converted_config(original: &Checkpoint, layers: &[LatentAttention]) -> Result<Map<String, Value>> {
    let model = original.config();
    let mut config = original.json().clone();
    for legacy in ["RoPE", "SVD"] {
        config.remove(legacy);
    }
    for kind in ["torch_dtype", "dtype"] {
        if kind == "torch_dtype" || config.contains_key(kind) {
            config.insert(kind.into(), json!("float32"));
        }
    }
    // The original's head decides, which need not be what its configuration says.
    config.insert("tie_word_embeddings".into(), json!(model.tied_embeddings));
    let rope_dim = layers.first().map_or(0, |first| first.geometry.rope_dim);
    let (version, start) = rope_version(model, rope_dim, layers)?;
    // `low_rank` counts per KV head and holds for all layers; where that does not describe the layers, null leaves
    // the rank to the tensors.
    let per_head = |attention: &LatentAttention| {
        let rank = attention.geometry.latent_rank;
        rank.is_multiple_of(model.kv_heads).then(|| rank / model.kv_heads)
    };
    let low_rank = layers.first().and_then(per_head);
    let low_rank = low_rank.filter(|&rank| layers.iter().all(|attention| per_head(attention) == Some(rank)));
    let own = json!({
        "partial_rope_version": version,
        "rope_dim_for_mla": rope_dim,
        "uniform_start_point": start,
        "qk_tensor_path": null,
        "svd_init_method": "joint",
        "low_rank": low_rank,
        "is_baseline": false,
        "is_gqa2mha2mla": false,
        "is_mla_from_scratch": false,
    });
    config.insert("mha2mla".into(), own);
    Ok(config)
}

/// MHA2MLA's name of the rule that all layers follow, and the first pair of the uniform one.
fn rope_version(model: &ModelConfig, rope_dim: usize, layers: &[LatentAttention]) -> Result<(&'static str, usize)> {
    let follows = |rule: PartialRope| -> Result<bool> {
        let index = rule.select(model.kv_heads, model.head_dim, rope_dim)?;
        Ok(layers.iter().all(|attention| attention.frequencies == index))
    };
    if follows(PartialRope::High)? {
        return Ok(("high", 0));
    }
    if follows(PartialRope::Low)? {
        return Ok(("low", 0));
    }
    let start = layers.first().and_then(|first| first.frequencies.as_slice().first().copied()).unwrap_or(0) as usize;
    let could_be_uniform =
        rope_dim != 0 && model.head_dim.is_multiple_of(rope_dim) && start < model.head_dim / rope_dim;
    if could_be_uniform && follows(PartialRope::Uniform { start })? {
        return Ok(("uniform", start));
    }
    Ok(("2-norm", 0))
}

/// The tensors of one file, until it is written.
#[derive(Default)]
struct Shard(Vec<(String, HostTensor)>);

impl Shard {
    fn floats(&mut self, name: &str, shape: Vec<usize>, data: &[f32]) {
        let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.0.push((name.to_owned(), HostTensor { dtype: Dtype::F32, shape, bytes }));
    }

    // By value: the numbers are freed as soon as they are bytes.
    fn vector(&mut self, name: &str, data: Vec<f32>) {
        self.floats(name, vec![data.len()], &data);
    }

    fn matrix(&mut self, name: &str, matrix: Matrix) {
        self.floats(name, vec![matrix.rows(), matrix.cols()], matrix.data());
    }

    fn linear(&mut self, module: &str, linear: Linear) {
        self.matrix(&format!("{module}.weight"), linear.weight);
        if let Some(bias) = linear.bias {
            self.vector(&format!("{module}.bias"), bias);
        }
    }

    fn attention(&mut self, module: &str, attention: &LatentAttention) {
        let named = |name: &str| format!("{module}.{name}");
        self.linear(&named("q_proj"), stack(&attention.query_rope, &attention.query_nope));
        self.linear(&named("k_r_proj"), attention.key_rope.clone());
        self.linear(&named("o_proj"), attention.output.clone());
        self.matrix(&named("kv_proj.down_kv.weight"), attention.down.weight.clone());
        if let Some(bias) = &attention.latent_bias {
            self.vector(&named("kv_proj.down_kv.bias"), bias.clone());
        }
        self.matrix(&named("kv_proj.up_k.weight"), attention.up_key.clone());
        self.matrix(&named("kv_proj.up_v.weight"), attention.up_value.clone());
        if let Some(bias) = &attention.value_bias {
            self.vector(&named("kv_proj.up_v.bias"), bias.clone());
            // MHA2MLA's code has both biases or none; one of zeros keeps it from making one up.
            self.vector(&named("kv_proj.up_k.bias"), vec![0.0; attention.up_key.rows()]);
        }
        self.frequencies(&named(FREQUENCY_INDEX), &attention.frequencies);
    }

    fn frequencies(&mut self, name: &str, index: &FrequencyIndex) {
        let bytes = index.as_slice().iter().flat_map(|i| i.to_le_bytes()).collect();
        let shape = vec![index.rope_heads(), index.pairs()];
        self.0.push((name.to_owned(), HostTensor { dtype: Dtype::I32, shape, bytes }));
    }
}

/// One linear map that yields the outputs of both.
fn stack(first: &Linear, second: &Linear) -> Linear {
    let (rows, cols) = (first.weight.rows(), first.weight.cols());
    let weight = Matrix::from_fn(rows + second.weight.rows(), cols, |row, col| match row.checked_sub(rows) {
        None => first.weight.row(row)[col],
        Some(row) => second.weight.row(row)[col],
    });
    let bias = (first.bias.is_some() || second.bias.is_some()).then(|| {
        let part = |linear: &Linear| linear.bias.clone().unwrap_or_else(|| vec![0.0; linear.weight.rows()]);
        [part(first), part(second)].concat()
    });
    Linear { weight, bias }
}

/// A directory that is being written. Until [`Output::publish`] its files have temporary names; dropped before, it
/// removes them.
struct Output {
    dir: PathBuf,
    /// Whether this is the one that made the directory.
    made: bool,
    /// Final names, in the order in which files shall appear.
    written: Vec<String>,
    weight_map: BTreeMap<String, String>,
    bytes: usize,
    published: bool,
}

impl Output {
    fn create(dir: &Path) -> Result<Self> {
        let io = |cause| Error::Io { path: dir.to_owned(), cause };
        let made = !dir.exists();
        std::fs::create_dir_all(dir).map_err(io)?;
        for entry in std::fs::read_dir(dir).map_err(io)? {
            let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
            let is_model = [".safetensors", ".safetensors.index.json"].iter().any(|end| name.ends_with(end));
            if is_model || name == "config.json" {
                return Err(Error::Config {
                    what: format!("output directory {}", dir.display()),
                    why: format!("already holds a model ({name})"),
                });
            }
        }
        let (written, weight_map) = (Vec::new(), BTreeMap::new());
        Ok(Self { dir: dir.to_owned(), made, written, weight_map, bytes: 0, published: false })
    }

    fn temporary(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.partial"))
    }

    fn write_shard(&mut self, shard: Shard, number: usize, shards: usize) -> Result<()> {
        let name = format!("model-{number:05}-of-{shards:05}.safetensors");
        let path = self.temporary(&name);
        self.written.push(name.clone());
        for (tensor, data) in &shard.0 {
            self.weight_map.insert(tensor.clone(), name.clone());
            self.bytes += data.bytes.len();
        }
        // Transformers looks for this entry.
        let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
        let tensors = shard.0.iter().map(|(name, tensor)| (name, tensor));
        safetensors::serialize_to_file(tensors, metadata, &path).map_err(|e| match e {
            safetensors::SafeTensorError::IoError(cause) => Error::Io { path, cause },
            other => Error::File { path, why: other.to_string() },
        })
    }

    fn index(&self) -> Value {
        json!({ "metadata": { "total_size": self.bytes }, "weight_map": self.weight_map })
    }

    fn write_json(&mut self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        let path = self.temporary(name);
        self.written.push(name.to_owned());
        let text = match serde_json::to_vec_pretty(value) {
            Ok(text) => text,
            Err(e) => return Err(Error::File { path, why: e.to_string() }),
        };
        std::fs::write(&path, text).map_err(|cause| Error::Io { path, cause })
    }

    fn publish(mut self) -> Result<()> {
        for name in &self.written {
            let path = self.dir.join(name);
            std::fs::rename(self.temporary(name), &path).map_err(|cause| Error::Io { path, cause })?;
        }
        self.published = true;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        // The error that led here matters more than one of cleaning up.
        for name in &self.written {
            let _ = std::fs::remove_file(self.temporary(name));
            let _ = std::fs::remove_file(self.dir.join(name));
        }
        if self.made {
            let _ = std::fs::remove_dir(&self.dir);
        }
    }
}
