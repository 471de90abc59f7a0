//! `absorb`: the up-projections, moved from every cached token to the query and the output.

use super::vector::{add_scaled, dot, map_rows, widen};
use crate::error::{Result, check_len};
use crate::geometry::Geometry;

/// `q_latent[t, h] = W_UK[g]^T q_nope[t, h]`, with `g` the KV head of `h`.
///
/// `up_key` is `[G, Dn, L]`, `q_nope` is `[T, H, Dn]`, the result `[T, H, L]`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if a slice does not fit the geometry.
pub fn absorb_query(geometry: &Geometry, up_key: &[f32], q_nope: &[f64], tokens: usize) -> Result<Vec<f64>> {
    let g = geometry.validate()?;
    check_len(
        "key up-projection",
        up_key.len(),
        &[("kv heads", g.kv_heads), ("nope", g.nope_dim), ("latent", g.latent_rank)],
    )?;
    check_len("q_nope", q_nope.len(), &[("tokens", tokens), ("query heads", g.query_heads), ("nope", g.nope_dim)])?;
    let up_key = widen(up_key);
    let rows = map_rows(tokens * g.query_heads, |row| {
        let first = g.kv_head_of(row % g.query_heads) * g.nope_dim;
        let mut q_latent = vec![0.0; g.latent_rank];
        for i in 0..g.nope_dim {
            let weights = &up_key[(first + i) * g.latent_rank..][..g.latent_rank];
            add_scaled(&mut q_latent, q_nope[row * g.nope_dim + i], weights);
        }
        q_latent
    });
    Ok(rows.concat())
}

/// `out[t, h] = W_UV[g] o_latent[t, h] + bias[g]`, with `g` the KV head of `h`.
///
/// `up_value` is `[G, Dv, L]`, `value_bias` `[G, Dv]`, `o_latent` `[T, H, L]`, the result `[T, H, Dv]`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if a slice does not fit the geometry.
pub fn expand_output(
    geometry: &Geometry,
    up_value: &[f32],
    value_bias: Option<&[f32]>,
    o_latent: &[f64],
    tokens: usize,
) -> Result<Vec<f64>> {
    let g = geometry.validate()?;
    check_len(
        "value up-projection",
        up_value.len(),
        &[("kv heads", g.kv_heads), ("value", g.value_dim), ("latent", g.latent_rank)],
    )?;
    check_len(
        "o_latent",
        o_latent.len(),
        &[("tokens", tokens), ("query heads", g.query_heads), ("latent", g.latent_rank)],
    )?;
    if let Some(bias) = value_bias {
        check_len("value bias", bias.len(), &[("kv heads", g.kv_heads), ("value", g.value_dim)])?;
    }
    let up_value = widen(up_value);
    let rows = map_rows(tokens * g.query_heads, |row| {
        let first = g.kv_head_of(row % g.query_heads) * g.value_dim;
        let o_latent = &o_latent[row * g.latent_rank..][..g.latent_rank];
        let value = |i: usize| {
            let weights = &up_value[(first + i) * g.latent_rank..][..g.latent_rank];
            dot(weights, o_latent) + value_bias.map_or(0.0, |bias| f64::from(bias[first + i]))
        };
        (0..g.value_dim).map(value).collect::<Vec<_>>()
    });
    Ok(rows.concat())
}
