//! `head_norm`: norms over whole heads of queries and keys, in front of their rotation (Qwen3).

use crate::error::{Result, check_epsilon, check_len};
use crate::geometry::Geometry;
use crate::warp;

/// New tokens' heads, in their rotated and unrotated parts.
#[derive(Clone, Copy, Debug)]
pub struct HeadNormInputs<'a> {
    /// Queries; `None`: the caller normalises them itself.
    pub queries: Option<HeadNormQueries<'a>>,
    /// `[T, G, R]`, not yet rotated.
    pub k_rope: &'a [f32],
    /// `[T, G, Dn]`: the key up-projection's output.
    pub k_nope: &'a [f32],
    /// Added to the mean square: finite, not negative.
    pub epsilon: f32,
}

/// Queries to be normalised.
#[derive(Clone, Copy, Debug)]
pub struct HeadNormQueries<'a> {
    /// `[T, H, R]`, not yet rotated.
    pub q_rope: &'a [f32],
    /// `[T, H, Dn]`.
    pub q_nope: &'a [f32],
    /// `[G, R + Dn]`: the gain of each head's rotated dimensions, then of the others; query heads use that of their KV head.
    pub gain: &'a [f32],
}

/// The outcome of [`head_norm`].
#[derive(Clone, Debug, PartialEq)]
pub struct HeadNormed {
    /// `[T, H, R]`; empty without queries.
    pub q_rope: Vec<f32>,
    /// `[T, H, Dn]`; empty without queries.
    pub q_nope: Vec<f32>,
    /// `[T, G]`: what normalises each key.
    pub key_factors: Vec<f32>,
}

/// RMSNorm over each head's R + Dn dimensions, the rotated ones first: queries become `q * (1 / rms) * gain`, and of keys
/// only the factor `1 / rms` is returned, by which [`rope_append`](super::rope_append) multiplies the rotated part and
/// [`decode`](super::decode) the scores of the rest. With `rms = sqrt(sum / (R + Dn) + epsilon)`.
///
/// Specified to the bit as [`rms_norm`](super::rms_norm): f32, the order of a warp of 32 lanes.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if a slice does not fit the geometry or the others,
/// [`Error::Config`](crate::Error::Config) if the geometry has no normalised keys or the epsilon is not a number to add.
pub fn head_norm(geometry: &Geometry, inputs: &HeadNormInputs) -> Result<HeadNormed> {
    let g = geometry.validate()?;
    g.check_key_norm(true)?;
    check_epsilon("head norm", inputs.epsilon)?;
    let (rope, nope) = (("rope", g.rope_dim), ("nope", g.nope_dim));
    let parts = [inputs.k_rope.len() / g.rope_width().max(1), inputs.k_nope.len() / (g.kv_heads * g.nope_dim).max(1)];
    let tokens = ("tokens", parts[0].max(parts[1]));
    let kv_heads = ("kv heads", g.kv_heads);
    check_len("k_rope", inputs.k_rope.len(), &[tokens, kv_heads, rope])?;
    check_len("k_nope", inputs.k_nope.len(), &[tokens, kv_heads, nope])?;

    let mut head = vec![0.0; g.rope_dim + g.nope_dim];
    let mut inverse_rms = |rope: &[f32], nope: &[f32], i: usize| {
        let (first, rest) = head.split_at_mut(g.rope_dim);
        first.copy_from_slice(&rope[i * g.rope_dim..][..g.rope_dim]);
        rest.copy_from_slice(&nope[i * g.nope_dim..][..g.nope_dim]);
        warp::inverse_rms(&head, inputs.epsilon)
    };
    let keys = 0..tokens.1 * g.kv_heads;
    let mut normed = HeadNormed {
        q_rope: Vec::new(),
        q_nope: Vec::new(),
        key_factors: keys.map(|key| inverse_rms(inputs.k_rope, inputs.k_nope, key)).collect(),
    };
    let Some(queries) = inputs.queries else { return Ok(normed) };
    let query_heads = ("query heads", g.query_heads);
    check_len("q_rope", queries.q_rope.len(), &[tokens, query_heads, rope])?;
    check_len("q_nope", queries.q_nope.len(), &[tokens, query_heads, nope])?;
    check_len("gain of queries", queries.gain.len(), &[kv_heads, ("rope + nope", g.rope_dim + g.nope_dim)])?;
    for query in 0..tokens.1 * g.query_heads {
        let inverse = inverse_rms(queries.q_rope, queries.q_nope, query);
        let gain = &queries.gain[g.kv_head_of(query % g.query_heads) * (g.rope_dim + g.nope_dim)..];
        let (rope_gain, nope_gain) = gain.split_at(g.rope_dim);
        let scaled = |values: &[f32], gain: &[f32]| -> Vec<f32> {
            values.iter().zip(gain).map(|(value, gain)| value * inverse * gain).collect()
        };
        normed.q_rope.extend(scaled(&queries.q_rope[query * g.rope_dim..][..g.rope_dim], rope_gain));
        normed.q_nope.extend(scaled(&queries.q_nope[query * g.nope_dim..][..g.nope_dim], nope_gain));
    }
    Ok(normed)
}
