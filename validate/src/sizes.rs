//! A geometry as a dump's metadata holds it: size by size, whether or not they fit together.

use latent_attention::Geometry;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
struct Sizes {
    query_heads: usize,
    kv_heads: usize,
    latent_rank: usize,
    rope_heads: usize,
    rope_dim: usize,
    nope_dim: usize,
    value_dim: usize,
}

pub(crate) fn serialize<S: Serializer>(geometry: &Geometry, serializer: S) -> Result<S::Ok, S::Error> {
    let &Geometry { query_heads, kv_heads, latent_rank, rope_heads, rope_dim, nope_dim, value_dim, .. } = geometry;
    Sizes { query_heads, kv_heads, latent_rank, rope_heads, rope_dim, nope_dim, value_dim }.serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Geometry, D::Error> {
    let sizes = Sizes::deserialize(deserializer)?;
    // The library makes geometries that fit together only; any will do, as every size is replaced.
    let mut geometry = Geometry::deepseek(1, 1, 0, 1, 1).map_err(Error::custom)?;
    geometry.query_heads = sizes.query_heads;
    geometry.kv_heads = sizes.kv_heads;
    geometry.latent_rank = sizes.latent_rank;
    geometry.rope_heads = sizes.rope_heads;
    geometry.rope_dim = sizes.rope_dim;
    geometry.nope_dim = sizes.nope_dim;
    geometry.value_dim = sizes.value_dim;
    Ok(geometry)
}
