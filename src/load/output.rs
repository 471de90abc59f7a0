//! A directory of safetensors that is being written: all of it or nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::{Value, json};

use super::checkpoint::{Block, ModelParts};
use super::host_tensor::HostTensor;
use crate::error::{Error, Result};
use crate::weights::{Linear, Matrix};

/// The tensors of one file, until it is written.
#[derive(Default)]
pub(super) struct Shard(Vec<(String, HostTensor)>);

impl Shard {
    pub fn floats(&mut self, name: &str, shape: Vec<usize>, data: &[f32]) {
        let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.0.push((name.to_owned(), HostTensor { dtype: Dtype::F32, shape, bytes }));
    }

    // By value: the numbers are freed as soon as they are bytes.
    pub fn vector(&mut self, name: &str, data: Vec<f32>) {
        self.floats(name, vec![data.len()], &data);
    }

    pub fn matrix(&mut self, name: &str, matrix: Matrix) {
        self.floats(name, vec![matrix.rows(), matrix.cols()], matrix.data());
    }

    pub fn linear(&mut self, module: &str, linear: Linear) {
        self.matrix(&format!("{module}.weight"), linear.weight);
        if let Some(bias) = linear.bias {
            self.vector(&format!("{module}.bias"), bias);
        }
    }

    pub fn integers(&mut self, name: &str, shape: Vec<usize>, data: &[u32]) {
        let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.0.push((name.to_owned(), HostTensor { dtype: Dtype::I32, shape, bytes }));
    }

    fn block(&mut self, module: &str, block: Block) {
        self.vector(&format!("{module}.input_layernorm.weight"), block.attention_norm.gain);
        self.vector(&format!("{module}.post_attention_layernorm.weight"), block.mlp_norm.gain);
        self.linear(&format!("{module}.mlp.gate_proj"), block.gate);
        self.linear(&format!("{module}.mlp.up_proj"), block.up);
        self.linear(&format!("{module}.mlp.down_proj"), block.down);
    }
}

/// A directory that is being written. Until [`Output::publish`] its files have temporary names; dropped before, it
/// removes them.
pub(super) struct Output {
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
    /// Makes the directory.
    ///
    /// # Errors
    /// [`Error::Config`] if it already holds a model, [`Error::Io`] if it cannot be made.
    pub fn create(dir: &Path) -> Result<Self> {
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

    /// Writes a model: `parts` beside the attention, of which `attention` adds one layer's tensors below a module, and
    /// `config`, last.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`] if writing fails, and what reading the parts may return.
    pub fn write_model(
        mut self,
        parts: &dyn ModelParts,
        layers: usize,
        attention: impl Fn(&mut Shard, &str, usize),
        config: &serde_json::Map<String, Value>,
    ) -> Result<()> {
        let mut rest = Shard::default();
        rest.matrix("model.embed_tokens.weight", parts.embedding()?);
        rest.vector("model.norm.weight", parts.final_norm()?.gain);
        if let Some(head) = parts.lm_head()? {
            rest.matrix("lm_head.weight", head);
        }
        let shards = layers + 1;
        self.write_shard(rest, 1, shards)?;
        for layer in 0..layers {
            let mut shard = Shard::default();
            let module = format!("model.layers.{layer}");
            shard.block(&module, parts.block(layer)?);
            attention(&mut shard, &format!("{module}.self_attn"), layer);
            self.write_shard(shard, layer + 2, shards)?;
        }
        self.write_json("model.safetensors.index.json", &self.index())?;
        self.write_json("config.json", config)?;
        self.publish()
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
