//! `decode`: attention over the cached latents, and the merging of what was split.

use std::env;

use anyhow::{Result, bail};
use latent_attention::ops::{Decode, DecodeArgs, DecodeConfig, KernelFamily, Merging};

use super::harness::lab::{Gauge, Lab, Sample};
use super::harness::memory::{Copies, Inputs};
use super::harness::shape::{Format, Kind, Operation, Shape, Work};

pub const DECODE: Operation = Operation { name: "decode", kind: Kind::Attention, formats: &Format::READ, work, run };

/// The configuration of a shape's attention.
pub fn config(shape: &Shape) -> Result<DecodeConfig> {
    let (g, layout) = (shape.geometry(), shape.layout()?);
    let config = DecodeConfig::new(*g, layout, g.default_scale() as f32, shape.batch, shape.context);
    Ok(config.with_kernels(kernels()?))
}

/// Which kernels are timed, of `up_project` too: those that a layer gets, unless `LATENT_ATTENTION_DECODE` names a family,
/// as `sm90`.
pub fn kernels() -> Result<KernelFamily> {
    match env::var("LATENT_ATTENTION_DECODE").unwrap_or_default().as_str() {
        "" => Ok(KernelFamily::Measured),
        "sm80" => Ok(KernelFamily::Sm80),
        "sm90" => Ok(KernelFamily::Sm90),
        other => bail!("LATENT_ATTENTION_DECODE={other}: expected sm80 or sm90"),
    }
}

/// Every cached byte once; the queries and outputs. Products with the keys, and with the latents once more.
pub fn work(shape: &Shape) -> Result<Work> {
    let (g, cached) = (shape.geometry(), shape.batch * shape.context);
    let rows = shape.batch * g.query_heads;
    let tensors = rows * (2 * (2 * g.latent_rank + g.rope_dim) + size_of::<f32>());
    Ok(Work {
        bytes: (cached * shape.layout()?.bytes_per_token() + tensors) as u64,
        flops: 2 * (cached * g.query_heads * (2 * g.latent_rank + g.rope_dim)) as u64,
    })
}

fn run(lab: &mut Lab, shape: &Shape) -> Result<Sample> {
    let (g, tokens) = (shape.geometry(), shape.batch);
    let mut config = config(shape)?;
    config.variant = lab.variant;
    if matches!(lab.gauge, Gauge::Meter(_)) {
        // Blocks that merge ask for each other a number of times that is no number of the kernel's.
        config.merging = Merging::Separate;
    }
    let operation = Decode::new(&lab.device, config)?;
    let copies = lab.gauge.copies(work(shape)?.bytes);
    let mut inputs = Inputs::default();
    let q_latent = inputs.tensor([tokens, g.query_heads, g.latent_rank]);
    let q_rope = inputs.tensor([tokens, g.query_heads, g.rope_dim]);
    lab.numbers.arrange(&inputs, copies)?;
    lab.cache.arrange(&shape.layout()?, shape.pages(), copies)?;
    let rows = tokens * g.query_heads;
    let mut o_latent = Copies::new(&lab.device, rows * g.latent_rank, copies)?;
    let mut lse = Copies::new(&lab.device, rows, copies)?;
    let batch = shape.batch_buffers(&lab.device)?;
    let mut workspace = lab.device.allocate::<u8>(operation.workspace_bytes())?;
    // One plan serves all layers of a step: it is measured as `schedule`.
    let mut plan = operation.plan(lab.gauge.stream(), &batch.batch(), tokens, workspace.view_mut())?;
    lab.gauge.stream().synchronize()?;
    let sample = lab.gauge.measure(copies, |stream, copy| {
        let args = DecodeArgs {
            q_latent: lab.numbers.tensor(copy, &q_latent)?,
            q_rope: lab.numbers.tensor(copy, &q_rope)?,
            cache: lab.cache.view(copy)?,
            o_latent: o_latent.view_mut(copy)?,
            lse: lse.view_mut(copy)?,
        };
        operation.run(stream, &mut plan, args)
    })?;
    if lab.variant.is_some() {
        lab.attended = o_latent.view(0)?.to_vec()?;
    }
    Ok(sample)
}
