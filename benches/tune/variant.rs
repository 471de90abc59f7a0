//! A way to serve a layer, as files have it.

use latent_attention::ops::DecodeVariant;
use serde::{Deserialize, Serialize};

use super::super::harness::shape::Shape;

/// The way, with what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    #[serde(flatten)]
    pub tiles: Tiles,
    /// What splits are chosen by: nanoseconds of a tile, and of a block beside its tiles.
    pub tile_ns: u32,
    pub block_ns: u32,
    /// Whether the build that measured it chooses it.
    pub chosen: bool,
    /// Of what it attended to, the norm of the difference to the chosen variant's result, over that result's.
    pub difference: f64,
    /// Microseconds that the cost model predicts, if it can.
    pub predicted_us: Option<f64>,
    pub layer: LayerSizes,
}

/// A kernel and how it takes tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiles {
    pub kernel: String,
    pub tile_tokens: usize,
    pub stages: usize,
    pub blocks_per_multiprocessor: usize,
}

/// What of a layer the choice goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSizes {
    pub query_heads: usize,
    pub latent_rank: usize,
    /// Bytes of a token's rotated keys in the cache.
    pub rope_bytes: usize,
}

impl Variant {
    /// Of a layer.
    ///
    /// # Errors
    /// As [`Shape::layout`].
    pub fn new(variant: &DecodeVariant, shape: &Shape, chosen: bool, difference: f64) -> anyhow::Result<Self> {
        let g = shape.geometry();
        let rope_bytes = shape.layout()?.rope_tile().row_bytes;
        Ok(Self {
            tiles: Tiles::of(variant),
            tile_ns: variant.tile_ns,
            block_ns: variant.block_ns,
            chosen,
            difference,
            predicted_us: None,
            layer: LayerSizes { query_heads: g.query_heads, latent_rank: g.latent_rank, rope_bytes },
        })
    }

    /// The name of the row of a shape that is served in this way.
    pub fn id(&self, shape: &str) -> String {
        let Tiles { kernel, tile_tokens, stages, blocks_per_multiprocessor } = &self.tiles;
        format!(
            "{shape}/{kernel}/{tile_tokens}x{stages}x{blocks_per_multiprocessor}/{}+{}",
            self.tile_ns, self.block_ns
        )
    }
}

impl Tiles {
    pub fn of(variant: &DecodeVariant) -> Self {
        Self {
            kernel: variant.kernel.into(),
            tile_tokens: variant.tile_tokens,
            stages: variant.stages,
            blocks_per_multiprocessor: variant.blocks_per_multiprocessor,
        }
    }
}
