//! `absorb_query` and `expand_output`.

use half::bf16;
use latent_attention::device::{Device, Tensor, TensorMut};
use latent_attention::ops::{AbsorbConfig, AbsorbQuery, AbsorbQueryArgs, ExpandOutput, ExpandOutputArgs};
use latent_attention::reference::{absorb_query, expand_output};
use latent_attention::{Geometry, Result, sys};

use crate::case::{Case, Kind, Operation};
use crate::compare::Comparison;
use crate::draw::Draw;
use crate::tensors::{single, wide};
use crate::tolerance::{self, Rule};

pub(crate) const ABSORB_QUERY_FEW: Operation = Operation {
    kind: Kind::AbsorbQueryFew,
    name: "absorb-query-few",
    inputs: |case, _, draw| query_inputs(case, few_tokens, draw),
    run: run_query,
    check: check_query,
};

pub(crate) const ABSORB_QUERY_MANY: Operation = Operation {
    kind: Kind::AbsorbQueryMany,
    name: "absorb-query-many",
    inputs: |case, _, draw| query_inputs(case, many_tokens, draw),
    ..ABSORB_QUERY_FEW
};

pub(crate) const ABSORB_QUERY_INVARIANT: Operation =
    Operation { kind: Kind::AbsorbQueryInvariant, name: "absorb-query-invariant", ..ABSORB_QUERY_FEW };

pub(crate) const EXPAND_OUTPUT_FEW: Operation = Operation {
    kind: Kind::ExpandOutputFew,
    name: "expand-output-few",
    inputs: |case, _, draw| output_inputs(case, few_tokens, draw),
    run: run_output,
    check: check_output,
};

pub(crate) const EXPAND_OUTPUT_MANY: Operation = Operation {
    kind: Kind::ExpandOutputMany,
    name: "expand-output-many",
    inputs: |case, _, draw| output_inputs(case, many_tokens, draw),
    ..EXPAND_OUTPUT_FEW
};

pub(crate) const EXPAND_OUTPUT_INVARIANT: Operation =
    Operation { kind: Kind::ExpandOutputInvariant, name: "expand-output-invariant", ..EXPAND_OUTPUT_FEW };

/// Most query tokens whose rows are few: more take the kernel that multiplies in tiles.
fn few_tokens(g: &Geometry) -> usize {
    (sys::ABSORB_FEW_ROWS as usize / (g.query_heads / g.kv_heads)).max(1)
}

/// Fewest query tokens whose rows are many.
fn many_tokens(g: &Geometry) -> usize {
    sys::ABSORB_FEW_ROWS as usize / (g.query_heads / g.kv_heads) + 1
}

fn query_inputs(case: &mut Case, tokens: fn(&Geometry) -> usize, draw: &mut Draw) -> Result<()> {
    let (g, tensors) = (*case.geometry(), &mut case.tensors);
    let t = tokens(&g);
    let (up_key, q_nope) = ([g.kv_heads, g.nope_dim, g.latent_rank], [t, g.query_heads, g.nope_dim]);
    tensors.put("up_key", &up_key, &draw.bf16(up_key.iter().product(), 1.0));
    tensors.put("q_nope", &q_nope, &draw.bf16(q_nope.iter().product(), 1.0));
    Ok(())
}

fn output_inputs(case: &mut Case, tokens: fn(&Geometry) -> usize, draw: &mut Draw) -> Result<()> {
    let (g, tensors) = (*case.geometry(), &mut case.tensors);
    let t = tokens(&g);
    let (up_value, o_latent) = ([g.kv_heads, g.value_dim, g.latent_rank], [t, g.query_heads, g.latent_rank]);
    tensors.put("up_value", &up_value, &draw.bf16(up_value.iter().product(), 1.0));
    tensors.put("o_latent", &o_latent, &draw.bf16(o_latent.iter().product(), 1.0));
    tensors.put("value_bias", &up_value[..2], &draw.f32(g.kv_heads * g.value_dim, 1.0));
    Ok(())
}

fn config(case: &Case) -> AbsorbConfig {
    let config = AbsorbConfig::new(*case.geometry());
    match case.kind() {
        Kind::AbsorbQueryInvariant | Kind::ExpandOutputInvariant => config.batch_invariant(),
        _ => config,
    }
}

fn run_query(case: &mut Case, device: &Device) -> Result<()> {
    let (g, tensors) = (*case.geometry(), &case.tensors);
    let [t, _, _] = tensors.sizes("q_nope")?;
    let (weights, input) = ([g.kv_heads, g.nope_dim, g.latent_rank], [t, g.query_heads, g.nope_dim]);
    let output = [t, g.query_heads, g.latent_rank];
    let up_key = tensors.upload::<bf16>(device, "up_key", &weights)?;
    let q_nope = tensors.upload::<bf16>(device, "q_nope", &input)?;
    let mut q_latent = device.upload(&vec![bf16::NAN; output.iter().product()])?;
    AbsorbQuery::new(device, config(case))?.run(
        &device.stream()?,
        AbsorbQueryArgs {
            up_key: Tensor::dense(up_key.view(), weights)?,
            q_nope: Tensor::dense(q_nope.view(), input)?,
            q_latent: TensorMut::dense(q_latent.view_mut(), output)?,
        },
    )?;
    case.keep("q_latent", &output, &q_latent)
}

fn run_output(case: &mut Case, device: &Device) -> Result<()> {
    let (g, tensors) = (*case.geometry(), &case.tensors);
    let [t, _, _] = tensors.sizes("o_latent")?;
    let (weights, input) = ([g.kv_heads, g.value_dim, g.latent_rank], [t, g.query_heads, g.latent_rank]);
    let output = [t, g.query_heads, g.value_dim];
    let up_value = tensors.upload::<bf16>(device, "up_value", &weights)?;
    let o_latent = tensors.upload::<bf16>(device, "o_latent", &input)?;
    let bias = tensors.upload::<f32>(device, "value_bias", &[g.kv_heads, g.value_dim])?;
    let mut out = device.upload(&vec![bf16::NAN; output.iter().product()])?;
    ExpandOutput::new(device, config(case))?.run(
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

fn check_query(case: &Case) -> Result<Vec<Comparison>> {
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

fn check_output(case: &Case) -> Result<Vec<Comparison>> {
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
