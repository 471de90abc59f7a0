//! A step is few launches, with the bits of one for each operation.

use half::bf16;
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, Group, Sequences};
use latent_attention::device::{Buffer, Device, Simulation, Tensor, TensorMut};
use latent_attention::layer::LayerConfig;
use latent_attention::ops::{
    AbsorbConfig, AbsorbQuery, AbsorbQueryArgs, BatchBuffers, Decode, DecodeArgs, DecodeConfig, DeviceCache,
    DeviceNorm, ExpandOutput, ExpandOutputArgs, KernelFamily, Merging, RopeAppend, RopeAppendArgs, RopeAppendConfig,
    RotationBuffers, SplitPolicy,
};
use latent_attention::reference::ReferenceInputs;
use latent_attention::rope::RopeTables;
use latent_attention::weights::LatentAttention;
use proptest::prelude::*;

use super::{OnDevice, bf16_sequence, bf16_weights, step};
use crate::common::{geometry, page_size};
use crate::decode::hopper_like;
use crate::{device, is_simulated, rounded, simulate};

/// A step by a launch for each operation; returns its output.
fn separately(
    device: &Device,
    weights: &LatentAttention,
    tables: &RopeTables,
    config: LayerConfig,
    cache: &mut DeviceCache,
    batch: &Sequences,
    inputs: &ReferenceInputs,
) -> Vec<bf16> {
    let (g, t, stream) = (weights.geometry, inputs.positions.len(), device.stream().unwrap());
    let batch = BatchBuffers::upload(device, batch, &config.layout, cache.pages()).unwrap();
    let upload = |values: &[f32]| device.upload(&rounded(values)).unwrap();
    let [q_rope, q_nope, k_rope, c_kv]: [Buffer<bf16>; 4] =
        [inputs.q_rope, inputs.q_nope, inputs.k_rope, inputs.c_kv].map(upload);
    let [up_key, up_value] = [&weights.up_key, &weights.up_value].map(|matrix| upload(matrix.data()));
    let (positions, slots) = (device.upload(inputs.positions).unwrap(), device.upload(inputs.slots).unwrap());
    let rotation = RotationBuffers::upload(device, tables, &weights.frequencies).unwrap();
    let [norm, bias, value_bias] = [
        weights.latent_norm.as_ref().map(|norm| &norm.gain),
        weights.latent_bias.as_ref(),
        weights.value_bias.as_ref(),
    ]
    .map(|values| values.map(|values| device.upload(values).unwrap()));
    let allocate = |len: usize| device.upload(&vec![bf16::NAN; len]).unwrap();
    let [mut q_latent, mut o_latent] = [(); 2].map(|()| allocate(t * g.query_heads * g.latent_rank));
    let (mut q_rotated, mut out) =
        (allocate(t * g.query_heads * g.rope_dim), allocate(t * g.query_heads * g.value_dim));
    let mut lse = device.upload(&vec![f32::NAN; t * g.query_heads]).unwrap();
    let (latent_shape, rope_shape) = ([t, g.query_heads, g.latent_rank], [t, g.query_heads, g.rope_dim]);

    let absorb = AbsorbConfig::new(g).with_policy(config.policy);
    let queries = AbsorbQueryArgs {
        up_key: Tensor::dense(up_key.view(), [g.kv_heads, g.nope_dim, g.latent_rank]).unwrap(),
        q_nope: Tensor::dense(q_nope.view(), [t, g.query_heads, g.nope_dim]).unwrap(),
        q_latent: TensorMut::dense(q_latent.view_mut(), latent_shape).unwrap(),
    };
    AbsorbQuery::new(device, absorb).unwrap().run(&stream, queries).unwrap();
    let epsilon = weights.latent_norm.as_ref().map_or(0.0, |norm| norm.epsilon);
    let tokens = RopeAppendArgs {
        q_rope: Some(Tensor::dense(q_rope.view(), rope_shape).unwrap()),
        q_rotated: Some(TensorMut::dense(q_rotated.view_mut(), rope_shape).unwrap()),
        k_rope: Tensor::dense(k_rope.view(), [t, g.rope_heads, g.rope_dim]).unwrap(),
        c_kv: Tensor::dense(c_kv.view(), [t, 1, g.latent_rank]).unwrap(),
        positions: Some(positions.view()),
        slots: slots.view(),
        rotation: Some(rotation.rotation()),
        norm: norm.as_ref().map(|gain| DeviceNorm { gain: gain.view(), epsilon }),
        bias: bias.as_ref().map(Buffer::view),
        cache: cache.view_mut(),
        counters: None,
        key_norm: None,
    };
    let append = RopeAppendConfig::new(g, config.layout, weights.pairing);
    RopeAppend::new(device, append).unwrap().run(&stream, tokens).unwrap();
    let decode = DecodeConfig::new(g, config.layout, weights.scale as f32, config.max_query_tokens, config.max_tokens)
        .with_policy(config.policy)
        .with_kernels(config.kernels)
        .with_merging(Merging::Separate);
    let decode = Decode::new(device, decode).unwrap();
    let mut memory = device.allocate(decode.workspace_bytes()).unwrap();
    let mut plan = decode.plan(&stream, &batch.batch(), t, memory.view_mut()).unwrap();
    let attend = DecodeArgs {
        q_latent: Tensor::dense(q_latent.view(), latent_shape).unwrap(),
        q_rope: Tensor::dense(q_rotated.view(), rope_shape).unwrap(),
        cache: cache.view(),
        o_latent: o_latent.view_mut(),
        lse: lse.view_mut(),
    };
    decode.run(&stream, &mut plan, attend).unwrap();
    let expand = ExpandOutputArgs {
        up_value: Tensor::dense(up_value.view(), [g.kv_heads, g.value_dim, g.latent_rank]).unwrap(),
        value_bias: value_bias.as_ref().map(Buffer::view),
        o_latent: Tensor::dense(o_latent.view(), latent_shape).unwrap(),
        out: TensorMut::dense(out.view_mut(), [t, g.query_heads, g.value_dim]).unwrap(),
    };
    ExpandOutput::new(device, absorb).unwrap().run(&stream, expand).unwrap();
    out.to_vec().unwrap()
}

/// Serves a sequence by both, a prompt and then token by token: outputs and caches have the same bits.
fn check(device: &Device, g: Geometry, config: LayerConfig, tokens: usize, seed: u64) {
    let page_size = config.layout.page_size();
    let (weights, sequence) = (bf16_weights(seed, g), bf16_sequence(seed + 1, g, tokens, page_size));
    let tables = RopeTables::from_theta(1e4, 10, tokens);
    let mut layer = OnDevice::new(device.clone(), &weights, &tables, config, sequence.batch.pages);
    let mut cache = layer.layer.new_cache(sequence.batch.pages).unwrap();
    let prompt = tokens - tokens.min(2);
    for range in [0..prompt, prompt..tokens - 1, tokens - 1..tokens] {
        if range.is_empty() {
            continue;
        }
        let (starts, lens) = ([0, range.len() as i32], [range.end as i32]);
        let mut batch = sequence.batch.sequences();
        (batch.query_starts, batch.seq_lens) = (&starts, &lens);
        let rows = sequence.rows(range.clone());
        let together = step(device, &layer.layer, &mut layer.cache, &batch, &rows);
        let separate = separately(device, &weights, &tables, config, &mut cache, &batch, &rows);
        let differ = together.iter().zip(&separate).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        assert_eq!(differ, 0, "of {} outputs of tokens {range:?}; {g:?}", together.len());
    }
    assert!(layer.cache.download().unwrap() == cache.download().unwrap(), "the caches differ");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_step_has_the_bits_of_separate_launches(
        g in geometry(),
        page_size in page_size(),
        tokens in 1usize..120,
        format in prop_oneof![Just(CacheFormat::INT4), Just(CacheFormat::BF16), Just(CacheFormat::int4(Group::G64))],
        fixed in prop_oneof![Just(None), (1usize..40).prop_map(Some)],
        hopper: bool,
        seed in 0..u64::MAX / 2,
    ) {
        let layout = CacheLayout::new(&g, format, page_size).unwrap();
        let policy = fixed.map_or(SplitPolicy::Balanced, |tokens| SplitPolicy::Fixed { tokens });
        let config = LayerConfig::new(layout, tokens, tokens).with_policy(policy);
        let device = device();
        let (device, kernels) = match hopper_like(&device).filter(|_| hopper) {
            Some(hopper) => (hopper, KernelFamily::Sm90),
            None => (device, KernelFamily::Measured),
        };
        check(&device, g, config.with_kernels(kernels), tokens, seed);
    }
}

/// Launches of a step of the last `queries` of a sequence's tokens, without planning, which serves all layers.
fn launches(device: &Device, g: Geometry, config: LayerConfig, tokens: usize, queries: usize) -> Vec<(String, u64)> {
    let (weights, sequence) = (bf16_weights(3, g), bf16_sequence(4, g, tokens, config.layout.page_size()));
    let tables = RopeTables::from_theta(1e4, 10, tokens);
    let mut layer = OnDevice::new(device.clone(), &weights, &tables, config, sequence.batch.pages);
    layer.step(&sequence, tokens - queries..tokens);
    let counts = device.take_counts().into_iter().map(|(kernel, count)| (kernel, count.launches));
    counts.filter(|(kernel, _)| kernel != "schedule").collect()
}

/// One token of every named model: two products with weights, and attention between them, whether it is cut or not, by every
/// family of kernels and under every policy.
#[test]
fn a_decode_step_is_three_launches() {
    let unchecked = Simulation::default().with_checked(false); // Large, and all kernels have tests of their own.
    let device = simulate(unchecked);
    for &(name, geometry) in Geometry::NAMED {
        let g = geometry().unwrap();
        let layout = CacheLayout::new(&g, CacheFormat::INT4, 64).unwrap();
        for (tokens, policy) in
            [(300, SplitPolicy::Balanced), (300, SplitPolicy::Fixed { tokens: 64 }), (40, SplitPolicy::Balanced)]
        {
            let config = LayerConfig::new(layout, 1, tokens).with_policy(policy);
            let launches = launches(&device, g, config, tokens, 1);
            let number = launches.iter().map(|(_, n)| n).sum::<u64>();
            assert!(number == 3 || !is_simulated(&device), "{name}, {policy:?}: {launches:?}");
        }
    }
}

/// Of many tokens absorbing and appending are launches of their own, which costs next to nothing then.
#[test]
fn a_step_of_many_tokens_is_four_launches() {
    let device = device();
    let g = Geometry::smollm_135m(16).unwrap();
    let layout = CacheLayout::new(&g, CacheFormat::INT4, 16).unwrap();
    let fixed = SplitPolicy::Fixed { tokens: 64 };
    for (tokens, policy) in [(64, fixed), (65, fixed), (47, SplitPolicy::Balanced), (48, SplitPolicy::Balanced)] {
        let config = LayerConfig::new(layout, tokens, 200).with_policy(policy);
        let launches = launches(&device, g, config, tokens, tokens);
        let number = launches.iter().map(|(_, n)| n).sum::<u64>();
        assert!(number == 4 || !is_simulated(&device), "{tokens} tokens, {policy:?}: {launches:?}");
    }
}
