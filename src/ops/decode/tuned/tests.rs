use super::super::{sm80, sm90};
use super::*;
use crate::cache::{CacheFormat, Group};
use crate::device::Limits;
use crate::image::Arch;
use crate::ops::decode::tuned;

#[path = "fixture.rs"]
mod fixture;

/// An H100's and H200's shared memory.
const LIMITS: Limits =
    Limits { shared_bytes: 227 * 1024, shared_bytes_per_multiprocessor: 228 * 1024, multiprocessors: 132 };

fn layer(heads: usize, rope: (usize, usize), rank: usize, format: CacheFormat) -> (Geometry, CacheLayout) {
    let mut geometry = Geometry::mha2mla(heads, rope.0, rope.1 + 8, rope.1, 1).unwrap();
    geometry.latent_rank = rank;
    let layout = CacheLayout::new(&geometry, format, 64).unwrap();
    (geometry, layout)
}

fn offered((geometry, layout): &(Geometry, CacheLayout)) -> Vec<Candidate> {
    let both = [sm80::candidates, sm90::candidates].map(|of| of(geometry, layout, &LIMITS, Arch::Sm90a));
    both.into_iter().flatten().flatten().collect()
}

/// What `of` is first served with, by choices that name `kernels`, each for its layer.
fn first(of: &(Geometry, CacheLayout), choices: &[Choice]) -> Option<Candidate> {
    nearest(&choices.iter().collect::<Vec<_>>(), &of.0, &of.1, &offered(of)).first().copied()
}

/// A choice of the last of the candidates of a kernel.
fn choice(of: &(Geometry, CacheLayout), kernel: &str) -> Choice {
    let found = offered(of).into_iter().rfind(|candidate| candidate.kernel == kernel).unwrap();
    Choice {
        capability: (9, 0),
        layer: Layer::of(&of.0, &of.1),
        kernel: found.kernel,
        tile_tokens: found.tile_tokens,
        stages: found.shared.stage_count as usize,
        blocks: found.blocks_per_multiprocessor,
        tile_ns: 111,
        block_ns: 222,
    }
}

#[test]
fn a_layer_that_was_timed_gets_what_was_fastest_there_with_its_times() {
    let llama = layer(32, (8, 16), 512, CacheFormat::INT4);
    for kernel in ["decode_sm90_whole_8x4", "decode_whole_1x2_64", "decode_whole_1x4_32"] {
        let wanted = choice(&llama, kernel);
        let got = first(&llama, &[wanted]).unwrap();
        assert_eq!(got.kernel, kernel);
        assert_eq!((got.tile_tokens, got.shared.stage_count as usize), (wanted.tile_tokens, wanted.stages));
        assert_eq!((got.blocks_per_multiprocessor, got.tile_ns, got.block_ns), (wanted.blocks, 111, 222));
    }
}

#[test]
fn the_most_alike_of_the_timed_layers_decides() {
    let (llama, lite) = (layer(32, (8, 16), 512, CacheFormat::INT4), layer(16, (1, 64), 512, CacheFormat::INT4));
    let choices = [choice(&llama, "decode_whole_1x4_32"), choice(&lite, "decode_whole_1x2_64")];
    let of = |heads, rank| first(&layer(heads, (1, 64), rank, CacheFormat::INT4), &choices).map(|found| found.kernel);
    assert_eq!(of(16, 512), Some("decode_whole_1x2_64"));
    assert_eq!(of(18, 500), Some("decode_whole_1x2_64"));
    assert_eq!(of(28, 512), Some("decode_whole_1x4_32"));
    // Too far from both.
    assert_eq!(of(128, 512), None);
    assert_eq!(of(16, 128), None);
}

#[test]
fn other_latents_are_not_alike() {
    let choices = [choice(&layer(32, (8, 16), 512, CacheFormat::INT4), "decode_whole_1x4_32")];
    for format in [CacheFormat::BF16, CacheFormat::int4(Group::G64)] {
        assert_eq!(first(&layer(32, (8, 16), 512, format), &choices).map(|found| found.kernel), None);
    }
}

/// What refuses a layer is passed over, and the next one asked.
#[test]
fn what_does_not_serve_a_layer_is_never_chosen() {
    // The kernel takes up to 512 latents.
    let (near, far) = (layer(32, (32, 16), 512, CacheFormat::INT4), layer(32, (32, 16), 1024, CacheFormat::INT4));
    let hopper = choice(&near, "decode_sm90_whole_8x4");
    let wide = layer(32, (32, 16), 700, CacheFormat::INT4);
    assert!(offered(&wide).iter().all(|candidate| candidate.file != sm90::FILE));
    assert_eq!(first(&wide, &[hopper]).map(|found| found.kernel), None);
    let portable = choice(&far, "decode_whole_2x4_64");
    assert_eq!(first(&wide, &[hopper, portable]).map(|found| found.kernel), Some("decode_whole_2x4_64"));
    // Whatever layers were timed and whatever is asked for, what comes out is among what is offered.
    let sizes = [1, 9, 16, 40, 128].into_iter().flat_map(|heads| [96, 512, 513, 2560].map(|rank| (heads, rank)));
    for of in sizes.map(|(heads, rank)| layer(heads, (1, 64), rank, CacheFormat::INT4)) {
        let all = offered(&of);
        for found in nearest(&[&hopper, &portable], &of.0, &of.1, &all) {
            assert!(all.iter().any(|candidate| candidate.is(&found.variant())), "{found:?}");
        }
    }
}

/// A layer with less room keeps its kernel, with the stages that it has room for.
#[test]
fn stages_follow_the_room() {
    let (narrow, wide) = (layer(32, (8, 16), 512, CacheFormat::INT4), layer(32, (32, 16), 512, CacheFormat::INT4));
    let most = |of: &(Geometry, CacheLayout)| {
        let stages = offered(of).into_iter().filter(|found| found.kernel == "decode_sm90_whole_8x4");
        stages.map(|found| found.shared.stage_count).max().unwrap()
    };
    assert!(most(&wide) < most(&narrow));
    let mut wanted = choice(&narrow, "decode_sm90_whole_8x4");
    wanted.stages = most(&narrow) as usize;
    wanted.layer = Layer::of(&wide.0, &wide.1);
    assert_eq!(first(&wide, &[wanted]).unwrap().shared.stage_count, most(&wide));
}

/// What `cargo xtask choices` makes of times that nobody measured (`tests/benchmarks/data/tune.json`) is a table by which
/// layers get what was fastest.
#[test]
fn choices_follow_the_times() {
    let served = |heads, rope, rank, format| {
        first(&layer(heads, rope, rank, format), &fixture::CHOICES).map(|found| (found.kernel, found.block_ns))
    };
    assert_eq!(served(32, (8, 16), 512, CacheFormat::INT4), Some(("decode_sm90_whole_8x4", 16000)));
    assert_eq!(served(16, (1, 64), 512, CacheFormat::INT4), Some(("decode_whole_1x2_64", 8000)));
    assert_eq!(served(32, (8, 16), 512, CacheFormat::BF16), Some(("decode_bf16_1x2_64", 8000)));
    // Like one of them, and like none.
    assert_eq!(served(28, (4, 16), 448, CacheFormat::INT4), Some(("decode_sm90_whole_8x4", 16000)));
    assert_eq!(served(32, (8, 16), 512, CacheFormat::int4(Group::G64)), None);
}

/// A table without rows, or with rows of other machine code alone, leaves every choice to predicted costs.
#[test]
fn without_times_nothing_is_named() {
    let llama = layer(32, (8, 16), 512, CacheFormat::INT4);
    assert!(first(&llama, &[]).is_none());
}
