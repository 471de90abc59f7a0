//! Converts a small GQA layer to latent attention and decodes it from a paged int4 cache, one token at a time.
//!
//! `cargo run --example decode --features convert`

use latent_attention::cache::{CacheFormat, PageTable, Sequences};
use latent_attention::convert::{Calibration, ConvertOptions, convert};
use latent_attention::reference::{ReferenceInputs, ReferenceLayer};
use latent_attention::rope::RopeTables;
use latent_attention::weights::{DenseAttention, Linear, Matrix};

const HIDDEN: usize = 24;
const TOKENS: usize = 40;

fn main() -> latent_attention::Result<()> {
    let dense = pretrained();
    let inputs: Vec<f32> = (0..TOKENS * HIDDEN).map(|i| (0.37 * i as f32).sin()).collect();

    // Convert: 4 of 8 dimensions per head stay rotated, keys and values share a latent of 16.
    let mut calibration = Calibration::new(&dense)?;
    calibration.observe(&dense, &inputs)?;
    let weights = convert(&dense, &ConvertOptions::new(4, 16), Some(&calibration))?;
    let layer = ReferenceLayer::new(weights)?;

    // Decode: each step appends one token to the cache and attends to all before it.
    let page_size = 16;
    let mut cache = layer.new_cache(CacheFormat::INT4, page_size, 4)?;
    let pages = [2, 0, 3]; // Any pages, in any order.
    let tables = RopeTables::from_theta(10_000.0, dense.head_dim, TOKENS);
    for (t, x) in inputs.chunks(HIDDEN).enumerate() {
        let weights = layer.weights();
        let step = ReferenceInputs {
            q_rope: &weights.query_rope.apply(x)?,
            q_nope: &weights.query_nope.apply(x)?,
            k_rope: &weights.key_rope.apply(x)?,
            c_kv: &weights.down.apply(x)?,
            positions: &[t as i32],
            slots: &[i64::from(pages[t / page_size]) * page_size as i64 + (t % page_size) as i64],
        };
        let sequences = Sequences {
            query_starts: &[0, 1],
            seq_lens: &[t as i32 + 1],
            pages: PageTable::Dense { table: &pages, max_pages: pages.len() },
        };
        let output = layer.step(&step, &sequences, &tables, &mut cache)?;
        let hidden = weights.output.apply(&output.out)?;
        if t + 1 == TOKENS {
            println!("after {TOKENS} tokens: {:.4?} ..", &hidden[..4]);
        }
    }
    let geometry = &layer.weights().geometry;
    println!(
        "{} bytes per token instead of {}",
        cache.layout().bytes_per_token(),
        geometry.uncompressed_bytes_per_token()
    );
    Ok(())
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
    }
}
