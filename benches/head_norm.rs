//! `head_norm`: norms over whole heads of queries and keys.

use anyhow::Result;
use latent_attention::Geometry;
use latent_attention::device::TensorMut;
use latent_attention::ops::{HeadNorm, HeadNormArgs, HeadNormConfig, HeadNormQueryArgs};

use super::harness::lab::{Lab, Sample};
use super::harness::memory::{Copies, Inputs};
use super::harness::shape::{Format, Kind, Operation, Shape, Work};

pub const HEAD_NORM: Operation =
    Operation { name: "head_norm", kind: Kind::Tokens, formats: &[Format::Bf16], work, run };

/// The layer's heads, were its keys normalised: each KV head then has a rotated key of its own.
fn geometry(shape: &Shape) -> Geometry {
    let mut geometry = shape.geometry().with_key_norm(true);
    geometry.rope_heads = geometry.kv_heads;
    geometry
}

/// Queries in and out, keys in, a factor for each key out; the gain. Four operations for each number of a query, two for each
/// of a key.
pub fn work(shape: &Shape) -> Result<Work> {
    let g = geometry(shape);
    let width = g.rope_dim + g.nope_dim;
    let (queries, keys) = (g.query_heads * width, g.kv_heads * width);
    let token = 2 * (2 * queries + keys) + 4 * g.kv_heads;
    Ok(Work { bytes: (shape.batch * token + 4 * keys) as u64, flops: (shape.batch * (4 * queries + 2 * keys)) as u64 })
}

fn run(lab: &mut Lab, shape: &Shape) -> Result<Sample> {
    let (g, tokens) = (geometry(shape), shape.batch);
    let operation = HeadNorm::new(&lab.device, HeadNormConfig::new(g))?;
    let copies = lab.gauge.copies(work(shape)?.bytes);
    let [rope, nope] = [g.rope_dim, g.nope_dim].map(|width| [tokens, g.query_heads, width]);
    let mut inputs = Inputs::default();
    let (q_rope, q_nope) = (inputs.tensor(rope), inputs.tensor(nope));
    let [k_rope, k_nope] = [g.rope_dim, g.nope_dim].map(|width| inputs.tensor([tokens, g.kv_heads, width]));
    lab.numbers.arrange(&inputs, copies)?;
    let gain = lab.device.upload(&vec![1.0; g.kv_heads * (g.rope_dim + g.nope_dim)])?;
    let mut rope_out = Copies::new(&lab.device, rope.iter().product(), copies)?;
    let mut nope_out = Copies::new(&lab.device, nope.iter().product(), copies)?;
    let mut factors = lab.device.zeros(tokens * g.kv_heads)?;
    lab.gauge.measure(copies, |stream, copy| {
        let queries = HeadNormQueryArgs {
            q_rope: Some(lab.numbers.tensor(copy, &q_rope)?),
            q_nope: Some(lab.numbers.tensor(copy, &q_nope)?),
            gain: gain.view(),
            q_rope_out: TensorMut::dense(rope_out.view_mut(copy)?, rope)?,
            q_nope_out: TensorMut::dense(nope_out.view_mut(copy)?, nope)?,
        };
        let args = HeadNormArgs {
            queries: Some(queries),
            k_rope: lab.numbers.tensor(copy, &k_rope)?,
            k_nope: lab.numbers.tensor(copy, &k_nope)?,
            epsilon: 1e-6,
            key_factors: factors.view_mut(),
        };
        operation.run(stream, args)
    })
}
