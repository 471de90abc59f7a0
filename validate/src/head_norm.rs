//! `head_norm`: bits, of normalised queries and of the keys' factors.

use half::bf16;
use latent_attention::device::{Device, Tensor, TensorMut};
use latent_attention::ops::{HeadNorm, HeadNormArgs, HeadNormConfig, HeadNormQueryArgs};
use latent_attention::reference::{HeadNormInputs, HeadNormQueries, head_norm};
use latent_attention::{Geometry, Result};

use crate::Validation;
use crate::case::{Case, Kind, Operation};
use crate::compare::Comparison;
use crate::draw::Draw;
use crate::tensors::{single, wide};

pub(crate) const HEAD_NORM: Operation = Operation { kind: Kind::HeadNorm, name: "head-norm", inputs, run, check };

/// The layer's heads, were its keys normalised: each KV head then has a rotated key of its own.
fn geometry(case: &Case) -> Geometry {
    let mut geometry = case.geometry().with_key_norm(true);
    geometry.rope_heads = geometry.kv_heads;
    geometry
}

/// Names and shapes of the tensors of `t` tokens: queries' and keys' rotated and unrotated parts.
fn tensors(g: &Geometry, t: usize) -> [(&'static str, [usize; 3]); 4] {
    [
        ("q_rope", [t, g.query_heads, g.rope_dim]),
        ("q_nope", [t, g.query_heads, g.nope_dim]),
        ("k_rope", [t, g.kv_heads, g.rope_dim]),
        ("k_nope", [t, g.kv_heads, g.nope_dim]),
    ]
}

fn gain_shape(g: &Geometry) -> [usize; 2] {
    [g.kv_heads, g.rope_dim + g.nope_dim]
}

/// The heads of a batch's new tokens.
fn inputs(case: &mut Case, validation: &Validation, draw: &mut Draw) -> Result<()> {
    let (g, t) = (geometry(case), validation.batch(draw).query_tokens());
    for (name, shape) in tensors(&g, t) {
        let numbers = draw.bf16(shape.iter().product(), 4.0);
        case.tensors.put(name, &shape, &numbers);
    }
    let gain = draw.f32(gain_shape(&g).iter().product(), 1.0);
    case.tensors.put("query_gain", &gain_shape(&g), &gain);
    Ok(())
}

fn run(case: &mut Case, device: &Device) -> Result<()> {
    let g = geometry(case);
    let [t, ..] = case.tensors.sizes::<3>("k_rope")?;
    let [q_rope, q_nope, k_rope, k_nope] = tensors(&g, t);
    let upload = |(name, shape): (&'static str, [usize; 3])| case.tensors.upload::<bf16>(device, name, &shape);
    let buffers = [upload(q_rope)?, upload(q_nope)?, upload(k_rope)?, upload(k_nope)?];
    let gain = case.tensors.upload(device, "query_gain", &gain_shape(&g))?;
    let mut rope_out = device.upload(&vec![bf16::NAN; buffers[0].len()])?;
    let mut nope_out = device.upload(&vec![bf16::NAN; buffers[1].len()])?;
    let mut factors = device.upload(&vec![f32::NAN; t * g.kv_heads])?;
    let operation = HeadNorm::new(device, HeadNormConfig::new(g))?;
    operation.run(
        &device.stream()?,
        HeadNormArgs {
            queries: Some(HeadNormQueryArgs {
                q_rope: Some(Tensor::dense(buffers[0].view(), q_rope.1)?),
                q_nope: Some(Tensor::dense(buffers[1].view(), q_nope.1)?),
                gain: gain.view(),
                q_rope_out: TensorMut::dense(rope_out.view_mut(), q_rope.1)?,
                q_nope_out: TensorMut::dense(nope_out.view_mut(), q_nope.1)?,
            }),
            k_rope: Tensor::dense(buffers[2].view(), k_rope.1)?,
            k_nope: Tensor::dense(buffers[3].view(), k_nope.1)?,
            epsilon: case.settings.norm_epsilon,
            key_factors: factors.view_mut(),
        },
    )?;
    case.keep("q_rope_normed", &q_rope.1, &rope_out)?;
    case.keep("q_nope_normed", &q_nope.1, &nope_out)?;
    case.keep("key_factors", &[t, g.kv_heads], &factors)
}

fn check(case: &Case) -> Result<Vec<Comparison>> {
    let g = geometry(case);
    let [t, ..] = case.tensors.sizes::<3>("k_rope")?;
    let shapes = tensors(&g, t);
    let outputs = [
        case.output::<bf16>("q_rope_normed", &shapes[0].1)?,
        case.output::<bf16>("q_nope_normed", &shapes[1].1)?,
        case.output::<f32>("key_factors", &[t, g.kv_heads])?,
    ];
    let rows =
        |(name, shape): (&str, [usize; 3])| Ok::<_, latent_attention::Error>(single(&case.tensors.get(name, &shape)?));
    let [q_rope, q_nope, k_rope, k_nope] = shapes;
    let (q_rope, q_nope, gain) = (rows(q_rope)?, rows(q_nope)?, case.tensors.get("query_gain", &gain_shape(&g))?);
    let queries = HeadNormQueries { q_rope: &q_rope, q_nope: &q_nope, gain: &gain };
    let (k_rope, k_nope, epsilon) = (rows(k_rope)?, rows(k_nope)?, case.settings.norm_epsilon);
    let inputs = HeadNormInputs { queries: Some(queries), k_rope: &k_rope, k_nope: &k_nope, epsilon };
    let want = head_norm(&g, &inputs)?;
    let rounded = |values: &[f32]| wide(&values.iter().map(|&value| bf16::from_f32(value)).collect::<Vec<_>>());
    let [rope, nope, factors] = outputs;
    Ok(vec![
        rope.against(rounded(&want.q_rope)).exact(),
        nope.against(rounded(&want.q_nope)).exact(),
        factors.against(wide(&want.key_factors)).exact(),
    ])
}
