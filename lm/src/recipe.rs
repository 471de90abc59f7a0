//! Calibration, and conversion of all layers by MHA2MLA's recipe.

use anyhow::{Context, Result};
use latent_attention::convert::{Calibration, ConvertOptions, convert};
use latent_attention::rope::RopeTables;
use latent_attention::weights::{DenseAttention, LatentAttention};

use crate::dense::DenseSteps;
use crate::model::Model;
use crate::progress::bar;
use crate::transformer::{AttentionStep, Observed};

/// Calibration text is read in pieces of at most so many tokens, and no more than there are tables for, each as a text of
/// its own.
pub const CALIBRATION_TOKENS: usize = 1024;

/// Tokens that the recipe is calibrated on: averages, which need no more.
pub const RECIPE_TOKENS: usize = 2048;

/// Gathers what every layer's attention reads while the original model runs over `tokens`.
///
/// # Errors
/// If the model does not fit together.
pub fn calibrate(
    model: &Model,
    layers: &[DenseAttention],
    tables: &RopeTables,
    tokens: &[u32],
) -> Result<Vec<Calibration>> {
    let progress = bar("Calibrating", tokens.len() * layers.len(), "layer inputs");
    let mut calibrations = layers.iter().map(Calibration::new).collect::<latent_attention::Result<Vec<_>>>()?;
    let mut attention = DenseSteps::new(layers, tables)?;
    let longest = CALIBRATION_TOKENS.min(model.checkpoint.config().max_positions).min(tables.positions());
    // One token less leaves room for the one that begins a text.
    for piece in tokens.chunks(longest.saturating_sub(1).max(1)) {
        attention.reset();
        let mut observed = Observed::new(&mut attention, |layer, normed: &[f32], _: &[f32]| {
            calibrations[layer].observe(&layers[layer], normed)?;
            progress.inc(piece.len() as u64);
            Ok(())
        });
        model.transformer.forward(&mut observed, &model.begun(piece), 0)?;
    }
    progress.finish_and_clear();
    Ok(calibrations)
}

/// Converts all layers alike.
///
/// # Errors
/// If the options do not fit the model.
pub fn convert_all(
    layers: &[DenseAttention],
    calibrations: &[Calibration],
    options: &ConvertOptions,
    name: &str,
) -> Result<Vec<LatentAttention>> {
    let progress = bar(&format!("Converting: {name}"), layers.len(), "layers");
    let converted = layers.iter().zip(calibrations).enumerate().map(|(index, (layer, calibration))| {
        progress.inc(1);
        convert(layer, options, Some(calibration)).with_context(|| format!("converting layer {index} to {name}"))
    });
    let converted = converted.collect();
    progress.finish_and_clear();
    converted
}
