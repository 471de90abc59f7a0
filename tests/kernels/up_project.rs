//! `up_project` equals the reference.

mod sm90;

use half::bf16;
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, Group, LatentFormat, PagedCache, RopeFormat};
use latent_attention::device::{Device, Simulation, Tensor, TensorMut};
use latent_attention::ops::{BatchBuffers, DeviceCache, KernelFamily, UpProject, UpProjectArgs, UpProjectConfig};
use latent_attention::reference::up_project;
use latent_attention::sys::{GEMM_TILE, UpProjectParams};
use proptest::prelude::*;
use ptx_sim::meter::Path;

use crate::common::{Batch, formats, geometry, page_size, prefix_sums, ragged, random, rng};
use crate::strided::{Strided, is_untouched};
use crate::{PTX, device, hopper, simulate, upload_batch, wide, with_key_norm};

/// Weights of a layer, and a batch of sequences in a cache of which nothing else may be read.
struct Case {
    geometry: Geometry,
    format: CacheFormat,
    batch: Batch,
    cache: PagedCache,
    up_key: Vec<f32>,
    up_value: Vec<f32>,
    bias: Option<Vec<f32>>,
    /// Of weights and outputs: elements between rows and heads or tokens, and before the first.
    gaps: [usize; 2],
    shift: usize,
    /// Rows that the outputs have beyond those of the tokens.
    spare: usize,
    csr: bool,
    kernels: KernelFamily,
}

struct Ran {
    keys: Vec<bf16>,
    values: Vec<bf16>,
}

impl Case {
    fn new(seed: u64, geometry: Geometry, format: CacheFormat, lens: &[usize], page_size: usize) -> Self {
        let mut rng = rng(seed);
        let batch = Batch::new(&mut rng, lens, &vec![0; lens.len()], page_size);
        let cache = batch.poisoned_cache(&mut rng, &geometry, format);
        // Keys and values of about the size of latents.
        let size = 1.0 / (geometry.latent_rank as f32).sqrt();
        let mut weights = |dim: usize| {
            let values = random(&mut rng, geometry.kv_heads * dim * geometry.latent_rank);
            values.into_iter().map(|x| bf16::from_f32(x * size).to_f32()).collect()
        };
        let (up_key, up_value) = (weights(geometry.nope_dim), weights(geometry.value_dim));
        let bias = Some(random(&mut rng, geometry.kv_heads * geometry.value_dim));
        let (gaps, shift, spare, csr, kernels) = ([0, 0], 0, 0, false, KernelFamily::Measured);
        Self { geometry, format, batch, cache, up_key, up_value, bias, gaps, shift, spare, csr, kernels }
    }

    fn tokens(&self) -> usize {
        self.batch.seq_lens.iter().sum::<i32>() as usize
    }

    fn token_starts(&self) -> Vec<i32> {
        prefix_sums(self.batch.seq_lens.iter().copied())
    }

    fn run(&self, device: &Device) -> Ran {
        self.run_from(device, &self.token_starts())
    }

    fn run_from(&self, device: &Device, token_starts: &[i32]) -> Ran {
        let g = &self.geometry;
        let layout = *self.cache.layout();
        let operation = UpProject::new(device, UpProjectConfig::new(*g, layout).with_kernels(self.kernels)).unwrap();
        let cache = DeviceCache::upload(device, &self.cache).unwrap();
        let batch = upload_batch(device, &self.batch, self.csr, &self.cache);
        let starts = device.upload(token_starts).unwrap();
        let place =
            |values: &[f32], dim| Strided::new(device, values, [g.kv_heads, dim, g.latent_rank], self.gaps, self.shift);
        let (up_key, up_value) = (place(&self.up_key, g.nope_dim), place(&self.up_value, g.value_dim));
        let bias = self.bias.as_ref().map(|bias| device.upload(bias).unwrap());
        let rows = self.tokens() + self.spare;
        let empty = |dim| Strided::empty(device, [rows, g.kv_heads, dim], self.gaps, self.shift);
        let (mut keys, mut values) = (empty(g.nope_dim + g.rope_dim), empty(g.value_dim));
        let args = UpProjectArgs {
            cache: cache.view(),
            batch: &batch.batch(),
            token_starts: starts.view(),
            up_key: up_key.tensor(),
            up_value: up_value.tensor(),
            value_bias: bias.as_ref().map(|bias| bias.view()),
            keys: keys.tensor_mut(),
            values: values.tensor_mut(),
        };
        operation.run(&device.stream().unwrap(), args).unwrap();
        Ran { keys: keys.take(), values: values.take() }
    }

    /// What rounding may cost the product of a latent and a row of weights, apart from that of the result.
    ///
    /// Half a step of bf16 is at most 2^-8 of a number. The latents' roundings are independent of each other, each at
    /// most a_i = 2^-8 |w_i c_i| after multiplication, so that their sum is beyond 4 sqrt(sum a_i^2) once in 1500 times
    /// at the very worst (Hoeffding: 2 exp(-8)), and never beyond sum a_i; of uniform errors, those 4 are 7 standard
    /// deviations. Dequantisation in f32 adds at most 2^-13 of a step, which for latents below 1 is 2/15, and sums in f32
    /// 2^-20 of the magnitudes.
    fn slack(&self, weights: &[f32], latent: &[f64]) -> f64 {
        let products = || weights.iter().zip(latent).map(|(&w, c)| f64::from(w).abs() * c.abs());
        let sum: f64 = products().sum();
        let in_f32 = sum / f64::from(1 << 20);
        match self.format.latent {
            LatentFormat::Bf16 => in_f32,
            LatentFormat::Int4 { .. } => {
                let square: f64 = products().map(|x| x * x).sum();
                let offsets = weights.iter().map(|w| f64::from(w.abs())).sum::<f64>() / f64::from(1 << 15);
                sum.min(4.0 * square.sqrt()) / 256.0 + in_f32 + offsets
            }
        }
    }

    #[track_caller]
    fn check(&self, ran: &Ran) {
        let g = &self.geometry;
        let sequences = self.batch.sequences();
        let bias = self.bias.as_deref();
        let want = up_project(g, &self.up_key, &self.up_value, bias, &sequences, &self.cache).unwrap();
        let (key_dim, value_dim) = (g.nope_dim + g.rope_dim, g.value_dim);
        let (keys, values) = (wide(&ran.keys), wide(&ran.values));
        let mut token = 0;
        for (sequence, &len) in self.batch.seq_lens.iter().enumerate() {
            for position in 0..len as usize {
                let latent = self.cache.latent(self.batch.slot(sequence, position)).unwrap();
                let close = |what: &str, i: usize, got: f64, want: f64, slack: f64| {
                    assert!(
                        (got - want).abs() <= want.abs() / 256.0 + slack,
                        "{what} {i} of token {position} of sequence {sequence}: got {got}, want {want} +- {slack}"
                    );
                };
                let row = |i: usize| i * g.latent_rank..(i + 1) * g.latent_rank;
                let factors = self.cache.factors(self.batch.slot(sequence, position)).unwrap();
                for head in 0..g.kv_heads {
                    // Of normalised keys the product is multiplied by it, errors and all.
                    let factor = factors.get(head).copied().unwrap_or(1.0);
                    for i in 0..key_dim {
                        let at = (token * g.kv_heads + head) * key_dim + i;
                        let slack = match (i < g.nope_dim, self.format.rope) {
                            (true, _) => factor * self.slack(&self.up_key[row(head * g.nope_dim + i)], &latent),
                            (false, RopeFormat::Bf16) => {
                                assert_eq!(keys[at], want.keys[at], "a rotated key in bf16 is copied");
                                0.0
                            }
                            (false, _) => 2e-6,
                        };
                        close("key", head * key_dim + i, keys[at], want.keys[at], slack);
                    }
                    for i in 0..value_dim {
                        let at = (token * g.kv_heads + head) * value_dim + i;
                        let slack = self.slack(&self.up_value[row(head * value_dim + i)], &latent) + 1e-6;
                        close("value", head * value_dim + i, values[at], want.values[at], slack);
                    }
                }
                token += 1;
            }
        }
        let untouched =
            |numbers: &[bf16], row: usize| numbers[token * g.kv_heads * row..].iter().all(|&x| is_untouched(x));
        assert!(untouched(&ran.keys, key_dim) && untouched(&ran.values, value_dim), "rows of no token are left alone");
    }
}

/// Sizes of which all accesses can be 16 bytes wide.
fn whole_chunks() -> impl Strategy<Value = Geometry> {
    (1usize..=2, 1usize..=3, 1usize..=20, 0usize..=2, 0usize..=3, 1usize..=3).prop_map(
        |(per_rope, rope_heads, latents, ropes, nopes, values)| {
            let kv_heads = per_rope * rope_heads;
            let nopes = if ropes == 0 { nopes.max(1) } else { nopes };
            let mut geometry = Geometry::mha2mla(kv_heads, kv_heads, 8 * (ropes + nopes), 8 * ropes, 1).unwrap();
            geometry.rope_heads = rope_heads;
            geometry.latent_rank = 8 * latents;
            geometry.value_dim = 16 * values;
            geometry.validate().unwrap()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_reference(
        seed: u64,
        geometry in with_key_norm(prop_oneof![geometry().boxed(), whole_chunks().boxed()]),
        format in prop::sample::select(formats()),
        (lens, _) in ragged(),
        page_size in page_size(),
        (gaps, shift) in prop_oneof![Just(([0, 0], 0)), Just(([16, 8], 0)), Just(([3, 1], 1))],
        spare in 0usize..=2,
        csr: bool,
        bias: bool,
        arch in 0usize..2,
    ) {
        let mut case = Case { gaps, shift, spare, csr, ..Case::new(seed, geometry, format, &lens, page_size) };
        case.bias = case.bias.filter(|_| bias);
        case.check(&case.run(&simulate(Simulation::default().with_arch(PTX[arch]))));
    }
}

/// Both kernels, each with a device that runs it.
fn every_kernel() -> [(KernelFamily, Device); 2] {
    [(KernelFamily::Measured, device()), (KernelFamily::Sm90, hopper())]
}

/// Several tiles of tokens and of columns, and a latent of two scales.
fn wide_case(format: CacheFormat) -> Case {
    let mut geometry = Geometry::mha2mla(4, 4, 64, 16, 1).unwrap();
    geometry.latent_rank = 576;
    Case::new(7, geometry, format, &[130, 0, 1, 40], 64)
}

/// The same in both kinds of latents, for both kernels.
fn wide_cases() -> impl Iterator<Item = (Case, Device)> {
    every_kernel().into_iter().flat_map(|(kernels, device)| {
        [CacheFormat::BF16, CacheFormat::INT4].map(|format| (Case { kernels, ..wide_case(format) }, device.clone()))
    })
}

#[test]
fn errors_are_those_of_bf16() {
    for (case, device) in wide_cases() {
        let ran = case.run(&device);
        case.check(&ran);
        let g = &case.geometry;
        let sequences = case.batch.sequences();
        let want = up_project(g, &case.up_key, &case.up_value, case.bias.as_deref(), &sequences, &case.cache).unwrap();
        for (got, want) in [(wide(&ran.keys), want.keys), (wide(&ran.values), want.values)] {
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let distance = 1.0 - 2.0 * dot(&got, &want) / (dot(&got, &got) + dot(&want, &want));
            assert!(distance < 5e-6, "{:?}: {distance:e}", case.format);
        }
    }
}

#[test]
fn repeated_runs_agree_to_the_bit() {
    for (case, device) in wide_cases() {
        let (first, second) = (case.run(&device), case.run(&device));
        assert!(first.keys == second.keys && first.values == second.values, "{:?}", case.format);
    }
}

#[test]
fn tokens_do_not_depend_on_their_neighbours() {
    for (case, device) in wide_cases() {
        let together = case.run(&device);
        // The last sequence alone.
        let mut last = Case { kernels: case.kernels, ..wide_case(case.format) };
        last.batch.seq_lens = vec![40];
        last.batch.query_starts = vec![0, 0];
        last.batch.table.drain(..3 * last.batch.max_pages);
        let alone = last.run(&device);
        assert_eq!(alone.keys, together.keys[131 * 4 * 64..]);
        assert_eq!(alone.values, together.values[131 * 4 * 64..]);
    }
}

#[test]
fn a_launch_may_be_larger_than_the_batch_and_a_batch_larger_than_the_outputs() {
    for (kernels, device) in every_kernel() {
        let mut case = Case { kernels, ..wide_case(CacheFormat::INT4) };
        let full = case.run(&device);
        // Three tiles of rows more, of which none is touched.
        case.spare = 3 * GEMM_TILE as usize;
        case.check(&case.run(&device));
        // The starts say more than there is room for.
        let starts = [0, 130, 130, 131, 1 << 30];
        let ran = case.run_from(&device, &starts);
        assert_eq!(ran.keys[..full.keys.len()], full.keys);
        assert!(ran.keys[full.keys.len()..].iter().all(|key| key.to_bits() == 0), "rows of no token are of zeros");
    }
}

#[test]
fn whatever_the_starts_are_only_tokens_are_read() {
    for (kernels, device) in every_kernel() {
        let case = Case { kernels, spare: 100, bias: None, ..wide_case(CacheFormat::INT4) };
        for starts in [[0; 5], [171; 5], [-1, -1, -1, -1, 271], [5, 300, -7, 2, 271], [i32::MAX, 0, i32::MIN, 9, -1]] {
            case.run_from(&device, &starts);
        }
        // Room between sequences: token 0 of the last one stands in row 150.
        let (packed, spaced) = (case.run(&device), case.run_from(&device, &[0, 130, 140, 150, 200]));
        let row = |row: usize| row * 4 * 64..(row + 1) * 4 * 64;
        assert_eq!(spaced.values[row(150)], packed.values[row(131)]);
        assert_eq!(spaced.keys[row(150)], packed.keys[row(131)]);
        for numbers in [&spaced.values, &spaced.keys] {
            assert!(numbers[row(149)].iter().all(|number| number.to_bits() == 0));
            assert!(numbers[row(200)].iter().all(|&number| is_untouched(number)));
        }
    }
}

#[test]
fn a_tile_reads_each_operand_once_and_without_bank_conflicts() {
    // One tile of 128 tokens; one tile of keys, one of values, one of rotated keys.
    let mut geometry = Geometry::mha2mla(2, 2, 128, 64, 1).unwrap();
    (geometry.latent_rank, geometry.value_dim) = (128, 64);
    for (latent, latent_bytes) in [(LatentFormat::Bf16, 256), (LatentFormat::Int4 { group: Group::Whole }, 64)] {
        let format = CacheFormat::new(latent, RopeFormat::Bf16);
        let device = device();
        let case = Case { bias: None, ..Case::new(8, geometry, format, &[128], 64) };
        case.run(&device);
        let Some(counted) = device.take_counts().remove("up_project") else { return };
        let traffic = |path| counted.meter.traffic.get(&path).copied().unwrap_or_default();
        let copied = match latent {
            LatentFormat::Bf16 => 2 * (128 * 256 + 128 * latent_bytes),
            LatentFormat::Int4 { .. } => 2 * 128 * 256,
        };
        assert_eq!(traffic(Path::CopyGlobalRead).bytes, copied, "{format:?}");
        assert_eq!(traffic(Path::CopyGlobalRead).sectors, copied / 32, "{format:?}: whole sectors");
        assert_eq!(traffic(Path::GlobalWrite).bytes, 3 * 128 * 128 * 2, "{format:?}");
        assert_eq!(traffic(Path::GlobalWrite).sectors, 3 * 128 * 128 * 2 / 32, "{format:?}: whole sectors");
        for path in [Path::SharedRead, Path::SharedWrite, Path::CopySharedWrite] {
            assert_eq!(traffic(path).conflicts, 0, "{format:?} {path:?}");
        }
        assert_eq!(traffic(Path::LocalRead).bytes + traffic(Path::LocalWrite).bytes, 0);
    }
}

#[test]
fn wrong_sizes_are_named() {
    let device = device();
    let geometry = Geometry::mha2mla(4, 2, 8, 4, 4).unwrap();
    let layout = CacheLayout::new(&geometry, CacheFormat::INT4, 8).unwrap();
    let refused =
        |geometry, layout| UpProject::new(&device, UpProjectConfig::new(geometry, layout)).unwrap_err().to_string();
    let other = geometry.with_latent_rank(9).unwrap();
    let message = refused(other, layout);
    assert!(message.starts_with("cache layout: latent rank: expected 9 from the geometry, got 8"), "{message}");
    let huge = Geometry::deepseek(1 << 12, 8, 0, 1 << 12, 8).unwrap();
    let message = refused(huge, CacheLayout::new(&huge, CacheFormat::INT4, 8).unwrap());
    assert!(message.starts_with("up_project to 16777216 columns: kv heads times dimensions"), "{message}");
    let mut odd = geometry;
    odd.kv_heads = 3;
    let message = refused(odd, layout);
    assert!(message.starts_with("geometry: kv_heads must be"), "{message}");
    let normed = geometry.with_key_norm(true);
    let layout = CacheLayout::new(&normed, CacheFormat::INT4, 8).unwrap();
    let config = UpProjectConfig::new(normed, layout).with_kernels(KernelFamily::Sm90);
    let message = UpProject::new(&device, config).unwrap_err().to_string();
    assert!(message.starts_with("up_project_sm90 of normalised keys"), "{message}");
}

#[test]
fn wrong_arguments_are_named() {
    // G 2, L 8, Dn 4, R 4, Dv 8; one sequence of three tokens.
    let device = device();
    let geometry = Geometry::mha2mla(4, 2, 8, 4, 4).unwrap();
    let case = Case::new(9, geometry, CacheFormat::INT4, &[3], 8);
    let layout = *case.cache.layout();
    let operation = UpProject::new(&device, UpProjectConfig::new(geometry, layout)).unwrap();
    let stream = device.stream().unwrap();
    let memory = device.zeros::<bf16>(1000).unwrap();
    let batch = BatchBuffers::upload(&device, &case.batch.sequences(), &layout, case.cache.pages()).unwrap();
    let cache = DeviceCache::upload(&device, &case.cache).unwrap();
    let run = |cache: &DeviceCache, batch: &BatchBuffers, sizes: [[usize; 3]; 4], [starts, bias]: [usize; 2]| {
        let (mut keys, mut values) = (device.zeros::<bf16>(1000).unwrap(), device.zeros::<bf16>(1000).unwrap());
        let (starts, bias) = (device.zeros::<i32>(starts).unwrap(), device.zeros::<f32>(bias).unwrap());
        let [up_key, up_value, key_sizes, value_sizes] = sizes;
        let args = UpProjectArgs {
            cache: cache.view(),
            batch: &batch.batch(),
            token_starts: starts.view(),
            up_key: Tensor::dense(memory.view(), up_key).unwrap(),
            up_value: Tensor::dense(memory.view(), up_value).unwrap(),
            value_bias: Some(bias.view()),
            keys: TensorMut::dense(keys.view_mut(), key_sizes).unwrap(),
            values: TensorMut::dense(values.view_mut(), value_sizes).unwrap(),
        };
        operation.run(&stream, args)
    };
    let right = [[2, 4, 8], [2, 8, 8], [3, 2, 8], [3, 2, 8]];
    run(&cache, &batch, right, [2, 16]).unwrap();
    let check = |sizes, lens, expected: &str| {
        let message = run(&cache, &batch, sizes, lens).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    };
    let with = |i: usize, sizes: [usize; 3]| {
        let mut wrong = right;
        wrong[i] = sizes;
        wrong
    };
    check(right, [3, 16], "token starts: expected [sequences + 1 2] = 2 elements, got 3");
    check(right, [2, 15], "value bias: expected [kv heads 2, value 8] = 16 elements, got 15");
    let wanted = "key up-projection: expected [kv heads 2, nope 4, latent 8], got [2, 8, 8]";
    check(with(0, [2, 8, 8]), [2, 16], wanted);
    let wanted = "value up-projection: expected [kv heads 2, value 8, latent 8], got [1, 8, 8]";
    check(with(1, [1, 8, 8]), [2, 16], wanted);
    let wanted = "keys: expected [tokens 3, kv heads 2, nope + rope 8], got [3, 2, 9]";
    check(with(2, [3, 2, 9]), [2, 16], wanted);
    let wanted = "values: expected [tokens 3, kv heads 2, value 8], got [4, 2, 8]";
    check(with(3, [4, 2, 8]), [2, 16], wanted);

    // A cache that lacks the batch's pages, one of another format, and what lies on another device.
    let message = run(&DeviceCache::new(&device, layout, 1).unwrap(), &batch, right, [2, 16]).unwrap_err().to_string();
    let wanted = format!("cache: has 1 pages, the batch is for caches of {} or more", case.cache.pages());
    assert_eq!(message, wanted);
    let other = Case::new(9, geometry, CacheFormat::BF16, &[3], 8);
    let message = run(&DeviceCache::upload(&device, &other.cache).unwrap(), &batch, right, [2, 16]).unwrap_err();
    assert!(message.to_string().starts_with("cache: the operation was made for"), "{message}");
    let elsewhere = Device::simulated();
    let message = run(&DeviceCache::upload(&elsewhere, &case.cache).unwrap(), &batch, right, [2, 16]).unwrap_err();
    assert!(message.to_string().starts_with("cache: is on device `ptx-sim`"), "{message}");
    let foreign = BatchBuffers::upload(&elsewhere, &case.batch.sequences(), &layout, case.cache.pages()).unwrap();
    let message = run(&cache, &foreign, right, [2, 16]).unwrap_err();
    assert!(message.to_string().starts_with("batch: is on device `ptx-sim`"), "{message}");

    let params = UpProjectParams { token_capacity: 5, ..Default::default() };
    // SAFETY: without sequences there is nothing to launch.
    unsafe { operation.launch(&stream, &params) }.unwrap();
}
