//! `combine`: merges attention over splits of the tokens.

use anyhow::Result;
use latent_attention::ops::{Combine, CombineArgs, CombineConfig};

use super::harness::lab::{Lab, Sample};
use super::harness::memory::{Copies, random_numbers};
use super::harness::shape::{Format, Kind, Operation, Shape, Work};

/// Parts that are merged.
const SPLITS: usize = 16;

pub const COMBINE: Operation = Operation { name: "combine", kind: Kind::Tokens, formats: &[Format::Bf16], work, run };

/// f32 partials to bf16 results; a product and a sum for each number of each partial.
fn work(shape: &Shape) -> Result<Work> {
    let g = shape.geometry();
    let rows = shape.batch * g.query_heads;
    Ok(Work {
        bytes: (rows * (SPLITS * 4 * (g.latent_rank + 1) + 2 * g.latent_rank + 4)) as u64,
        flops: (2 * rows * SPLITS * g.latent_rank) as u64,
    })
}

fn run(lab: &mut Lab, shape: &Shape) -> Result<Sample> {
    let g = shape.geometry();
    let rows = shape.batch * g.query_heads;
    let operation = Combine::new(&lab.device, CombineConfig::new(g.latent_rank, SPLITS))?;
    let copies = lab.gauge.copies(work(shape)?.bytes);
    let table = random_numbers();
    let o_partial = Copies::repeating(&lab.device, &table, SPLITS * rows * g.latent_rank, copies)?;
    let lse_partial = Copies::repeating(&lab.device, &table, SPLITS * rows, copies)?;
    let mut o_latent = Copies::new(&lab.device, rows * g.latent_rank, copies)?;
    let mut lse = Copies::new(&lab.device, rows, copies)?;
    lab.gauge.measure(copies, |stream, copy| {
        let args = CombineArgs {
            rows,
            splits: SPLITS,
            o_partial: o_partial.view(copy)?,
            lse_partial: lse_partial.view(copy)?,
            o_latent: o_latent.view_mut(copy)?,
            lse: lse.view_mut(copy)?,
        };
        operation.run(stream, args)
    })
}
