//! A tiny random model for tests.

use std::sync::Arc;

use latent_attention::Geometry;
use latent_attention::convert::{Basis, ConvertOptions, RopeChoice, convert};
use latent_attention::load::Block;
use latent_attention::rope::{FrequencyIndex, Pairing, RopeTables};
use latent_attention::weights::{DenseAttention, LatentAttention, Linear, Matrix, RmsNorm};

use crate::frame::Frame;
use crate::original::Original;
use crate::student::{Mode, Student};

#[path = "../../lm/src/noise.rs"]
mod noise;

pub use noise::noise;

pub const HIDDEN: usize = 24;
pub const VOCABULARY: usize = 50;
const HEADS: usize = 4;
const GROUPS: usize = 2;
const DIM: usize = 8;
const LAYERS: usize = 2;

fn matrix(rows: usize, cols: usize, size: f32, seed: u32) -> Matrix {
    let mut next = noise(seed);
    Matrix::from_fn(rows, cols, |_, _| next() * size)
}

fn linear(rows: usize, cols: usize, seed: u32, bias: bool) -> Linear {
    let mut next = noise(seed + 1000);
    Linear { weight: matrix(rows, cols, 0.3, seed), bias: bias.then(|| (0..rows).map(|_| next() * 0.3).collect()) }
}

fn norm(seed: u32) -> RmsNorm {
    let mut next = noise(seed);
    RmsNorm { gain: (0..HIDDEN).map(|_| 1.0 + next() * 0.2).collect(), epsilon: 1e-5 }
}

pub fn blocks() -> Vec<Block> {
    let block = |layer: u32| Block {
        attention_norm: norm(layer + 10),
        mlp_norm: norm(layer + 20),
        gate: linear(32, HIDDEN, layer + 30, false),
        up: linear(32, HIDDEN, layer + 40, false),
        down: linear(HIDDEN, 32, layer + 50, false),
    };
    (0..LAYERS as u32).map(block).collect()
}

pub fn embedding() -> Matrix {
    matrix(VOCABULARY, HIDDEN, 1.0, 60)
}

pub fn final_norm() -> RmsNorm {
    norm(61)
}

pub fn frame() -> Frame {
    Frame::new(embedding(), blocks().into_iter().map(Ok), final_norm(), None).unwrap()
}

pub fn dense(bias: bool) -> Vec<DenseAttention> {
    let layer = |layer: u32| DenseAttention {
        query_heads: HEADS,
        kv_heads: GROUPS,
        head_dim: DIM,
        query: linear(HEADS * DIM, HIDDEN, layer + 70, bias),
        key: linear(GROUPS * DIM, HIDDEN, layer + 80, bias),
        value: linear(GROUPS * DIM, HIDDEN, layer + 90, bias),
        output: linear(HIDDEN, HEADS * DIM, layer + 100, false),
        head_norms: None,
    };
    (0..LAYERS as u32).map(layer).collect()
}

pub fn tables() -> Arc<RopeTables> {
    Arc::new(RopeTables::from_theta(100.0, DIM, 64))
}

/// MHA2MLA's conversion of the original.
pub fn converted(bias: bool, rope_dim: usize, rank: usize) -> Vec<LatentAttention> {
    let options = ConvertOptions::new(rope_dim, rank).with_rope(RopeChoice::High).with_basis(Basis::rotated(0));
    dense(bias).iter().map(|layer| convert(layer, &options, None).unwrap()).collect()
}

/// Layers of DeepSeek's shape: every query head has up-projections of its own, all share a rotated key.
pub fn shared_key(bias: bool) -> Vec<LatentAttention> {
    let geometry = Geometry::deepseek(HEADS, 10, 6, DIM, DIM).unwrap();
    let vector = |count: usize, seed| {
        let mut next = noise(seed);
        bias.then(|| (0..count).map(|_| next() * 0.2).collect())
    };
    let layer = |layer: u32| LatentAttention {
        geometry,
        query_down: None,
        query_rope: linear(HEADS * 6, HIDDEN, layer + 110, bias),
        query_nope: linear(HEADS * DIM, HIDDEN, layer + 120, false),
        key_rope: linear(6, HIDDEN, layer + 130, bias),
        down: linear(10, HIDDEN, layer + 140, bias),
        latent_norm: None,
        latent_bias: vector(10, layer + 150),
        up_key: matrix(HEADS * DIM, 10, 0.4, layer + 160),
        up_value: matrix(HEADS * DIM, 10, 0.4, layer + 170),
        value_bias: vector(HEADS * DIM, layer + 180),
        output: linear(HIDDEN, HEADS * DIM, layer + 190, bias),
        frequencies: FrequencyIndex::new(1, vec![0, 1, 3]).unwrap(),
        pairing: Pairing::Half,
        scale: 0.4,
        head_norms: None,
    };
    (0..LAYERS as u32).map(layer).collect()
}

pub fn original() -> Original {
    Original::new(frame(), &dense(false), &tables()).unwrap()
}

pub fn student(layers: &[LatentAttention], mode: Mode) -> Student {
    Student::new(&frame(), layers, &tables(), mode, 1).unwrap()
}

/// A text that has something to learn: each token follows from the one before it, most of the time.
pub fn text(count: usize, seed: u32) -> Vec<u32> {
    let (mut next, mut token) = (noise(seed), 3u32);
    let step = |_| {
        token = if next() > 0.6 { ((next() + 1.0) * 20.0) as u32 } else { token * 7 + 3 } % VOCABULARY as u32;
        token
    };
    (0..count).map(step).collect()
}
