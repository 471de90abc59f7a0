//! `schedule`: divides a batch's attention among the device's blocks, once per step for all layers.

use anyhow::Result;
use latent_attention::ops::Decode;

use super::decode;
use super::harness::lab::{Lab, Sample};
use super::harness::shape::{Format, Kind, Operation, Shape, Work};

pub const SCHEDULE: Operation = Operation { name: "schedule", kind: Kind::Tokens, formats: &[Format::Int4], work, run };

/// The batch's lengths and starts. (How many splits come of it is the device's affair.)
fn work(shape: &Shape) -> Result<Work> {
    Ok(Work { bytes: (size_of::<i32>() * (2 * shape.batch + 1)) as u64, flops: 0 })
}

fn run(lab: &mut Lab, shape: &Shape) -> Result<Sample> {
    let operation = Decode::new(&lab.device, decode::config(shape)?)?;
    let batch = shape.batch_buffers(&lab.device)?;
    let batch = batch.batch();
    let mut workspace = lab.device.allocate::<u8>(operation.workspace_bytes())?;
    lab.gauge.measure(1, |stream, _| {
        operation.plan(stream, &batch, shape.batch, workspace.view_mut())?;
        Ok(())
    })
}
