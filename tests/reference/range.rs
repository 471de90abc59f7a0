//! `RangeSetting`: which range of a group's values its codes cover.

use latent_attention::Geometry;
use latent_attention::cache::{
    Affine, CacheFormat, CacheLayout, Group, LatentFormat, PagedCache, RangeSetting, RopeFormat, quantize,
};
use proptest::prelude::*;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::common::{random, rng};
use crate::storable;

fn quantized(values: &[f32], max_code: u8, range: RangeSetting) -> (Affine, Vec<u8>, usize) {
    let mut codes = vec![0; values.len()];
    let outcome = quantize(values, max_code, range, &mut codes);
    (outcome.affine, codes, outcome.saturated)
}

/// The sum of the squares of what is lost of the values.
fn squared_error(values: &[f32], affine: Affine, codes: &[u8]) -> f64 {
    values.iter().zip(codes).map(|(v, &code)| (affine.value(code) - f64::from(*v)).powi(2)).sum()
}

/// The same, if every value got the nearest code.
fn least_error(values: &[f32], affine: Affine) -> f64 {
    let nearest = |v: f64| (0..=15).map(|code| (affine.value(code) - v).powi(2)).fold(f64::INFINITY, f64::min);
    values.iter().map(|&v| nearest(f64::from(v))).sum()
}

/// Scale and min of ranges that are shorter by so many sixteenths: those of its two ends by themselves.
fn shorter<const N: usize>(values: &[f32], sixteenths: [u8; N]) -> [Affine; N] {
    let lo = values.iter().copied().fold(f32::INFINITY, f32::min);
    let hi = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    sixteenths.map(|k| {
        let cut = (hi - lo) * (f32::from(k) / 32.0);
        quantized(&[lo + cut, hi - cut], 15, RangeSetting::MinMax).0
    })
}

proptest! {
    #[test]
    fn no_error_is_larger_than_from_minimum_to_maximum(values in prop::collection::vec(storable(), 1..=512), max_code in prop_oneof![Just(15u8), Just(255)]) {
        let [(whole, whole_codes, _), (best, best_codes, saturated)] =
            [RangeSetting::MinMax, RangeSetting::Mse].map(|range| quantized(&values, max_code, range));
        prop_assert_eq!(saturated, 0);
        let rms = |affine, codes: &[u8]| (squared_error(&values, affine, codes) / values.len() as f64).sqrt();
        // Distances are compared as f32 has them: four roundings of at most 2 * max_code steps.
        let rounding = 8.0 * f64::from(max_code) * 2f64.powi(-24) * whole.scale.to_f64();
        prop_assert!(rms(best, &best_codes) <= rms(whole, &whole_codes) + rounding);
    }

    #[test]
    fn the_range_is_the_best_of_four_and_codes_are_the_nearest(values in prop::collection::vec(storable(), 1..=512)) {
        let (affine, codes, _) = quantized(&values, 15, RangeSetting::Mse);
        let tried = shorter(&values, [0, 1, 2, 3]);
        prop_assert!(tried.contains(&affine), "{:?} of {:?}", affine, tried);
        let rms = |squares: f64| (squares / values.len() as f64).sqrt();
        let error = rms(squared_error(&values, affine, &codes));
        let rounding = 256.0 * 2f64.powi(-24) * tried[0].scale.to_f64();
        // A scale of 0 is for groups of one number only, which is the first range's.
        for other in tried.into_iter().filter(|other| other.scale.to_f32() > 0.0) {
            prop_assert!(error <= rms(least_error(&values, other)) + rounding, "{:?} instead of {:?}", affine, other);
        }
    }

    #[test]
    fn what_saturates_is_counted_and_what_is_clipped_is_not(seed: u64, bad in prop::collection::btree_set(0usize..256, 0..9)) {
        let mut values = random(&mut rng(seed), 256);
        // An outlier that is worth clipping.
        (values[17], values[18]) = (1.2, -1.2);
        for (i, &at) in bad.iter().enumerate() {
            values[at] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][i % 3];
        }
        let (affine, codes, saturated) = quantized(&values, 15, RangeSetting::Mse);
        prop_assert_eq!(saturated, bad.len());
        // As if the smallest and the largest finite value stood in their place.
        let finite = |v: &f32| v.is_finite();
        let lo = values.iter().copied().filter(finite).fold(f32::INFINITY, f32::min);
        let hi = values.iter().copied().filter(finite).fold(f32::NEG_INFINITY, f32::max);
        let clean: Vec<f32> = values.iter().map(|v| if v.is_nan() { lo } else { v.clamp(lo, hi) }).collect();
        prop_assert_eq!((affine, codes, 0), quantized(&clean, 15, RangeSetting::Mse));
    }
}

#[test]
fn of_equal_errors_the_longest_range_wins() {
    // In the smallest numbers of f16, scales are 2 and 1 of them and everything is exact: from minimum to maximum, 3
    // and 17 are lost by 1 each; the range that is shorter by 2/16 has codes for 1 to 16 and loses 0 and 17 by 1 each.
    let small = |values: &[f32]| values.iter().map(|v| v * 2f32.powi(-24)).collect::<Vec<_>>();
    let bits = |values: &[f32]| {
        let (affine, codes, _) = quantized(&small(values), 15, RangeSetting::Mse);
        (affine.min.to_bits(), affine.scale.to_bits(), codes)
    };
    assert_eq!(bits(&[0.0, 17.0, 3.0]), (0, 2, vec![0, 8, 2]));
    // One more odd number is lost by the longer range only.
    assert_eq!(bits(&[0.0, 17.0, 3.0, 5.0]), (1, 1, vec![0, 15, 2, 4]));
}

#[test]
fn groups_of_one_number_come_back_as_from_minimum_to_maximum() {
    for value in [0.0, -0.0, 1.0, -3.0, 0.1, 1e-45, 65504.0, -65504.0, f32::NAN, f32::INFINITY] {
        let [whole, best] = [RangeSetting::MinMax, RangeSetting::Mse].map(|range| quantized(&[value; 200], 15, range));
        assert_eq!(whole, best, "{value}");
    }
}

#[test]
fn the_cache_applies_it_to_int4_groups_of_96_values_or_more() {
    let mut rng = rng(1);
    // A last group of 95 values, and one of 96; a rotated key of 96.
    for (rank, last) in [(512 + 95, RangeSetting::MinMax), (512 + 96, RangeSetting::Mse)] {
        let geometry = Geometry::mha2mla(3, 3, 40, 32, 1).and_then(|g| g.with_latent_rank(rank)).unwrap();
        let (latent, rope) = (random(&mut rng, rank), random(&mut rng, geometry.rope_width()));
        for (rope_format, max_code, rope_range) in [
            (RopeFormat::Int4 { group: Group::Whole }, 15, RangeSetting::Mse),
            (RopeFormat::Int4 { group: Group::G64 }, 15, RangeSetting::MinMax),
            (RopeFormat::Int8, 255, RangeSetting::MinMax),
        ] {
            let latent_format = LatentFormat::Int4 { group: Group::Whole };
            let format = CacheFormat::new(latent_format, rope_format).with_range(RangeSetting::Mse);
            let layout = CacheLayout::new(&geometry, format, 8).unwrap();
            let mut cache = PagedCache::new(layout, 1).unwrap();
            cache.write(3, &latent, &rope).unwrap();
            let want = |values: &[f32], max_code, range| {
                let (affine, codes, _) = quantized(values, max_code, range);
                codes.into_iter().map(|code| affine.value(code)).collect::<Vec<_>>()
            };
            let parts = [want(&latent[..512], 15, RangeSetting::Mse), want(&latent[512..], 15, last)].concat();
            assert_eq!(cache.latent(3).unwrap(), parts);
            let group = if max_code == 255 || rope_range == RangeSetting::Mse { 512 } else { 64 };
            let parts: Vec<_> = rope.chunks(group).flat_map(|values| want(values, max_code, rope_range)).collect();
            assert_eq!(cache.rope(3).unwrap(), parts, "{rope_format:?}");
        }
    }
}

#[test]
fn a_format_is_another_with_another_setting_and_has_the_same_layout() {
    let geometry = Geometry::llama2_7b(64).unwrap();
    let [whole, best] = [RangeSetting::MinMax, RangeSetting::Mse].map(|range| CacheFormat::INT4.with_range(range));
    assert_eq!(whole, CacheFormat::INT4);
    assert_ne!(best, whole);
    assert!(format!("{best:?}").ends_with("range: Mse }"));
    let [whole, best] = [whole, best].map(|format| CacheLayout::new(&geometry, format, 16).unwrap());
    assert_ne!(whole, best);
    let tiles = |layout: CacheLayout| [layout.latent_tile(), layout.rope_tile(), layout.affine_tile()];
    assert_eq!((tiles(whole), whole.page_bytes()), (tiles(best), best.page_bytes()));
}

/// Numbers of a normal distribution.
fn normal(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
    let mut one = || {
        let (radius, turn): (f64, f64) = (rng.random_range(f64::MIN_POSITIVE..1.0), rng.random_range(0.0..1.0));
        ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * turn).cos()) as f32
    };
    (0..len).map(|_| one()).collect()
}

/// A table of `docs/measurements.md`.
#[test]
fn normal_numbers_lose_a_tenth_less_with_one_scale_and_little_less_in_small_groups() {
    let mut rng = rng(1);
    let mut lost = |len: usize, max_code| {
        let groups: Vec<Vec<f32>> = (0..(1 << 20) / len).map(|_| normal(&mut rng, len)).collect();
        let squares: f64 = groups.iter().flatten().map(|&v| f64::from(v).powi(2)).sum();
        let errors = [RangeSetting::MinMax, RangeSetting::Mse].map(|range| {
            let error = |values: &Vec<f32>| {
                let (affine, codes, _) = quantized(values, max_code, range);
                squared_error(values, affine, &codes)
            };
            100.0 * (groups.iter().map(error).sum::<f64>() / squares).sqrt()
        });
        let less = 100.0 * (1.0 - errors[1] / errors[0]);
        println!(
            "| {} values of {} bits | {:.2} % | {:.2} % | {less:.1} % |",
            len,
            max_code.count_ones(),
            errors[0],
            errors[1]
        );
        (errors, less)
    };
    for (len, most) in [(32, 3.0), (64, 4.0), (80, 4.5), (96, 5.0), (128, 6.0), (256, 9.0)] {
        let (_, less) = lost(len, 15);
        assert!(0.0 < less && less < most, "{len} values: {less} %");
    }
    let ([whole, best], _) = lost(512, 15);
    assert!((11.6..11.9).contains(&whole), "{whole} %");
    assert!(best <= 10.6, "{best} %");
    let (_, less) = lost(512, 255);
    assert!((0.0..0.1).contains(&less), "8 bits: {less} %");
}

/// Another: what other ranges than those of four consecutive sixteenths would do.
#[test]
fn more_ranges_would_gain_little_and_fewer_lose() {
    let mut rng = rng(2);
    let sets: [&[usize]; 7] =
        [&[0], &[0, 2], &[0, 3], &[0, 2, 3], &[0, 1, 2, 3], &[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4, 5, 6, 7]];
    let errors = [96, 512].map(|len| {
        let (mut sums, mut squares) = ([0.0; 7], 0.0);
        for _ in 0..(1 << 18) / len {
            let values = normal(&mut rng, len);
            squares += values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
            let errors = shorter(&values, [0, 1, 2, 3, 4, 5, 6, 7]).map(|affine| least_error(&values, affine));
            for (sum, set) in sums.iter_mut().zip(sets) {
                *sum += set.iter().map(|&k| errors[k]).fold(f64::INFINITY, f64::min);
            }
        }
        sums.map(|sum| 100.0 * (sum / squares).sqrt())
    });
    for (i, set) in sets.iter().enumerate() {
        println!("| {} | {:.2} % | {:.2} % |", set.len(), errors[0][i], errors[1][i]);
    }
    for errors in errors {
        assert!(errors[4] < 1.005 * errors[6], "eight: {errors:?}");
        assert!(errors[4] < 0.99 * errors[1].max(errors[2]), "two: {errors:?}");
    }
}
