//! `head_norm` equals the reference to the bit.

use half::bf16;
use latent_attention::Geometry;
use latent_attention::device::{Device, Simulation, Tensor, TensorMut};
use latent_attention::ops::{HeadNorm, HeadNormArgs, HeadNormConfig, HeadNormQueryArgs};
use latent_attention::reference::{HeadNormInputs, HeadNormQueries, HeadNormed, head_norm};
use proptest::prelude::*;
use ptx_sim::meter::Path;

use crate::common::{random, rng};
use crate::rope_append::step::{Memory, POISON, awkward, bf16s};
use crate::{PTX, device, simulate, wide};

const EPSILON: f32 = 1e-6;

/// A step's heads.
#[derive(Clone)]
struct Case {
    geometry: Geometry,
    tokens: usize,
    q_rope: Vec<bf16>,
    q_nope: Vec<bf16>,
    k_rope: Vec<bf16>,
    k_nope: Vec<bf16>,
    gain: Vec<f32>,
    has_queries: bool,
}

impl Case {
    fn new(seed: u64, geometry: Geometry, tokens: usize, is_awkward: bool) -> Self {
        let (rng, g) = (&mut rng(seed), geometry);
        let mut numbers = |len| if is_awkward { awkward(rng, len) } else { bf16s(rng, len) };
        let [q_rope, q_nope] = [g.rope_dim, g.nope_dim].map(|width| numbers(tokens * g.query_heads * width));
        let [k_rope, k_nope] = [g.rope_dim, g.nope_dim].map(|width| numbers(tokens * g.kv_heads * width));
        let gain = random(rng, g.kv_heads * (g.rope_dim + g.nope_dim));
        Self { geometry, tokens, q_rope, q_nope, k_rope, k_nope, gain, has_queries: true }
    }

    fn reference(&self) -> HeadNormed {
        let narrow = |values: &[bf16]| -> Vec<f32> { values.iter().map(|value| value.to_f32()).collect() };
        let [q_rope, q_nope] = [&self.q_rope, &self.q_nope].map(|values| narrow(values));
        let queries = HeadNormQueries { q_rope: &q_rope, q_nope: &q_nope, gain: &self.gain };
        let (k_rope, k_nope) = (narrow(&self.k_rope), narrow(&self.k_nope));
        let queries = self.has_queries.then_some(queries);
        head_norm(&self.geometry, &HeadNormInputs { queries, k_rope: &k_rope, k_nope: &k_nope, epsilon: EPSILON })
            .unwrap()
    }

    fn run(&self, device: &Device, memory: Memory) -> (Vec<bf16>, Vec<bf16>, Vec<f32>) {
        let (g, tokens, shift) = (&self.geometry, self.tokens, memory.shift);
        let [q_rope_shape, q_nope_shape] = [g.rope_dim, g.nope_dim].map(|w| memory.shape([tokens, g.query_heads, w]));
        let [k_rope_shape, k_nope_shape] = [g.rope_dim, g.nope_dim].map(|w| memory.shape([tokens, g.kv_heads, w]));
        let from = |values: &[bf16], shape| memory.tensor(device, values, shape);
        let (q_rope, q_nope) = (from(&self.q_rope, q_rope_shape), from(&self.q_nope, q_nope_shape));
        let (k_rope, k_nope) = (from(&self.k_rope, k_rope_shape), from(&self.k_nope, k_nope_shape));
        let poisoned = |strides: usize| memory.dense(device, &vec![POISON; tokens * strides]);
        let (mut rope_out, mut nope_out) = (poisoned(q_rope_shape.strides[0]), poisoned(q_nope_shape.strides[0]));
        if memory.in_place {
            memory.scatter(&mut rope_out, &self.q_rope, q_rope_shape);
            memory.scatter(&mut nope_out, &self.q_nope, q_nope_shape);
        }
        let gain = memory.dense(device, &self.gain);
        let mut factors = device.upload(&vec![f32::NAN; tokens * g.kv_heads]).unwrap();
        let queries = HeadNormQueryArgs {
            q_rope: (!memory.in_place)
                .then(|| Tensor::new(q_rope.view().slice(shift..).unwrap(), q_rope_shape).unwrap()),
            q_nope: (!memory.in_place)
                .then(|| Tensor::new(q_nope.view().slice(shift..).unwrap(), q_nope_shape).unwrap()),
            gain: gain.view().slice(shift..).unwrap(),
            q_rope_out: TensorMut::new(rope_out.view_mut().slice(shift..).unwrap(), q_rope_shape).unwrap(),
            q_nope_out: TensorMut::new(nope_out.view_mut().slice(shift..).unwrap(), q_nope_shape).unwrap(),
        };
        let args = HeadNormArgs {
            queries: self.has_queries.then_some(queries),
            k_rope: Tensor::new(k_rope.view().slice(shift..).unwrap(), k_rope_shape).unwrap(),
            k_nope: Tensor::new(k_nope.view().slice(shift..).unwrap(), k_nope_shape).unwrap(),
            epsilon: EPSILON,
            key_factors: factors.view_mut(),
        };
        let operation = HeadNorm::new(device, HeadNormConfig::new(*g)).unwrap();
        operation.run(&device.stream().unwrap(), args).unwrap();
        let rope = memory.gather(&rope_out.to_vec().unwrap()[shift..], q_rope_shape);
        let nope = memory.gather(&nope_out.to_vec().unwrap()[shift..], q_nope_shape);
        (rope, nope, factors.to_vec().unwrap())
    }

    #[track_caller]
    fn check(&self, device: &Device, memory: Memory) {
        let (rope, nope, factors) = self.run(device, memory);
        let want = self.reference();
        if self.has_queries {
            for (got, want) in [(rope, want.q_rope), (nope, want.q_nope)] {
                for (i, (got, want)) in got.iter().zip(want).enumerate() {
                    let want = bf16::from_f32(want);
                    let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
                    assert!(same, "query number {i}: got {got:?}, want {want:?}");
                }
            }
        }
        for (i, (got, want)) in factors.iter().zip(want.key_factors).enumerate() {
            let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
            assert!(same, "factor {i}: got {got}, want {want}");
        }
    }
}

/// Layers whose keys are normalised: heads in whole chunks and in odd numbers, of one part or of both, longer than a warp's
/// 256 numbers.
fn geometries() -> impl Strategy<Value = Geometry> {
    let dims = prop_oneof![
        (0usize..=5, 0usize..=7).prop_map(|(pairs, nope)| [2 * pairs, nope]),
        (0usize..=4, 0usize..=14).prop_map(|(rope, nope)| [8 * rope, 8 * nope]),
        Just([16, 112]),
        Just([64, 256]),
    ];
    (1usize..=4, 1usize..=3, dims).prop_map(|(kv_heads, per_kv, [rope_dim, nope_dim])| {
        let nope_dim = nope_dim.max(usize::from(rope_dim == 0));
        Geometry::unchecked(kv_heads * per_kv, kv_heads, 8, kv_heads, rope_dim, nope_dim, 4).with_key_norm(true)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_reference(
        seed: u64,
        geometry in geometries(),
        tokens in 1usize..=9,
        gaps in prop_oneof![Just([0, 0]), Just([8, 16]), [0usize..5, 0usize..5]],
        shift in prop_oneof![3 => Just(0usize), 1 => 1usize..=7],
        in_place: bool,
        has_queries: bool,
        is_awkward: bool,
        arch in 0usize..2,
    ) {
        let case = Case { has_queries, ..Case::new(seed, geometry, tokens, is_awkward) };
        let device = simulate(Simulation::default().with_arch(PTX[arch]));
        case.check(&device, Memory { gaps, shift, in_place });
    }
}

#[test]
fn a_normalised_query_has_a_mean_square_of_one_and_a_key_times_its_factor_too() {
    let geometry = Geometry::mha2mla(4, 2, 128, 16, 8).unwrap().with_key_norm(true);
    let mut case = Case::new(5, geometry, 3, false);
    case.gain.fill(1.0);
    let (rope, nope, factors) = case.run(&device(), Memory::default());
    let mean_square = |rope: &[f64], nope: &[f64]| {
        rope.iter().chain(nope).map(|x| x * x).sum::<f64>() / (rope.len() + nope.len()) as f64
    };
    for (rope, nope) in wide(&rope).chunks_exact(16).zip(wide(&nope).chunks_exact(112)) {
        assert!((mean_square(rope, nope) - 1.0).abs() < 0.01);
    }
    let keys = wide(&case.k_rope);
    for ((rope, nope), factor) in keys.chunks_exact(16).zip(wide(&case.k_nope).chunks_exact(112)).zip(factors) {
        assert!((mean_square(rope, nope) * f64::from(factor).powi(2) - 1.0).abs() < 1e-4);
    }
}

/// Each number is read from memory once, in whole sectors, and written once; queries are read a second time from L1.
#[test]
fn heads_are_read_in_whole_sectors() {
    let device = device();
    if !crate::is_simulated(&device) {
        return;
    }
    let geometry = Geometry::mha2mla(8, 4, 128, 16, 8).unwrap().with_key_norm(true);
    let case = Case { has_queries: false, ..Case::new(6, geometry, 8, false) };
    case.run(&device, Memory::default());
    let counts = device.take_counts();
    let read = counts["head_norm"].meter.traffic[&Path::GlobalRead];
    assert_eq!(read.bytes, 8 * 4 * 128 * 2, "{read:?}");
    assert_eq!(32 * read.sectors, read.bytes, "{read:?}");
}

#[test]
fn arguments_that_do_not_fit_are_refused_by_name() {
    let device = device();
    let plain = Geometry::mha2mla(4, 2, 16, 8, 8).unwrap();
    let message = HeadNorm::new(&device, HeadNormConfig::new(plain)).unwrap_err().to_string();
    assert!(message.contains("key norm"), "{message}");

    let g = plain.with_key_norm(true);
    let operation = HeadNorm::new(&device, HeadNormConfig::new(g)).unwrap();
    let refused = |k_nope: [usize; 3], factors: usize, epsilon: f32, expected: &str| {
        let (keys, nope) = (device.zeros::<bf16>(2 * 2 * 8).unwrap(), device.zeros(k_nope.iter().product()).unwrap());
        let mut key_factors = device.zeros::<f32>(factors).unwrap();
        let args = HeadNormArgs {
            queries: None,
            k_rope: Tensor::dense(keys.view(), [2, 2, 8]).unwrap(),
            k_nope: Tensor::dense(nope.view(), k_nope).unwrap(),
            epsilon,
            key_factors: key_factors.view_mut(),
        };
        let message = operation.run(&device.stream().unwrap(), args).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    };
    refused([2, 2, 7], 4, 1e-6, "k_nope: expected [tokens 2, kv heads 2, nope 8], got [2, 2, 7]");
    refused([1, 2, 8], 4, 1e-6, "k_nope: expected [tokens 2, kv heads 2, nope 8], got [1, 2, 8]");
    refused([2, 2, 8], 3, 1e-6, "factors of keys: expected [tokens 2, kv heads 2]");
    refused([2, 2, 8], 4, -1.0, "epsilon -1 of the head norm");
    refused([2, 2, 8], 4, f32::NAN, "epsilon NaN of the head norm");
}
