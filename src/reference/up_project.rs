//! `up_project`: keys and values of cached tokens, for prefill.

use super::vector::{dot, map_rows, widen};
use crate::cache::{PagedCache, Sequences};
use crate::error::{Result, check_len};
use crate::geometry::Geometry;

/// Keys and values of all tokens of a batch, sequence after sequence (S tokens in all).
#[derive(Clone, Debug, PartialEq)]
pub struct Projected {
    /// `[S, G, Dn + R]`: the unrotated part, then the rotated key of the head's rope head.
    pub keys: Vec<f64>,
    /// `[S, G, Dv]`.
    pub values: Vec<f64>,
}

/// `k_nope[g] = f[g] W_UK[g] c`, `v[g] = W_UV[g] c + bias[g]` for every cached token of every sequence, with the cached
/// [factors](crate::cache::CacheLayout::key_factors) f of normalised keys, 1 where there are none. (Their gain is in the
/// queries: [`HeadNorms::query`](crate::weights::HeadNorms::query).)
///
/// `up_key` is `[G, Dn, L]`, `up_value` `[G, Dv, L]`, `value_bias` `[G, Dv]`.
///
/// # Errors
/// As [`decode`](super::decode).
pub fn up_project(
    geometry: &Geometry,
    up_key: &[f32],
    up_value: &[f32],
    value_bias: Option<&[f32]>,
    sequences: &Sequences,
    cache: &PagedCache,
) -> Result<Projected> {
    let g = geometry.validate()?;
    cache.layout().check(&g)?;
    let kv_heads = ("kv heads", g.kv_heads);
    check_len("key up-projection", up_key.len(), &[kv_heads, ("nope", g.nope_dim), ("latent", g.latent_rank)])?;
    check_len("value up-projection", up_value.len(), &[kv_heads, ("value", g.value_dim), ("latent", g.latent_rank)])?;
    if let Some(bias) = value_bias {
        check_len("value bias", bias.len(), &[kv_heads, ("value", g.value_dim)])?;
    }
    let (up_key, up_value) = (widen(up_key), widen(up_value));
    let project =
        |weights: &[f64], row: usize, latent: &[f64]| dot(&weights[row * g.latent_rank..][..g.latent_rank], latent);

    let slots: Vec<usize> = sequences.resolve(cache)?.into_iter().flat_map(|sequence| sequence.slots).collect();
    let tokens = map_rows(slots.len(), |token| -> Result<(Vec<f64>, Vec<f64>)> {
        let (latent, rope) = (cache.latent(slots[token])?, cache.rope(slots[token])?);
        let factors = cache.factors(slots[token])?;
        let mut keys = Vec::with_capacity(g.kv_heads * (g.nope_dim + g.rope_dim));
        for head in 0..g.kv_heads {
            let rope_head = head / (g.kv_heads / g.rope_heads);
            let factor = factors.get(head).map_or(1.0, |&factor| factor);
            keys.extend((0..g.nope_dim).map(|i| factor * project(&up_key, head * g.nope_dim + i, &latent)));
            keys.extend_from_slice(&rope[rope_head * g.rope_dim..][..g.rope_dim]);
        }
        let value = |row| project(&up_value, row, &latent) + value_bias.map_or(0.0, |bias| f64::from(bias[row]));
        Ok((keys, (0..g.kv_heads * g.value_dim).map(value).collect()))
    });
    let mut projected = Projected { keys: Vec::new(), values: Vec::new() };
    for token in tokens {
        let (keys, values) = token?;
        projected.keys.extend(keys);
        projected.values.extend(values);
    }
    Ok(projected)
}
