//! Converts a whole model layer by layer, each layer fitted to what the converted layers before it make of the text.

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use latent_attention::convert::shared_key::{OutputFit, Sampling, Survey};
use latent_attention::rope::RopeTables;
use latent_attention::weights::{DenseAttention, LatentAttention};

use crate::dense::DenseSteps;
use crate::latent::LatentLayer;
use crate::model::Model;
use crate::tensors::{to_tensor, to_vec};
use crate::transformer::AttentionStep;

/// Sizes of a converted layer's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Rotated dimensions of the shared key, R.
    pub rope_dim: usize,
    /// Dimensions of the latent, L.
    pub latent_rank: usize,
}

/// How a model is converted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelOptions {
    /// How the text is sampled.
    pub sampling: Sampling,
    /// Fits decoders to the converted layers' own stream, and output projections to the original's; without it every layer
    /// is fitted to the original's stream. The number is how strongly output projections are held to the original ones,
    /// relative to the mean square of what they read.
    pub refit: Option<f64>,
}

impl Default for ModelOptions {
    /// With refit, and a ridge of 0.03 on output projections.
    fn default() -> Self {
        Self { sampling: Sampling::default(), refit: Some(0.03) }
    }
}

/// Converts `layers` of `model` to every one of the `sizes`, in one pass over `sequences` of calibration tokens, each of
/// which begins as texts do for the model. `done` is called after every layer.
///
/// Memory holds the residual streams of the whole text, `4 (1 + sizes) tokens * hidden` bytes, and twice as much for a
/// moment.
///
/// # Errors
/// As for [`Survey::new`] and [`Survey::choose`], with the layer's number; and if the text is empty or does not fit the
/// tables.
pub fn convert_model(
    model: &Model,
    layers: &[DenseAttention],
    tables: &RopeTables,
    sequences: &[Vec<u32>],
    sizes: &[Sizes],
    options: &ModelOptions,
    mut done: impl FnMut(),
) -> Result<Vec<Vec<LatentAttention>>> {
    ensure!(!sequences.is_empty(), "there is no text to calibrate on");
    let transformer = &model.transformer;
    let frequencies = &model.checkpoint.config().inverse_frequencies;
    let mut attention = DenseSteps::new(layers, tables)?;
    let mut original = sequences.iter().map(|tokens| transformer.embed(tokens)).collect::<Result<Vec<_>>>()?;
    let mut streams: Vec<Vec<Tensor>> = sizes.iter().map(|_| original.clone()).collect();
    let mut converted: Vec<Vec<LatentAttention>> = sizes.iter().map(|_| Vec::new()).collect();
    for (index, layer) in layers.iter().enumerate() {
        let normed = |stream: &[Tensor]| -> Result<Vec<Vec<f32>>> {
            stream.iter().map(|x| to_vec(&transformer.attention_input(index, x)?)).collect()
        };
        let inputs = normed(&original)?;
        for (x, input) in original.iter_mut().zip(&inputs) {
            attention.reset();
            let (tokens, hidden) = x.dims2()?;
            *x = (&*x + to_tensor(&attention.forward(index, input, 0..tokens)?, tokens, hidden)?)?;
        }
        let survey = Survey::new(layer, frequencies, &inputs, &options.sampling);
        let survey = survey.with_context(|| format!("converting layer {index}"))?;
        for ((sizes, stream), converted) in sizes.iter().zip(&mut streams).zip(&mut converted) {
            let mut convert = || -> Result<LatentAttention> {
                let chosen = survey.choose(&inputs, sizes.rope_dim, sizes.latent_rank)?;
                let Some(ridge) = options.refit else { return Ok(chosen.attention(&inputs)?) };
                let own = normed(stream)?;
                let mut latent = chosen.attention(&own)?;
                let heads = refit_output(&mut latent, tables, ridge, stream, &own, &original)?;
                let layer = LatentLayer::new(&latent, tables, None)?;
                for (x, heads) in stream.iter_mut().zip(&heads) {
                    let (tokens, hidden) = x.dims2()?;
                    let output = to_tensor(&layer.project(heads)?, tokens, hidden)?;
                    *x = transformer.add_mlp(index, &(&*x + output)?)?;
                }
                Ok(latent)
            };
            converted.push(convert().with_context(|| format!("converting layer {index}"))?);
        }
        for x in &mut original {
            *x = transformer.add_mlp(index, x)?;
        }
        done();
    }
    Ok(converted)
}

/// Fits the layer's output projection to what leads from the converted model's `stream` before the layer to the original's
/// behind it (`original`). Returns the heads' outputs for every sequence, `[tokens, H*Dv]`.
fn refit_output(
    latent: &mut LatentAttention,
    tables: &RopeTables,
    ridge: f64,
    stream: &[Tensor],
    inputs: &[Vec<f32>],
    original: &[Tensor],
) -> Result<Vec<Vec<f32>>> {
    let geometry = latent.geometry;
    let mut layer = LatentLayer::new(latent, tables, None)?;
    let mut fit = OutputFit::new(geometry.query_heads * geometry.value_dim, latent.hidden());
    let mut all_heads = Vec::with_capacity(inputs.len());
    for ((input, x), behind) in inputs.iter().zip(stream).zip(original) {
        let (tokens, hidden) = x.dims2()?;
        layer.reset();
        let heads = layer.heads(input, 0..tokens, tables)?;
        let output = to_tensor(&layer.project(&heads)?, tokens, hidden)?;
        let lacking = (behind - x)?.sub(&output)?;
        // An error counts by its share of the stream, which the next norm makes of it.
        let mut weights = to_vec(&(behind.sqr()?.mean(1)? + 1e-12)?.sqrt()?.recip()?)?;
        // The first token of a text is an attention sink in most models: its stream is of another size.
        weights[0] = 0.0;
        fit.observe(&heads, &to_vec(&lacking)?, &weights)?;
        all_heads.push(heads);
    }
    latent.output = fit.solve(&latent.output, ridge)?;
    Ok(all_heads)
}
