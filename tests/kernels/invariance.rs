//! With `SplitPolicy::Fixed`, what a layer makes of a token has the same bits whatever else is in the batch.

use std::ops::Range;

use half::bf16;
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, PageTable, Sequences};
use latent_attention::device::{Device, Simulation};
use latent_attention::layer::{LatentAttentionLayer, LayerConfig};
use latent_attention::ops::{DeviceCache, KernelFamily, RotationBuffers, SplitPolicy};
use latent_attention::reference::ReferenceInputs;
use latent_attention::rope::RopeTables;
use latent_attention::weights::LatentAttention;
use proptest::prelude::*;
use rand::RngExt;

use crate::common::layers::{Sequence, weights};
use crate::common::{geometry, page_size, prefix_sums, rng};
use crate::decode::{as_hopper, hopper_like};
use crate::layer::step;
use crate::{device, simulate, with_key_norm};

/// A layer, and a cache in which every sequence has room of its own.
struct Served {
    device: Device,
    layer: LatentAttentionLayer,
    cache: DeviceCache,
    pages_each: usize,
}

/// A sequence by its number, and those of its tokens that a step brings.
type Part = (usize, Range<usize>);

impl Served {
    fn new(device: Device, weights: &LatentAttention, config: LayerConfig, sequences: usize) -> Self {
        let tables = RopeTables::from_theta(1e4, 10, config.max_tokens);
        let rotation = RotationBuffers::upload(&device, &tables, &weights.frequencies).unwrap();
        let layer = LatentAttentionLayer::new(&device, weights, &rotation, config).unwrap();
        let pages_each = config.max_tokens.div_ceil(config.layout.page_size());
        let cache = layer.new_cache(sequences * pages_each).unwrap();
        Self { device, layer, cache, pages_each }
    }

    /// One step; the outputs of each part.
    fn step(&mut self, sequences: &[Sequence], parts: &[Part]) -> Vec<Vec<bf16>> {
        let (g, page_size) = (*self.layer.geometry(), self.layer.config().layout.page_size());
        let (mut table, mut positions, mut slots) = (vec![], vec![], vec![]);
        let mut inputs: [Vec<f32>; 4] = Default::default();
        for (sequence, range) in parts {
            let rows = sequences[*sequence].rows(range.clone());
            for (all, own) in inputs.iter_mut().zip([rows.q_rope, rows.q_nope, rows.k_rope, rows.c_kv]) {
                all.extend_from_slice(own);
            }
            let first_page = sequence * self.pages_each;
            positions.extend(range.clone().map(|t| t as i32));
            slots.extend(range.clone().map(|t| (first_page * page_size + t) as i64));
            table.extend((first_page..first_page + self.pages_each).map(|page| page as i32));
        }
        let starts = prefix_sums(parts.iter().map(|(_, range)| range.len() as i32));
        let lens: Vec<i32> = parts.iter().map(|(_, range)| range.end as i32).collect();
        let pages = PageTable::Dense { table: &table, max_pages: self.pages_each };
        let batch = Sequences { query_starts: &starts, seq_lens: &lens, pages };
        let [q_rope, q_nope, k_rope, c_kv] = &inputs;
        let inputs = ReferenceInputs { q_rope, q_nope, k_rope, c_kv, positions: &positions, slots: &slots };
        let out = step(&self.device, &self.layer, &mut self.cache, &batch, &inputs);
        let width = g.query_heads * g.value_dim;
        let rows = starts.windows(2).map(|pair| pair[0] as usize * width..pair[1] as usize * width);
        rows.map(|range| out[range].to_vec()).collect()
    }

    /// The bytes of a sequence's pages.
    fn pages(&self, sequence: usize) -> Vec<u8> {
        let bytes = self.pages_each * self.layer.config().layout.page_bytes();
        self.cache.download().unwrap().bytes()[sequence * bytes..][..bytes].to_vec()
    }
}

/// Serves the sequences together, in the given steps, and the first one alone, in steps of `alone` tokens: outputs and
/// cached bytes of the first have to agree to the bit.
#[track_caller]
fn check(
    device: &Device,
    g: Geometry,
    config: LayerConfig,
    lens: &[usize],
    steps: &[Vec<Part>],
    alone: usize,
    seed: u64,
) {
    let weights = weights(&mut rng(seed), g);
    let sequence =
        |(i, &len): (usize, &usize)| Sequence::new(&mut rng(seed + 1 + i as u64), g, len, config.layout.page_size());
    let sequences: Vec<Sequence> = lens.iter().enumerate().map(sequence).collect();
    let mut together = Served::new(device.clone(), &weights, config, lens.len());
    let mut outputs = Vec::new();
    for parts in steps {
        let of_parts = together.step(&sequences, parts);
        outputs.extend(parts.iter().zip(of_parts).filter(|((s, _), _)| *s == 0).flat_map(|(_, out)| out));
    }
    let mut by_itself = Served::new(device.clone(), &weights, config, 1);
    let width = g.query_heads * g.value_dim;
    for first in (0..lens[0]).step_by(alone) {
        let range = first..lens[0].min(first + alone);
        let out = by_itself.step(&sequences, &[(0, range.clone())]).concat();
        let expected = &outputs[range.start * width..range.end * width];
        let differ = out.iter().zip(expected).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        assert_eq!(differ, 0, "of {} outputs of tokens {range:?}, alone in steps of {alone}", out.len());
    }
    assert!(by_itself.pages(0) == together.pages(0), "the cached bytes differ");
}

/// Steps in which every sequence brings its next few tokens, until all are served.
fn random_steps(lens: &[usize], most: usize, seed: u64) -> Vec<Vec<Part>> {
    let (mut rng, mut done, mut steps) = (rng(seed), vec![0; lens.len()], Vec::new());
    while done != lens {
        let mut parts: Vec<Part> = Vec::new();
        for (sequence, (done, &len)) in done.iter_mut().zip(lens).enumerate() {
            let count = rng.random_range(1..=most).min(len - *done);
            parts.push((sequence, *done..*done + count));
            *done += count;
        }
        // The order of a batch is free, and sequences that are served in full leave it.
        parts.retain(|(_, range)| !range.is_empty());
        let first = rng.random_range(0..parts.len());
        parts.rotate_left(first);
        steps.push(parts);
    }
    steps
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_token_has_the_same_bits_in_any_batch_and_chunk(
        g in with_key_norm(geometry()),
        page_size in page_size(),
        lens in prop::collection::vec(1usize..48, 1..8),
        format in prop_oneof![Just(CacheFormat::INT4), Just(CacheFormat::BF16)],
        fixed in 1usize..40,
        most in 1usize..48,
        alone in 1usize..48,
        hopper: bool,
        seed in 0..u64::MAX / 2,
    ) {
        let layout = CacheLayout::new(&g, format, page_size).unwrap();
        let steps = random_steps(&lens, most, seed);
        let tokens = |parts: &Vec<Part>| parts.iter().map(|(_, range)| range.len()).sum();
        let largest: usize = steps.iter().map(tokens).max().unwrap();
        let config = LayerConfig::new(layout, largest.max(alone), 48).with_policy(SplitPolicy::Fixed { tokens: fixed });
        let device = device();
        let (device, kernels) = match hopper_like(&device).filter(|_| hopper && !g.key_norm) {
            Some(hopper) => (hopper, KernelFamily::Sm90),
            None => (device, KernelFamily::Measured),
        };
        check(&device, g, config.with_kernels(kernels), &lens, &steps, alone, seed);
    }
}

/// Prefill in one chunk, then decoding among `n - 1` others: on both sides of the 16 rows where `absorb` changes kernels.
#[test]
fn named_models_decode_the_same_bits_in_any_batch() {
    let unchecked = Simulation::default().with_checked(false); // Large, and all kernels have tests of their own.
    let hopper = as_hopper(unchecked);
    let models = [("llama3-8b-d64", 5), ("deepseek-v2-lite", 17), ("smollm-135m-d32", 6)];
    let families = [(unchecked, KernelFamily::Measured), (hopper, KernelFamily::Sm90)];
    for ((name, n), (simulation, kernels)) in
        models.into_iter().flat_map(|model| families.map(|family| (model, family)))
    {
        let device = simulate(simulation);
        if device.is_cuda() && kernels == KernelFamily::Sm90 && device.compute_capability() != Some((9, 0)) {
            continue;
        }
        let g = Geometry::named(name).unwrap();
        let layout = CacheLayout::new(&g, CacheFormat::INT4, 16).unwrap();
        let config = LayerConfig::new(layout, 2 * n, 24).with_policy(SplitPolicy::Fixed { tokens: 16 });
        let config = config.with_kernels(kernels);
        let mut lens = vec![2; n];
        lens[0] = 20;
        let others = |range: Range<usize>| (1..n).map(move |sequence| (sequence, range.clone()));
        let steps = [vec![(0, 0..10)], vec![(0, 10..19)]]
            .into_iter()
            .chain([others(0..1).chain([(0, 19..20)]).collect(), others(1..2).collect()]);
        check(&device, g, config, &lens, &steps.collect::<Vec<_>>(), 1, 11);
    }
}
