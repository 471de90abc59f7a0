//! Keys that are normalised head by head, whose factors are in the cache.

use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, Group, RopeFormat};
use latent_attention::ops::{Decode, KernelFamily};

use super::{Step, geometry};
use crate::common::{Batch, rng};
use crate::{device, hopper};

/// Each token and KV head has a factor of its own: by every kernel that is served, with heads that fill n-tiles and that do
/// not, of one head for each KV head and of several, and with nothing else in a row of pairs.
#[test]
fn normalised_keys() {
    let device = device();
    let formats = [
        CacheFormat::INT4,
        CacheFormat::int4(Group::G64),
        CacheFormat::BF16,
        CacheFormat::INT4.with_rope(RopeFormat::Bf16),
        CacheFormat::BF16.with_rope(RopeFormat::Int8),
    ];
    for (i, (heads, kv_heads, rank, rope)) in
        [(9, 3, 96, 8), (32, 8, 512, 16), (16, 8, 640, 32), (40, 8, 512, 16), (20, 20, 1280, 8), (6, 2, 64, 0)]
            .into_iter()
            .enumerate()
    {
        for format in formats {
            let rng = &mut rng(60 + i as u64);
            let batch = Batch::new(rng, &[70, 17], &[1, 2], [8, 16, 32, 64][i % 4]);
            let geometry = geometry(heads, kv_heads, rank, rope).with_key_norm(true);
            let step = Step::random(rng, geometry, format, batch);
            step.check(&device);
            if i == 0 {
                step.by_every_variant(&device).for_each(|way| way.check_one(&device));
            }
        }
    }
}

#[test]
fn hoppers_kernels_refuse_normalised_keys() {
    let geometry: Geometry = geometry(8, 4, 64, 8).with_key_norm(true);
    let rng = &mut rng(3);
    let batch = Batch::new(rng, &[17], &[1], 8);
    let step = Step { kernels: KernelFamily::Sm90, ..Step::random(rng, geometry, CacheFormat::INT4, batch) };
    let message = Decode::new(&hopper(), step.config()).unwrap_err().to_string();
    assert!(message.contains("normalised head by head are the portable kernel's"), "{message}");
}
