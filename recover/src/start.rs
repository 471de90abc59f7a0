//! What a run begins with: the original, its converted layers, and the texts.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use latent_attention::load::Checkpoint;
use latent_attention::rope::RopeTables;
use latent_attention::weights::{DenseAttention, LatentAttention};
use latent_attention_lm::conversion::{ModelOptions, Sizes, check_convertible, convert_model};
use latent_attention_lm::model::{Layers, Model, open_parts, read_attention};
use latent_attention_lm::progress::bar;
use latent_attention_lm::text::{SEQUENCE, built_in, length_warning, sequences, without_beginnings};
use latent_attention_lm::tokenizer::Tokenizer;

use crate::args::Arguments;
use crate::data::{Windows, refuse_overlap};

/// What the arguments name, read and converted.
pub struct Start {
    /// The original, but for its attention.
    pub checkpoint: Checkpoint,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its attention.
    pub dense: Vec<DenseAttention>,
    /// The attention that learns.
    pub layers: Vec<LatentAttention>,
    /// Tokens of the longest sequence that their conversion looked at, if that is known.
    pub calibrated_positions: Option<usize>,
    /// Tokens to learn from, and to judge by, without those that begin texts.
    pub texts: (Vec<u32>, Vec<u32>),
}

impl Start {
    /// Reads everything; converts the original if no converted layers are named, and lets it write a text if none is given.
    /// What can be refused is refused before that.
    ///
    /// # Errors
    /// If a file cannot be read, the original's attention is latent already, the converted layers do not fit it, it was made for
    /// fewer positions, or the texts overlap or are too short.
    pub fn read(arguments: &Arguments) -> Result<Self> {
        match (&arguments.layers, &arguments.text) {
            // Nothing has to be computed, so what stands between the layers need not be made ready for that.
            (Some(directory), Some(text)) => {
                let (checkpoint, tokenizer) = open_parts(&arguments.model)?;
                let dense = original(read_attention(&checkpoint, || ())?.into_dense(), &arguments.model)?;
                check_positions(arguments, checkpoint.config().max_positions)?;
                let evaluation = evaluation(arguments, &tokenizer)?;
                let training = read_training(text, arguments, &tokenizer, &evaluation)?;
                let (layers, calibrated_positions) = read_layers(directory, dense.len())?;
                let texts = (training, evaluation);
                Ok(Self { checkpoint, tokenizer, dense, layers, calibrated_positions, texts })
            }
            (directory, text) => Self::compute(arguments, directory.as_deref(), text.as_deref()),
        }
    }

    /// The same where the original has to write, or to be converted.
    fn compute(arguments: &Arguments, directory: Option<&Path>, text: Option<&Path>) -> Result<Self> {
        let mut model = Model::open(&arguments.model)?;
        let dense = original(model.take_dense(), &arguments.model)?;
        let (config, tokenizer) = (model.checkpoint.config(), &model.tokenizer);
        check_positions(arguments, config.max_positions)?;
        let evaluation = evaluation(arguments, tokenizer)?;
        let given = text.map(|path| read_training(path, arguments, tokenizer, &evaluation)).transpose()?;
        let read = directory.map(|directory| read_layers(directory, dense.len())).transpose()?;
        ensure!(
            given.is_some() || tokenizer.bos().is_some(),
            "the model cannot begin a text of its own; give one with --text"
        );
        let begun = usize::from(tokenizer.bos().is_some());
        let length = arguments.calibration_length;
        let length = length.unwrap_or_else(|| (evaluation.len() + begun).max(SEQUENCE).min(config.max_positions));
        let (tokens, own) = match &given {
            None => (arguments.calibration_tokens, 1.0),
            Some(given) => {
                let with_own = given.len() as f64 / (1.0 - arguments.own_text).max(f64::MIN_POSITIVE);
                (arguments.calibration_tokens.min(with_own as usize), arguments.own_text)
            }
        };
        let sequences = sequences(&model, &dense, given.as_deref().unwrap_or_default(), tokens, length, own)?;
        let training = match given {
            Some(given) => given,
            None => {
                let written = without_beginnings(&sequences, tokenizer.bos());
                check_training(&written, arguments, tokenizer, &evaluation)?;
                written
            }
        };
        let (layers, calibrated_positions) = match read {
            Some(read) => read,
            None => {
                let sizes = Sizes::usual(config, arguments.rope_dim, arguments.latent_rank);
                let progress = bar("Converting to a shared key", dense.len(), "layers");
                let (plan, options) = (sizes.everywhere(dense.len()), ModelOptions::default());
                let converted = convert_model(model.source(&dense), &sequences, &[plan], &options, || progress.inc(1))?;
                progress.finish_and_clear();
                (converted.into_iter().flatten().collect(), sequences.iter().map(Vec::len).max())
            }
        };
        // The run has numbers of its own for what stands between the layers, so those of the conversion end here.
        let Model { checkpoint, tokenizer, .. } = model;
        let texts = (training, evaluation);
        Ok(Self { checkpoint, tokenizer, dense, layers, calibrated_positions, texts })
    }

    /// The original's frequencies for `positions` positions; says so on the terminal if the conversion has not seen as many.
    #[must_use]
    pub fn rope_tables(&self, positions: usize) -> RopeTables {
        if let Some(warning) = length_warning(positions, self.calibrated_positions) {
            eprintln!("{warning}");
        }
        RopeTables::from_frequencies(&self.checkpoint.config().inverse_frequencies, positions)
    }
}

/// The original's attention; an error says what --model is for.
fn original(dense: Result<Vec<DenseAttention>>, path: &Path) -> Result<Vec<DenseAttention>> {
    let dense = dense.with_context(|| format!("{}: --model names the original, to learn from", path.display()))?;
    check_convertible(&dense).with_context(|| path.display().to_string())?;
    Ok(dense)
}

/// Tokens to judge by: as many as the arguments say with the one that begins them.
fn evaluation(arguments: &Arguments, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let mut tokens = match &arguments.evaluation {
        Some(path) => read_text(path, tokenizer, "evaluation")?,
        None => tokenizer.encode(built_in().1)?,
    };
    tokens.truncate(arguments.evaluation_tokens.saturating_sub(usize::from(tokenizer.bos().is_some())));
    Ok(tokens)
}

/// Refuses lengths that the model was not made for.
fn check_positions(arguments: &Arguments, most: usize) -> Result<()> {
    let lengths = [("--sequence", Some(arguments.sequence)), ("--calibration-length", arguments.calibration_length)];
    for (option, length) in lengths {
        ensure!(
            length <= Some(most),
            "{option} {}: the model was made for {most} positions",
            length.unwrap_or_default()
        );
    }
    Ok(())
}

/// The tokens of a text to learn from.
fn read_training(path: &Path, arguments: &Arguments, tokenizer: &Tokenizer, evaluation: &[u32]) -> Result<Vec<u32>> {
    let tokens = read_text(path, tokenizer, "training")?;
    check_training(&tokens, arguments, tokenizer, evaluation)?;
    Ok(tokens)
}

/// Refuses a text that cannot be learnt from.
fn check_training(tokens: &[u32], arguments: &Arguments, tokenizer: &Tokenizer, evaluation: &[u32]) -> Result<()> {
    refuse_overlap(tokens, evaluation)?;
    Windows::new(tokens, tokenizer.bos(), arguments.sequence, arguments.seed).map(|_| ())
}

/// The tokens of a file.
fn read_text(path: &Path, tokenizer: &Tokenizer, what: &str) -> Result<Vec<u32>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the {what} text {}", path.display()))?;
    let tokens = tokenizer.encode(&text).with_context(|| format!("the {what} text {}", path.display()))?;
    ensure!(!tokens.is_empty(), "the {what} text {} is empty", path.display());
    Ok(tokens)
}

/// The attention of a converted model, as `cargo xtask demo --save` writes it, and what it was calibrated on.
fn read_layers(directory: &Path, layers: usize) -> Result<(Vec<LatentAttention>, Option<usize>)> {
    let checkpoint = latent_attention::load::open(directory)?;
    let Layers::Latent(latent) = read_attention(&checkpoint, || ())? else {
        bail!("{} holds a model whose attention is not latent", directory.display())
    };
    ensure!(latent.len() == layers, "{} has {} layers, the original {layers}", directory.display(), latent.len());
    Ok((latent, checkpoint.config().calibrated_positions))
}
