//! `gather`: cached tokens as the cache decodes them, for prefill.

use anyhow::Result;
use latent_attention::device::TensorMut;
use latent_attention::ops::{Gather, GatherArgs, GatherConfig};

use super::harness::lab::{Lab, Sample};
use super::harness::memory::Copies;
use super::harness::shape::{Format, Kind, Operation, Shape, Work};

pub const GATHER: Operation = Operation { name: "gather", kind: Kind::Prefill, formats: &Format::READ, work, run };

/// Every cached byte in, as many numbers in bf16 out; a product and a sum for each that is not in bf16 already.
fn work(shape: &Shape) -> Result<Work> {
    let (g, tokens) = (shape.geometry(), shape.batch * shape.context);
    let numbers = g.latent_rank + g.rope_width();
    let flops = if shape.format == Format::Bf16 { 0 } else { 2 * tokens * numbers };
    Ok(Work { bytes: (tokens * (shape.layout()?.bytes_per_token() + 2 * numbers)) as u64, flops: flops as u64 })
}

fn run(lab: &mut Lab, shape: &Shape) -> Result<Sample> {
    let (g, layout, tokens) = (shape.geometry(), shape.layout()?, shape.batch * shape.context);
    let operation = Gather::new(&lab.device, GatherConfig::new(layout))?;
    let copies = lab.gauge.copies(work(shape)?.bytes);
    lab.cache.arrange(&layout, shape.pages(), copies)?;
    let width = g.latent_rank + g.rope_width();
    let mut gathered = Copies::new(&lab.device, tokens * width, copies)?;
    let batch = shape.batch_buffers(&lab.device)?;
    let batch = batch.batch();
    let starts = lab.device.upload(&shape.token_starts())?;
    lab.gauge.measure(copies, |stream, copy| {
        let args = GatherArgs {
            cache: lab.cache.view(copy)?,
            batch: &batch,
            token_starts: starts.view(),
            first_tokens: None,
            gathered: TensorMut::dense(gathered.view_mut(copy)?, [tokens, 1, width])?,
        };
        operation.run(stream, args)
    })
}
