//! A layer's whole step.

use half::bf16;
use latent_attention::Result;
use latent_attention::cache::PagedCache;
use latent_attention::device::{Device, Tensor, TensorMut};
use latent_attention::layer::{LatentAttentionLayer, LayerConfig, StepArgs};
use latent_attention::ops::{DeviceCache, RotationBuffers};
use latent_attention::reference::{ReferenceInputs, ReferenceLayer};
use latent_attention::weights::{LatentAttention, Linear, Matrix};

use crate::batch::RaggedBatch;
use crate::case::{Case, Kind, Operation};
use crate::compare::Comparison;
use crate::draw::Draw;
use crate::rope_append::Parameters;
use crate::tensors::{Number, single, wide};
use crate::tolerance::{self, Rule};
use crate::{Validation, rope_append, up_project};

pub(crate) const LAYER: Operation = Operation { kind: Kind::Layer, name: "layer", inputs, run, check };

/// New tokens for a cache that holds the earlier ones.
fn inputs(case: &mut Case, validation: &Validation, draw: &mut Draw) -> Result<()> {
    let g = *case.geometry();
    let batch = validation.batch(draw);
    let t = batch.query_tokens();
    batch.put(&mut case.tensors);
    rope_append::tokens(case, &batch, draw)?;
    case.tensors.put("q_nope", &[t, g.query_heads, g.nope_dim], &draw.bf16(t * g.query_heads * g.nope_dim, 1.0));
    up_project::weights(case, draw);
    Ok(())
}

/// The layer between the engine's own projections, which have no inputs here.
fn weights(case: &Case, parameters: &Parameters) -> Result<LatentAttention> {
    let (g, tensors) = (*case.geometry(), &case.tensors);
    let matrix = |name: &str, rows: usize| {
        let values: Vec<bf16> = tensors.get(name, &[g.kv_heads, rows, g.latent_rank])?;
        Matrix::new(g.kv_heads * rows, g.latent_rank, single(&values))
    };
    let unused =
        |rows: usize, cols: usize| Ok::<_, latent_attention::Error>(Linear::new(Matrix::new(rows, cols, Vec::new())?));
    Ok(LatentAttention {
        geometry: g,
        query_down: None,
        query_rope: unused(g.query_heads * g.rope_dim, 0)?,
        query_nope: unused(g.query_heads * g.nope_dim, 0)?,
        key_rope: unused(g.rope_width(), 0)?,
        down: unused(g.latent_rank, 0)?,
        latent_norm: parameters.norm.clone(),
        latent_bias: parameters.bias.clone(),
        up_key: matrix("up_key", g.nope_dim)?,
        up_value: matrix("up_value", g.value_dim)?,
        value_bias: Some(tensors.get("value_bias", &[g.kv_heads, g.value_dim])?),
        output: unused(0, g.query_heads * g.value_dim)?,
        frequencies: parameters.frequencies.clone(),
        pairing: case.settings.pairing()?,
        scale: case.settings.scale.wide(),
        head_norms: None,
    })
}

fn run(case: &mut Case, device: &Device) -> Result<()> {
    let (g, cache, tensors) = (*case.geometry(), case.cache("cache_before")?, &case.tensors);
    let batch = RaggedBatch::get(tensors, case.settings.page_size, cache.pages())?;
    let t = batch.query_tokens();
    let parameters = Parameters::get(case)?;
    let rotation = RotationBuffers::upload(device, &parameters.tables, &parameters.frequencies)?;
    let config = LayerConfig::new(*cache.layout(), t, batch.longest().max(1));
    let layer = LatentAttentionLayer::new(device, &weights(case, &parameters)?, &rotation, config)?;
    let stream = device.stream()?;
    let buffers = batch.upload(device, cache.layout(), cache.pages())?;
    let on_device = buffers.batch();
    let mut cache = DeviceCache::upload(device, &cache)?;
    let rope = [t, g.query_heads, g.rope_dim];
    let (nope, out_shape) = ([t, g.query_heads, g.nope_dim], [t, g.query_heads, g.value_dim]);
    let (key, latent) = ([t, g.rope_heads, g.rope_dim], [t, 1, g.latent_rank]);
    let q_rope = tensors.upload::<bf16>(device, "q_rope", &rope)?;
    let q_nope = tensors.upload::<bf16>(device, "q_nope", &nope)?;
    let k_rope = tensors.upload::<bf16>(device, "k_rope", &key)?;
    let c_kv = tensors.upload::<bf16>(device, "c_kv", &latent)?;
    let (positions, slots) = (tensors.upload(device, "positions", &[t])?, tensors.upload(device, "slots", &[t])?);
    let mut out = device.upload(&vec![bf16::NAN; out_shape.iter().product()])?;
    let mut counters = device.zeros(2)?;
    let mut memory = device.allocate(layer.plan_bytes())?;
    let mut workspace = layer.new_workspace()?;
    let mut plan = layer.plan(&stream, &on_device, t, memory.view_mut())?;
    layer.step(
        &stream,
        StepArgs {
            q_rope: Tensor::dense(q_rope.view(), rope)?,
            q_nope: Tensor::dense(q_nope.view(), nope)?,
            k_rope: Tensor::dense(k_rope.view(), key)?,
            c_kv: Tensor::dense(c_kv.view(), latent)?,
            positions: positions.view(),
            slots: slots.view(),
            plan: &mut plan,
            workspace: &mut workspace,
            cache: cache.view_mut(),
            out: TensorMut::dense(out.view_mut(), out_shape)?,
            counters: Some(counters.view_mut()),
        },
    )?;
    case.keep("out", &out_shape, &out)?;
    case.keep("counters", &[2], &counters)?;
    case.put_cache("cache", &cache.download()?);
    Ok(())
}

fn check(case: &Case) -> Result<Vec<Comparison>> {
    let (g, tensors) = (case.geometry(), &case.tensors);
    let mut cache = case.cache("cache_before")?;
    let batch = RaggedBatch::get(tensors, case.settings.page_size, cache.pages())?;
    let t = batch.query_tokens();
    let out = case.output::<bf16>("out", &[t, g.query_heads, g.value_dim])?;
    let counters = case.output::<u64>("counters", &[2])?;
    let parameters = Parameters::get(case)?;
    let rows = |name, shape: [usize; 3]| Ok::<_, latent_attention::Error>(single(&tensors.get(name, &shape)?));
    let inputs = ReferenceInputs {
        q_rope: &rows("q_rope", [t, g.query_heads, g.rope_dim])?,
        q_nope: &rows("q_nope", [t, g.query_heads, g.nope_dim])?,
        k_rope: &rows("k_rope", [t, g.rope_heads, g.rope_dim])?,
        c_kv: &rows("c_kv", [t, 1, g.latent_rank])?,
        positions: &tensors.get::<i32>("positions", &[t])?,
        slots: &tensors.get::<i64>("slots", &[t])?,
    };
    let reference = ReferenceLayer::new(weights(case, &parameters)?)?;
    let step = reference.step(&inputs, &batch.sequences(), &parameters.tables, &mut cache)?;
    let terms = terms(&reference.weights().up_value, &batch, &cache)? * (t * g.query_heads / g.kv_heads) as f64;
    Ok(vec![
        out.against(wide(&step.out)).together(Rule::Step, tolerance::step(), terms),
        rope_append::compare_cache(case, &cache)?,
        counters.against(vec![step.saturated as f64, 0.0]).exact(),
    ])
}

/// The squares of the terms that a token's values are sums of, all KV heads together: a weight times a latent of the
/// mean square that it has in the batch. Infinite latents would allow everything, and do not count.
fn terms(up_value: &Matrix, batch: &RaggedBatch, cache: &PagedCache) -> Result<f64> {
    let (mut squares, tokens) = (vec![0.0; up_value.cols()], batch.places().count() as f64);
    for place in batch.places() {
        let latent = cache.latent(batch.slot(place, cache.layout().page_size()))?;
        for (sum, c) in squares.iter_mut().zip(latent).filter(|(_, c)| c.is_finite()) {
            *sum += c * c / tokens;
        }
    }
    let rows = up_value.data().chunks_exact(up_value.cols().max(1));
    Ok(rows.flat_map(|row| row.iter().zip(&squares).map(|(w, square)| f64::from(w * w) * square)).sum())
}
