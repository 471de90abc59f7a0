//! `rope_append`: what lands in the cache, and what does not.

use latent_attention::cache::{CacheFormat, PagedCache};
use latent_attention::reference::{RopeAppendInputs, RopeAppendParams, RopeAppended, rms_norm, rope_append};
use latent_attention::rope::{FrequencyIndex, RopeTables, rotate_head};
use latent_attention::weights::RmsNorm;
use latent_attention::{Geometry, Result};
use proptest::prelude::*;
use rand::RngExt;

use crate::common::{formats, geometry, page_size, random, rng};
use crate::properties::rope_append::{FREQUENCIES, POSITIONS, Step, empty_cache};

/// Appends what a step brings.
fn run(step: &Step, cache: &mut PagedCache) -> Result<RopeAppended> {
    rope_append(&step.params(), &step.inputs(), cache)
}

proptest! {
    #[test]
    fn it_is_rotation_norm_bias_and_a_write_per_token(geometry in geometry(), page_size in page_size(), seed: u64, tokens in 0usize..6) {
        let mut rng = rng(seed);
        for format in formats() {
            let mut cache = empty_cache(&geometry, format, page_size);
            rng.fill(cache.bytes_mut());
            let step = Step::new(&mut rng, geometry, tokens, cache.slots());
            let mut want = cache.clone();
            let appended = run(&step, &mut cache).unwrap();

            let mut q_want = step.q_rope.clone();
            for t in 0..tokens {
                let position = step.positions[t] as usize;
                for head in 0..geometry.query_heads {
                    let start = (t * geometry.query_heads + head) * geometry.rope_dim;
                    let frequencies = step.frequencies.head(geometry.rope_head_of(head));
                    rotate_head(&mut q_want[start..start + geometry.rope_dim], frequencies, step.pairing, &step.tables, position);
                }
                let mut key = step.k_rope[t * geometry.rope_width()..][..geometry.rope_width()].to_vec();
                for head in 0..geometry.rope_heads {
                    let dims = &mut key[head * geometry.rope_dim..][..geometry.rope_dim];
                    rotate_head(dims, step.frequencies.head(head), step.pairing, &step.tables, position);
                }
                let mut latent = step.c_kv[t * geometry.latent_rank..][..geometry.latent_rank].to_vec();
                if let Some(norm) = &step.norm {
                    rms_norm(&mut latent, norm);
                }
                if let Some(bias) = &step.bias {
                    latent.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
                }
                if step.slots[t] >= 0 {
                    want.write(step.slots[t] as usize, &latent, &key).unwrap();
                }
            }
            // Skipped tokens have their query rotated but leave no trace in the cache.
            prop_assert_eq!(appended.q_rope, q_want);
            prop_assert!(cache == want);
        }
    }

    #[test]
    fn what_is_left_out_changes_nothing_else(
        geometry in geometry(),
        seed: u64,
        format in prop::sample::select(formats()),
    ) {
        let mut rng = rng(seed);
        let mut whole = empty_cache(&geometry, format, 8);
        let (mut keys_alone, mut rotated_before) = (whole.clone(), whole.clone());
        let mut step = Step::new(&mut rng, geometry, 5, whole.slots());
        run(&step, &mut whole).unwrap();
        let without_queries = RopeAppendInputs { q_rope: None, ..step.inputs() };
        let appended = rope_append(&step.params(), &without_queries, &mut keys_alone).unwrap();
        prop_assert!(appended.q_rope.is_empty());
        prop_assert!(keys_alone == whole);

        // An engine that rotates its keys itself.
        for (i, dims) in step.k_rope.chunks_exact_mut(geometry.rope_dim.max(1)).enumerate() {
            let (token, head) = (i / geometry.rope_heads, i % geometry.rope_heads);
            let position = step.positions[token] as usize;
            rotate_head(dims, step.frequencies.head(head), step.pairing, &step.tables, position);
        }
        let params = RopeAppendParams { rotation: None, ..step.params() };
        let inputs = RopeAppendInputs { q_rope: None, positions: None, ..step.inputs() };
        let appended = rope_append(&params, &inputs, &mut rotated_before).unwrap();
        prop_assert!(appended.q_rope.is_empty());
        prop_assert!(rotated_before == whole);
    }

    #[test]
    fn rms_norm_is_within_f32_rounding_of_the_formula(len in 1usize..600, seed: u64) {
        let mut rng = rng(seed);
        let (values, gain) = (random(&mut rng, len), random(&mut rng, len));
        let mut normed = values.clone();
        rms_norm(&mut normed, &RmsNorm { gain: gain.clone(), epsilon: 1e-5 });
        let mean = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / len as f64;
        for i in 0..len {
            let want = f64::from(values[i]) / (mean + f64::from(1e-5f32)).sqrt() * f64::from(gain[i]);
            // At most 3 + 5 additions of a lane and the tree, and 5 further roundings.
            prop_assert!((f64::from(normed[i]) - want).abs() <= want.abs() * 16.0 * 2f64.powi(-24));
        }
    }
}

#[test]
fn values_that_are_not_finite_are_counted_over_latent_and_key() {
    let geometry = Geometry::smollm_135m(32).unwrap();
    let mut rng = rng(5);
    let mut cache = empty_cache(&geometry, CacheFormat::INT4, 8);
    let mut step = Step::new(&mut rng, geometry, 2, cache.slots());
    (step.norm, step.bias, step.slots) = (None, None, vec![3, -1]);
    step.c_kv[5] = f32::NAN;
    step.c_kv[96] = f32::NAN; // The second token is skipped.
    step.k_rope[1] = f32::INFINITY; // Rotation spreads it over its pair.
    assert_eq!(run(&step, &mut cache).unwrap().saturated, 3);
}

#[test]
fn wrong_arguments_are_named_and_leave_the_cache_untouched() {
    let geometry = Geometry::smollm_135m(32).unwrap();
    let check = |change: &dyn Fn(&mut Step), expected: &str| {
        let mut cache = empty_cache(&geometry, CacheFormat::INT4, 8);
        cache.bytes_mut().fill(0xAB);
        let before = cache.clone();
        let mut step = Step::new(&mut rng(1), geometry, 3, cache.slots());
        step.slots = vec![0, 1, 2];
        change(&mut step);
        let message = run(&step, &mut cache).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(cache == before);
    };
    check(&|s| s.slots[2] = 32, "slots [2] = 32 is outside of -1 or 0..32 slots");
    check(&|s| s.slots[1] = -2, "slots [1] = -2 is outside of -1 or 0..32 slots");
    check(&|s| s.slots[2] = 1, "slot 1: two tokens of one step cannot share a slot");
    check(&|s| s.positions[2] = 30, "positions [2] = 30 is outside of 0..30 positions");
    check(&|s| s.positions[0] = -1, "positions [0] = -1 is outside of 0..30 positions");
    check(
        &|s| s.frequencies = FrequencyIndex::new(3, vec![9; 12]).unwrap(),
        "frequency index [0] = 9 is outside of 0..9",
    );
    check(&|s| s.frequencies = FrequencyIndex::all(3, 6), "frequency index: expected [rope heads 3, pairs 4] = 12");
    check(&|s| s.q_rope.truncate(5), "q_rope: expected [tokens 3, query heads 9, rope 8] = 216 elements, got 5");
    check(&|s| s.k_rope.truncate(5), "k_rope: expected [tokens 3, rope heads 3, rope 8] = 72 elements, got 5");
    check(&|s| s.c_kv.truncate(5), "c_kv: expected [tokens 3, latent 96] = 288 elements, got 5");
    check(&|s| s.positions.truncate(1), "positions: expected [tokens 3] = 3 elements, got 1");
    check(&|s| s.bias = Some(vec![0.0]), "latent bias: expected [latent 96] = 96 elements, got 1");
    check(&|s| s.norm = Some(RmsNorm { gain: vec![], epsilon: 0.0 }), "latent norm: expected [latent 96]");
    for epsilon in [f32::NAN, f32::INFINITY, -1e-6] {
        let expected = format!("epsilon {epsilon} of the latent norm: must be finite and not negative");
        check(&|s| s.norm = Some(RmsNorm { gain: vec![1.0; 96], epsilon }), &expected);
    }
    for theta in [f32::NAN, 0.0, -1e4] {
        let tables = RopeTables::from_theta(theta, 2 * FREQUENCIES, POSITIONS);
        check(&|s| s.tables = tables.clone(), "must be finite");
    }
    check(
        &|s| s.geometry = Geometry::smollm_135m(16).unwrap(),
        "cache layout: latent rank: expected 48 from the geometry",
    );
}

#[test]
fn arguments_without_those_that_they_need_are_refused() {
    let geometry = Geometry::smollm_135m(32).unwrap();
    let mut cache = empty_cache(&geometry, CacheFormat::INT4, 8);
    let step = Step::new(&mut rng(1), geometry, 3, cache.slots());
    let plain = RopeAppendParams { rotation: None, ..step.params() };
    let mut refused = |params: &RopeAppendParams, inputs: &RopeAppendInputs| {
        rope_append(params, inputs, &mut cache).unwrap_err().to_string()
    };
    let no_positions = RopeAppendInputs { positions: None, ..step.inputs() };
    let no_queries = RopeAppendInputs { q_rope: None, ..step.inputs() };
    assert_eq!(refused(&step.params(), &no_positions), "rotation: is given without positions");
    assert_eq!(refused(&plain, &no_positions), "q_rope: is given without a rotation");
    assert_eq!(refused(&plain, &no_queries), "positions: is given without a rotation");
}

#[test]
fn rms_norm_adds_in_the_order_of_a_warp() {
    // 1 + 2^-24 is a tie that rounds to 1, so the order of additions shows: the squares of TINY vanish beside 1 but
    // not beside each other.
    const TINY: f32 = 1.0 / 4096.0;
    let check = |len: usize, tiny: &[usize], sum: f32| {
        let mut values = vec![0.0; len];
        tiny.iter().for_each(|&i| values[i] = TINY);
        values[0] = 1.0;
        rms_norm(&mut values, &RmsNorm { gain: vec![1.0; len], epsilon: 0.0 });
        assert_eq!(values[0], 1.0 / (sum / len as f32).sqrt(), "{tiny:?} of {len}");
    };
    let ulp = f32::EPSILON;
    check(8, &[1, 2, 3, 4, 5, 6, 7], 1.0); // All in lane 0.
    check(264, &[256, 257], 1.0); // Lane 0 again, after one round over the lanes.
    check(32, &[8, 16, 24], 1.0 + ulp); // Lanes 0+2, 1+3, then both: 1 + 2^-23.
    check(32, &[8, 16], 1.0); // 1 meets lane 2, then lane 1: twice a tie.
    check(256, &[128, 136], 1.0); // 1 meets lane 16, then lane 1+17.
}
