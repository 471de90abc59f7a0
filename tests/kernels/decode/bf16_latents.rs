//! Latents of bf16 by Hopper's own kernels, whose products read the tile as it lies in shared memory.

use latent_attention::cache::{CacheFormat, Group, RopeFormat};
use latent_attention::ops::{Decode, KernelFamily, SplitPolicy};

use super::{Step, geometry, hopper_like};
use crate::common::{Batch, rng};
use crate::device;

/// Checks the step by the kernel that it is served with.
#[track_caller]
fn check(step: Step, kernel: &str) {
    let Some(hopper) = hopper_like(&device()) else { return };
    let step = Step { kernels: KernelFamily::Sm90, ..step };
    assert_eq!(Decode::new(&hopper, step.config()).unwrap().tiles().kernel, kernel);
    step.check_one(&hopper);
}

/// Every kernel; rotated keys of bf16 that fill their blocks, where weights lie over them, that do not, and none; of one
/// rope head and of several; codes, whose mins are a product of their own; in as many tiles as end in every way.
#[test]
fn every_kernel_and_every_rotated_key() {
    let int4 = RopeFormat::Int4 { group: Group::G32 };
    for (i, (heads, rope_heads, rank, rope_dim, rope, kernel)) in [
        (128, 1, 512, 64, RopeFormat::Bf16, "decode_sm90_bf16_8x8"),
        (70, 1, 500, 0, RopeFormat::Bf16, "decode_sm90_bf16_8x8"),
        (32, 8, 512, 16, RopeFormat::Bf16, "decode_sm90_bf16_8x4"),
        (32, 8, 512, 16, int4, "decode_sm90_bf16_8x4"),
        (28, 4, 300, 24, RopeFormat::Bf16, "decode_sm90_bf16_8x4"),
        (16, 1, 512, 64, RopeFormat::Bf16, "decode_sm90_bf16_8x2"),
        (15, 5, 511, 32, RopeFormat::Int8, "decode_sm90_bf16_8x2"),
        (64, 1, 200, 64, int4, "decode_sm90_bf16_4x8"),
        (40, 1, 256, 32, RopeFormat::Bf16, "decode_sm90_bf16_4x8"),
        (32, 8, 256, 16, RopeFormat::Bf16, "decode_sm90_bf16_4x4"),
        (32, 32, 256, 16, RopeFormat::Bf16, "decode_sm90_bf16_4x2"),
        (9, 3, 96, 8, RopeFormat::Bf16, "decode_sm90_bf16_4x2"),
    ]
    .into_iter()
    .enumerate()
    {
        let rng = &mut rng(1000 + i as u64);
        let batch = Batch::new(rng, &[200, 64, 129, 1, 0, 70], &[1; 6], [8, 16, 32, 64][i % 4]);
        let format = CacheFormat::BF16.with_rope(rope);
        let mut step = Step::random(rng, geometry(heads, rope_heads, rank, rope_dim), format, batch);
        step.policy = [SplitPolicy::Balanced, SplitPolicy::Fixed { tokens: 100 }][i % 2];
        check(step, kernel);
    }
}
