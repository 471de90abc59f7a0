//! Converts a small GQA layer to latent attention and decodes it from a paged int4 cache, one token at a time: on the
//! first GPU, or on the simulator where there is none.
//!
//! `cargo run --example decode --features convert`

use half::bf16;
use latent_attention::cache::{CacheFormat, CacheLayout, PageTable, Sequences};
use latent_attention::convert::{Calibration, ConvertOptions, convert};
use latent_attention::device::{Buffer, Device, Tensor, TensorMut};
use latent_attention::layer::{LatentAttentionLayer, LayerConfig, StepArgs};
use latent_attention::ops::{BatchBuffers, RotationBuffers};
use latent_attention::rope::RopeTables;
use latent_attention::weights::{DenseAttention, Linear, Matrix};

const HIDDEN: usize = 24;
const TOKENS: usize = 40;

fn main() -> latent_attention::Result<()> {
    let device = Device::cuda(0).unwrap_or_else(|why| {
        println!("{why}: on the simulator");
        Device::simulated()
    });
    let dense = pretrained();
    let inputs: Vec<f32> = (0..TOKENS * HIDDEN).map(|i| (0.37 * i as f32).sin()).collect();

    // Convert: 4 of 8 dimensions per head stay rotated, keys and values share a latent of 16.
    let mut calibration = Calibration::new(&dense)?;
    calibration.observe(&dense, &inputs)?;
    let weights = convert(&dense, &ConvertOptions::new(4, 16), Some(&calibration))?;
    let g = weights.geometry;

    // Prepare: one query token a step, sequences of up to 48 tokens in pages of 16.
    let (page_size, pages) = (16, [2, 0, 3]); // Any pages, in any order.
    let layout = CacheLayout::new(&g, CacheFormat::INT4, page_size)?;
    let tables = RopeTables::from_theta(10_000.0, dense.head_dim, TOKENS);
    let rotation = RotationBuffers::upload(&device, &tables, &weights.frequencies)?;
    let layer = LatentAttentionLayer::new(&device, &weights, &rotation, LayerConfig::new(layout, 1, 48))?;
    let (mut cache, mut workspace) = (layer.new_cache(4)?, layer.new_workspace()?);
    let mut plan_memory = device.allocate(layer.plan_bytes())?;
    let stream = device.stream()?;

    // Decode: each step appends one token to the cache and attends to all before it.
    for (t, x) in inputs.chunks(HIDDEN).enumerate() {
        let sequences = Sequences {
            query_starts: &[0, 1],
            seq_lens: &[t as i32 + 1],
            pages: PageTable::Dense { table: &pages, max_pages: pages.len() },
        };
        let batch = BatchBuffers::upload(&device, &sequences, &layout, cache.pages())?;
        let slot = i64::from(pages[t / page_size]) * page_size as i64 + (t % page_size) as i64;
        let (positions, slots) = (device.upload(&[t as i32])?, device.upload(&[slot])?);
        // The projections are matrix products like any other: the engine's own.
        let [q_rope, q_nope, k_rope, c_kv] =
            [&weights.query_rope, &weights.query_nope, &weights.key_rope, &weights.down]
                .map(|projection| project(&device, projection, x));
        let (q_rope, q_nope, k_rope, c_kv) = (q_rope?, q_nope?, k_rope?, c_kv?);
        let mut out = device.zeros::<bf16>(g.query_heads * g.value_dim)?;
        let mut plan = layer.plan(&stream, &batch.batch(), 1, plan_memory.view_mut())?;
        layer.step(
            &stream,
            StepArgs {
                q_rope: Tensor::dense(q_rope.view(), [1, g.query_heads, g.rope_dim])?,
                q_nope: Tensor::dense(q_nope.view(), [1, g.query_heads, g.nope_dim])?,
                k_rope: Tensor::dense(k_rope.view(), [1, g.rope_heads, g.rope_dim])?,
                c_kv: Tensor::dense(c_kv.view(), [1, 1, g.latent_rank])?,
                positions: positions.view(),
                slots: slots.view(),
                plan: &mut plan,
                workspace: &mut workspace,
                cache: cache.view_mut(),
                out: TensorMut::dense(out.view_mut(), [1, g.query_heads, g.value_dim])?,
                counters: None,
            },
        )?;
        if t + 1 == TOKENS {
            let heads: Vec<f32> = out.to_vec()?.into_iter().map(bf16::to_f32).collect();
            println!("after {TOKENS} tokens: {:.4?} ..", &weights.output.apply(&heads)?[..4]);
        }
    }
    println!("{} bytes per token instead of {}", layout.bytes_per_token(), g.uncompressed_bytes_per_token());
    Ok(())
}

/// A projection of one token, on the device.
fn project(device: &Device, projection: &Linear, x: &[f32]) -> latent_attention::Result<Buffer<bf16>> {
    device.upload(&projection.apply(x)?.into_iter().map(bf16::from_f32).collect::<Vec<_>>())
}

/// Stands in for a layer read from a checkpoint (feature `load`).
fn pretrained() -> DenseAttention {
    let matrix = |rows, cols, seed: usize| {
        Linear::new(Matrix::from_fn(rows, cols, |row, col| (((row * 31 + col * 17 + seed) % 23) as f32 - 11.0) / 40.0))
    };
    DenseAttention {
        query_heads: 4,
        kv_heads: 2,
        head_dim: 8,
        query: matrix(4 * 8, HIDDEN, 1),
        key: matrix(2 * 8, HIDDEN, 2),
        value: matrix(2 * 8, HIDDEN, 3),
        output: matrix(HIDDEN, 4 * 8, 4),
        head_norms: None,
    }
}
