//! `up_project`.

use half::bf16;
use latent_attention::cache::{PagedCache, RopeFormat};
use latent_attention::device::{Device, Tensor, TensorMut};
use latent_attention::ops::{DeviceCache, UpProject, UpProjectArgs, UpProjectConfig};
use latent_attention::{Error, Result, reference};
use rayon::prelude::*;

use crate::Validation;
use crate::batch::{Place, RaggedBatch};
use crate::case::{Case, Kind, Operation};
use crate::compare::Comparison;
use crate::draw::Draw;
use crate::tensors::single;
use crate::tolerance::{self, Rule};

pub(crate) const UP_PROJECT: Operation = Operation { kind: Kind::UpProject, name: "up-project", inputs, run, check };

fn inputs(case: &mut Case, validation: &Validation, draw: &mut Draw) -> Result<()> {
    let layout = case.settings.layout()?;
    let batch = validation.batch(draw);
    let cache = batch.cache(draw, layout, false)?;
    let starts = batch.token_starts();
    batch.put(&mut case.tensors);
    case.put_cache("cache", &cache);
    case.tensors.put("token_starts", &[starts.len()], &starts);
    weights(case, draw);
    Ok(())
}

/// Up-projections with which keys and values are of about the size of latents.
pub(crate) fn weights(case: &mut Case, draw: &mut Draw) {
    let g = *case.geometry();
    let size = 1.0 / (g.latent_rank as f32).sqrt();
    let tensors = &mut case.tensors;
    for (name, rows) in [("up_key", g.nope_dim), ("up_value", g.value_dim)] {
        let weights = draw.bf16(g.kv_heads * rows * g.latent_rank, size);
        tensors.put(name, &[g.kv_heads, rows, g.latent_rank], &weights);
    }
    tensors.put("value_bias", &[g.kv_heads, g.value_dim], &draw.f32(g.kv_heads * g.value_dim, 1.0));
}

fn run(case: &mut Case, device: &Device) -> Result<()> {
    let (g, cache, tensors) = (*case.geometry(), case.cache("cache")?, &case.tensors);
    let batch = RaggedBatch::get(tensors, case.settings.page_size, cache.pages())?;
    let (tokens, starts) = (batch.tokens(), batch.token_starts());
    let operation = UpProject::new(device, UpProjectConfig::new(g, *cache.layout()))?;
    let buffers = batch.upload(device, cache.layout(), cache.pages())?;
    let cache = DeviceCache::upload(device, &cache)?;
    let token_starts = tensors.upload(device, "token_starts", &[starts.len()])?;
    let (key, value) = ([g.kv_heads, g.nope_dim, g.latent_rank], [g.kv_heads, g.value_dim, g.latent_rank]);
    let up_key = tensors.upload::<bf16>(device, "up_key", &key)?;
    let up_value = tensors.upload::<bf16>(device, "up_value", &value)?;
    let value_bias = tensors.upload::<f32>(device, "value_bias", &[g.kv_heads, g.value_dim])?;
    let key_shape = [tokens, g.kv_heads, g.nope_dim + g.rope_dim];
    let value_shape = [tokens, g.kv_heads, g.value_dim];
    let empty = |shape: [usize; 3]| device.upload(&vec![bf16::NAN; shape.iter().product()]);
    let (mut keys, mut values) = (empty(key_shape)?, empty(value_shape)?);
    operation.run(
        &device.stream()?,
        UpProjectArgs {
            cache: cache.view(),
            batch: &buffers.batch(),
            token_starts: token_starts.view(),
            up_key: Tensor::dense(up_key.view(), key)?,
            up_value: Tensor::dense(up_value.view(), value)?,
            value_bias: Some(value_bias.view()),
            keys: TensorMut::dense(keys.view_mut(), key_shape)?,
            values: TensorMut::dense(values.view_mut(), value_shape)?,
        },
    )?;
    case.keep("keys", &key_shape, &keys)?;
    case.keep("values", &value_shape, &values)
}

fn check(case: &Case) -> Result<Vec<Comparison>> {
    let (g, cache, tensors) = (case.geometry(), case.cache("cache")?, &case.tensors);
    let batch = RaggedBatch::get(tensors, case.settings.page_size, cache.pages())?;
    let tokens = batch.tokens();
    let head = g.nope_dim + g.rope_dim;
    let keys = case.output::<bf16>("keys", &[tokens, g.kv_heads, head])?;
    let values = case.output::<bf16>("values", &[tokens, g.kv_heads, g.value_dim])?;
    let up_key = single(&tensors.get("up_key", &[g.kv_heads, g.nope_dim, g.latent_rank])?);
    let up_value = single(&tensors.get("up_value", &[g.kv_heads, g.value_dim, g.latent_rank])?);
    let bias: Vec<f32> = tensors.get("value_bias", &[g.kv_heads, g.value_dim])?;
    // Whatever token_starts say, the check is of rows in the order of sequences: other starts are refused.
    let starts = batch.token_starts();
    let given: Vec<i32> = tensors.get("token_starts", &[starts.len()])?;
    if given != starts {
        return Err(Error::Config {
            what: format!("token_starts in {}", tensors.source().display()),
            why: format!("expected the prefix sums of seq_lens, {starts:?}, got {given:?}"),
        });
    }
    let want = reference::up_project(g, &up_key, &up_value, Some(&bias), &batch.sequences(), &cache)?;
    let (keys, values, rows) = (keys.against(want.keys), values.against(want.values), g.kv_heads * g.nope_dim);
    let key_slack = slack(&batch, &cache, &up_key, g.latent_rank)?;
    let value_slack = slack(&batch, &cache, &up_value, g.latent_rank)?;
    let allowed_key = |i: usize, want: f64| {
        let (row, dim) = (i / head, i % head);
        match cache.layout().format().rope {
            _ if dim < g.nope_dim => {
                let (token, kv_head) = (row / g.kv_heads, row % g.kv_heads);
                tolerance::projected(want, key_slack[token * rows + kv_head * g.nope_dim + dim])
            }
            RopeFormat::Bf16 => 0.0,
            RopeFormat::Int8 | RopeFormat::Int4 { .. } => tolerance::projected(want, tolerance::DEQUANTISED_KEY),
        }
    };
    let allowed_value = |i: usize, want: f64| tolerance::projected(want, value_slack[i] + tolerance::BIAS);
    Ok(vec![keys.elementwise(Rule::Projected, allowed_key), values.elementwise(Rule::Projected, allowed_value)])
}

/// For each token and row of weights, what roundings may cost their product.
fn slack(batch: &RaggedBatch, cache: &PagedCache, weights: &[f32], rank: usize) -> Result<Vec<f64>> {
    let format = cache.layout().format().latent;
    let magnitudes: Vec<f64> = weights.iter().map(|w| f64::from(w.abs())).collect();
    let squares: Vec<f64> = magnitudes.iter().map(|w| w * w).collect();
    let sums: Vec<f64> = magnitudes.chunks_exact(rank).map(|row| row.iter().sum()).collect();
    let places: Vec<Place> = batch.places().collect();
    let of_place = |place: &Place| -> Result<Vec<f64>> {
        let latent = cache.latent(batch.slot(*place, cache.layout().page_size()))?;
        let magnitude: Vec<f64> = latent.iter().map(|c| c.abs()).collect();
        let square: Vec<f64> = latent.iter().map(|c| c * c).collect();
        let largest = magnitude.iter().copied().fold(0.0, f64::max);
        let rows = magnitudes.chunks_exact(rank).zip(squares.chunks_exact(rank)).zip(&sums);
        let slack = rows.map(|((w, w2), &sum)| {
            let terms = [dot(w, &magnitude), dot(w2, &square), sum];
            tolerance::latent_slack(format, terms, largest)
        });
        Ok(slack.collect())
    };
    let tokens = places.par_iter().map(of_place).collect::<Result<Vec<_>>>()?;
    Ok(tokens.concat())
}

/// `a . b`, in interleaved sums that the compiler turns into vector registers: slack takes as many products as the
/// reference itself.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a_lanes, a_tail), (b_lanes, b_tail)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    a_tail.iter().zip(b_tail).map(|(x, y)| x * y).chain(sums).sum()
}
