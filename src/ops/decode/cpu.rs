//! The one way to serve a layer on the CPU.

use super::candidate::Candidate;
use crate::geometry::Geometry;
use crate::sys;

/// The operation's name, in place of a kernel's and of its file's.
const NAME: &str = "decode";

/// Products, of a number of a latent or of a rotated key and one of a query or a weight, for each nanosecond of an H200's
/// merging, by which `splits` costs partials: a core makes about 80 products in a nanosecond and merges 10 bytes.
const PRODUCTS_PER_NS: usize = 20_000;

/// All heads of a split are one task's. Nothing is shared between threads, so that `combine` merges.
pub(super) fn candidate(geometry: &Geometry) -> Candidate {
    let tile_tokens = crate::cpu::DECODE_TOKENS;
    let products = tile_tokens * geometry.query_heads * (2 * geometry.latent_rank + geometry.rope_dim);
    let tile_ns = u32::try_from(products / PRODUCTS_PER_NS).unwrap_or(u32::MAX).max(1);
    Candidate {
        file: NAME,
        kernel: NAME,
        threads: 1,
        cluster: 1,
        heads: geometry.query_heads,
        tile_tokens,
        latent_steps: 0,
        rope_steps: 0,
        rope_span: 0,
        shared: sys::DecodeShared::default(),
        sm90: sys::DecodeSm90Shared::default(),
        shared_bytes: 0,
        blocks_per_multiprocessor: 1,
        tile_ns,
        block_ns: tile_ns,
        cost: 0,
    }
}
