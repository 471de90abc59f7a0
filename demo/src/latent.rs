//! Latent attention as the transformer calls it: candle's projections around the library's layer and paged cache.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Tensor;
use latent_attention::cache::{CacheFormat, PageTable, PagedCache, Sequences};
use latent_attention::ops::RotationBuffers;
use latent_attention::reference::{ReferenceInputs, ReferenceLayer};
use latent_attention::rope::RopeTables;
use latent_attention::weights::{LatentAttention, QueryDown};

use crate::engine::{Engine, SAMPLED_TOKENS};
use crate::kernels::{KernelLayer, Sample};
use latent_attention_lm::tensors::{Norm, Projection, to_tensor, to_vec};
use latent_attention_lm::transformer::AttentionStep;

/// Tokens per page of the cache.
const PAGE_SIZE: usize = 64;

/// Latent attention for all layers of a model, one sequence at a time.
pub struct LatentSteps<'a> {
    layers: Vec<Layer>,
    tables: &'a RopeTables,
    /// The one sequence's pages, in order.
    pages: Vec<i32>,
    saturated: usize,
    difference: Option<f64>,
}

impl<'a> LatentSteps<'a> {
    /// Prepares the given layers with an empty cache for `capacity` tokens each, computed by `engine`.
    ///
    /// # Errors
    /// If a layer is inconsistent or there is not enough memory.
    pub fn new(
        layers: &[LatentAttention],
        tables: &'a RopeTables,
        format: CacheFormat,
        capacity: usize,
        engine: &Engine,
    ) -> Result<Self> {
        let pages = capacity.div_ceil(PAGE_SIZE);
        // The model's cosines and sines, on the device once for all layers.
        let shared = match (engine, layers.first()) {
            (Engine::Device(device) | Engine::Sampled(device), Some(first)) => {
                Some(RotationBuffers::upload(device, tables, &first.frequencies)?)
            }
            _ => None,
        };
        let prepare = |index: usize, weights: &LatentAttention| -> Result<Layer> {
            let on = |device| match &shared {
                Some(shared) => KernelLayer::new(device, weights, shared, format, PAGE_SIZE, pages),
                None => bail!("there are no tables on the device"),
            };
            let beside = match engine {
                Engine::Device(device) => Beside::Instead(Box::new(on(device)?)),
                Engine::Sampled(device) if index == 0 || index + 1 == layers.len() => {
                    Beside::Sample(Box::new(Sample::new(on(device)?, weights, format, PAGE_SIZE, pages)?))
                }
                Engine::Sampled(_) | Engine::Reference => Beside::Nothing,
            };
            Layer::new(weights, format, pages, beside)
        };
        let layers = layers.iter().enumerate().map(|(index, weights)| {
            prepare(index, weights).with_context(|| format!("latent attention of layer {index}"))
        });
        let layers = layers.collect::<Result<_>>()?;
        let pages = (0..i32::try_from(pages).context("too many pages")?).collect();
        Ok(Self { layers, tables, pages, saturated: 0, difference: None })
    }

    /// The largest difference, so far, between what the kernels and what the reference computed of the same bf16 numbers,
    /// relative to the largest number; `None` if not both computed anything.
    #[must_use]
    pub fn difference(&self) -> Option<f64> {
        self.difference
    }

    /// How many cached values were not finite or beyond the format's range, so far.
    #[must_use]
    pub fn saturated(&self) -> usize {
        self.saturated
    }
}

impl AttentionStep for LatentSteps<'_> {
    fn forward(&mut self, layer: usize, normed: &[f32], positions: Range<usize>) -> Result<Vec<f32>> {
        let capacity = self.pages.len() * PAGE_SIZE;
        ensure!(positions.end <= capacity, "the cache has room for {capacity} tokens");
        let layer = self.layers.get_mut(layer).context("no such layer")?;
        let stepped = layer.forward(normed, positions, self.tables, &self.pages)?;
        self.saturated += stepped.saturated;
        self.difference = [self.difference, stepped.difference].into_iter().flatten().reduce(f64::max);
        Ok(stepped.output)
    }

    fn reset(&mut self) {
        // What the pages hold past a sequence's length is never read.
        for layer in &mut self.layers {
            layer.cached = 0;
        }
        self.saturated = 0;
    }
}

struct Layer {
    query_down: Option<(Projection, Norm)>,
    query_rope: Projection,
    query_nope: Projection,
    key_rope: Projection,
    down: Projection,
    output: Projection,
    layer: ReferenceLayer,
    cache: PagedCache,
    beside: Beside,
    /// Tokens in the cache.
    cached: usize,
}

/// What there is beside the reference.
enum Beside {
    Nothing,
    /// The kernels, on the simulator, for the first tokens of a sequence.
    Sample(Box<Sample>),
    /// A device; the reference rests.
    Instead(Box<KernelLayer>),
}

/// What comes of a step.
struct Stepped {
    output: Vec<f32>,
    saturated: usize,
    difference: Option<f64>,
}

impl Layer {
    fn new(weights: &LatentAttention, format: CacheFormat, pages: usize, beside: Beside) -> Result<Self> {
        let layer = ReferenceLayer::new(weights.clone())?;
        let query_down = |stage: &QueryDown| {
            ensure!(!stage.with_unnormed, "queries that read their latent without its norm too are not computed here");
            anyhow::Ok((Projection::rounded_for_one(stage.down.clone())?, Norm::new(&stage.norm)?))
        };
        Ok(Self {
            query_down: weights.query_down.as_ref().map(query_down).transpose()?,
            query_rope: Projection::rounded_for_one(weights.query_rope.clone())?,
            query_nope: Projection::rounded_for_one(weights.query_nope.clone())?,
            key_rope: Projection::rounded_for_one(weights.key_rope.clone())?,
            down: Projection::rounded_for_one(weights.down.clone())?,
            output: Projection::rounded_for_one(weights.output.clone())?,
            cache: layer.new_cache(format, PAGE_SIZE, pages)?,
            layer,
            beside,
            cached: 0,
        })
    }

    fn forward(
        &mut self,
        normed: &[f32],
        positions: Range<usize>,
        tables: &RopeTables,
        pages: &[i32],
    ) -> Result<Stepped> {
        let weights = self.layer.weights();
        let (tokens, geometry) = (positions.len(), weights.geometry);
        ensure!(self.cached == positions.start, "{} tokens are cached, the next is {}", self.cached, positions.start);
        let x = to_tensor(normed, tokens, weights.hidden())?;
        let table_rows: Vec<i32> = positions.clone().map(i32::try_from).collect::<Result<_, _>>()?;
        // Pages are used in order, so a token's slot is its position.
        let slots: Vec<i64> = positions.clone().map(i64::try_from).collect::<Result<_, _>>()?;
        let [q_rope, q_nope, k_rope, c_kv] = self.projected(&x)?;
        let inputs = ReferenceInputs {
            q_rope: &q_rope,
            q_nope: &q_nope,
            k_rope: &k_rope,
            c_kv: &c_kv,
            positions: &table_rows,
            slots: &slots,
        };
        let (heads, saturated) = match &mut self.beside {
            Beside::Instead(kernels) => kernels.step(&inputs, positions.clone(), pages)?,
            Beside::Sample(_) | Beside::Nothing => {
                let sequences = Sequences {
                    query_starts: &[0, i32::try_from(tokens)?],
                    seq_lens: &[i32::try_from(positions.end)?],
                    pages: PageTable::Dense { table: pages, max_pages: pages.len() },
                };
                let step = self.layer.step(&inputs, &sequences, tables, &mut self.cache)?;
                (step.out, step.saturated)
            }
        };
        let difference = match &mut self.beside {
            Beside::Sample(sample) if positions.start < SAMPLED_TOKENS => {
                let positions = positions.start..positions.end.min(SAMPLED_TOKENS);
                Some(sample.difference(&inputs, positions, pages, tables)?)
            }
            _ => None,
        };
        self.cached = positions.end;
        let heads = to_tensor(&heads, tokens, geometry.query_heads * geometry.value_dim)?;
        Ok(Stepped { output: to_vec(&self.output.apply(&heads)?)?, saturated, difference })
    }

    /// Rotated and other parts of the queries, rotated keys, latents. Queries read the hidden state, or what DeepSeek's
    /// low-rank stage makes of it.
    fn projected(&self, x: &Tensor) -> Result<[Vec<f32>; 4]> {
        let (rope, nope, key, down) = (&self.query_rope, &self.query_nope, &self.key_rope, &self.down);
        let outputs = match &self.query_down {
            None => Projection::apply_each([rope, nope, key, down], x)?,
            Some((stage, norm)) => {
                let [stage, key, down] = Projection::apply_each([stage, key, down], x)?;
                let [rope, nope] = Projection::apply_each([rope, nope], &norm.apply(&stage)?)?;
                [rope, nope, key, down]
            }
        };
        let [rope, nope, key, down] = outputs.map(|output| to_vec(&output));
        Ok([rope?, nope?, key?, down?])
    }
}

#[cfg(test)]
#[path = "latent_tests.rs"]
mod tests;
