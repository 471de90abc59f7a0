//! Which rows of the dense projections keep their rotation, and in which order (arXiv 2502.14837, section 3.1).

use crate::rope::FrequencyIndex;
use crate::weights::{DenseAttention, HeadNorms};

/// Rows of the query and key projections, head-major.
///
/// Inside a head the rotated dimensions are the kept pairs' first dimensions and then, in the same order, their
/// partners, so that [`Pairing::Half`](crate::rope::Pairing::Half) holds in the shorter head too. The unrotated
/// dimensions follow in ascending order. A query head follows the choice of its KV head: a score is a sum over
/// dimensions, so both sides have to be permuted alike.
pub(super) struct HeadRows {
    pub query_rope: Vec<usize>,
    pub query_nope: Vec<usize>,
    pub key_rope: Vec<usize>,
    pub key_nope: Vec<usize>,
}

impl HeadRows {
    /// Splits the rows of `layer`'s projections; `kept` has one head per KV head.
    pub fn new(layer: &DenseAttention, kept: &FrequencyIndex) -> Self {
        let group = layer.query_heads / layer.kv_heads;
        let mut rows = Self { query_rope: vec![], query_nope: vec![], key_rope: vec![], key_nope: vec![] };
        for kv_head in 0..layer.kv_heads {
            let (rope, nope) = split_dims(kept.head(kv_head), layer.head_dim);
            let of_head = |head: usize, dims: &[usize]| -> Vec<usize> {
                dims.iter().map(|dim| head * layer.head_dim + dim).collect()
            };
            rows.key_rope.extend(of_head(kv_head, &rope));
            rows.key_nope.extend(of_head(kv_head, &nope));
            for query_head in kv_head * group..(kv_head + 1) * group {
                rows.query_rope.extend(of_head(query_head, &rope));
                rows.query_nope.extend(of_head(query_head, &nope));
            }
        }
        rows
    }

    /// The norms over heads in the order of these rows, whose keys' unrotated gain the queries take over: a score is a sum
    /// over dimensions.
    pub fn head_norms(&self, norms: &HeadNorms, head_dim: usize) -> HeadNorms {
        let kv_heads = (self.key_rope.len() + self.key_nope.len()) / head_dim;
        let (rope_dim, nope_dim) = (self.key_rope.len() / kv_heads, self.key_nope.len() / kv_heads);
        let dims = |rows: &[usize], head: usize, width: usize| -> Vec<usize> {
            rows[head * width..][..width].iter().map(|row| row % head_dim).collect()
        };
        let mut own = HeadNorms { query: Vec::new(), key: Vec::new(), epsilon: norms.epsilon };
        for head in 0..kv_heads {
            let (rope, nope) = (dims(&self.key_rope, head, rope_dim), dims(&self.key_nope, head, nope_dim));
            own.key.extend(rope.iter().map(|&dim| norms.key[dim]));
            own.query.extend(rope.iter().map(|&dim| norms.query[dim]));
            own.query.extend(nope.iter().map(|&dim| norms.query[dim] * norms.key[dim]));
        }
        own
    }
}

/// The rotated and the unrotated dimensions of a head of `head_dim` dimensions that keeps the pairs `kept`.
fn split_dims(kept: &[u32], head_dim: usize) -> (Vec<usize>, Vec<usize>) {
    let first = kept.iter().map(|&pair| pair as usize);
    let rope: Vec<usize> = first.clone().chain(first.map(|pair| pair + head_dim / 2)).collect();
    let nope = (0..head_dim).filter(|dim| !rope.contains(dim)).collect();
    (rope, nope)
}
