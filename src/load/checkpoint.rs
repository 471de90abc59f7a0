//! A model on disk: its configuration, and its parts read one by one.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::config::ModelConfig;
use super::families::{AnyLayout, Attention, Layer, scale, scaled_matrix, scaled_outputs};
use super::fields::Fields;
use super::quantised::{self, Blocks, Fp8Source};
use super::safetensors::SafetensorsSource;
use super::source::{TensorSource, linear, matrix};
use super::tokenizer::Tokenizer;
use super::unread::Recording;
use crate::error::{Error, Result};
use crate::weights::{Linear, Matrix, RmsNorm};

const LM_HEAD: &str = "lm_head.weight";

/// A model on disk. Opening reads headers only (and, where the configuration ties the head to the embedding and the files
/// have both, compares the two); each part is read when it is asked for, and kept nowhere. The files
/// stay open, and must not be changed in place: see [`load`](super).
pub struct Checkpoint {
    source: Box<dyn TensorSource>,
    /// The names of all tensors, sorted, to find those that nothing reads.
    names: Vec<String>,
    directory: PathBuf,
    /// The file that the configuration is from, for messages.
    config_path: PathBuf,
    pub(super) config: ModelConfig,
    pub(super) layout: AnyLayout,
    json: Map<String, Value>,
    tokenizer: Option<Tokenizer>,
}

/// What a layer has besides attention, where its MLP is no mixture of experts:
/// `x + down(silu(gate(norm(x))) * up(norm(x)))` and the attention's norm.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Norm in front of the attention, over `hidden`.
    pub attention_norm: RmsNorm,
    /// Norm in front of the MLP, over `hidden`.
    pub mlp_norm: RmsNorm,
    /// `[intermediate, hidden]`.
    pub gate: Linear,
    /// `[intermediate, hidden]`.
    pub up: Linear,
    /// `[hidden, intermediate]`.
    pub down: Linear,
}

/// Factors on what the heads of an attention yield for a token, between the sum of their values and the output projection:
/// `sigmoid(map(y))`, where `y` is the layer's input for this token or what its query projections read.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputGate {
    /// `[H, inputs]`, one factor for each head; or `[H*Dv, inputs]`, one for each of its values.
    pub map: Linear,
    /// What it reads.
    pub input: GateInput,
}

/// What an [`OutputGate`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GateInput {
    /// The layer's input, `[hidden]`.
    Hidden,
    /// What the query projections read: the outputs of the layer's [`QueryDown`](crate::weights::QueryDown).
    Query,
}

impl OutputGate {
    /// The factors for every row of `y`, `[T, inputs]`; returns `[T, H]` or `[T, H*Dv]`. Meant for examples and checks, not
    /// for speed.
    ///
    /// # Errors
    /// As [`Linear::apply`].
    pub fn factors(&self, y: &[f32]) -> Result<Vec<f32>> {
        let logits = self.map.apply(y)?;
        Ok(logits.into_iter().map(|x| (1.0 / (1.0 + (-f64::from(x)).exp())) as f32).collect())
    }
}

/// Everything of a model but its attention: what saving a converted model copies, from the original's files or from where
/// it has been trained further.
pub trait ModelParts {
    /// The norms and the MLP of one layer.
    ///
    /// # Errors
    /// Whatever reading them may return; the same holds for the methods below.
    fn block(&self, layer: usize) -> Result<Block>;

    /// The token embedding, `[vocab, hidden]`.
    fn embedding(&self) -> Result<Matrix>;

    /// The norm in front of the output head, over `hidden`.
    fn final_norm(&self) -> Result<RmsNorm>;

    /// The output head, `[vocab, hidden]`; `None` if it is the embedding.
    fn lm_head(&self) -> Result<Option<Matrix>>;
}

impl ModelParts for Checkpoint {
    fn block(&self, layer: usize) -> Result<Block> {
        self.block(layer)
    }

    fn embedding(&self) -> Result<Matrix> {
        self.embedding()
    }

    fn final_norm(&self) -> Result<RmsNorm> {
        self.final_norm()
    }

    fn lm_head(&self) -> Result<Option<Matrix>> {
        self.lm_head()
    }
}

/// Opens a model: a directory in Hugging Face's layout, or a `.gguf` file (feature `gguf`).
///
/// # Errors
/// [`Error::Io`] if something cannot be read; [`Error::File`] if a file is cut short or malformed, or lacks a key of
/// its configuration; [`Error::Unsupported`] if the model needs what this crate does not compute (unknown
/// architectures and RoPE scalings among others, with those that are known); [`Error::Config`] if its configuration gives
/// it two different rotations; [`Error::Geometry`] if its sizes contradict each other; [`Error::Tensor`] if a GGUF tensor lies outside of its
/// file or is one that nothing reads.
pub fn open(path: &Path) -> Result<Checkpoint> {
    let metadata = std::fs::metadata(path).map_err(|cause| Error::Io { path: path.to_owned(), cause })?;
    if metadata.is_dir() {
        return open_directory(path);
    }
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
        return open_gguf(path);
    }
    let why = "is neither a directory (with config.json and *.safetensors) nor a .gguf file";
    Err(Error::File { path: path.to_owned(), why: why.into() })
}

fn open_directory(path: &Path) -> Result<Checkpoint> {
    let config_path = path.join("config.json");
    let text = std::fs::read(&config_path).map_err(|cause| Error::Io { path: config_path.clone(), cause })?;
    let json: Map<String, Value> =
        serde_json::from_slice(&text).map_err(|e| Error::File { path: config_path.clone(), why: e.to_string() })?;
    let blocks = Blocks::parse(Fields { path: &config_path, map: &json })?;
    let (mut config, layout) = parse(&config_path, &json)?;
    let source = SafetensorsSource::directory(path, layout.ranks_file(path).as_deref())?;
    quantised::check_types(&source, blocks)?;
    // As transformers has it: a head of its own in the files is kept, whatever the configuration says. Many files hold
    // a copy of the embedding, so the bytes decide.
    if config.head_is_embedding && source.shape(LM_HEAD).is_some() {
        config.tie(source.same(LM_HEAD, config.architecture.family().keys.embedding)?);
    }
    let mut names = source.names();
    // Factors are read with what they are factors of.
    names.retain(|name| blocks.is_none() || !Fp8Source::is_scales(&source, name));
    let names = names.into_iter().map(str::to_owned).collect();
    Ok(Checkpoint {
        source: match blocks {
            None => Box::new(source),
            Some(blocks) => Box::new(Fp8Source::new(source, blocks)),
        },
        names,
        directory: path.to_owned(),
        config_path,
        config,
        layout,
        json,
        tokenizer: None,
    })
}

#[cfg(feature = "gguf")]
fn open_gguf(path: &Path) -> Result<Checkpoint> {
    let super::gguf::Gguf { source, config: json, tokenizer } = super::gguf::open(path)?;
    let (config, layout) = parse(path, &json)?;
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    let names = source.names();
    let config_path = path.to_owned();
    Ok(Checkpoint { source: Box::new(source), names, directory, config_path, config, layout, json, tokenizer })
}

#[cfg(not(feature = "gguf"))]
fn open_gguf(path: &Path) -> Result<Checkpoint> {
    Err(Error::Unsupported {
        what: path.display().to_string(),
        why: "GGUF files need the crate's feature `gguf`".into(),
    })
}

/// A model's configuration, and how its layers lie in its files: as its family has them, or as a conversion wrote them.
fn parse(path: &Path, json: &Map<String, Value>) -> Result<(ModelConfig, AnyLayout)> {
    let fields = Fields { path, map: json };
    let (config, layout) = ModelConfig::parse(fields)?;
    for conversion in config.architecture.family().conversions {
        if let Some(converted) = (conversion.parse)(fields, &config)? {
            return Ok((config, converted));
        }
    }
    Ok((config, layout))
}

impl Checkpoint {
    /// What the checkpoint says about its model.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The tokenizer that a GGUF file carries; `None` for directories, whose `tokenizer.json` is for a tokenizer
    /// library to read.
    #[must_use]
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// The tensors, under Hugging Face's names.
    #[must_use]
    pub fn source(&self) -> &dyn TensorSource {
        self.source.as_ref()
    }

    /// The configuration in Hugging Face's keys.
    pub(crate) fn json(&self) -> &Map<String, Value> {
        &self.json
    }

    /// The attention of one layer.
    ///
    /// # Errors
    /// [`Error::Index`] if there is no such layer; [`Error::Tensor`] names a tensor that is missing, mis-shaped or of
    /// an unknown type, or one of the layer's attention that this architecture has no use for (a norm on queries in
    /// what calls itself Llama); [`Error::Config`] if nothing says which pairs a 2-norm checkpoint keeps.
    pub fn attention(&self, layer: usize) -> Result<Attention> {
        self.check_layer(layer)?;
        let module = self.layout.module(layer);
        let (source, model) = (&Recording::new(self.source()), &self.config);
        let layer = Layer { source, model, directory: &self.directory, index: layer, module: &module };
        let attention = self.layout.attention(&layer)?;
        let needed = |name: &&str| {
            let inside = name[module.len()..].trim_start_matches('.').split('.').next().unwrap_or_default();
            !self.layout.unneeded().contains(&inside)
        };
        let present = self.names_below(&module).filter(needed);
        source.refuse_unread(present, &format!("{:?}'s attention", model.architecture))?;
        Ok(attention)
    }

    /// The gates on the output of one layer's attention; `None` if it has none. [`ModelConfig::gated_output`] says whether
    /// a model has layers with gates.
    ///
    /// # Errors
    /// [`Error::Index`] if there is no such layer, [`Error::Tensor`] as for [`Checkpoint::attention`].
    pub fn output_gate(&self, layer: usize) -> Result<Option<OutputGate>> {
        self.check_layer(layer)?;
        let module = self.layout.module(layer);
        let (source, model) = (self.source(), &self.config);
        self.layout.output_gate(&Layer { source, model, directory: &self.directory, index: layer, module: &module })
    }

    /// The norms and the MLP of one layer.
    ///
    /// # Errors
    /// [`Error::Index`] if there is no such layer, [`Error::Tensor`] as for [`Checkpoint::attention`] (here for
    /// the tensors beside the attention), [`Error::Unsupported`] if the layer's MLP is a mixture of experts, which
    /// [`Checkpoint::mixture`] reads.
    pub fn block(&self, layer: usize) -> Result<Block> {
        self.check_layer(layer)?;
        let module = format!("model.layers.{layer}");
        let (hidden, intermediate) = (self.config.hidden, self.config.intermediate);
        if let Some(why) = self.layout.block_refusal() {
            return Err(self.mlp_refusal(layer, why));
        }
        if self.has_experts(layer) {
            return Err(self.mlp_refusal(layer, "is a mixture of experts, and no MLP that all tokens take"));
        }
        let source = &Recording::new(self.source());
        let norm = |name: &str| self.norm(source, &format!("{module}.{name}.weight"));
        let mlp = |name: &str, rows, cols| linear(source, &format!("{module}.mlp.{name}"), rows, cols);
        let (gate, up) = if self.layout.fused_mlp() {
            let both = mlp("gate_up_proj", 2 * intermediate, hidden)?;
            let rows = |first: usize| both.select_outputs(&(first..first + intermediate).collect::<Vec<_>>());
            (rows(0), rows(intermediate))
        } else {
            (mlp("gate_proj", intermediate, hidden)?, mlp("up_proj", intermediate, hidden)?)
        };
        let block = Block {
            attention_norm: norm("input_layernorm")?,
            mlp_norm: norm("post_attention_layernorm")?,
            gate,
            up,
            down: scaled_outputs(mlp("down_proj", hidden, intermediate)?, self.config.factors.residual),
        };
        self.refuse_unread_beside_attention(source, layer)?;
        Ok(block)
    }

    /// The token embedding, `[vocab, hidden]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] as for [`Checkpoint::attention`]; the same holds for the methods below.
    pub fn embedding(&self) -> Result<Matrix> {
        let embedding = matrix(self.source(), self.embedding_name(), self.config.vocab, self.config.hidden)?;
        Ok(scaled_matrix(embedding, self.config.factors.embedding))
    }

    /// The norm in front of the output head, over `hidden`. It carries the factor that a model has on its logits.
    pub fn final_norm(&self) -> Result<RmsNorm> {
        let mut norm = self.norm(self.source(), "model.norm.weight")?;
        scale(&mut norm.gain, self.config.factors.logits);
        Ok(norm)
    }

    /// The output head, `[vocab, hidden]`; `None` if it is the embedding.
    pub fn lm_head(&self) -> Result<Option<Matrix>> {
        if self.config.tied_embeddings {
            return Ok(None);
        }
        let name = if self.config.head_is_embedding { self.embedding_name() } else { LM_HEAD };
        matrix(self.source(), name, self.config.vocab, self.config.hidden).map(Some)
    }

    /// Whether the MLP of a layer is a mixture of experts: only those have a router.
    pub(super) fn has_experts(&self, layer: usize) -> bool {
        let has = |name: &str| self.source.shape(&format!("model.layers.{layer}.{name}.weight")).is_some();
        has("mlp.gate") || has("block_sparse_moe.gate")
    }

    pub(super) fn mlp_refusal(&self, layer: usize, why: &str) -> Error {
        let what = format!("MLP of layer {layer} in {}", self.source.path().display());
        Error::Unsupported { what, why: why.into() }
    }

    /// The configuration's keys, for what is read of them with a layer.
    pub(super) fn fields(&self) -> Fields<'_> {
        Fields { path: &self.config_path, map: &self.json }
    }

    fn embedding_name(&self) -> &'static str {
        self.config.architecture.family().keys.embedding
    }

    /// Refuses tensors of a layer outside of its attention that were not read.
    pub(super) fn refuse_unread_beside_attention(&self, source: &Recording, layer: usize) -> Result<()> {
        let module = &format!("model.layers.{layer}");
        let unneeded = self.layout.unneeded_beside().iter().map(|part| format!("{module}.{part}."));
        let skipped: Vec<String> = unneeded.chain([format!("{}.", self.layout.module(layer))]).collect();
        let beside = self.names_below(module).filter(|name| !skipped.iter().any(|part| name.starts_with(part)));
        source.refuse_unread(beside, &format!("a layer of {:?}", self.config.architecture))
    }

    pub(super) fn norm(&self, source: &dyn TensorSource, name: &str) -> Result<RmsNorm> {
        let mut gain = source.read(name, &[self.config.hidden])?;
        if self.config.factors.norm_offset != 0.0 {
            gain.iter_mut().for_each(|gain| *gain += self.config.factors.norm_offset);
        }
        Ok(RmsNorm { gain, epsilon: self.config.norm_epsilon })
    }

    /// The names of all tensors of a module.
    fn names_below(&self, module: &str) -> impl Iterator<Item = &str> {
        let prefix = format!("{module}.");
        let first = self.names.partition_point(|name| *name < prefix);
        self.names[first..].iter().map(String::as_str).take_while(move |name| name.starts_with(&prefix))
    }

    pub(super) fn check_layer(&self, layer: usize) -> Result<()> {
        if layer < self.config.layers {
            return Ok(());
        }
        let got = i64::try_from(layer).unwrap_or(i64::MAX);
        Err(Error::Index { what: "layer".into(), got, bound: format!("0..{}", self.config.layers) })
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint").field("path", &self.source.path()).field("config", &self.config).finish()
    }
}
