//! `rope_append` leaves the reference's cache, byte for byte.

mod refusals;
pub mod step;

use half::bf16;
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, Group, RangeSetting, quantize};
use latent_attention::device::{Device, Simulation, Tensor, TensorMut};
use latent_attention::ops::{DeviceCache, RopeAppend, RopeAppendArgs, RopeAppendConfig, RotationBuffers};
use latent_attention::reference::rms_norm;
use latent_attention::rope::{FrequencyIndex, Pairing};
use latent_attention::weights::RmsNorm;
use proptest::prelude::*;
use ptx_sim::meter::{Meter, Path};

use self::step::*;
use crate::common::{formats, geometry, page_size, random, rng};
use crate::{PTX, device, is_simulated, simulate, with_key_norm};

/// Layers of all sizes: every way of turning heads, latents of one run and of several, odd ones.
fn any_geometry() -> impl Strategy<Value = Geometry> {
    let rank = prop_oneof![
        1usize..=80,
        prop::sample::select(vec![96, 160, 256, 257, 505, 512, 513, 520, 640, 1024, 1030, 1544])
    ];
    let dim = prop::sample::select(vec![2usize, 4, 6, 8, 8, 16, 16, 20, 32, 48, 64, 64, 96, 128, 256, 264, 512]);
    let large = (1usize..=3, 1usize..=5, rank, dim).prop_map(|(per_rope, rope_heads, latent_rank, rope_dim)| {
        let mut geometry = Geometry::mha2mla(per_rope * rope_heads, rope_heads, rope_dim, rope_dim, 1).unwrap();
        geometry.latent_rank = latent_rank;
        geometry.validate().unwrap()
    });
    with_key_norm(prop_oneof![1 => geometry(), 3 => large])
}

fn any_memory() -> impl Strategy<Value = Memory> {
    let gaps = prop_oneof![Just([0, 0]), Just([8, 16]), Just([8, 8]), [0usize..5, 0usize..5]];
    let shift = prop_oneof![3 => Just(0usize), 1 => 1usize..=7];
    (gaps, shift, any::<bool>()).prop_map(|(gaps, shift, in_place)| Memory { gaps, shift, in_place })
}

fn any_format() -> impl Strategy<Value = CacheFormat> {
    let range = prop::sample::select(vec![RangeSetting::MinMax, RangeSetting::Mse]);
    (prop::sample::select(formats()), range).prop_map(|(format, range)| format.with_range(range))
}

const LEFT_OUT: [LeftOut; 4] = [LeftOut::Nothing, LeftOut::Nothing, LeftOut::Queries, LeftOut::Rotation];

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_reference(
        seed: u64,
        geometry in any_geometry(),
        format in any_format(),
        page_size in page_size(),
        tokens in 1usize..=7,
        memory in any_memory(),
        left_out in prop::sample::select(&LEFT_OUT[..]),
        awkward: bool,
        arch in 0usize..2,
    ) {
        let mut step = Step::new(seed, geometry, format, page_size, tokens).without(left_out);
        if awkward {
            step = step.awkward(seed);
        }
        check(&step, memory, &step.run(&simulate(Simulation::default().with_arch(PTX[arch])), memory));
    }

    #[test]
    fn refused_tokens_are_counted_and_leave_no_trace(
        seed: u64,
        geometry in any_geometry(),
        format in any_format(),
        memory in any_memory(),
        left_out in prop::sample::select(&LEFT_OUT[..]),
        bad in prop::collection::vec((0usize..9, 0usize..6), 1..4),
    ) {
        let mut step = Step::new(seed, geometry, format, 8, 9).without(left_out);
        let slots = step.cache.slots() as i64;
        for (token, what) in bad {
            match what {
                0 => step.positions[token] = -1,
                1 => step.positions[token] = POSITIONS as i32,
                2 => step.positions[token] = i32::MIN,
                3 => step.slots[token] = slots,
                4 => step.slots[token] = -2,
                _ => step.slots[token] = [i64::MIN, i64::MAX, 1 << 32][token % 3],
            }
        }
        run_and_check(&step, memory);
    }
}

#[test]
fn every_format_of_every_named_model() {
    for &(_, geometry) in Geometry::NAMED {
        for (i, format) in formats().into_iter().enumerate() {
            let format = format.with_range([RangeSetting::MinMax, RangeSetting::Mse][i / 2 % 2]);
            let step = Step::new(i as u64, geometry().unwrap(), format, [8, 16, 32, 64][i % 4], 2);
            let step = if i % 3 == 0 { step.awkward(1) } else { step };
            run_and_check(&step, Memory::default());
        }
    }
}

#[test]
fn keys_that_are_rotated_already_are_stored_as_they_are() {
    // Rotating by nothing would not do: x - 0 y is NaN beside an infinite y, and 0 beside x = -0.
    for memory in [Memory::default(), Memory { shift: 1, gaps: [3, 0], ..Memory::default() }] {
        for name in ["llama2-7b-d16", "deepseek-v3", "smollm-135m-d8"] {
            let mut step = Step::new(12, Geometry::named(name).unwrap(), CacheFormat::BF16, 8, 2).awkward(12);
            (step.left_out, step.slots, step.norm, step.bias) = (LeftOut::Rotation, vec![3, 9], None, None);
            step.k_rope[0] = bf16::NEG_ZERO;
            step.k_rope[1] = bf16::INFINITY;
            let cache = run_and_check(&step, memory).cache;
            for (slot, want) in step.slots.iter().zip(step.k_rope.chunks_exact(step.geometry.rope_width())) {
                let got = cache.rope(*slot as usize).unwrap();
                let same = |(got, want): (&f64, &bf16)| {
                    got.to_bits() == want.to_f64().to_bits() || got.is_nan() && want.is_nan()
                };
                assert!(got.iter().zip(want).all(same), "{name}, {memory:?}");
            }
        }
    }
}

#[test]
fn few_tokens_and_many() {
    for (tokens, page_size) in [(1, 8), (2, 16), (33, 32), (257, 64)] {
        for geometry in [Geometry::smollm_135m(8), Geometry::minicpm3_4b()] {
            run_and_check(&Step::new(6, geometry.unwrap(), CacheFormat::INT4, page_size, tokens), Memory::default());
        }
    }
}

#[test]
fn the_norm_is_the_references_to_the_last_bit() {
    // The bias takes the reference's normed latent away again: 0 is left of each number only if its f32 is the same,
    // which neither bf16 nor int4 would show. Sums in another order would differ in about every second case.
    for seed in 0..8 {
        for rank in [7, 96, 512, 1544] {
            let geometry = Geometry::smollm_135m(32).unwrap().with_latent_rank(rank).unwrap();
            let mut step = Step::new(seed, geometry, CacheFormat::BF16, 8, 1);
            let norm = RmsNorm { gain: random(&mut rng(seed), rank), epsilon: 1e-5 };
            let mut normed: Vec<f32> = step.c_kv.iter().map(|v| v.to_f32()).collect();
            rms_norm(&mut normed, &norm);
            (step.norm, step.slots) = (Some(norm), vec![3]);
            step.bias = Some(normed.iter().map(|v| -v).collect());
            let cache = run_and_check(&step, Memory::default()).cache;
            assert_eq!(cache.latent(3).unwrap(), vec![0.0; rank], "seed {seed}");
        }
    }
}

/// Two groups of values that differ by roundings, and have another range as the best: on the way from a uniform
/// distribution to one with longer tails, whose ends are the same. `None` if both have the same best range.
fn turning_point(seed: u64, len: usize) -> Option<[Vec<f32>; 2]> {
    let mut uniform = random(&mut rng(seed), len);
    (uniform[len / 3], uniform[len / 2]) = (1.0, -1.0);
    let group = |part: f64| -> Vec<f32> {
        let mixed = |v: &f32| f64::from(*v) * (1.0 - part) + f64::from(*v).powi(5) * part;
        uniform.iter().map(|v| mixed(v) as f32).collect()
    };
    let affine = |part| {
        let values = group(part);
        quantize(&values, 15, RangeSetting::Mse, &mut vec![0; values.len()]).affine
    };
    let [mut low, mut high] = [0.0, 1.0];
    if affine(low) == affine(high) {
        return None;
    }
    for _ in 0..50 {
        let middle = (low + high) / 2.0;
        if affine(middle) == affine(low) {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some([group(low), group(high)])
}

#[test]
fn ranges_are_chosen_as_the_reference_does_where_errors_differ_by_a_rounding() {
    let device = device();
    for (group, rank) in
        [(Group::Whole, 512), (Group::Whole, 301), (Group::Whole, 96), (Group::G128, 640), (Group::G128, 228)]
    {
        let geometry = Geometry::smollm_135m(32).unwrap().with_latent_rank(rank).unwrap();
        for seed in 0..12 {
            let mut step = Step::new(seed, geometry, CacheFormat::int4(group).with_range(RangeSetting::Mse), 8, 2);
            // A bias on latents of zeros, as it has all of f32's digits.
            step.c_kv.fill(bf16::ZERO);
            (step.norm, step.slots) = (None, vec![3, 9]);
            let groups: Vec<_> = (0..rank)
                .step_by(group.size())
                .map(|start| {
                    let first = 1000 * seed + start as u64;
                    (first..).find_map(|seed| turning_point(seed, group.size().min(rank - start))).unwrap()
                })
                .collect();
            for side in 0..2 {
                step.bias = Some(groups.iter().flat_map(|sides| sides[side].clone()).collect());
                check(&step, Memory::default(), &step.run(&device, Memory::default()));
            }
        }
    }
}

#[test]
fn of_equal_errors_the_longest_range_wins_here_too() {
    // As in `tests/reference/range.rs`, where it is explained; twos have a code in both ranges.
    let small = |v: f32| bf16::from_f32(v * 2f32.powi(-24));
    let geometry = Geometry::smollm_135m(32).unwrap();
    for (fourth, stored) in [(4.0, [0.0, 16.0, 4.0]), (5.0, [1.0, 16.0, 3.0])] {
        let mut step = Step::new(3, geometry, CacheFormat::INT4.with_range(RangeSetting::Mse), 8, 1);
        (step.norm, step.bias, step.slots) = (None, None, vec![3]);
        step.c_kv.fill(small(2.0));
        step.c_kv[..4].copy_from_slice(&[0.0, 17.0, 3.0, fourth].map(small));
        let latent = run_and_check(&step, Memory::default()).cache.latent(3).unwrap();
        assert_eq!([0, 1, 2].map(|i| latent[i] * 2f64.powi(24)), stored);
    }
}

#[test]
fn nothing_is_counted_where_nobody_asks() {
    let mut step = Step::new(7, Geometry::smollm_135m(32).unwrap(), CacheFormat::INT4, 8, 3).awkward(7);
    step.positions[1] = -1;
    let ran = step.launch(&device(), Memory::default(), false);
    assert_eq!(ran.counters, [0, 0]);
    assert!(ran.cache == step.run(&device(), Memory::default()).cache);
}

#[test]
fn tokens_do_not_depend_on_their_neighbours() {
    let all = Step::new(8, Geometry::llama3_8b(64).unwrap(), CacheFormat::INT4, 16, 6);
    let mut cache = all.cache.clone();
    for t in 0..6 {
        let row = |values: &[bf16]| values[t * values.len() / 6..][..values.len() / 6].to_vec();
        let one = Step {
            q_rope: row(&all.q_rope),
            k_rope: row(&all.k_rope),
            c_kv: row(&all.c_kv),
            positions: vec![all.positions[t]],
            slots: vec![all.slots[t]],
            cache,
            ..all.clone()
        };
        cache = one.run(&device(), Memory::default()).cache;
    }
    assert!(all.run(&device(), Memory::default()).cache == cache);
}

#[test]
fn layers_share_tables_and_have_their_own_frequencies() {
    let device = device();
    let step = Step::new(10, Geometry::smollm_135m(32).unwrap(), CacheFormat::BF16, 8, 1);
    let first = RotationBuffers::upload(&device, &step.tables, &FrequencyIndex::all(3, 8)).unwrap();
    let second = first.with_index(&step.frequencies).unwrap();
    let message = first.with_index(&FrequencyIndex::new(1, vec![0, 70]).unwrap()).unwrap_err().to_string();
    assert_eq!(message, "frequency index [1] = 70 is outside of 0..70 frequencies");
    let mut q_rope = device.upload(&step.q_rope).unwrap();
    let (k_rope, c_kv) = (device.upload(&step.k_rope).unwrap(), device.upload(&step.c_kv).unwrap());
    let (positions, slots) = (device.upload(&step.positions).unwrap(), device.upload(&[-1]).unwrap());
    let mut cache = DeviceCache::upload(&device, &step.cache).unwrap();
    let config = RopeAppendConfig::new(step.geometry, *step.cache.layout(), step.pairing);
    let args = RopeAppendArgs {
        q_rope: None,
        q_rotated: Some(TensorMut::dense(q_rope.view_mut(), [1, 9, 8]).unwrap()),
        k_rope: Tensor::dense(k_rope.view(), [1, 3, 8]).unwrap(),
        c_kv: Tensor::dense(c_kv.view(), [1, 1, 96]).unwrap(),
        positions: Some(positions.view()),
        slots: slots.view(),
        rotation: Some(second.rotation()),
        norm: None,
        bias: None,
        cache: cache.view_mut(),
        counters: None,
        key_norm: None,
    };
    RopeAppend::new(&device, config).unwrap().run(&device.stream().unwrap(), args).unwrap();
    assert_eq!(q_rope.to_vec().unwrap(), step.reference(step.q_rope.clone()).0);
    assert!(cache.download().unwrap() == step.cache);
}

/// What a launch counted, of 8 tokens that are all stored. Pairing `Half`, no bias.
fn counted(name: &str, norm: bool, format: CacheFormat, memory: Memory, left_out: LeftOut) -> Meter {
    let mut step = Step::new(9, Geometry::named(name).unwrap(), format, 16, 8).without(left_out);
    (step.pairing, step.bias, step.slots) = (Pairing::Half, None, (0..8).collect());
    step.norm = norm.then(|| RmsNorm { gain: vec![1.0; step.geometry.latent_rank], epsilon: 1e-6 });
    let device = Device::simulated();
    check(&step, memory, &step.run(&device, memory));
    let kernel = match format.range {
        RangeSetting::MinMax => "rope_append",
        RangeSetting::Mse => "rope_append_mse",
    };
    device.take_counts()[kernel].meter.clone()
}

#[test]
fn inputs_are_read_once_and_the_record_is_written_once() {
    let check_without = |left_out, name: &str, norm: bool, format, memory, expected: [usize; 2]| {
        let meter = counted(name, norm, format, memory, left_out);
        let bytes = |path| meter.traffic.get(&path).map_or(0, |traffic| traffic.bytes as usize);
        assert_eq!([bytes(Path::GlobalRead), bytes(Path::GlobalWrite)], expected.map(|n| 8 * n), "{name}");
        assert_eq!(bytes(Path::LocalRead) + bytes(Path::LocalWrite), 0, "{name}");
        assert_eq!(bytes(Path::SharedRead) + bytes(Path::SharedWrite), 0, "{name}");
    };
    let check = |name: &str, norm: bool, format: CacheFormat, memory: Memory, expected: [usize; 2]| {
        check_without(LeftOut::Nothing, name, norm, format, memory, expected);
    };
    let record = |name, format: CacheFormat| format.bytes_per_token(&Geometry::named(name).unwrap()).unwrap();
    // Position and slot of each lane; 4 bytes each of index, cosine and sine for each pair of dimensions.
    let (place, factors) = (32 * 12, 12);
    let aligned = Memory::default();
    let odd = Memory { shift: 1, ..aligned };
    for format in [CacheFormat::INT4, CacheFormat::INT4.with_range(RangeSetting::Mse), CacheFormat::BF16] {
        // 4 runs of the latent, one of keys and one of queries.
        let (latent, rope, name) = (2 * 2048, 2 * 512, "llama2-7b-d64");
        let expected = [6 * place + latent + 2 * rope + 2 * 256 * factors, record(name, format) + rope];
        check(name, false, format, aligned, expected);
        // Pair by pair, a query's factors are read once a pair; a key's dimensions are read with their partners.
        let expected = [6 * place + latent + 3 * rope + (256 + 512) * factors, record(name, format) + rope];
        check(name, false, format, odd, expected);
        // Keys that are rotated already need neither positions nor factors.
        for memory in [aligned, odd] {
            let expected = [5 * 32 * 8 + latent + rope, record(name, format)];
            check_without(LeftOut::Rotation, name, false, format, memory, expected);
        }
        let expected = [5 * place + latent + rope + 256 * factors, record(name, format)];
        check_without(LeftOut::Queries, name, false, format, aligned, expected);
        // The latents behind the first 512 are read twice, the gain once.
        let expected =
            [3 * place + 2 * latent - 1024 + 4 * 2048 + 2 * rope + 2 * 256 * factors, record(name, format) + rope];
        check(name, true, format, aligned, expected);
    }
    // Here a key fills 4 lanes, of the 8 that it has: those of 4 tokens are a warp's.
    let (latent, key, query, name) = (2 * 512, 2 * 64, 2 * 128 * 64, "deepseek-v3");
    let expected = [
        17 * place + place / 4 + latent + 4 * 512 + key + query + (32 + 16 * 256) * factors,
        record(name, CacheFormat::INT4) + query,
    ];
    check(name, true, CacheFormat::INT4, aligned, expected);
}

/// Warp instructions of a token, with about 2 % to spare, in PTX, which a GPU's compiler still thins out
/// (`cost/tests/kernels.rs` has what is left). An H200's multiprocessor copies 14.9 bytes in a cycle, in which its schedulers
/// issue 4 instructions: 1230 are 80 % of a copy's rate.
#[test]
fn instructions_of_a_token() {
    let device = device();
    if !is_simulated(&device) {
        return;
    }
    let meter = counted("llama3-8b-d64", false, CacheFormat::INT4, Memory::default(), LeftOut::Nothing);
    let warp = meter.total().warp as f64 / 8.0;
    assert!(warp <= 1150.0, "{warp} instructions of a token");
}
