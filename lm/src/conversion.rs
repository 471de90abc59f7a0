//! Converts a whole model layer by layer, each layer fitted to what the converted layers before it make of the text.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Tensor;
use latent_attention::convert::shared_key::{OutputFit, Sampling, Survey};
use latent_attention::load::ModelConfig;
use latent_attention::rope::RopeTables;
use latent_attention::weights::{DenseAttention, LatentAttention};

use crate::dense::DenseSteps;
use crate::latent::LatentLayer;
use crate::tensors::{to_tensor, to_vec};
use crate::text::SEQUENCE;
use crate::transformer::{AttentionStep, Transformer};

/// Tokens whose attention is computed at a time, which bounds the memory of scores in long sequences.
const CHUNK: usize = 512;

/// What is converted: a model's attention, and what stands around it.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Everything but attention.
    pub transformer: &'a Transformer,
    /// The attention of every layer.
    pub layers: &'a [DenseAttention],
    /// By how much each pair of a head turns from token to token, `[head_dim/2]`, radians.
    pub frequencies: &'a [f32],
}

/// Sizes of a converted layer's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Rotated dimensions of the shared key, R.
    pub rope_dim: usize,
    /// Dimensions of the latent, L.
    pub latent_rank: usize,
}

impl Sizes {
    /// The usual sizes of a model: of the numbers that it caches a sixteenth rotated and a quarter in the latent, unless others
    /// are asked for.
    #[must_use]
    pub fn usual(config: &ModelConfig, rope_dim: Option<usize>, latent_rank: Option<usize>) -> Self {
        let numbers = 2 * config.kv_heads * config.head_dim;
        Self {
            rope_dim: rope_dim.unwrap_or(numbers / 16 / 2 * 2),
            latent_rank: latent_rank.unwrap_or((numbers / 4).min(config.hidden)),
        }
    }

    /// The same sizes in each of `layers` layers.
    #[must_use]
    pub fn everywhere(self, layers: usize) -> Vec<Self> {
        vec![self; layers]
    }
}

/// Refuses layers that a conversion to a shared key has no place for, before its long work.
///
/// # Errors
/// If a layer has norms over heads.
pub fn check_convertible(layers: &[DenseAttention]) -> Result<()> {
    match layers.iter().position(|layer| layer.head_norms.is_some()) {
        Some(index) => bail!(
            "layer {index} has norms over heads of queries and keys (`head_norms`), which a shared key cannot keep"
        ),
        None => Ok(()),
    }
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
    /// Samples counted by 512 tokens; with refit, and a ridge of 0.1 on output projections: of 0.03, 0.1 and 0.3 that which loses least on texts of other
    /// kinds than the calibration's.
    fn default() -> Self {
        let mut sampling = Sampling::default();
        sampling.per = Some(SEQUENCE);
        Self { sampling, refit: Some(0.1) }
    }
}

/// Converts a model by every one of the `plans`, which name each layer's sizes, in one pass over `sequences` of calibration
/// tokens, each of which begins as texts do for the model. `done` is called after every layer.
///
/// Which rotations are worth keeping depends on the distances at which tokens look at each other, so sequences should be as
/// long as the texts that the model is meant for.
///
/// Memory holds the residual streams of the whole text, `4 (1 + plans) tokens * hidden` bytes, and twice as much for a
/// moment.
///
/// # Errors
/// As for [`Survey::new`] and [`Survey::choose`], with the layer's number; and if a plan does not have as many sizes as
/// there are layers, the text is empty, or a token lies outside of the vocabulary.
pub fn convert_model(
    source: Source<'_>,
    sequences: &[Vec<u32>],
    plans: &[Vec<Sizes>],
    options: &ModelOptions,
    mut done: impl FnMut(),
) -> Result<Vec<Vec<LatentAttention>>> {
    let Source { transformer, layers, frequencies } = source;
    for plan in plans {
        ensure!(plan.len() == layers.len(), "sizes for {} layers, the model has {}", plan.len(), layers.len());
    }
    let tables = tables(source, sequences)?;
    let mut original = OriginalStreams::new(source, &tables, sequences)?;
    let mut streams: Vec<Vec<Tensor>> = plans.iter().map(|_| original.streams.clone()).collect();
    let mut converted: Vec<Vec<LatentAttention>> = plans.iter().map(|_| Vec::new()).collect();
    for (index, layer) in layers.iter().enumerate() {
        let inputs = original.attend(index)?;
        let survey = Survey::new(layer, frequencies, &inputs, &options.sampling);
        let survey = survey.with_context(|| format!("converting layer {index}"))?;
        for ((plan, stream), converted) in plans.iter().zip(&mut streams).zip(&mut converted) {
            let mut convert = || -> Result<LatentAttention> {
                let chosen = survey.choose(&inputs, plan[index].rope_dim, plan[index].latent_rank)?;
                let Some(ridge) = options.refit else { return Ok(chosen.attention(&inputs)?) };
                let own = attention_inputs(transformer, index, stream)?;
                let mut latent = chosen.attention(&own)?;
                let heads = refit_output(&mut latent, &tables, ridge, stream, &own, &original.streams)?;
                let layer = LatentLayer::new(&latent, &tables, None)?;
                for (x, heads) in stream.iter_mut().zip(&heads) {
                    let (tokens, hidden) = x.dims2()?;
                    let output = to_tensor(&layer.project(heads)?, tokens, hidden)?;
                    *x = transformer.add_mlp(index, &(&*x + output)?)?;
                }
                Ok(latent)
            };
            converted.push(convert().with_context(|| format!("converting layer {index}"))?);
        }
        original.add_mlp(index)?;
        done();
    }
    Ok(converted)
}

/// The original's frequencies at every position of the longest sequence.
pub(crate) fn tables(source: Source<'_>, sequences: &[Vec<u32>]) -> Result<RopeTables> {
    let longest = sequences.iter().map(Vec::len).max().unwrap_or_default();
    ensure!(longest > 0, "there is no text to calibrate on");
    Ok(RopeTables::from_frequencies(source.frequencies, longest))
}

/// What a layer's attention reads of every stream, `[tokens, hidden]` each.
fn attention_inputs(transformer: &Transformer, layer: usize, streams: &[Tensor]) -> Result<Vec<Vec<f32>>> {
    streams.iter().map(|x| to_vec(&transformer.attention_input(layer, x)?)).collect()
}

/// The original model on its way through a text, layer by layer: its residual stream of every sequence.
pub(crate) struct OriginalStreams<'a> {
    transformer: &'a Transformer,
    attention: DenseSteps<'a>,
    /// `[tokens, hidden]` each.
    pub streams: Vec<Tensor>,
}

impl<'a> OriginalStreams<'a> {
    /// # Errors
    /// If a token lies outside of the vocabulary, or the layers do not fit the tables.
    pub fn new(source: Source<'a>, tables: &'a RopeTables, sequences: &[Vec<u32>]) -> Result<Self> {
        let Source { transformer, layers, .. } = source;
        // What converted layers learn from does not round.
        let attention = DenseSteps::with_rounding(layers, tables, |_| ())?;
        let streams = sequences.iter().map(|tokens| transformer.embed(tokens)).collect::<Result<_>>()?;
        Ok(Self { transformer, attention, streams })
    }

    /// Adds what a layer's attention says to every stream; returns what it read.
    pub fn attend(&mut self, layer: usize) -> Result<Vec<Vec<f32>>> {
        let inputs = attention_inputs(self.transformer, layer, &self.streams)?;
        for (x, input) in self.streams.iter_mut().zip(&inputs) {
            self.attention.reset();
            let (tokens, hidden) = x.dims2()?;
            let forward = |chunk: &[f32], positions| self.attention.forward(layer, chunk, positions);
            let output = in_chunks(input, tokens, forward)?;
            *x = (&*x + to_tensor(&output, tokens, hidden)?)?;
        }
        Ok(inputs)
    }

    /// Adds what a layer's MLP says to every stream.
    pub fn add_mlp(&mut self, layer: usize) -> Result<()> {
        for x in &mut self.streams {
            *x = self.transformer.add_mlp(layer, x)?;
        }
        Ok(())
    }
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
        let heads = in_chunks(input, tokens, |chunk, positions| layer.heads(chunk, positions, tables))?;
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

/// What `step` makes of a sequence's inputs (`[tokens, hidden]`), some tokens at a time.
fn in_chunks(
    inputs: &[f32],
    tokens: usize,
    mut step: impl FnMut(&[f32], Range<usize>) -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    let hidden = inputs.len() / tokens.max(1);
    let mut outputs = Vec::new();
    for start in (0..tokens).step_by(CHUNK) {
        let positions = start..(start + CHUNK).min(tokens);
        outputs.append(&mut step(&inputs[positions.start * hidden..positions.end * hidden], positions)?);
    }
    Ok(outputs)
}

#[cfg(test)]
#[path = "conversion_tests.rs"]
pub(crate) mod tests;
