//! `rope_append`: rotates queries and keys, quantises, and writes new tokens into the cache.

use anyhow::Result;
use latent_attention::device::TensorMut;
use latent_attention::ops::{RopeAppend, RopeAppendArgs, RopeAppendConfig, RotationBuffers};
use latent_attention::rope::{FrequencyIndex, Pairing, RopeTables};

use super::harness::lab::{Lab, Sample};
use super::harness::memory::{Copies, Inputs};
use super::harness::shape::{Format, Kind, Operation, PAGE_SIZE, Shape, Work};

pub const ROPE_APPEND: Operation =
    Operation { name: "rope_append", kind: Kind::Tokens, formats: &Format::WRITTEN, work, run };

/// Queries in and out, keys and latents in, records out; a cosine and a sine for each pair of a token, a position and a
/// slot. Three operations for each rotated number.
pub fn work(shape: &Shape) -> Result<Work> {
    let g = shape.geometry();
    let rotated = g.query_heads * g.rope_dim + g.rope_width();
    let tensors = 2 * (rotated + g.query_heads * g.rope_dim + g.latent_rank);
    let token = tensors + 4 * g.rope_width() + size_of::<i32>() + size_of::<i64>();
    Ok(Work {
        bytes: (shape.batch * (token + shape.layout()?.bytes_per_token())) as u64,
        flops: (3 * shape.batch * rotated) as u64,
    })
}

/// Positions of the new tokens, spread over tables of 1024 rows.
pub fn positions(shape: &Shape) -> Vec<i32> {
    (0..shape.batch).map(|i| (17 * i % 1024) as i32).collect()
}

/// Cosines and sines of these positions.
pub fn tables(shape: &Shape) -> RopeTables {
    RopeTables::from_theta(1e4, shape.geometry().rope_dim.max(2), 1024)
}

fn run(lab: &mut Lab, shape: &Shape) -> Result<Sample> {
    let (g, layout, tokens) = (shape.geometry(), shape.layout()?, shape.batch);
    let operation = RopeAppend::new(&lab.device, RopeAppendConfig::new(*g, layout, Pairing::Half))?;
    let copies = lab.gauge.copies(work(shape)?.bytes);
    let index = FrequencyIndex::all(g.rope_heads, g.rope_dim);
    let rotation = RotationBuffers::upload(&lab.device, &tables(shape), &index)?;
    let mut inputs = Inputs::default();
    let q_rope = inputs.tensor([tokens, g.query_heads, g.rope_dim]);
    let k_rope = inputs.tensor([tokens, g.rope_heads, g.rope_dim]);
    let c_kv = inputs.tensor([tokens, 1, g.latent_rank]);
    lab.numbers.arrange(&inputs, copies)?;
    let mut q_rotated = Copies::new(&lab.device, tokens * g.query_heads * g.rope_dim, copies)?;
    // A page for each token.
    lab.cache.arrange(&layout, tokens, copies)?;
    let slots: Vec<i64> = (0..tokens).map(|token| (PAGE_SIZE * token) as i64).collect();
    let (positions, slots) = (lab.device.upload(&positions(shape))?, lab.device.upload(&slots)?);
    lab.gauge.measure(copies, |stream, copy| {
        let args = RopeAppendArgs {
            q_rope: Some(lab.numbers.tensor(copy, &q_rope)?),
            q_rotated: Some(TensorMut::dense(q_rotated.view_mut(copy)?, [tokens, g.query_heads, g.rope_dim])?),
            k_rope: lab.numbers.tensor(copy, &k_rope)?,
            c_kv: lab.numbers.tensor(copy, &c_kv)?,
            positions: Some(positions.view()),
            slots: slots.view(),
            rotation: Some(rotation.rotation()),
            norm: None,
            bias: None,
            cache: lab.cache.view_mut(copy)?,
            counters: None,
            key_norm: None,
        };
        operation.run(stream, args)
    })
}
