//! The layers that a run begins with.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use latent_attention::rope::RopeTables;
use latent_attention::weights::{DenseAttention, LatentAttention};
use latent_attention_lm::conversion::{ModelOptions, Sizes, convert_model};
use latent_attention_lm::model::{Layers, Model, read_attention};
use latent_attention_lm::progress::bar;

/// Converts the original's layers to one shared key, calibrated on `sequences`.
///
/// # Errors
/// If the sizes do not fit the model, or the text is too short.
pub fn convert_layers(
    model: &Model,
    dense: &[DenseAttention],
    tables: &RopeTables,
    sequences: &[Vec<u32>],
    sizes: Sizes,
) -> Result<Vec<LatentAttention>> {
    let progress = bar("Converting to a shared key", dense.len(), "layers");
    let options = ModelOptions::default();
    let converted = convert_model(model, dense, tables, sequences, &[sizes], &options, || progress.inc(1))?;
    progress.finish_and_clear();
    Ok(converted.into_iter().flatten().collect())
}

/// Reads the attention of a converted model, as `cargo xtask demo --save` writes it.
///
/// # Errors
/// If there is none, or it does not have `layers` layers.
pub fn read_layers(directory: &Path, layers: usize) -> Result<Vec<LatentAttention>> {
    let checkpoint = latent_attention::load::open(directory)?;
    match read_attention(&checkpoint, || ())? {
        Layers::Latent(latent) => {
            ensure!(
                latent.len() == layers,
                "{} has {} layers, the original {layers}",
                directory.display(),
                latent.len()
            );
            Ok(latent)
        }
        Layers::Dense(_) => bail!("{} holds a model whose attention is not latent", directory.display()),
    }
}
