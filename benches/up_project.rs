//! `up_project`: keys and values of cached tokens, for prefill.

use anyhow::Result;
use latent_attention::device::TensorMut;
use latent_attention::ops::{UpProject, UpProjectArgs, UpProjectConfig};

use super::decode::kernels;
use super::harness::lab::{Lab, Sample};
use super::harness::memory::{Copies, Inputs};
use super::harness::shape::{Format, Kind, Operation, Shape, Work};

pub const UP_PROJECT: Operation =
    Operation { name: "up_project", kind: Kind::Prefill, formats: &Format::READ, work, run };

/// Every cached byte and the weights in, keys and values out.
fn work(shape: &Shape) -> Result<Work> {
    let (g, tokens) = (shape.geometry(), shape.batch * shape.context);
    let products = g.kv_heads * (g.nope_dim + g.value_dim);
    let written = 2 * (products + g.kv_heads * g.rope_dim);
    Ok(Work {
        bytes: (tokens * (shape.layout()?.bytes_per_token() + written) + 2 * products * g.latent_rank) as u64,
        flops: 2 * (tokens * products * g.latent_rank) as u64,
    })
}

fn run(lab: &mut Lab, shape: &Shape) -> Result<Sample> {
    let (g, layout, tokens) = (shape.geometry(), shape.layout()?, shape.batch * shape.context);
    let operation = UpProject::new(&lab.device, UpProjectConfig::new(*g, layout).with_kernels(kernels()?))?;
    let copies = lab.gauge.copies(work(shape)?.bytes);
    let mut inputs = Inputs::default();
    let up_key = inputs.tensor([g.kv_heads, g.nope_dim, g.latent_rank]);
    let up_value = inputs.tensor([g.kv_heads, g.value_dim, g.latent_rank]);
    lab.numbers.arrange(&inputs, copies)?;
    lab.cache.arrange(&layout, shape.pages(), copies)?;
    let key_dim = g.nope_dim + g.rope_dim;
    let mut keys = Copies::new(&lab.device, tokens * g.kv_heads * key_dim, copies)?;
    let mut values = Copies::new(&lab.device, tokens * g.kv_heads * g.value_dim, copies)?;
    let batch = shape.batch_buffers(&lab.device)?;
    let batch = batch.batch();
    let starts = lab.device.upload(&shape.token_starts())?;
    lab.gauge.measure(copies, |stream, copy| {
        let args = UpProjectArgs {
            cache: lab.cache.view(copy)?,
            batch: &batch,
            token_starts: starts.view(),
            up_key: lab.numbers.tensor(copy, &up_key)?,
            up_value: lab.numbers.tensor(copy, &up_value)?,
            value_bias: None,
            keys: TensorMut::dense(keys.view_mut(copy)?, [tokens, g.kv_heads, key_dim])?,
            values: TensorMut::dense(values.view_mut(copy)?, [tokens, g.kv_heads, g.value_dim])?,
        };
        operation.run(stream, args)
    })
}
