//! A geometry as a dump's metadata holds it: size by size, whether or not they fit together.

use latent_attention::Geometry;
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
    // Dumps of earlier versions say nothing of it.
    #[serde(default)]
    key_norm: bool,
}

pub(crate) fn serialize<S: Serializer>(geometry: &Geometry, serializer: S) -> Result<S::Ok, S::Error> {
    let &Geometry { query_heads, kv_heads, latent_rank, rope_heads, rope_dim, nope_dim, value_dim, key_norm, .. } =
        geometry;
    Sizes { query_heads, kv_heads, latent_rank, rope_heads, rope_dim, nope_dim, value_dim, key_norm }
        .serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Geometry, D::Error> {
    let Sizes { query_heads, kv_heads, latent_rank, rope_heads, rope_dim, nope_dim, value_dim, key_norm } =
        Sizes::deserialize(deserializer)?;
    let sizes = Geometry::unchecked(query_heads, kv_heads, latent_rank, rope_heads, rope_dim, nope_dim, value_dim);
    Ok(sizes.with_key_norm(key_norm))
}
