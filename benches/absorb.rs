//! `absorb`: the up-projections of the query and of the output, as fast as can be and batch-invariant.

use anyhow::Result;
use latent_attention::device::TensorMut;
use latent_attention::ops::{AbsorbConfig, AbsorbQuery, AbsorbQueryArgs, ExpandOutput, ExpandOutputArgs};

use super::harness::lab::{Lab, Sample};
use super::harness::memory::{Copies, Inputs};
use super::harness::shape::{Format, Kind, Operation, Shape, Work};

pub const ABSORB_QUERY: Operation = Operation {
    name: "absorb_query",
    kind: Kind::Tokens,
    formats: &[Format::Bf16],
    work: |shape| Ok(product(shape, shape.geometry().nope_dim)),
    run: |lab, shape| absorb_query(lab, shape, AbsorbConfig::new(*shape.geometry())),
};

pub const ABSORB_QUERY_INVARIANT: Operation = Operation {
    name: "absorb_query_invariant",
    run: |lab, shape| absorb_query(lab, shape, AbsorbConfig::new(*shape.geometry()).batch_invariant()),
    ..ABSORB_QUERY
};

pub const EXPAND_OUTPUT: Operation = Operation {
    name: "expand_output",
    kind: Kind::Tokens,
    formats: &[Format::Bf16],
    work: |shape| Ok(product(shape, shape.geometry().value_dim)),
    run: |lab, shape| expand_output(lab, shape, AbsorbConfig::new(*shape.geometry())),
};

pub const EXPAND_OUTPUT_INVARIANT: Operation = Operation {
    name: "expand_output_invariant",
    run: |lab, shape| expand_output(lab, shape, AbsorbConfig::new(*shape.geometry()).batch_invariant()),
    ..EXPAND_OUTPUT
};

/// A product of each head's latent with the `dim` x L weights of its KV head.
pub fn product(shape: &Shape, dim: usize) -> Work {
    let g = shape.geometry();
    let weights = g.kv_heads * dim * g.latent_rank;
    let rows = shape.batch * g.query_heads;
    Work { bytes: 2 * (weights + rows * (dim + g.latent_rank)) as u64, flops: 2 * (rows * dim * g.latent_rank) as u64 }
}

fn absorb_query(lab: &mut Lab, shape: &Shape, config: AbsorbConfig) -> Result<Sample> {
    let (g, tokens) = (shape.geometry(), shape.batch);
    let operation = AbsorbQuery::new(&lab.device, config)?;
    let copies = lab.gauge.copies((ABSORB_QUERY.work)(shape)?.bytes);
    let mut inputs = Inputs::default();
    let up_key = inputs.tensor([g.kv_heads, g.nope_dim, g.latent_rank]);
    let q_nope = inputs.tensor([tokens, g.query_heads, g.nope_dim]);
    lab.numbers.arrange(&inputs, copies)?;
    let mut q_latent = Copies::new(&lab.device, tokens * g.query_heads * g.latent_rank, copies)?;
    lab.gauge.measure(copies, |stream, copy| {
        let args = AbsorbQueryArgs {
            up_key: lab.numbers.tensor(copy, &up_key)?,
            q_nope: lab.numbers.tensor(copy, &q_nope)?,
            q_latent: TensorMut::dense(q_latent.view_mut(copy)?, [tokens, g.query_heads, g.latent_rank])?,
        };
        operation.run(stream, args)
    })
}

fn expand_output(lab: &mut Lab, shape: &Shape, config: AbsorbConfig) -> Result<Sample> {
    let (g, tokens) = (shape.geometry(), shape.batch);
    let operation = ExpandOutput::new(&lab.device, config)?;
    let copies = lab.gauge.copies((EXPAND_OUTPUT.work)(shape)?.bytes);
    let mut inputs = Inputs::default();
    let up_value = inputs.tensor([g.kv_heads, g.value_dim, g.latent_rank]);
    let o_latent = inputs.tensor([tokens, g.query_heads, g.latent_rank]);
    lab.numbers.arrange(&inputs, copies)?;
    let mut out = Copies::new(&lab.device, tokens * g.query_heads * g.value_dim, copies)?;
    lab.gauge.measure(copies, |stream, copy| {
        let args = ExpandOutputArgs {
            up_value: lab.numbers.tensor(copy, &up_value)?,
            value_bias: None,
            o_latent: lab.numbers.tensor(copy, &o_latent)?,
            out: TensorMut::dense(out.view_mut(copy)?, [tokens, g.query_heads, g.value_dim])?,
        };
        operation.run(stream, args)
    })
}
