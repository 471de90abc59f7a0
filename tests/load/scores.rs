//! Attention scores in f64, once by the crate's definition of a latent layer and once from whole heads.

use latent_attention::rope::{RopeTables, rotate_head};
use latent_attention::weights::{LatentAttention, Linear};

use super::fixture::{HEAD_DIM, numbers};

/// `W x + b`.
pub fn apply(linear: &Linear, x: &[f32]) -> Vec<f32> {
    product(linear.weight.data(), linear.bias.as_deref(), x)
}

/// `W x + b` with `W` given by its elements.
pub fn product(weight: &[f32], bias: Option<&[f32]>, x: &[f32]) -> Vec<f32> {
    let rows = weight.chunks_exact(x.len()).enumerate();
    rows.map(|(row, weights)| {
        let sum: f64 = weights.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
        (sum + bias.map_or(0.0, |bias| f64::from(bias[row]))) as f32
    })
    .collect()
}

pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Score of query head `head` at one position against the key at another, by [`LatentAttention`]'s definition.
/// Layers with a low-rank query or a norm on the latent are not covered.
pub fn latent_score(layer: &LatentAttention, tables: &RopeTables, head: usize, query: Token, key: Token) -> f64 {
    let g = layer.geometry;
    let (kv_head, rope_head) = (g.kv_head_of(head), g.rope_head_of(head));
    let frequencies = layer.frequencies.head(rope_head);
    let rotated = |linear: &Linear, head: usize, token: Token| {
        let mut part = apply(linear, &token.hidden())[head * g.rope_dim..][..g.rope_dim].to_vec();
        rotate_head(&mut part, frequencies, layer.pairing, tables, token.position);
        part
    };
    let nope = apply(&layer.query_nope, &query.hidden())[head * g.nope_dim..][..g.nope_dim].to_vec();
    let latent = apply(&layer.down, &key.hidden());
    let key_nope = product(layer.up_key.data(), None, &latent)[kv_head * g.nope_dim..][..g.nope_dim].to_vec();
    let rope = dot(&rotated(&layer.query_rope, head, query), &rotated(&layer.key_rope, rope_head, key));
    layer.scale * (rope + dot(&nope, &key_nope))
}

/// A hidden state and where it stands.
#[derive(Clone, Copy)]
pub struct Token {
    pub seed: &'static str,
    pub position: usize,
}

impl Token {
    pub fn hidden(self) -> Vec<f32> {
        numbers(self.seed, super::fixture::HIDDEN)
    }
}

/// Rotates those pairs `(p, p + d/2)` of a whole head that are kept, as a full-space mask does.
pub fn rotate_kept(head: &mut [f32], kept: &[u32], tables: &RopeTables, position: usize) {
    for &pair in kept {
        let (i, j) = (pair as usize, pair as usize + HEAD_DIM / 2);
        let (cos, sin) = tables.at(position, pair as usize);
        (head[i], head[j]) = (head[i] * cos - head[j] * sin, head[j] * cos + head[i] * sin);
    }
}
