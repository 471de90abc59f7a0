//! `copy_pages`: whole pages of a cache copied to other pages of it.

use anyhow::Result;
use latent_attention::ops::{CopyPages, CopyPagesArgs, CopyPagesConfig};

use super::harness::lab::{Lab, Sample};
use super::harness::shape::{Format, Kind, Operation, Shape, Work};

pub const COPY_PAGES: Operation =
    Operation { name: "copy_pages", kind: Kind::Tokens, formats: &Format::READ, work, run };

/// A page for each sequence, as if all were forks that write their first token: in and out, and two page ids.
fn work(shape: &Shape) -> Result<Work> {
    let page_bytes = shape.layout()?.page_bytes();
    Ok(Work { bytes: (shape.batch * (2 * page_bytes + 2 * size_of::<i32>())) as u64, flops: 0 })
}

fn run(lab: &mut Lab, shape: &Shape) -> Result<Sample> {
    let layout = shape.layout()?;
    let operation = CopyPages::new(&lab.device, CopyPagesConfig::new(layout))?;
    let copies = lab.gauge.copies(work(shape)?.bytes);
    // Sources and destinations take turns.
    lab.cache.arrange(&layout, 2 * shape.batch, copies)?;
    let ids: Vec<i32> = (0..2 * shape.batch as i32).collect();
    let ids = lab.device.upload(&ids)?;
    lab.gauge.measure(copies, |stream, copy| {
        operation.run(stream, CopyPagesArgs { cache: lab.cache.view_mut(copy)?, copies: ids.view(), counters: None })
    })
}
