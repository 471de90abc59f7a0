//! The whole decode step of a layer: rope_append, absorb, attend, expand.

use anyhow::Result;
use latent_attention::Geometry;
use latent_attention::device::TensorMut;
use latent_attention::layer::{LatentAttentionLayer, LayerConfig, StepArgs};
use latent_attention::ops::RotationBuffers;
use latent_attention::rope::{FrequencyIndex, Pairing};
use latent_attention::weights::{LatentAttention, Linear, Matrix};

use super::harness::lab::{Lab, Sample};
use super::harness::memory::{Copies, Inputs, random_numbers, repeated};
use super::harness::shape::{Format, Kind, Operation, Shape, Work};
use super::{absorb, decode, rope_append};

/// Most layers that take turns, each with weights of its own.
const MOST_LAYERS: usize = 32;

pub const LAYER: Operation = Operation { name: "layer", kind: Kind::Step, formats: &Format::READ, work, run };

/// Up-projections and cached bytes once, the projected tokens in, their records and the heads' outputs out. What lies
/// between the launches is not counted: the step as a whole does not need it.
fn work(shape: &Shape) -> Result<Work> {
    let (g, record) = (shape.geometry(), shape.layout()?.bytes_per_token());
    let weights = 2 * g.kv_heads * (g.nope_dim + g.value_dim) * g.latent_rank;
    let projected = g.query_heads * (g.rope_dim + g.nope_dim) + g.rope_width() + g.latent_rank;
    // A cosine and a sine in f32 for each pair of a rotated key.
    let token = 2 * projected + 4 * g.rope_width() + size_of::<i32>() + size_of::<i64>() + record;
    let bytes = weights + shape.batch * (token + 2 * g.query_heads * g.value_dim + shape.context * record);
    let [query, output] = [g.nope_dim, g.value_dim].map(|dim| absorb::product(shape, dim));
    let parts = [query, rope_append::work(shape)?, decode::work(shape)?, output];
    Ok(Work { bytes: bytes as u64, flops: parts.iter().map(|work| work.flops).sum() })
}

/// A layer's weights for what follows the input projections, which the engine applies itself.
fn weights(g: Geometry) -> Result<LatentAttention> {
    let table = random_numbers();
    let matrix = |rows: usize, cols: usize| Matrix::new(rows, cols, repeated(&table, rows * cols));
    let projection = |rows: usize| Ok::<_, latent_attention::Error>(Linear::new(matrix(rows, 1)?));
    Ok(LatentAttention {
        geometry: g,
        query_down: None,
        query_rope: projection(g.query_heads * g.rope_dim)?,
        query_nope: projection(g.query_heads * g.nope_dim)?,
        key_rope: projection(g.rope_width())?,
        down: projection(g.latent_rank)?,
        latent_norm: None,
        latent_bias: None,
        up_key: matrix(g.kv_heads * g.nope_dim, g.latent_rank)?,
        up_value: matrix(g.kv_heads * g.value_dim, g.latent_rank)?,
        value_bias: None,
        output: Linear::new(matrix(1, g.query_heads * g.value_dim)?),
        frequencies: FrequencyIndex::all(g.rope_heads, g.rope_dim),
        pairing: Pairing::Half,
        scale: g.default_scale(),
        head_norms: None,
    })
}

fn run(lab: &mut Lab, shape: &Shape) -> Result<Sample> {
    let (g, layout, tokens) = (shape.geometry(), shape.layout()?, shape.batch);
    let copies = lab.gauge.copies(work(shape)?.bytes);
    // Before the weights, which take longer to prepare: it may not fit.
    lab.cache.arrange(&layout, shape.pages(), copies)?;
    let weights = weights(*g)?;
    let rotation = RotationBuffers::upload(&lab.device, &rope_append::tables(shape), &weights.frequencies)?;
    let config = LayerConfig::new(layout, tokens, shape.context);
    let layer = || LatentAttentionLayer::new(&lab.device, &weights, &rotation, config);
    let layers = (0..copies.min(MOST_LAYERS)).map(|_| layer()).collect::<Result<Vec<_>, _>>()?;
    let mut inputs = Inputs::default();
    let q_rope = inputs.tensor([tokens, g.query_heads, g.rope_dim]);
    let q_nope = inputs.tensor([tokens, g.query_heads, g.nope_dim]);
    let k_rope = inputs.tensor([tokens, g.rope_heads, g.rope_dim]);
    let c_kv = inputs.tensor([tokens, 1, g.latent_rank]);
    lab.numbers.arrange(&inputs, copies)?;
    let mut out = Copies::new(&lab.device, tokens * g.query_heads * g.value_dim, copies)?;
    let positions = lab.device.upload(&rope_append::positions(shape))?;
    let slots = lab.device.upload(&shape.newest_slots())?;
    let batch = shape.batch_buffers(&lab.device)?;
    let mut workspace = layers[0].new_workspace()?;
    let mut plan_memory = lab.device.allocate::<u8>(layers[0].plan_bytes())?;
    let mut plan = layers[0].plan(lab.gauge.stream(), &batch.batch(), tokens, plan_memory.view_mut())?;
    lab.gauge.stream().synchronize()?;
    lab.gauge.measure(copies, |stream, copy| {
        let args = StepArgs {
            q_rope: lab.numbers.tensor(copy, &q_rope)?,
            q_nope: lab.numbers.tensor(copy, &q_nope)?,
            k_rope: lab.numbers.tensor(copy, &k_rope)?,
            c_kv: lab.numbers.tensor(copy, &c_kv)?,
            positions: positions.view(),
            slots: slots.view(),
            plan: &mut plan,
            workspace: &mut workspace,
            cache: lab.cache.view_mut(copy)?,
            out: TensorMut::dense(out.view_mut(copy)?, [tokens, g.query_heads, g.value_dim])?,
            counters: None,
        };
        layers[copy % layers.len()].step(stream, args)
    })
}
