//! Partials that the blocks of `decode` merge have the bits that `combine` makes of them.

use latent_attention::cache::{CacheFormat, Group};
use latent_attention::device::{Device, Simulation};
use latent_attention::ops::{KernelFamily, Merging, SplitPolicy};
use proptest::prelude::*;

use super::{Step, geometry, hopper_like};
use crate::common::{self, Batch, formats, ragged, rng};
use crate::{PTX, device, is_simulated, simulate};

impl Step {
    /// Compares both ways, of every family of kernels: results, and launches of `combine`, of which the second way has some
    /// if anything can be split.
    #[track_caller]
    fn check_merging(&self, device: &Device, can_split: bool) {
        for (step, device) in self.clone().by_every_family(device) {
            let [fused, separate] = [Merging::Fused, Merging::Separate].map(|merging| {
                let step = Self { merging, ..step.clone() };
                let results = step.run(&device);
                let merged = device.take_counts().contains_key("combine");
                (results, merged)
            });
            assert!(fused.0.0 == separate.0.0, "latents differ; {:?} {:?}", step.kernels, step.geometry);
            let bits = |lse: &[f32]| lse.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&fused.0.1), bits(&separate.0.1), "{:?} {:?}", step.kernels, step.geometry);
            if is_simulated(&device) {
                assert_eq!([fused.1, separate.1], [false, can_split]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn bits_do_not_depend_on_who_merges(
        seed: u64,
        geometry in common::geometry(),
        format in proptest::sample::select(formats()),
        page_size in common::page_size(),
        (lens, queries) in ragged(),
        split in 1usize..=40,
        spare in 0usize..=2,
        arch in 0usize..2,
    ) {
        let rng = &mut rng(seed);
        let batch = Batch::new(rng, &lens, &queries, page_size);
        let most = batch.seq_lens.iter().max().copied().unwrap_or(0).max(1) as usize;
        let mut step = Step::random(rng, geometry, format, batch);
        step.policy = SplitPolicy::Fixed { tokens: split };
        step.rows += spare;
        step.check_merging(&simulate(Simulation::default().with_arch(PTX[arch])), split < most && step.rows > 0);
    }
}

/// Of few partials a warp merges a chunk, of more the block; of rows whose latents are vectors, and others; in one tile of
/// heads, and several, of which the last is not full.
#[test]
fn every_number_of_partials() {
    for (heads, rank, lens) in [(5, 132, &[2, 16, 17, 65][..]), (3, 7, &[16, 17]), (36, 40, &[16, 17]), (70, 512, &[3])]
    {
        for &tokens in lens {
            let rng = &mut rng(tokens as u64);
            let batch = Batch::new(rng, &[tokens, 1, 0, tokens / 2], &[1, 1, 1, 2], 16);
            let mut step = Step::random(rng, geometry(heads, 1, rank, 8), CacheFormat::INT4, batch);
            step.policy = SplitPolicy::Fixed { tokens: 1 };
            step.check_merging(&device(), true);
        }
    }
}

/// More partials than a Hopper block has room to merge in front of its state: their weights would take the place of its
/// barriers, so `combine` merges them.
#[test]
fn partials_beyond_what_is_in_front_of_the_state() {
    let Some(hopper) = hopper_like(&device()) else { return };
    let rng = &mut rng(30);
    let batch = Batch::new(rng, &[1500], &[1], 64);
    let mut step = Step::random(rng, geometry(8, 1, 64, 8), CacheFormat::INT4, batch);
    step.policy = SplitPolicy::Fixed { tokens: 1 };
    step.kernels = KernelFamily::Sm90;
    step.check_one(&hopper);
    if is_simulated(&hopper) {
        assert!(hopper.take_counts().contains_key("combine"));
    }
}

/// On more multiprocessors than there are cores to simulate them, and on one: blocks that wait for each other, and blocks that
/// find others not begun.
#[test]
fn balanced_splits() {
    for multiprocessors in [1, 3, 132] {
        for format in [CacheFormat::INT4, CacheFormat::int4(Group::G64), CacheFormat::BF16] {
            let rng = &mut rng(20);
            let batch = Batch::new(rng, &[1500, 40], &[1, 1], 64);
            let step = Step::random(rng, geometry(8, 2, 128, 8), format, batch);
            let simulation = Simulation::default().with_multiprocessors(multiprocessors);
            step.check_merging(&simulate(simulation), true);
        }
    }
}
