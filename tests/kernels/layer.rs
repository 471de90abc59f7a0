//! Whole steps on a device equal the reference's.

mod launches;

use half::bf16;
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, Group, PagedCache, RopeFormat, Sequences};
use latent_attention::device::{Buffer, Device, Simulation, Tensor, TensorMut};
use latent_attention::layer::{LatentAttentionLayer, LayerConfig, StepArgs};
use latent_attention::ops::{BatchBuffers, DeviceCache, RotationBuffers, SplitPolicy};
use latent_attention::reference::{ReferenceInputs, ReferenceLayer};
use latent_attention::rope::RopeTables;
use latent_attention::weights::{LatentAttention, Matrix, RmsNorm};
use proptest::prelude::*;
use rand::RngExt;

use crate::common::layers::{Sequence, weights};
use crate::common::{geometry, page_size, rng};
use crate::{device, rounded, simulate, with_key_norm};

/// What a bf16 tensor can hold of f32 numbers.
fn as_bf16(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32());
}

/// A layer whose up-projections are bf16 numbers, so that device and reference have the same.
fn bf16_weights(seed: u64, g: Geometry) -> LatentAttention {
    let mut layer = weights(&mut rng(seed), g);
    for matrix in [&mut layer.up_key, &mut layer.up_value] {
        let mut data = matrix.data().to_vec();
        as_bf16(&mut data);
        *matrix = Matrix::new(matrix.rows(), matrix.cols(), data).unwrap();
    }
    layer
}

/// A sequence whose projected tokens are bf16 numbers.
fn bf16_sequence(seed: u64, g: Geometry, tokens: usize, page_size: usize) -> Sequence {
    let mut sequence = Sequence::new(&mut rng(seed), g, tokens, page_size);
    for values in [&mut sequence.q_rope, &mut sequence.q_nope, &mut sequence.k_rope, &mut sequence.c_kv] {
        as_bf16(values);
    }
    sequence
}

/// A layer on a device with its cache.
struct OnDevice {
    device: Device,
    layer: LatentAttentionLayer,
    cache: DeviceCache,
}

impl OnDevice {
    fn new(device: Device, weights: &LatentAttention, tables: &RopeTables, config: LayerConfig, pages: usize) -> Self {
        let tables = RotationBuffers::upload(&device, tables, &weights.frequencies).unwrap();
        let layer = LatentAttentionLayer::new(&device, weights, &tables, config).unwrap();
        let cache = layer.new_cache(pages).unwrap();
        Self { device, layer, cache }
    }

    /// The tokens `t` of a sequence whose earlier ones are in the cache; returns the step's output.
    fn step(&mut self, sequence: &Sequence, t: std::ops::Range<usize>) -> Vec<f64> {
        let (starts, lens) = ([0, t.len() as i32], [t.end as i32]);
        let mut batch = sequence.batch.sequences();
        (batch.query_starts, batch.seq_lens) = (&starts, &lens);
        let out = step(&self.device, &self.layer, &mut self.cache, &batch, &sequence.rows(t));
        out.iter().map(|value| value.to_f64()).collect()
    }
}

/// One step of a batch, all of whose numbers are bf16; returns its output.
pub fn step(
    device: &Device,
    layer: &LatentAttentionLayer,
    cache: &mut DeviceCache,
    batch: &Sequences,
    inputs: &ReferenceInputs,
) -> Vec<bf16> {
    let (g, tokens, stream) = (*layer.geometry(), inputs.positions.len(), device.stream().unwrap());
    let batch = BatchBuffers::upload(device, batch, &layer.config().layout, cache.pages()).unwrap();
    let upload = |values: &[f32]| device.upload(&rounded(values)).unwrap();
    let [q_rope, q_nope, k_rope, c_kv]: [Buffer<bf16>; 4] =
        [inputs.q_rope, inputs.q_nope, inputs.k_rope, inputs.c_kv].map(upload);
    let (positions, slots) = (device.upload(inputs.positions).unwrap(), device.upload(inputs.slots).unwrap());
    let mut out = device.upload(&vec![bf16::NAN; tokens * g.query_heads * g.value_dim]).unwrap();
    let mut counters = device.zeros(2).unwrap();
    let mut memory = device.allocate(layer.plan_bytes()).unwrap();
    let mut workspace = layer.new_workspace().unwrap();
    let mut plan = layer.plan(&stream, &batch.batch(), tokens, memory.view_mut()).unwrap();
    let args = StepArgs {
        q_rope: Tensor::dense(q_rope.view(), [tokens, g.query_heads, g.rope_dim]).unwrap(),
        q_nope: Tensor::dense(q_nope.view(), [tokens, g.query_heads, g.nope_dim]).unwrap(),
        k_rope: Tensor::dense(k_rope.view(), [tokens, g.rope_heads, g.rope_dim]).unwrap(),
        c_kv: Tensor::dense(c_kv.view(), [tokens, 1, g.latent_rank]).unwrap(),
        positions: positions.view(),
        slots: slots.view(),
        plan: &mut plan,
        workspace: &mut workspace,
        cache: cache.view_mut(),
        out: TensorMut::dense(out.view_mut(), [tokens, g.query_heads, g.value_dim]).unwrap(),
        counters: Some(counters.view_mut()),
    };
    layer.step(&stream, args).unwrap();
    assert_eq!(counters.to_vec().unwrap(), [0, 0]);
    out.to_vec().unwrap()
}

/// Runs a sequence in steps of random sizes on both, and compares outputs and caches.
fn check(device: Device, g: Geometry, format: CacheFormat, page_size: usize, tokens: usize, seed: u64) {
    let (weights, sequence) = (bf16_weights(seed, g), bf16_sequence(seed + 1, g, tokens, page_size));
    let tables = RopeTables::from_theta(1e4, 10, tokens);
    let layout = CacheLayout::new(&g, format, page_size).unwrap();
    let mut rng = rng(seed + 2);
    let policy = if rng.random() { SplitPolicy::Balanced } else { SplitPolicy::Fixed { tokens: 64 } };
    let config = LayerConfig::new(layout, tokens, tokens).with_policy(policy);
    let mut on_device = OnDevice::new(device, &weights, &tables, config, sequence.batch.pages);
    let reference = ReferenceLayer::new(weights).unwrap();
    let mut cache: PagedCache = reference.new_cache(format, page_size, sequence.batch.pages).unwrap();
    let mut done = 0;
    while done < tokens {
        let count = rng.random_range(1..=tokens - done);
        let (starts, lens) = ([0, count as i32], [(done + count) as i32]);
        let mut batch = sequence.batch.sequences();
        (batch.query_starts, batch.seq_lens) = (&starts, &lens);
        let step = sequence.rows(done..done + count);
        let want = reference.step(&step, &batch, &tables, &mut cache).unwrap().out;
        let got = on_device.step(&sequence, done..done + count);
        done += count;
        let seen = (0..done).map(|t| cache.latent(sequence.batch.slot(0, t)).unwrap());
        compare(&got, &want, terms(&reference.weights().up_value, seen) * (count * g.query_heads / g.kv_heads) as f64);
    }
    compare_caches(&on_device.cache.download().unwrap(), &cache, &sequence);
}

/// The same bytes. Of normalised keys the device rounds what their factors are made of, unrotated numbers, to bf16 first: no
/// factor is further off than such a number.
#[track_caller]
fn compare_caches(got: &PagedCache, want: &PagedCache, sequence: &Sequence) {
    if !sequence.geometry.key_norm {
        assert!(got == want, "the caches differ");
        return;
    }
    for slot in sequence.slots.iter().map(|&slot| slot as usize) {
        assert_eq!(got.latent(slot).unwrap(), want.latent(slot).unwrap());
        // Factors apart, a key is within a step of its format: a 15th of its row's range where it has 4 bits.
        let (keys, wanted) = (got.rope(slot).unwrap(), want.rope(slot).unwrap());
        let (least, most) = wanted.iter().fold((0.0f64, 0.0f64), |(least, most), &x| (least.min(x), most.max(x)));
        for (got, want) in keys.iter().zip(&wanted) {
            assert!((got - want).abs() <= want.abs() / 128.0 + (most - least) / 14.0, "rotated key {got}, want {want}");
        }
        for (got, want) in got.factors(slot).unwrap().into_iter().zip(want.factors(slot).unwrap()) {
            assert!((got / want - 1.0).abs() < 1.0 / 256.0, "factor {got}, want {want}");
        }
    }
}

/// The squares of the terms that a token's values are sums of, all KV heads together: a weight times a latent of the
/// mean square that it has in the tokens seen.
fn terms(up_value: &Matrix, seen: impl ExactSizeIterator<Item = Vec<f64>>) -> f64 {
    let (mut mean_squares, tokens) = (vec![0.0; up_value.cols()], seen.len() as f64);
    for latent in seen {
        mean_squares.iter_mut().zip(latent).for_each(|(sum, c)| *sum += c * c / tokens);
    }
    let rows = up_value.data().chunks_exact(up_value.cols());
    rows.flat_map(|row| row.iter().zip(&mean_squares).map(|(w, square)| f64::from(w * w) * square)).sum()
}

/// Between the bf16 inputs and the output, q_rotated, q_latent, the softmax weights, o_latent and the output itself are
/// each rounded to bf16, by less than 2^-9 of a number in root mean square (2^-8 at most). An output is a sum of such
/// numbers, and where they cancel its error is still relative to them: so over all of a step's elements to `terms`, the
/// squares of what the outputs are sums of, and of the outputs themselves. Five independent roundings leave less than
/// sqrt(5) * 2^-9 of their root mean square, and three times that where scores of a few units turn errors of the query
/// into errors of the weights.
#[track_caller]
fn compare(got: &[f64], want: &[f32], terms: f64) {
    assert_eq!(got.len(), want.len());
    let (mut error, mut size) = (0.0, terms);
    for (got, want) in got.iter().zip(want) {
        assert!(got.is_finite(), "got {got}");
        error += (got - f64::from(*want)).powi(2);
        size += f64::from(*want).powi(2);
    }
    let relative = (error / size.max(f64::MIN_POSITIVE)).sqrt();
    assert!(relative < 3.0 * 5f64.sqrt() / 512.0, "relative error {relative}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn steps_over_a_growing_cache_equal_the_reference(
        g in with_key_norm(geometry()),
        page_size in page_size(),
        tokens in 1usize..80,
        format in prop_oneof![
            Just(CacheFormat::INT4),
            Just(CacheFormat::BF16),
            Just(CacheFormat::int4(Group::G64).with_rope(RopeFormat::Int8)),
        ],
        seed: u64,
    ) {
        check(device(), g, format, page_size, tokens, seed >> 2);
    }
}

/// Found on an H200: values of one number, in which most of the terms cancel.
#[test]
fn outputs_that_cancel_are_as_exact_as_their_terms() {
    let mut g = Geometry::mha2mla(3, 1, 10, 8, 1).unwrap();
    (g.latent_rank, g.value_dim) = (42, 1);
    check(device(), g, CacheFormat::INT4, 8, 25, 2042940983330176336 >> 2);
}

/// Qwen3's sizes: 32 heads of 128 dimensions, 8 of them of keys.
#[test]
fn a_layer_with_norms_over_heads_takes_a_step() {
    let g = Geometry::mha2mla(32, 8, 128, 16, 64).unwrap().with_key_norm(true);
    for (format, tokens) in [(CacheFormat::INT4, 5), (CacheFormat::BF16, 33)] {
        check(simulate(Simulation::default().with_checked(false)), g, format, 16, tokens, 11);
    }
}

#[test]
fn norms_over_heads_beside_one_over_the_latent_are_refused() {
    let g = Geometry::mha2mla(4, 2, 16, 8, 16).unwrap().with_key_norm(true);
    let mut layer = bf16_weights(1, g);
    layer.latent_norm = Some(RmsNorm { gain: vec![1.0; g.latent_rank], epsilon: 1e-6 });
    let device = device();
    let tables = RotationBuffers::upload(&device, &RopeTables::from_theta(1e4, 10, 3), &layer.frequencies).unwrap();
    let config = LayerConfig::new(CacheLayout::new(&g, CacheFormat::INT4, 8).unwrap(), 3, 3);
    let message = LatentAttentionLayer::new(&device, &layer, &tables, config).unwrap_err().to_string();
    assert!(message.contains("norms over heads beside one over the latent"), "{message}");
}

#[test]
fn named_models_take_a_step() {
    for (name, tokens) in [("smollm-135m-d32", 70), ("llama3-8b-d64", 9), ("deepseek-v2-lite", 5)] {
        let simulation = Simulation::default().with_checked(false); // Large, and all kernels have tests of their own.
        check(simulate(simulation), Geometry::named(name).unwrap(), CacheFormat::INT4, 64, tokens, 7);
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused_before_the_cache_is_written() {
    let g = Geometry::smollm_135m(16).unwrap();
    let (weights, sequence) = (bf16_weights(1, g), bf16_sequence(2, g, 3, 8));
    let tables = RopeTables::from_theta(1e4, 10, 3);
    let layout = CacheLayout::new(&g, CacheFormat::INT4, 8).unwrap();
    let device = device();
    let mut on_device =
        OnDevice::new(device.clone(), &weights, &tables, LayerConfig::new(layout, 3, 3), sequence.batch.pages);
    let stream = device.stream().unwrap();
    let batch = BatchBuffers::upload(&device, &sequence.batch.sequences(), &layout, on_device.cache.pages()).unwrap();
    let before = on_device.cache.download().unwrap();
    // Tokens of the arguments, value dimensions of the output, and nope dimensions of the query.
    let mut check = |tokens: usize, value_dim: usize, nope_dim: usize, expected: &str| {
        let zeros = |len: usize| device.zeros::<bf16>(len).unwrap();
        let (q_rope, q_nope) = (zeros(tokens * 9 * g.rope_dim), zeros(tokens * 9 * nope_dim));
        let (k_rope, c_kv) = (zeros(tokens * g.rope_width()), zeros(tokens * g.latent_rank));
        let (positions, slots) = (device.zeros(tokens).unwrap(), device.zeros(tokens).unwrap());
        let mut out = zeros(tokens * 9 * value_dim);
        let mut memory = device.allocate(on_device.layer.plan_bytes()).unwrap();
        let mut workspace = on_device.layer.new_workspace().unwrap();
        let mut plan = on_device.layer.plan(&stream, &batch.batch(), 3, memory.view_mut()).unwrap();
        let args = StepArgs {
            q_rope: Tensor::dense(q_rope.view(), [tokens, 9, g.rope_dim]).unwrap(),
            q_nope: Tensor::dense(q_nope.view(), [tokens, 9, nope_dim]).unwrap(),
            k_rope: Tensor::dense(k_rope.view(), [tokens, 3, g.rope_dim]).unwrap(),
            c_kv: Tensor::dense(c_kv.view(), [tokens, 1, g.latent_rank]).unwrap(),
            positions: positions.view(),
            slots: slots.view(),
            plan: &mut plan,
            workspace: &mut workspace,
            cache: on_device.cache.view_mut(),
            out: TensorMut::dense(out.view_mut(), [tokens, 9, value_dim]).unwrap(),
            counters: None,
        };
        let message = on_device.layer.step(&stream, args).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
        assert!(on_device.cache.download().unwrap() == before);
    };
    check(2, 64, 56, "slots: expected [query tokens of the plan 3], got 2 elements");
    check(3, 63, 56, "out: expected [tokens 3, query heads 9, value 64], got [3, 9, 63]");
    check(3, 64, 55, "q_nope: expected [tokens 3, query heads 9, nope 56], got [3, 9, 55]");
}
