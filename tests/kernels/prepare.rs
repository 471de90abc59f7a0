//! `prepare` has the bits of `absorb_query` and `rope_append`, in one launch where tokens are few.

use half::bf16;
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, RangeSetting};
use latent_attention::device::{Buffer, Device, Simulation, Stream, Tensor, TensorMut};
use latent_attention::ops::{
    AbsorbConfig, AbsorbQuery, AbsorbQueryArgs, DeviceCache, DeviceKeyNorm, DeviceNorm, Prepare, RopeAppend,
    RopeAppendArgs, RopeAppendConfig, RotationBuffers,
};
use latent_attention::rope::RopeTables;
use latent_attention::weights::LatentAttention;
use proptest::prelude::*;

use crate::common::layers::{Sequence, weights};
use crate::common::{formats, geometry, page_size, rng};
use crate::{PTX, device, is_simulated, rounded, simulate, with_key_norm};

/// What the two operations leave: absorbed and rotated queries, the cache, and counters.
type Outputs = (Vec<u16>, Vec<u16>, Vec<u8>, Vec<u64>);

/// The inputs of both on a device.
struct Inputs<'a> {
    weights: &'a LatentAttention,
    tokens: usize,
    layout: CacheLayout,
    pages: usize,
    rotation: RotationBuffers,
    up_key: Buffer<bf16>,
    q_nope: Buffer<bf16>,
    q_rope: Buffer<bf16>,
    k_rope: Buffer<bf16>,
    c_kv: Buffer<bf16>,
    positions: Buffer<i32>,
    slots: Buffer<i64>,
    norm: Option<(Buffer<f32>, f32)>,
    bias: Option<Buffer<f32>>,
    /// Of normalised keys: the gain, and the tokens' factors.
    key_norm: Option<[Buffer<f32>; 2]>,
}

impl<'a> Inputs<'a> {
    fn new(device: &Device, weights: &'a LatentAttention, sequence: &Sequence, layout: CacheLayout) -> Self {
        let upload = |values: &[f32]| device.upload(&rounded(values)).unwrap();
        let tables = RopeTables::from_theta(1e4, 10, sequence.positions.len());
        // Every fifth token has no slot, and every seventh is refused.
        let positions: Vec<i32> = sequence.positions.iter().map(|&t| if t % 7 == 6 { -1 } else { t }).collect();
        let slots: Vec<i64> =
            sequence.slots.iter().enumerate().map(|(t, &slot)| if t % 5 == 4 { -1 } else { slot }).collect();
        Self {
            weights,
            tokens: positions.len(),
            layout,
            pages: sequence.batch.pages,
            rotation: RotationBuffers::upload(device, &tables, &weights.frequencies).unwrap(),
            up_key: upload(weights.up_key.data()),
            q_nope: upload(&sequence.q_nope),
            q_rope: upload(&sequence.q_rope),
            k_rope: upload(&sequence.k_rope),
            c_kv: upload(&sequence.c_kv),
            positions: device.upload(&positions).unwrap(),
            slots: device.upload(&slots).unwrap(),
            norm: weights.latent_norm.as_ref().map(|norm| (device.upload(&norm.gain).unwrap(), norm.epsilon)),
            bias: weights.latent_bias.as_ref().map(|bias| device.upload(bias).unwrap()),
            key_norm: weights.head_norms.as_ref().map(|norms| {
                let factors = (0..sequence.positions.len() * weights.geometry.kv_heads).map(|i| 0.5 + i as f32 / 7.0);
                [device.upload(&norms.key).unwrap(), device.upload(&factors.collect::<Vec<f32>>()).unwrap()]
            }),
        }
    }

    /// What an operation, or two, make of them.
    fn run(&self, device: &Device, launch: impl FnOnce(&Stream, AbsorbQueryArgs, RopeAppendArgs)) -> Outputs {
        let (g, t) = (&self.weights.geometry, self.tokens);
        let mut q_latent = device.upload(&vec![bf16::NAN; t * g.query_heads * g.latent_rank]).unwrap();
        let mut q_rotated = device.upload(&vec![bf16::NAN; t * g.query_heads * g.rope_dim]).unwrap();
        let mut cache = DeviceCache::new(device, self.layout, self.pages).unwrap();
        let mut counters = device.zeros(2).unwrap();
        let rope_shape = [t, g.query_heads, g.rope_dim];
        launch(
            &device.stream().unwrap(),
            AbsorbQueryArgs {
                up_key: Tensor::dense(self.up_key.view(), [g.kv_heads, g.nope_dim, g.latent_rank]).unwrap(),
                q_nope: Tensor::dense(self.q_nope.view(), [t, g.query_heads, g.nope_dim]).unwrap(),
                q_latent: TensorMut::dense(q_latent.view_mut(), [t, g.query_heads, g.latent_rank]).unwrap(),
            },
            RopeAppendArgs {
                q_rope: Some(Tensor::dense(self.q_rope.view(), rope_shape).unwrap()),
                q_rotated: Some(TensorMut::dense(q_rotated.view_mut(), rope_shape).unwrap()),
                k_rope: Tensor::dense(self.k_rope.view(), [t, g.rope_heads, g.rope_dim]).unwrap(),
                c_kv: Tensor::dense(self.c_kv.view(), [t, 1, g.latent_rank]).unwrap(),
                positions: Some(self.positions.view()),
                slots: self.slots.view(),
                rotation: Some(self.rotation.rotation()),
                norm: self.norm.as_ref().map(|(gain, epsilon)| DeviceNorm { gain: gain.view(), epsilon: *epsilon }),
                bias: self.bias.as_ref().map(Buffer::view),
                cache: cache.view_mut(),
                counters: Some(counters.view_mut()),
                key_norm: self
                    .key_norm
                    .as_ref()
                    .map(|[gain, factors]| DeviceKeyNorm { gain: gain.view(), factors: factors.view() }),
            },
        );
        let bits = |values: &Buffer<bf16>| values.to_vec().unwrap().iter().map(|x| x.to_bits()).collect();
        let cached = cache.download().unwrap().bytes().to_vec();
        (bits(&q_latent), bits(&q_rotated), cached, counters.to_vec().unwrap())
    }
}

/// Compares both ways; the launches of the one way, with their number.
#[track_caller]
fn check(
    device: &Device,
    g: Geometry,
    format: CacheFormat,
    page_size: usize,
    tokens: usize,
    invariant: bool,
    seed: u64,
) -> Vec<(String, u64)> {
    let weights = weights(&mut rng(seed), g);
    let sequence = Sequence::new(&mut rng(seed + 1), g, tokens, page_size);
    let layout = CacheLayout::new(&g, format, page_size).unwrap();
    let inputs = Inputs::new(device, &weights, &sequence, layout);
    let absorb = AbsorbConfig::new(g);
    let absorb = if invariant { absorb.batch_invariant() } else { absorb };
    let append = RopeAppendConfig::new(g, layout, weights.pairing);
    let separate = inputs.run(device, |stream, queries, tokens| {
        AbsorbQuery::new(device, absorb).unwrap().run(stream, queries).unwrap();
        RopeAppend::new(device, append).unwrap().run(stream, tokens).unwrap();
    });
    let _ = device.take_counts();
    let together = inputs.run(device, |stream, queries, tokens| {
        Prepare::new(device, absorb, append).unwrap().run(stream, queries, tokens).unwrap();
    });
    assert!(together == separate, "{g:?} {format:?}, {tokens} tokens, invariant: {invariant}");
    device.take_counts().into_iter().map(|(kernel, counted)| (kernel, counted.launches)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn has_the_bits_of_two_launches(
        g in with_key_norm(geometry()),
        format in prop::sample::select(formats()),
        mse: bool,
        page_size in page_size(),
        tokens in 1usize..=40,
        invariant: bool,
        arch in 0usize..2,
        seed in 0..u64::MAX / 2,
    ) {
        let format = format.with_range(if mse { RangeSetting::Mse } else { RangeSetting::MinMax });
        let device = simulate(Simulation::default().with_arch(PTX[arch]));
        check(&device, g, format, page_size, tokens, invariant, seed);
    }
}

#[test]
fn few_tokens_take_one_launch_and_many_two() {
    let device = device();
    let smollm = Geometry::named("smollm-135m-d32").unwrap();
    for (tokens, invariant, kernels) in [
        (1, false, &["prepare"][..]),
        (1, true, &["prepare_ordered"]),
        (5, true, &["prepare_ordered"]),
        (64, false, &["absorb_query_many", "rope_append"]),
        (64, true, &["absorb_query_many", "rope_append"]),
    ] {
        let launches = check(&device, smollm, CacheFormat::INT4, 16, tokens, invariant, 5);
        if is_simulated(&device) {
            let expected: Vec<_> = kernels.iter().map(|&kernel| (kernel.to_owned(), 1)).collect();
            assert_eq!(launches, expected, "{tokens} tokens");
        }
    }
}
