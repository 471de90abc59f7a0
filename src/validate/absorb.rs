//! `absorb_query` and `expand_output`.

use half::bf16;

use super::compare::Comparison;
use super::draw::Draw;
use super::tensors::{single, wide};
use super::tolerance::{self, Rule};
use super::{Case, Kind};
use crate::device::{Device, Tensor, TensorMut};
use crate::error::Result;
use crate::ops::{AbsorbQuery, AbsorbQueryArgs, ExpandOutput, ExpandOutputArgs};
use crate::reference::{absorb_query, expand_output};

pub(super) fn inputs(case: &mut Case, tokens: usize, draw: &mut Draw) {
    let g = *case.geometry();
    let (heads, kv_heads, rank) = (g.query_heads, g.kv_heads, g.latent_rank);
    let is_query = matches!(case.kind(), Kind::AbsorbQueryFew | Kind::AbsorbQueryMany | Kind::AbsorbQueryInvariant);
    let (weights, rows, input, width) = match is_query {
        true => ("up_key", g.nope_dim, "q_nope", g.nope_dim),
        false => ("up_value", g.value_dim, "o_latent", rank),
    };
    let tensors = &mut case.tensors;
    tensors.put(weights, &[kv_heads, rows, rank], &draw.bf16(kv_heads * rows * rank, 1.0));
    tensors.put(input, &[tokens, heads, width], &draw.bf16(tokens * heads * width, 1.0));
    if !is_query {
        tensors.put("value_bias", &[kv_heads, rows], &draw.f32(kv_heads * rows, 1.0));
    }
}

pub(super) fn run_query(case: &mut Case, device: &Device) -> Result<()> {
    let (g, tensors) = (*case.geometry(), &case.tensors);
    let [t, _, _] = tensors.sizes("q_nope")?;
    let (weights, input) = ([g.kv_heads, g.nope_dim, g.latent_rank], [t, g.query_heads, g.nope_dim]);
    let output = [t, g.query_heads, g.latent_rank];
    let up_key = tensors.upload::<bf16>(device, "up_key", &weights)?;
    let q_nope = tensors.upload::<bf16>(device, "q_nope", &input)?;
    let mut q_latent = device.upload(&vec![bf16::NAN; output.iter().product()])?;
    AbsorbQuery::new(device, case.kind().absorb_config(g))?.run(
        &device.stream()?,
        AbsorbQueryArgs {
            up_key: Tensor::dense(up_key.view(), weights)?,
            q_nope: Tensor::dense(q_nope.view(), input)?,
            q_latent: TensorMut::dense(q_latent.view_mut(), output)?,
        },
    )?;
    case.keep("q_latent", &output, &q_latent)
}

pub(super) fn run_output(case: &mut Case, device: &Device) -> Result<()> {
    let (g, tensors) = (*case.geometry(), &case.tensors);
    let [t, _, _] = tensors.sizes("o_latent")?;
    let (weights, input) = ([g.kv_heads, g.value_dim, g.latent_rank], [t, g.query_heads, g.latent_rank]);
    let output = [t, g.query_heads, g.value_dim];
    let up_value = tensors.upload::<bf16>(device, "up_value", &weights)?;
    let o_latent = tensors.upload::<bf16>(device, "o_latent", &input)?;
    let bias = tensors.upload::<f32>(device, "value_bias", &[g.kv_heads, g.value_dim])?;
    let mut out = device.upload(&vec![bf16::NAN; output.iter().product()])?;
    ExpandOutput::new(device, case.kind().absorb_config(g))?.run(
        &device.stream()?,
        ExpandOutputArgs {
            up_value: Tensor::dense(up_value.view(), weights)?,
            value_bias: Some(bias.view()),
            o_latent: Tensor::dense(o_latent.view(), input)?,
            out: TensorMut::dense(out.view_mut(), output)?,
        },
    )?;
    case.keep("out", &output, &out)
}

pub(super) fn check_query(case: &Case) -> Result<Vec<Comparison>> {
    let (g, tensors) = (case.geometry(), &case.tensors);
    // Counted by the output, whose rows are never empty.
    let [t, _, _] = tensors.sizes("q_latent")?;
    let q_latent = case.output::<bf16>("q_latent", &[t, g.query_heads, g.latent_rank])?;
    let weights = single(&tensors.get("up_key", &[g.kv_heads, g.nope_dim, g.latent_rank])?);
    let input = wide(&tensors.get::<bf16>("q_nope", &[t, g.query_heads, g.nope_dim])?);
    let product = |weights: &[f32], input: &[f64]| absorb_query(g, weights, input, t);
    let magnitudes = product(&magnitudes(&weights), &input.iter().map(|x| x.abs()).collect::<Vec<_>>())?;
    let q_latent = q_latent.against(product(&weights, &input)?);
    Ok(vec![q_latent.elementwise(Rule::Product, |i, want| tolerance::product(want, magnitudes[i]))])
}

pub(super) fn check_output(case: &Case) -> Result<Vec<Comparison>> {
    let (g, tensors) = (case.geometry(), &case.tensors);
    let [t, _, _] = tensors.sizes("out")?;
    let out = case.output::<bf16>("out", &[t, g.query_heads, g.value_dim])?;
    let weights = single(&tensors.get("up_value", &[g.kv_heads, g.value_dim, g.latent_rank])?);
    let input = wide(&tensors.get::<bf16>("o_latent", &[t, g.query_heads, g.latent_rank])?);
    let bias = tensors.get::<f32>("value_bias", &[g.kv_heads, g.value_dim])?;
    let product = |weights: &[f32], bias: &[f32], input: &[f64]| expand_output(g, weights, Some(bias), input, t);
    let positive = input.iter().map(|x| x.abs()).collect::<Vec<_>>();
    let magnitudes = product(&magnitudes(&weights), &magnitudes(&bias), &positive)?;
    let out = out.against(product(&weights, &bias, &input)?);
    Ok(vec![out.elementwise(Rule::Product, |i, want| tolerance::product(want, magnitudes[i]))])
}

fn magnitudes(values: &[f32]) -> Vec<f32> {
    values.iter().map(|x| x.abs()).collect()
}
