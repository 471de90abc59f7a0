//! A small model of random weights, where there is none to read.

use latent_attention::load::Block;
use latent_attention::rope::theta_frequencies;
use latent_attention::weights::{DenseAttention, Linear, Matrix, RmsNorm};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::llama::Weights;

const HIDDEN: usize = 96;
const INTERMEDIATE: usize = 256;
const HEAD_DIM: usize = 32;

pub fn weights() -> Weights {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    // Of a variance that keeps the size of what passes through.
    let mut matrix = |rows, cols| {
        let bound = (3.0 / cols as f32).sqrt();
        Matrix::from_fn(rows, cols, |_, _| rng.random_range(-bound..bound))
    };
    let norm = || RmsNorm { gain: vec![1.0; HIDDEN], epsilon: 1e-5 };
    let (attention, blocks) = (0..4)
        .map(|_| {
            let mut linear = |rows, cols| Linear::new(matrix(rows, cols));
            let attention = DenseAttention {
                query_heads: 4,
                kv_heads: 2,
                head_dim: HEAD_DIM,
                query: linear(4 * HEAD_DIM, HIDDEN),
                key: linear(2 * HEAD_DIM, HIDDEN),
                value: linear(2 * HEAD_DIM, HIDDEN),
                output: linear(HIDDEN, 4 * HEAD_DIM),
                head_norms: None,
            };
            let block = Block {
                attention_norm: norm(),
                mlp_norm: norm(),
                gate: linear(INTERMEDIATE, HIDDEN),
                up: linear(INTERMEDIATE, HIDDEN),
                down: linear(HIDDEN, INTERMEDIATE),
            };
            (attention, block)
        })
        .unzip();
    Weights {
        embedding: matrix(512, HIDDEN),
        attention,
        blocks,
        final_norm: norm(),
        head: None,
        frequencies: theta_frequencies(1e4, HEAD_DIM),
    }
}
