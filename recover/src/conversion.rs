//! The layers that a run begins with.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use latent_attention::convert::{Calibration, ConvertOptions, convert};
use latent_attention::weights::{DenseAttention, LatentAttention};
use latent_attention_lm::model::{Layers, read_attention};

use crate::original::Original;

/// How dense layers are converted.
#[derive(Clone, Copy, Debug)]
pub struct Conversion {
    /// Rotated dimensions that are left of a head.
    pub rope_dim: usize,
    /// Dimensions of the latent.
    pub latent_rank: usize,
}

/// Converts the original's layers after a look at what they read of `tokens`, each sequence of `sequence` tokens a text of
/// its own.
///
/// # Errors
/// If the sizes do not fit the model, or there is no whole sequence.
pub fn convert_layers(
    original: &Original,
    dense: &[DenseAttention],
    tokens: &[u32],
    sequence: usize,
    conversion: Conversion,
) -> Result<Vec<LatentAttention>> {
    let mut calibrations = dense.iter().map(Calibration::new).collect::<latent_attention::Result<Vec<_>>>()?;
    for tokens in tokens.chunks_exact(sequence) {
        original.forward(tokens, sequence, |layer, normed, _| {
            let numbers: Vec<f32> = normed.flatten_all()?.to_vec1()?;
            Ok(calibrations[layer].observe(&dense[layer], &numbers)?)
        })?;
    }
    let options = ConvertOptions::new(conversion.rope_dim, conversion.latent_rank).with_whiten(true);
    let layer = |(index, (layer, calibration)): (usize, (&DenseAttention, &Calibration))| {
        convert(layer, &options, Some(calibration)).with_context(|| format!("converting layer {index}"))
    };
    dense.iter().zip(&calibrations).enumerate().map(layer).collect()
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
