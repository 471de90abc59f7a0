//! A model from disk, ready to run.

use std::path::Path;

use anyhow::{Context, Result, bail};
use latent_attention::load::{self, Attention, Checkpoint};
use latent_attention::rope::RopeTables;
use latent_attention::weights::{DenseAttention, LatentAttention};

use crate::conversion::Source;
use crate::progress::bar;
use crate::tokenizer::Tokenizer;
use crate::transformer::Transformer;

/// A model, its attention kept apart.
pub struct Model {
    /// Where it comes from.
    pub checkpoint: Checkpoint,
    /// Everything but attention.
    pub transformer: Transformer,
    /// Attention of all layers.
    pub attention: Layers,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
}

/// The attention of all layers, by kind.
pub enum Layers {
    /// MHA or GQA, to be converted.
    Dense(Vec<DenseAttention>),
    /// Latent already.
    Latent(Vec<LatentAttention>),
}

impl Layers {
    /// The layers, if they are dense.
    ///
    /// # Errors
    /// If they are latent already.
    pub fn into_dense(self) -> Result<Vec<DenseAttention>> {
        match self {
            Self::Dense(layers) => Ok(layers),
            Self::Latent(_) => bail!("the model has latent attention already"),
        }
    }
}

impl Model {
    /// Reads a GGUF file or a Hugging Face directory.
    ///
    /// # Errors
    /// If a file is missing or malformed, or holds a model that is not known here.
    pub fn open(path: &Path) -> Result<Self> {
        let (checkpoint, tokenizer) = open_parts(path)?;
        let config = checkpoint.config();
        let progress = bar("Reading the model", 2 * config.layers, "parts");
        let blocks = progress.wrap_iter(0..config.layers).map(|layer| Ok(checkpoint.block(layer)?));
        let (embedding, head) = (checkpoint.embedding()?, checkpoint.lm_head()?);
        let transformer = Transformer::new(embedding, blocks, &checkpoint.final_norm()?, head)?;
        let attention = read_attention(&checkpoint, || progress.inc(1))?;
        progress.finish_and_clear();
        Ok(Self { checkpoint, transformer, attention, tokenizer })
    }

    /// Reads the codes that a file of quantised weights has beside attention: single tokens are then multiplied by those,
    /// instead of by the numbers that became of them.
    ///
    /// # Errors
    /// As [`Transformer::read_codes`].
    pub fn read_codes(&mut self) -> Result<()> {
        let tied = self.checkpoint.config().tied_embeddings;
        let head = if tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
        self.transformer.read_codes(self.checkpoint.source(), head)
    }

    /// The attention of all layers, taken out of the model, if it is dense.
    ///
    /// # Errors
    /// If it is latent already.
    pub fn take_dense(&mut self) -> Result<Vec<DenseAttention>> {
        std::mem::replace(&mut self.attention, Layers::Latent(Vec::new())).into_dense()
    }

    /// What a conversion of `layers`, the model's own attention, works on.
    #[must_use]
    pub fn source<'a>(&'a self, layers: &'a [DenseAttention]) -> Source<'a> {
        Source { transformer: &self.transformer, layers, frequencies: &self.checkpoint.config().inverse_frequencies }
    }

    /// Cosines and sines of the model's own frequencies for so many positions.
    #[must_use]
    pub fn rope_tables(&self, positions: usize) -> RopeTables {
        RopeTables::from_frequencies(&self.checkpoint.config().inverse_frequencies, positions)
    }

    /// `tokens` behind the token that begins a text, if the model has one. Without it the first word takes its place
    /// as the one that all heads look at when nothing else fits, and predictions suffer.
    #[must_use]
    pub fn begun(&self, tokens: &[u32]) -> Vec<u32> {
        self.tokenizer.bos().into_iter().chain(tokens.iter().copied()).collect()
    }
}

/// Opens a GGUF file or a Hugging Face directory and its tokenizer, and reads no weights yet.
///
/// # Errors
/// As [`Model::open`].
pub fn open_parts(path: &Path) -> Result<(Checkpoint, Tokenizer)> {
    let checkpoint = load::open(path)?;
    let config = checkpoint.config();
    if config.query_scaling.is_some() {
        bail!("{}: queries that grow with their position (`query_scaling`) are not computed here", path.display());
    }
    if !config.same_frequencies() {
        bail!("{}: layers that differ in their rotation (`no_rope_layers`) are not computed here", path.display());
    }
    if config.gated_output {
        bail!("{}: gates on the attention's output (`gated_output`) are not computed here", path.display());
    }
    let tokenizer = match checkpoint.tokenizer() {
        Some(vocabulary) => Tokenizer::from_gguf(vocabulary)?,
        None if path.is_dir() => Tokenizer::from_directory(path, config.bos, &config.eos)?,
        None => bail!("{} carries no tokenizer", path.display()),
    };
    Ok((checkpoint, tokenizer))
}

/// Reads the attention of all layers; `done` is called after each.
///
/// # Errors
/// If a tensor is missing or malformed, or the layers are not all of one kind.
pub fn read_attention(checkpoint: &Checkpoint, done: impl Fn()) -> Result<Layers> {
    let (mut dense, mut latent) = (Vec::new(), Vec::new());
    for layer in 0..checkpoint.config().layers {
        match checkpoint.attention(layer).with_context(|| format!("attention of layer {layer}"))? {
            Attention::Dense(weights) => dense.push(weights),
            Attention::Latent(weights) => latent.push(weights),
        }
        done();
    }
    match (dense.is_empty(), latent.is_empty()) {
        (false, true) => Ok(Layers::Dense(dense)),
        (true, false) => Ok(Layers::Latent(latent)),
        _ => bail!("the model must have layers, all of them dense or all of them latent"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_attend_in_ways_not_computed_here_are_refused_before_their_weights_are_read() {
        let checkpoints = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/oracle");
        for (family, key) in [
            ("smollm3", "no_rope_layers"),
            ("mistral4", "query_scaling"),
            ("bailing_hybrid", "gated_output"),
            ("axk2", "gated_output"),
        ] {
            let error = open_parts(&checkpoints.join(family)).err().unwrap().to_string();
            assert!(error.contains(family) && error.contains(key), "{error}");
        }
    }

    #[test]
    fn a_mixture_of_experts_is_no_block_of_a_transformer() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/oracle/deepseek_v3_yarn");
        let checkpoint = load::open(&folder).unwrap();
        let blocks = (0..2).map(|layer| Ok(checkpoint.block(layer)?));
        let (embedding, norm) = (checkpoint.embedding().unwrap(), checkpoint.final_norm().unwrap());
        let error = format!("{:#}", Transformer::new(embedding, blocks, &norm, None).err().unwrap());
        assert!(error.contains("block 1") && error.contains("mixture of experts"), "{error}");
    }
}
