//! The one way to serve a layer on the CPU.

use super::candidate::Candidate;
use crate::geometry::Geometry;
use crate::splits::SplitCosts;
use crate::sys;

/// The operation's name, in place of a kernel's and of its file's.
const NAME: &str = "decode";

/// All heads of a split are one task's. Nothing is shared between threads, so that `combine` merges.
pub(super) fn candidate(geometry: &Geometry) -> Candidate {
    let tile_tokens = crate::cpu::DECODE_TOKENS;
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
        tile_ns: 1,
        block_ns: 0,
        cost: 0,
    }
}

/// What splits cost. How many threads there are is not known, and must not decide: a partial counts as the work that it is,
/// which is that of about so many tiles, also where other threads would do it meanwhile.
pub(super) fn split_costs() -> SplitCosts {
    const TILES_OF_PARTIAL: f64 = 1.0;
    SplitCosts::new(1.0, [0.0, 0.0, TILES_OF_PARTIAL, 0.0])
}
