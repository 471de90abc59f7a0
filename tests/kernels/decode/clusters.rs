//! `decode` of long latents by clusters of blocks, on Hopper: as the other kernels serve it, and what only clusters have.

use latent_attention::cache::{CacheFormat, Group, RopeFormat};
use latent_attention::ops::{Decode, KernelFamily, SplitPolicy};
use rand::RngExt;

use super::{Step, geometry, hopper_like};
use crate::common::{Batch, random, rng};
use crate::device;

/// The step by Hopper's own kernels, if they are a cluster's, of as many blocks as there are runs of 512 latents.
#[track_caller]
fn check(step: Step) {
    let Some(hopper) = hopper_like(&device()) else { return };
    let step = Step { kernels: KernelFamily::Sm90, ..step };
    let tiles = Decode::new(&hopper, step.config()).unwrap().tiles();
    assert_eq!((tiles.file, tiles.cluster), ("decode_cluster_sm90", step.geometry.latent_rank.div_ceil(512)));
    step.check_one(&hopper);
}

#[test]
fn every_cluster_head_count_and_rope_format() {
    let ropes = [
        RopeFormat::Int4 { group: Group::G32 },
        RopeFormat::Int8,
        RopeFormat::Bf16,
        RopeFormat::Int4 { group: Group::G128 },
        RopeFormat::Int4 { group: Group::Whole },
    ];
    for (i, (heads, rope_heads, rank, dims)) in [
        (32, 32, 1024, 16),
        (9, 3, 1536, 24),
        (40, 8, 2048, 16),
        (32, 32, 2048, 16),
        (7, 7, 2560, 80),
        (16, 1, 1030, 64),
        (24, 1, 2041, 0),
        (8, 8, 600, 4),
    ]
    .into_iter()
    .enumerate()
    {
        for (j, rope) in ropes.into_iter().enumerate() {
            let rng = &mut rng(2000 + (10 * i + j) as u64);
            let batch = Batch::new(rng, &[150], &[1], [8, 16, 32, 64][j % 4]);
            let format = CacheFormat::INT4.with_rope(rope);
            check(Step::random(rng, geometry(heads, rope_heads, rank, dims), format, batch));
        }
    }
}

/// Tiles behind each other, so that all rings of barriers go round, in splits that begin and end anywhere, with query
/// tokens that see less than others.
#[test]
fn every_length() {
    for (i, (heads, rank)) in [(32, 1024), (8, 1536), (12, 2048), (4, 2560)].into_iter().enumerate() {
        let lens = [1, 8, 15, 64, 65, 0, 127, 129, 577, 1100];
        let queries = [1, 1, 2, 1, 3, 1, 1, 2, 1, 1];
        for tokens in [5000, 70] {
            let rng = &mut rng(2100 + i as u64);
            let batch = Batch::new(rng, &lens, &queries, [8, 16, 32, 64][i]);
            let mut step = Step::random(rng, geometry(heads, 2, rank, 16), CacheFormat::INT4, batch);
            step.policy = SplitPolicy::Fixed { tokens };
            step.rows += 1;
            step.gaps = [[0, 0], [8, 0], [3, 1], [0, 2]][i];
            check(step);
        }
    }
}

/// References that tokens ask for anew all the time: scores and scales that grow or shrink from tile to tile, of each run
/// differently.
#[test]
fn weights_beyond_f16() {
    for (i, rank) in [1024, 2048, 2560].into_iter().enumerate() {
        let rng = &mut rng(2200 + i as u64);
        let batch = Batch::new(rng, &[800, 800], &[1, 1], 32);
        let mut step = Step::random(rng, geometry(9, 3, rank, 8), CacheFormat::INT4, batch);
        for b in 0..2 {
            for t in 0..800 {
                // Up to 2^6 in the end, or in the beginning; latents of all runs but one are small.
                let place = if b == 0 { t } else { 799 - t };
                let size = 2f32.powf(place as f32 / 120.0 + rng.random_range(-0.5..0.5));
                let mut latent: Vec<f32> = random(rng, rank).iter().map(|x| size * x / 64.0).collect();
                latent[512..600].iter_mut().for_each(|x| *x *= 64.0);
                let rope = random(rng, 24);
                step.cache.write(step.batch.slot(b, t), &latent, &rope).unwrap();
            }
        }
        step.size = 128.0;
        check(step);
    }
}

#[test]
fn repeated_runs_agree_to_the_bit() {
    let Some(hopper) = hopper_like(&device()) else { return };
    let rng = &mut rng(2300);
    let batch = Batch::new(rng, &[450, 20], &[1, 2], 16);
    let step = Step::random(rng, geometry(9, 3, 2048, 8), CacheFormat::INT4, batch);
    let step = Step { kernels: KernelFamily::Sm90, ..step };
    let first = step.run(&hopper);
    assert!((0..3).all(|_| step.run(&hopper) == first));
}
