//! `decode`, with `schedule` and `combine`, equals the reference.
//!
//! The reference is given the cache as it is, so what differs is arithmetic. With f32 sums, per element of the output:
//! - rounding to bf16: up to 2^-8 of it;
//! - weights rounded to 11 bits (f16), each moving the mean by up to 2^-12 of its distance from the token: less than
//!   2^-12 of the range of values, 5e-4 for latents in -1..1; bf16 latents have weights of 16 bits;
//! - int4: weights times scales rounded to 11 bits, each by 2^-12 of what it adds above the group's min, which is at
//!   most the range again, and independent from token to token.
//!
//! So 8e-4 or, for larger values, 2/128 of them (FlashMLA's bounds). Over all of them 5e-6 of cosine distance, beside
//! errors of 2^-12 of the latents' size where means cancel: independent roundings to bf16 make 1.1e-6. One alone can
//! make 2^-17, which outputs of few numbers are granted. Scores err by f32 rounding of sums of about 500 terms.

mod bf16_latents;
mod clusters;
mod merging;
mod normalised;
mod refusals;

use std::iter;

use half::bf16;
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, Group, LatentFormat, PageTable, PagedCache, RopeFormat, Sequences};
use latent_attention::device::{Device, Shape, Simulation, Tensor};
use latent_attention::image::Arch;
use latent_attention::ops::{
    self, BatchBuffers, Decode, DecodeArgs, DecodeConfig, DecodeVariant, DeviceCache, KernelFamily, Merging, Plan,
    SplitPolicy,
};
use latent_attention::reference::{Attended, DecodeInputs, decode};
use proptest::prelude::*;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::common::{self, Batch, formats, ragged, random, rng};
use crate::{PTX, device, rounded, simulate, wide};

/// A layer's step with random numbers.
#[derive(Clone)]
pub struct Step {
    geometry: Geometry,
    batch: Batch,
    cache: PagedCache,
    q_latent: Vec<bf16>,
    q_rope: Vec<bf16>,
    scale: f32,
    policy: SplitPolicy,
    kernels: KernelFamily,
    /// The way to serve it, instead of one that is chosen.
    variant: Option<DecodeVariant>,
    merging: Merging,
    /// Rows of the tensors; the batch may end before.
    rows: usize,
    /// Elements between the heads of q_latent and of q_rope, beside a head's own.
    gaps: [usize; 2],
    /// Size of the largest latents.
    size: f64,
}

impl Step {
    fn random(rng: &mut ChaCha8Rng, geometry: Geometry, format: CacheFormat, batch: Batch) -> Self {
        let cache = batch.poisoned_cache(rng, &geometry, format);
        let rows = batch.query_tokens();
        let heads = rows * geometry.query_heads;
        let q_latent = rounded(&random(rng, heads * geometry.latent_rank));
        let q_rope = rounded(&random(rng, heads * geometry.rope_dim));
        // Scores of a few units: neither an average of everything nor a choice of one token.
        let scale = 4.0 / ((geometry.latent_rank + geometry.rope_dim) as f32).sqrt();
        Self {
            geometry,
            batch,
            cache,
            q_latent,
            q_rope,
            scale,
            policy: SplitPolicy::Balanced,
            kernels: KernelFamily::Measured,
            variant: None,
            merging: Merging::Fused,
            rows,
            gaps: [0, 0],
            size: 1.0,
        }
    }

    fn reference(&self) -> Attended {
        let inputs = DecodeInputs {
            geometry: &self.geometry,
            q_latent: &wide(&self.q_latent),
            q_rope: &wide(&self.q_rope),
            scale: f64::from(self.scale),
            sequences: self.batch.sequences(),
        };
        decode(&inputs, &self.cache).unwrap()
    }

    pub fn kernels(&self) -> KernelFamily {
        self.kernels
    }

    fn config(&self) -> DecodeConfig {
        let most = self.batch.seq_lens.iter().max().copied().unwrap_or(0).max(1) as usize;
        let config = DecodeConfig::new(self.geometry, *self.cache.layout(), self.scale, self.rows.max(1), most)
            .with_policy(self.policy)
            .with_kernels(self.kernels)
            .with_merging(self.merging);
        self.variant.map_or(config, |variant| config.with_variant(variant))
    }

    /// Heads of `width` with a gap of NaN behind each, and rows of NaN to the end.
    fn spread(&self, values: &[bf16], width: usize, gap: usize) -> (Vec<bf16>, Shape) {
        let heads = self.geometry.query_heads;
        let mut spread = vec![bf16::NAN; self.rows * heads * (width + gap)];
        for (from, to) in values.chunks_exact(width.max(1)).zip(spread.chunks_exact_mut((width + gap).max(1))) {
            to[..width].copy_from_slice(from);
        }
        let strides = [heads * (width + gap), width + gap];
        (spread, Shape { sizes: [self.rows, heads, width], strides })
    }

    pub fn run(&self, device: &Device) -> (Vec<bf16>, Vec<f32>) {
        let layout = self.cache.layout();
        let buffers = BatchBuffers::upload(device, &self.batch.sequences(), layout, self.batch.pages).unwrap();
        self.run_on(device, &buffers.batch())
    }

    fn run_on(&self, device: &Device, batch: &ops::Batch) -> (Vec<bf16>, Vec<f32>) {
        let (g, tokens) = (&self.geometry, self.rows);
        let stream = device.stream().unwrap();
        let operation = Decode::new(device, self.config()).unwrap();
        match self.variant {
            Some(variant) => assert_eq!(operation.tiles().kernel, variant.kernel),
            None => assert_eq!(operation.tiles().file.ends_with("_sm90"), self.kernels == KernelFamily::Sm90),
        }
        let cache = DeviceCache::upload(device, &self.cache).unwrap();
        let mut workspace = device.allocate::<u8>(operation.workspace_bytes()).unwrap();
        let (q_latent, latent_shape) = self.spread(&self.q_latent, g.latent_rank, self.gaps[0]);
        let (q_rope, rope_shape) = self.spread(&self.q_rope, g.rope_dim, self.gaps[1]);
        let (q_latent, q_rope) = (device.upload(&q_latent).unwrap(), device.upload(&q_rope).unwrap());
        let mut o_latent = device.allocate::<bf16>(tokens * g.query_heads * g.latent_rank).unwrap();
        let mut lse = device.allocate::<f32>(tokens * g.query_heads).unwrap();
        let mut attend = |plan: &mut Plan| {
            assert_eq!(plan.query_tokens(), tokens);
            let args = DecodeArgs {
                q_latent: Tensor::new(q_latent.view(), latent_shape).unwrap(),
                q_rope: Tensor::new(q_rope.view(), rope_shape).unwrap(),
                cache: cache.view(),
                o_latent: o_latent.view_mut(),
                lse: lse.view_mut(),
            };
            operation.run(&stream, plan, args).unwrap();
        };
        let mut plan = operation.plan(&stream, batch, tokens, workspace.view_mut()).unwrap();
        attend(&mut plan);
        // A plan serves many layers, also where it is borrowed again.
        if tokens.is_multiple_of(2) {
            attend(&mut plan);
        } else {
            drop(plan);
            // SAFETY: this batch was planned in this workspace.
            attend(&mut unsafe { operation.planned(batch, tokens, workspace.view_mut()) }.unwrap());
        }
        (o_latent.to_vec().unwrap(), lse.to_vec().unwrap())
    }

    /// The same step by every family of kernels that serves it, each with a device like this one that runs its code.
    pub fn by_every_family(self, device: &Device) -> impl Iterator<Item = (Self, Device)> + use<> {
        let step = self;
        // Normalised keys are the portable kernel's.
        let hopper = hopper_like(device).filter(|_| !step.geometry.key_norm).filter(|_| {
            match step.cache.layout().format().latent {
                LatentFormat::Int4 { group } => group == Group::Whole || step.geometry.latent_rank <= 512,
                // Of more two tiles have no room in shared memory.
                LatentFormat::Bf16 => {
                    let (rank, rope) = (step.geometry.latent_rank, step.geometry.rope_width());
                    rank <= 512 && rank.next_multiple_of(256) + rope <= 768
                }
            }
        });
        let others = hopper.map(|hopper| (Self { kernels: KernelFamily::Sm90, ..step.clone() }, hopper));
        iter::once((step, device.clone())).chain(others)
    }

    /// The same step in every way that serves it on a device, whether it would be chosen or not.
    fn by_every_variant(self, device: &Device) -> impl Iterator<Item = Self> + use<> {
        let variants = Decode::variants(device, &self.config()).unwrap();
        variants.into_iter().map(move |variant| Self { variant: Some(variant), ..self.clone() })
    }

    #[track_caller]
    fn check(&self, device: &Device) {
        for (step, device) in self.clone().by_every_family(device) {
            step.check_one(&device);
        }
    }

    #[track_caller]
    fn check_one(&self, device: &Device) {
        let (o_latent, lse) = self.run(device);
        let mut want = self.reference();
        // Rows past the end of the batch see nothing.
        want.lse.resize(self.rows * self.geometry.query_heads, f64::NEG_INFINITY);
        want.o_latent.resize(want.lse.len() * self.geometry.latent_rank, 0.0);
        let context = format!(
            "{:?} {:?} {:?} {:?} lens {:?}",
            self.kernels,
            self.variant,
            self.geometry,
            self.cache.layout().format(),
            self.batch.seq_lens
        );
        for (row, (&got, &want)) in lse.iter().zip(&want.lse).enumerate() {
            let close = f64::from(got) == want || (f64::from(got) - want).abs() <= 1e-5 * want.abs().max(1.0);
            assert!(close, "lse of row {row}: got {got}, want {want}; {context}");
        }
        let (mut product, mut squares) = (0.0, 0.0);
        for (i, (got, &want)) in o_latent.iter().zip(&want.o_latent).enumerate() {
            let (row, latent, got) = (i / self.geometry.latent_rank, i % self.geometry.latent_rank, got.to_f64());
            let close = (got - want).abs() <= (want.abs() * 2.0 / 128.0).max(8e-4 * self.size);
            assert!(close, "o_latent of row {row}, latent {latent}: got {got}, want {want}; {context}");
            product += 2.0 * got * want;
            squares += got * got + want * want;
        }
        let n = o_latent.len() as f64;
        let distance = if o_latent.len() < 100 { 2f64.powi(-17) } else { 5e-6 };
        let most = distance * squares + n * (2f64.powi(-12) * self.size).powi(2);
        assert!(squares - product <= most, "cosine distance {}; {context}", 1.0 - product / squares);
    }
}

/// A device like this one that runs Hopper's own instructions: a GPU that does, or a simulated one of as many
/// multiprocessors, with an H100's shared memory.
pub fn hopper_like(device: &Device) -> Option<Device> {
    if device.is_cuda() || device.is_cpu() {
        return (device.compute_capability() == Some((9, 0))).then(|| device.clone());
    }
    let like = Simulation::default().with_multiprocessors(device.limits().multiprocessors);
    Some(Device::simulate(as_hopper(like)))
}

/// The same simulation of Hopper's instructions, with an H100's shared memory.
pub fn as_hopper(simulation: Simulation) -> Simulation {
    simulation.with_arch(Arch::Compute90a).with_shared_bytes(227 * 1024)
}

/// A geometry of any sizes.
pub fn geometry(query_heads: usize, rope_heads: usize, latent_rank: usize, rope_dim: usize) -> Geometry {
    let mut geometry = Geometry::mha2mla(query_heads, rope_heads, rope_dim + 8, rope_dim, 1).unwrap();
    geometry.latent_rank = latent_rank;
    geometry.validate().unwrap()
}

#[test]
fn every_format_and_page_size() {
    let device = device();
    for (i, format) in formats().into_iter().enumerate() {
        let rng = &mut rng(i as u64);
        let batch = Batch::new(rng, &[45, 0, 33], &[2, 1, 1], [8, 16, 32, 64][i % 4]);
        Step::random(rng, geometry(9, 3, 96, 8), format, batch).check(&device);
    }
}

/// What `Decode::variants` offers beside what is chosen: tiles, stages and numbers of heads that no layer would get.
#[test]
fn every_way_to_serve_a_layer_is_within_the_same_bounds() {
    let device = device();
    let device = hopper_like(&device).unwrap_or(device);
    let formats = [CacheFormat::INT4, CacheFormat::int4(Group::G64), CacheFormat::BF16];
    for (heads, rope_heads, rank, rope) in [(9, 3, 96, 8), (32, 8, 512, 16), (16, 1, 640, 64)] {
        for format in formats {
            let rng = &mut rng(50);
            let batch = Batch::new(rng, &[70, 17], &[1, 1], 16);
            let step = Step::random(rng, geometry(heads, rope_heads, rank, rope), format, batch);
            let ways: Vec<Step> = step.by_every_variant(&device).collect();
            assert!(ways.len() > 1 || device.is_cpu());
            ways.iter().for_each(|way| way.check_one(&device));
        }
    }
}

#[test]
fn every_latent_rank_and_head_count() {
    let formats = [CacheFormat::INT4, CacheFormat::int4(Group::G32).with_rope(RopeFormat::Int8), CacheFormat::BF16];
    for (i, &(heads, rope_heads, rank, rope)) in [
        (9, 3, 48, 8),
        (15, 5, 160, 8),
        (32, 8, 512, 16),
        (16, 1, 512, 64),
        (20, 1, 24, 0),
        (28, 4, 640, 16),
        (40, 1, 256, 32),
        (32, 32, 1024, 16),
        (8, 8, 2048, 16),
        (3, 1, 7, 2),
        (1, 1, 2560, 64),
    ]
    .iter()
    .enumerate()
    {
        for format in formats {
            let rng = &mut rng(100 + i as u64);
            let batch = Batch::new(rng, &[70], &[1], 16);
            Step::random(rng, geometry(heads, rope_heads, rank, rope), format, batch).check(&device());
        }
    }
}

/// By Hopper's own kernels in blocks of 64 heads, whose warpgroups work on two tiles together, in as many tiles as make
/// every end of a pair; with rotated keys in one group, in two, in none.
#[test]
fn many_heads() {
    for (i, (heads, rank, dims, latents, rope)) in [
        (70, 512, 64, Group::Whole, Group::Whole),
        (128, 300, 64, Group::Whole, Group::G32),
        (64, 512, 0, Group::G32, Group::G32),
        (128, 512, 64, Group::G64, Group::G32),
    ]
    .into_iter()
    .enumerate()
    {
        let rng = &mut rng(150 + i as u64);
        let batch = Batch::new(rng, &[200, 64, 129, 1, 0, 70], &[1; 6], [8, 16, 32, 64][i]);
        let format = CacheFormat::int4(latents).with_rope(RopeFormat::Int4 { group: rope });
        let mut step = Step::random(rng, geometry(heads, 1, rank, dims), format, batch);
        step.policy = [SplitPolicy::Balanced, SplitPolicy::Fixed { tokens: 100 }][i % 2];
        for (step, device) in step.by_every_family(&device()) {
            let tiles = Decode::new(&device, step.config()).unwrap().tiles();
            assert!(step.kernels != KernelFamily::Sm90 || tiles.heads == 64, "{tiles:?}");
            step.check_one(&device);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_reference(
        seed: u64,
        geometry in crate::with_key_norm(common::geometry()),
        format in proptest::sample::select(formats()),
        page_size in common::page_size(),
        (lens, queries) in ragged(),
        split in prop_oneof![Just(None), (1usize..=70).prop_map(Some)],
        spare in 0usize..=2,
        gaps in (prop_oneof![Just(0usize), Just(8), Just(3)], 0usize..=2),
        arch in 0usize..2,
    ) {
        let rng = &mut rng(seed);
        let batch = Batch::new(rng, &lens, &queries, page_size);
        let mut step = Step::random(rng, geometry, format, batch);
        step.policy = split.map_or(SplitPolicy::Balanced, |tokens| SplitPolicy::Fixed { tokens });
        step.rows += spare;
        step.gaps = gaps.into();
        step.check(&simulate(Simulation::default().with_arch(PTX[arch])));
    }
}

#[test]
fn lengths_around_every_edge() {
    let lens = [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 0, 200];
    for (i, format) in [CacheFormat::INT4, CacheFormat::int4(Group::G64), CacheFormat::BF16].into_iter().enumerate() {
        for policy in [SplitPolicy::Balanced, SplitPolicy::Fixed { tokens: 1000 }] {
            let rng = &mut rng(200 + i as u64);
            let batch = Batch::new(rng, &lens, &[1; 18], 16);
            let mut step = Step::random(rng, geometry(4, 2, 40, 8), format, batch);
            step.policy = policy;
            step.check(&device());
        }
    }
}

#[test]
fn long_sequences_are_split_over_the_device() {
    for multiprocessors in [1, 3, 16] {
        let rng = &mut rng(300);
        let batch = Batch::new(rng, &[300, 5, 150], &[1, 1, 2], 32);
        let step = Step::random(rng, geometry(4, 2, 64, 8), CacheFormat::INT4, batch);
        step.check(&simulate(Simulation::default().with_multiprocessors(multiprocessors)));
    }
}

#[test]
fn every_shared_memory_limit() {
    // GeForce and L40, A100, H100. The smallest takes tiles of 8 tokens where latents are large.
    for kib in [99, 163, 227] {
        let device = simulate(Simulation::default().with_shared_bytes(kib * 1024));
        for (rank, format) in [
            (512, CacheFormat::INT4),
            (1024, CacheFormat::INT4),
            (2048, CacheFormat::INT4),
            (512, CacheFormat::int4(Group::G32)),
            (2048, CacheFormat::int4(Group::G128)),
            (512, CacheFormat::BF16),
            (2048, CacheFormat::BF16),
        ] {
            let rng = &mut rng(400);
            let batch = Batch::new(rng, &[40], &[1], 16);
            Step::random(rng, geometry(32, 32, rank, 16), format, batch).check(&device);
        }
    }
}

#[test]
fn any_scale_of_the_latent() {
    // Each token's latent between 2^-18 and 2^16 in size; the queries are as small as the largest latents are large.
    for format in [CacheFormat::INT4, CacheFormat::int4(Group::G32), CacheFormat::BF16] {
        for exponents in [-18..-8, -2..3, 6..16] {
            let rng = &mut rng(500);
            let batch = Batch::new(rng, &[37, 70], &[1, 1], 8);
            let mut step = Step::random(rng, geometry(4, 2, 72, 8), format, batch);
            let largest = 2f32.powi(exponents.end - 1);
            for (b, &len) in step.batch.seq_lens.iter().enumerate() {
                for t in 0..len as usize {
                    let size = 2f32.powi(rng.random_range(exponents.clone()));
                    let latent: Vec<f32> = random(rng, 72).iter().map(|x| 1.9999 * size * x).collect();
                    let rope = random(rng, 16);
                    step.cache.write(step.batch.slot(b, t), &latent, &rope).unwrap();
                }
            }
            step.q_latent.iter_mut().for_each(|q| *q = bf16::from_f32(q.to_f32() / largest));
            step.size = f64::from(largest);
            step.check(&device());
        }
    }
}

#[test]
fn fixed_splits_do_not_see_the_rest_of_the_batch() {
    let short = [CacheFormat::INT4, CacheFormat::int4(Group::G32), CacheFormat::BF16].map(|format| (format, 48));
    for (format, l) in short.into_iter().chain([(CacheFormat::INT4, 1030)]) {
        let rng = &mut rng(600);
        let batch = Batch::new(rng, &[100, 7, 64, 0, 130], &[1, 2, 1, 1, 3], 16);
        let mut all = Step::random(rng, geometry(9, 3, l, 8), format, batch);
        all.policy = SplitPolicy::Fixed { tokens: 48 };
        let (h, r) = (9, 8);
        for ((all, device), b) in all.by_every_family(&device()).flat_map(|pair| (0..5).map(move |b| (pair.clone(), b)))
        {
            let (o_latent, lse) = all.run(&device);
            let rows = all.batch.query_starts[b] as usize..all.batch.query_starts[b + 1] as usize;
            let alone = Step {
                batch: Batch {
                    query_starts: vec![0, rows.len() as i32],
                    seq_lens: vec![all.batch.seq_lens[b]],
                    table: all.batch.table[b * all.batch.max_pages..][..all.batch.max_pages].to_vec(),
                    ..all.batch
                },
                cache: all.cache.clone(),
                q_latent: all.q_latent[rows.start * h * l..rows.end * h * l].to_vec(),
                q_rope: all.q_rope[rows.start * h * r..rows.end * h * r].to_vec(),
                rows: rows.len(),
                ..all
            };
            let others = simulate(Simulation::default().with_multiprocessors(50));
            let other = if all.kernels == KernelFamily::Sm90 { hopper_like(&others).unwrap() } else { others };
            let (alone_o, alone_lse) = alone.run(&other);
            assert_eq!(alone_o, o_latent[rows.start * h * l..rows.end * h * l]);
            assert_eq!(alone_lse, lse[rows.start * h..rows.end * h]);
        }
    }
}

#[test]
fn repeated_runs_agree_to_the_bit() {
    let rng = &mut rng(700);
    let batch = Batch::new(rng, &[150, 20], &[1, 2], 16);
    let step = Step::random(rng, geometry(9, 3, 96, 8), CacheFormat::INT4, batch);
    for (step, device) in step.by_every_family(&device()) {
        let first = step.run(&device);
        assert!((0..3).all(|_| step.run(&device) == first));
    }
}

#[test]
fn csr_tables_are_the_same_batch() {
    let rng = &mut rng(800);
    let batch = Batch::new(rng, &[33, 0, 50], &[1, 1, 2], 8);
    let step = Step::random(rng, geometry(4, 2, 64, 8), CacheFormat::INT4, batch);
    let (dense, _) = step.run(&device());
    let device = device();
    let used = |b: usize| (step.batch.seq_lens[b] as usize).div_ceil(8);
    let indptr: Vec<i32> = (0..=3).map(|b| (0..b).map(used).sum::<usize>() as i32).collect();
    let rows = step.batch.table.chunks_exact(step.batch.max_pages).enumerate();
    let indices: Vec<i32> = rows.flat_map(|(b, row)| row[..used(b)].to_vec()).collect();
    let pages = PageTable::Csr { indptr: &indptr, indices: &indices };
    let sequences = Sequences { pages, ..step.batch.sequences() };
    let buffers = BatchBuffers::upload(&device, &sequences, step.cache.layout(), step.batch.pages).unwrap();
    assert_eq!(step.run_on(&device, &buffers.batch()).0, dense);
}

/// One sequence in one split.
pub fn one_split(geometry: Geometry, format: CacheFormat, tokens: usize) -> Step {
    let rng = &mut rng(900);
    let batch = Batch::new(rng, &[tokens], &[1], 64);
    let mut step = Step::random(rng, geometry, format, batch);
    step.policy = SplitPolicy::Fixed { tokens: 4096 };
    step
}
