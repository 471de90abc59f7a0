//! Random layers and the tokens that pass through them.

use latent_attention::Geometry;
use latent_attention::reference::ReferenceInputs;
use latent_attention::rope::{FrequencyIndex, Pairing};
use latent_attention::weights::{HeadNorms, LatentAttention, Linear, Matrix, RmsNorm};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::{Batch, random};

/// Width of the layers' input and output.
const HIDDEN: usize = 6;

fn matrix(rng: &mut ChaCha8Rng, rows: usize, cols: usize) -> Matrix {
    Matrix::new(rows, cols, random(rng, rows * cols)).unwrap()
}

/// Random weights of a layer, with and without a norm over the latent, or with norms over heads.
pub fn weights(rng: &mut ChaCha8Rng, g: Geometry) -> LatentAttention {
    let indices = (0..g.rope_heads * g.rope_dim / 2).map(|_| rng.random_range(0..5)).collect();
    let norm = rng.random::<bool>() && !g.key_norm;
    let gains = |rng: &mut _, len| random(rng, len).into_iter().map(|gain| 1.0 + 0.5 * gain).collect();
    let head_norms = g.key_norm.then(|| HeadNorms {
        query: gains(rng, g.kv_heads * (g.rope_dim + g.nope_dim)),
        key: gains(rng, g.rope_width()),
        epsilon: 1e-6,
    });
    LatentAttention {
        geometry: g,
        query_down: None,
        query_rope: Linear::new(matrix(rng, g.query_heads * g.rope_dim, HIDDEN)),
        query_nope: Linear::new(matrix(rng, g.query_heads * g.nope_dim, HIDDEN)),
        key_rope: Linear::new(matrix(rng, g.rope_width(), HIDDEN)),
        down: Linear::new(matrix(rng, g.latent_rank, HIDDEN)),
        latent_norm: norm.then(|| RmsNorm { gain: random(rng, g.latent_rank), epsilon: 1e-6 }),
        latent_bias: Some(random(rng, g.latent_rank)),
        up_key: matrix(rng, g.kv_heads * g.nope_dim, g.latent_rank),
        up_value: matrix(rng, g.kv_heads * g.value_dim, g.latent_rank),
        value_bias: Some(random(rng, g.kv_heads * g.value_dim)),
        output: Linear::new(matrix(rng, HIDDEN, g.query_heads * g.value_dim)),
        frequencies: FrequencyIndex::new(g.rope_heads, indices).unwrap(),
        pairing: Pairing::Half,
        scale: g.default_scale(),
        head_norms,
    }
}

/// Random projected tokens of one sequence, and its batch of `tokens` cached tokens.
pub struct Sequence {
    pub geometry: Geometry,
    pub q_rope: Vec<f32>,
    pub q_nope: Vec<f32>,
    pub k_rope: Vec<f32>,
    pub c_kv: Vec<f32>,
    pub positions: Vec<i32>,
    pub slots: Vec<i64>,
    pub batch: Batch,
}

impl Sequence {
    pub fn new(rng: &mut ChaCha8Rng, g: Geometry, tokens: usize, page_size: usize) -> Self {
        let batch = Batch::new(rng, &[tokens], &[tokens], page_size);
        Self {
            geometry: g,
            q_rope: random(rng, tokens * g.query_heads * g.rope_dim),
            q_nope: random(rng, tokens * g.query_heads * g.nope_dim),
            k_rope: random(rng, tokens * g.rope_width()),
            c_kv: random(rng, tokens * g.latent_rank),
            positions: (0..tokens as i32).collect(),
            slots: (0..tokens).map(|t| batch.slot(0, t) as i64).collect(),
            batch,
        }
    }

    pub fn rows(&self, t: std::ops::Range<usize>) -> ReferenceInputs<'_> {
        let g = &self.geometry;
        let cut = |len: usize| t.start * len..t.end * len;
        ReferenceInputs {
            q_rope: &self.q_rope[cut(g.query_heads * g.rope_dim)],
            q_nope: &self.q_nope[cut(g.query_heads * g.nope_dim)],
            k_rope: &self.k_rope[cut(g.rope_width())],
            c_kv: &self.c_kv[cut(g.latent_rank)],
            positions: &self.positions[t.clone()],
            slots: &self.slots[t],
        }
    }
}
