//! Small random layers and inputs.

use latent_attention::convert::{Basis, Calibration, ConvertOptions, Factorization, RopeChoice};
use latent_attention::weights::{DenseAttention, HeadNorms, Linear, Matrix};
use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Sizes of a dense layer.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub query_heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub hidden: usize,
    /// Biases on queries, keys and values, as Qwen2 has.
    pub biased: bool,
    /// Norms over heads, as Qwen3 has.
    pub normed: bool,
}

/// Grouped queries; at 4 rotated dimensions the keys and values have as many rows as the hidden state.
pub const GQA: Shape = Shape { query_heads: 4, kv_heads: 2, head_dim: 8, hidden: 24, biased: false, normed: false };

/// One KV head per query head; the hidden state limits the rank.
pub const MHA: Shape = Shape { query_heads: 3, kv_heads: 3, head_dim: 8, hidden: 20, biased: false, normed: false };

impl Shape {
    pub fn biased(self) -> Self {
        Self { biased: true, ..self }
    }

    pub fn normed(self) -> Self {
        Self { normed: true, ..self }
    }

    /// The largest latent rank that `method` allows.
    pub fn full_rank(&self, rope_dim: usize, method: Factorization) -> usize {
        let key = self.kv_heads * (self.head_dim - rope_dim);
        let value = self.kv_heads * self.head_dim;
        match method {
            Factorization::Joint => (key + value).min(self.hidden),
            Factorization::Split => key.min(self.hidden) + value.min(self.hidden),
        }
    }
}

pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

pub fn vector(rng: &mut ChaCha8Rng, len: usize, size: f32) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-size..size)).collect()
}

pub fn matrix(rng: &mut ChaCha8Rng, rows: usize, cols: usize) -> Matrix {
    let size = (3.0 / cols as f32).sqrt();
    Matrix::new(rows, cols, vector(rng, rows * cols, size)).unwrap()
}

pub fn dense_layer(shape: Shape, seed: u64) -> DenseAttention {
    let rng = &mut rng(seed);
    let (queries, keys) = (shape.query_heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let mut linear = |rows: usize, cols: usize, biased: bool| Linear {
        weight: matrix(rng, rows, cols),
        bias: biased.then(|| vector(rng, rows, 1.0)),
    };
    let query = linear(queries, shape.hidden, shape.biased);
    let key = linear(keys, shape.hidden, shape.biased);
    let value = linear(keys, shape.hidden, shape.biased);
    let output = linear(shape.hidden, queries, shape.biased);
    let mut gain = || vector(rng, shape.head_dim, 0.5).into_iter().map(|x| 1.0 + x).collect();
    let head_norms = shape.normed.then(|| HeadNorms { query: gain(), key: gain(), epsilon: 1e-6 });
    DenseAttention {
        query_heads: shape.query_heads,
        kv_heads: shape.kv_heads,
        head_dim: shape.head_dim,
        query,
        key,
        value,
        output,
        head_norms,
    }
}

/// `[tokens, hidden]`, with a mean and with powers that differ between dimensions, like a real model's.
pub fn hidden_states(tokens: usize, hidden: usize, seed: u64) -> Vec<f32> {
    let rng = &mut rng(seed);
    let mean = vector(rng, hidden, 1.0);
    let power: Vec<f32> = vector(rng, hidden, 1.0).iter().map(|x| x.exp()).collect();
    (0..tokens)
        .flat_map(|_| vector(rng, hidden, 1.0))
        .enumerate()
        .map(|(i, x)| mean[i % hidden] + power[i % hidden] * x)
        .collect()
}

/// A calibration that has seen `tokens` tokens.
pub fn calibration(layer: &DenseAttention, tokens: usize, seed: u64) -> Calibration {
    let mut calibration = Calibration::new(layer).unwrap();
    calibration.observe(layer, &hidden_states(tokens, layer.hidden(), seed)).unwrap();
    calibration
}

/// Options that need no calibration.
pub fn plain(rope_dim: usize, latent_rank: usize) -> ConvertOptions {
    ConvertOptions::new(rope_dim, latent_rank).with_rope(RopeChoice::High).with_basis(Basis::plain())
}

pub const METHODS: [Factorization; 2] = [Factorization::Joint, Factorization::Split];

pub const BASES: [Basis; 4] = [
    Basis { rotate: false, centre: false, seed: 3 },
    Basis { rotate: true, centre: false, seed: 3 },
    Basis { rotate: false, centre: true, seed: 3 },
    Basis { rotate: true, centre: true, seed: 3 },
];

/// The same cases on every run.
pub fn fixed_cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() }
}
