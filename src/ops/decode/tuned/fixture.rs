// Made by `cargo xtask choices` of benches/results/*/tune.json: do not edit.
// NVIDIA H200, driver 580.0, commit f1c71711, 2026-01-01T00:00:00Z.
//! What was fastest on the layers that were timed.

use super::tuned::{Choice, Latents, Layer};

#[rustfmt::skip]
pub(super) const CHOICES: [Choice; 3] = [
    // llama3-8b-d64, int4: 0.59 of the time before; 16x16384 59.0 us, 1x8192 12.0 us
    Choice {
        capability: (9, 0),
        layer: Layer { latents: Latents::Whole, query_heads: 32, latent_rank: 512, rope_bytes: 64 },
        kernel: "decode_sm90_whole_8x4",
        tile_tokens: 64,
        stages: 6,
        blocks: 1,
        tile_ns: 1200,
        block_ns: 16000,
    },
    // deepseek-v2-lite, int4: as it was; 16x16384 72.0 us, 1x8192 15.0 us
    Choice {
        capability: (9, 0),
        layer: Layer { latents: Latents::Whole, query_heads: 16, latent_rank: 512, rope_bytes: 32 },
        kernel: "decode_whole_1x2_64",
        tile_tokens: 64,
        stages: 2,
        blocks: 2,
        tile_ns: 4500,
        block_ns: 8000,
    },
    // llama3-8b-d64, bf16: 0.94 of the time before; 16x16384 190.0 us, 1x8192 28.0 us
    Choice {
        capability: (9, 0),
        layer: Layer { latents: Latents::Bf16, query_heads: 32, latent_rank: 512, rope_bytes: 256 },
        kernel: "decode_bf16_1x2_64",
        tile_tokens: 64,
        stages: 2,
        blocks: 1,
        tile_ns: 4500,
        block_ns: 8000,
    },
];
