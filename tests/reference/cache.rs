//! The paged cache: its codec to the bit, and who owns which byte.

use half::f16;
use latent_attention::cache::{
    Affine, CacheFormat, CacheLayout, Group, LatentFormat, PAGE_SIZES, PageTable, PagedCache, RangeSetting, RopeFormat,
    Sequences, pack_nibbles, quantize, unpack_nibbles,
};
use latent_attention::{Error, Geometry};
use proptest::prelude::*;
use rand::RngExt;
use rand::seq::SliceRandom;

use crate::common::{Batch, formats, geometry, page_size, random, rng};
use crate::storable;

fn quantized(values: &[f32], max_code: u8) -> (Affine, Vec<u8>, usize) {
    let mut codes = vec![0; values.len()];
    let outcome = quantize(values, max_code, RangeSetting::MinMax, &mut codes);
    (outcome.affine, codes, outcome.saturated)
}

#[test]
fn one_mask_yields_two_neighbouring_values() {
    let word = pack_nibbles([0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(word, 0x7531_6420);
    for s in 0..4 {
        let pair = word >> (4 * s) & 0x000F_000F;
        assert_eq!((pair & 0xFFFF, pair >> 16), (2 * s, 2 * s + 1));
    }
}

#[test]
fn quantising_is_what_the_specification_says() {
    // -1.0 ..= 2.0 in steps of 0.2: f16(0.2) rounded up is 0x3267.
    let (affine, codes, saturated) = quantized(&[-1.0, -0.8, 0.11, 2.0], 15);
    assert_eq!(affine.min.to_bits(), 0xBC00);
    assert_eq!(affine.scale.to_bits(), 0x3267);
    assert_eq!((codes.as_slice(), saturated), ([0, 1, 6, 15].as_slice(), 0));
    assert_eq!(affine.to_le_bytes(), [0x67, 0x32, 0x00, 0xBC]);
    // Ties go to the even code: with min 0 and scale 1, 0.5 -> 0, 1.5 -> 2, 2.5 -> 2.
    assert_eq!(quantized(&[0.0, 0.5, 1.5, 2.5, 15.0], 15).1, [0, 0, 2, 2, 15]);
}

#[test]
fn min_rounds_down_and_scale_rounds_up() {
    let third = 1.0f32 / 3.0;
    let (affine, ..) = quantized(&[third, 1.0], 15);
    assert!(affine.min.to_f32() < third && f16::from_bits(affine.min.to_bits() + 1).to_f32() > third);
    let (affine, ..) = quantized(&[-third, 1.0], 15);
    assert!(affine.min.to_f32() < -third);
    // Numbers too small for f16 still round outwards.
    let (affine, ..) = quantized(&[-1e-10, 1e-10], 15);
    assert_eq!((affine.min.to_bits(), affine.scale.to_bits()), (0x8001, 0x0001));
}

#[test]
fn constant_groups_come_back_within_half_a_step() {
    for value in [0.0, -0.0, 1.0, -3.0, 65504.0, -65504.0] {
        let (affine, codes, saturated) = quantized(&[value; 32], 15);
        assert_eq!((affine.value(codes[0]), saturated), (f64::from(value), 0), "{value} is an f16 number");
        assert_eq!(affine.scale.to_bits(), 0);
        assert_ne!(affine.min.to_bits(), 0x8000, "no negative zero");
    }
    let (affine, codes, _) = quantized(&[0.1; 32], 15);
    assert!((affine.value(codes[0]) - f64::from(0.1f32)).abs() <= affine.scale.to_f64() / 2.0 * (1.0 + 1e-6));
}

#[test]
fn nan_and_infinities_saturate_to_the_finite_range_and_are_counted() {
    let values = [f32::NAN, -1.0, f32::INFINITY, 2.0, f32::NEG_INFINITY, 0.0];
    let (affine, codes, saturated) = quantized(&values, 15);
    let (clean, clean_codes, _) = quantized(&[-1.0, -1.0, 2.0, 2.0, -1.0, 0.0], 15);
    assert_eq!((affine, codes, saturated), (clean, clean_codes, 3));

    let (affine, codes, saturated) = quantized(&[f32::NAN, f32::INFINITY], 255);
    assert_eq!((affine.value(codes[0]), affine.value(codes[1]), saturated), (0.0, 0.0, 2));
}

#[test]
fn huge_groups_saturate_at_the_f16_range() {
    let (affine, codes, saturated) = quantized(&[-1e30, 1e30, 65504.0, 0.0], 15);
    assert_eq!(saturated, 2);
    assert_eq!(affine.value(codes[0]), -65504.0);
    assert!(affine.value(codes[1]).is_finite() && codes[1] == 15 && codes[2] == 15);
}

proptest! {
    #[test]
    fn values_come_back_within_half_a_step(values in prop::collection::vec(storable(), 1..200), max_code in prop_oneof![Just(15u8), Just(255)]) {
        let (affine, codes, saturated) = quantized(&values, max_code);
        prop_assert_eq!(saturated, 0);
        let largest = values.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
        // f32 rounding: of (v - min), of 1/scale and of their product, each 2^-24 of at most max_code steps; of a range
        // that is divided by max_code, where that is no more than f32's smallest number, half of that in each step.
        let rounded = affine.scale.to_f64() * (0.5 + 3.0 * f64::from(max_code) * 2f64.powi(-24));
        let bound = rounded + largest * 2f64.powi(-23) + f64::from(max_code) * 2f64.powi(-150);
        for (value, code) in values.iter().zip(&codes) {
            let error = (affine.value(*code) - f64::from(*value)).abs();
            prop_assert!(error <= bound, "{} came back as {}, scale {}", value, affine.value(*code), affine.scale);
        }
    }

    #[test]
    fn nibbles_survive_packing(codes: [u8; 8]) {
        let codes = codes.map(|code| code & 15);
        prop_assert_eq!(unpack_nibbles(pack_nibbles(codes)), codes);
    }

    #[test]
    fn rows_and_tiles_start_on_16_bytes_and_do_not_overlap(geometry in geometry(), page_size in page_size()) {
        for format in formats() {
            let layout = CacheLayout::new(&geometry, format, page_size).unwrap();
            let tiles = [layout.latent_tile(), layout.rope_tile(), layout.affine_tile()];
            let mut end = 0;
            for (i, tile) in tiles.iter().enumerate() {
                prop_assert_eq!(tile.offset, end);
                prop_assert_eq!(tile.offset % 16, 0);
                prop_assert!(i == 2 || tile.row_bytes % 16 == 0);
                end += page_size * tile.row_bytes;
            }
            prop_assert_eq!(end, layout.page_bytes());
            prop_assert_eq!(end % 16, 0);
        }
    }

    #[test]
    fn a_write_touches_its_own_record_only(geometry in geometry(), page_size in page_size(), seed: u64) {
        let mut rng = rng(seed);
        for format in formats() {
            let layout = CacheLayout::new(&geometry, format, page_size).unwrap();
            let mut cache = PagedCache::new(layout, 3).unwrap();
            rng.fill(cache.bytes_mut());
            let before = cache.clone();
            let slot = rng.random_range(0..cache.slots());
            cache.write(slot, &random(&mut rng, geometry.latent_rank), &random(&mut rng, geometry.rope_width())).unwrap();

            let (page, offset) = (slot / page_size, slot % page_size);
            let mut own = vec![false; cache.bytes().len()];
            for tile in [layout.latent_tile(), layout.rope_tile(), layout.affine_tile()] {
                let start = page * layout.page_bytes() + tile.offset + offset * tile.row_bytes;
                own[start..start + tile.row_bytes].fill(true);
            }
            prop_assert_eq!(own.iter().filter(|own| **own).count(), layout.bytes_per_token());
            for (i, own) in own.iter().enumerate() {
                prop_assert!(*own || cache.bytes()[i] == before.bytes()[i], "byte {} of slot {}", i, slot);
            }
            // Every byte of the record is decided by the write: what was there before does not show through.
            let mut other = before.clone();
            other.bytes_mut().iter_mut().for_each(|byte| *byte = !*byte);
            let (latent, rope) = (vec![0.5; geometry.latent_rank], vec![0.25; geometry.rope_width()]);
            cache.write(slot, &latent, &rope).unwrap();
            other.write(slot, &latent, &rope).unwrap();
            for (i, _) in own.iter().enumerate().filter(|(_, own)| **own) {
                prop_assert_eq!(cache.bytes()[i], other.bytes()[i]);
            }
        }
    }

    #[test]
    fn the_order_of_writing_does_not_matter(geometry in geometry(), page_size in page_size(), seed: u64) {
        let mut rng = rng(seed);
        for format in [CacheFormat::INT4, CacheFormat::BF16, CacheFormat::int4(Group::G32).with_rope(RopeFormat::Int8)] {
            let mut first = PagedCache::new(CacheLayout::new(&geometry, format, page_size).unwrap(), 3).unwrap();
            let mut second = first.clone();
            let tokens: Vec<_> = (0..first.slots())
                .map(|_| (random(&mut rng, geometry.latent_rank), random(&mut rng, geometry.rope_width())))
                .collect();
            let mut order: Vec<usize> = (0..first.slots()).collect();
            for &slot in &order {
                first.write(slot, &tokens[slot].0, &tokens[slot].1).unwrap();
            }
            order.shuffle(&mut rng);
            for &slot in &order {
                second.write(slot, &tokens[slot].0, &tokens[slot].1).unwrap();
            }
            prop_assert_eq!(first, second);
        }
    }

    #[test]
    fn a_page_has_the_same_bytes_wherever_it_lies(geometry in geometry(), page_size in page_size(), seed: u64, target in 0usize..4) {
        let mut rng = rng(seed);
        let layout = CacheLayout::new(&geometry, CacheFormat::INT4, page_size).unwrap();
        let (mut here, mut there) = (PagedCache::new(layout, 4).unwrap(), PagedCache::new(layout, 4).unwrap());
        for offset in 0..page_size {
            let (latent, rope) = (random(&mut rng, geometry.latent_rank), random(&mut rng, geometry.rope_width()));
            here.write(offset, &latent, &rope).unwrap();
            there.write(target * page_size + offset, &latent, &rope).unwrap();
        }
        let bytes = layout.page_bytes();
        prop_assert_eq!(&here.bytes()[..bytes], &there.bytes()[target * bytes..][..bytes]);
    }

    #[test]
    fn reading_returns_what_the_codec_stored(geometry in geometry(), page_size in page_size(), seed: u64) {
        let mut rng = rng(seed);
        for format in formats() {
            let mut cache = PagedCache::new(CacheLayout::new(&geometry, format, page_size).unwrap(), 2).unwrap();
            let slot = rng.random_range(0..cache.slots());
            let (latent, rope) = (random(&mut rng, geometry.latent_rank), random(&mut rng, geometry.rope_width()));
            cache.write(slot, &latent, &rope).unwrap();
            let affine_part = |values: &[f32], group: usize, max_code: u8| -> Vec<f64> {
                values.chunks(group).flat_map(|values| {
                    let (affine, codes, _) = quantized(values, max_code);
                    codes.into_iter().map(move |code| affine.value(code))
                }).collect()
            };
            let bf16_part = |values: &[f32]| values.iter().map(|&v| half::bf16::from_f32(v).to_f64()).collect::<Vec<_>>();
            let want_latent = match format.latent {
                LatentFormat::Bf16 => bf16_part(&latent),
                LatentFormat::Int4 { group } => affine_part(&latent, group.size(), 15),
            };
            let want_rope = match format.rope {
                RopeFormat::Bf16 => bf16_part(&rope),
                RopeFormat::Int8 => affine_part(&rope, 512, 255),
                RopeFormat::Int4 { group } => affine_part(&rope, group.size(), 15),
            };
            prop_assert_eq!(cache.latent(slot).unwrap(), want_latent);
            prop_assert_eq!(cache.rope(slot).unwrap(), want_rope);
        }
    }
}

#[test]
fn a_poisoned_group_does_not_change_its_neighbours() {
    let geometry = Geometry::llama2_7b(16).unwrap();
    let mut cache = PagedCache::new(CacheLayout::new(&geometry, CacheFormat::int4(Group::G64), 8).unwrap(), 1).unwrap();
    let mut rng = rng(7);
    let (mut latent, rope) = (random(&mut rng, 512), random(&mut rng, 512));
    cache.write(0, &latent, &rope).unwrap();
    latent[64..128].fill(f32::NAN);
    assert_eq!(cache.write(1, &latent, &rope).unwrap(), 64);
    let (clean, poisoned) = (cache.latent(0).unwrap(), cache.latent(1).unwrap());
    assert_eq!(clean[..64], poisoned[..64]);
    assert_eq!(clean[128..], poisoned[128..]);
    assert_eq!(poisoned[64..128], [0.0; 64]);
    assert_eq!(cache.rope(0).unwrap(), cache.rope(1).unwrap());
}

#[test]
fn bf16_keeps_nan_in_one_pattern_and_counts_it() {
    let geometry = Geometry::deepseek(1, 4, 2, 1, 1).unwrap();
    let mut cache = PagedCache::new(CacheLayout::new(&geometry, CacheFormat::BF16, 8).unwrap(), 1).unwrap();
    let latent = [f32::from_bits(0xFFC0_1234), f32::INFINITY, 1.0, -2.0];
    assert_eq!(cache.write(0, &latent, &[0.0; 2]).unwrap(), 2);
    assert_eq!(cache.bytes()[..8], [0xFF, 0x7F, 0x80, 0x7F, 0x80, 0x3F, 0x00, 0xC0]);
}

#[test]
fn wrong_arguments_are_named() {
    let geometry = Geometry::smollm_135m(32).unwrap();
    let message = |result: Result<(), Error>| result.unwrap_err().to_string();
    assert_eq!(
        message(CacheLayout::new(&geometry, CacheFormat::INT4, 12).map(drop)),
        "page size 12: must be one of [8, 16, 32, 64] tokens"
    );
    let layout = CacheLayout::new(&geometry, CacheFormat::INT4, PAGE_SIZES[0]).unwrap();
    assert_eq!(
        message(PagedCache::from_bytes(layout, vec![0; 100]).map(drop)),
        "cache bytes: expected a multiple of 576 bytes per page, got 100 bytes"
    );
    assert!(
        message(PagedCache::new(layout, usize::MAX).map(drop)).starts_with("18446744073709551615 pages of 576 bytes: ")
    );
    let mut cache = PagedCache::new(layout, 2).unwrap();
    assert_eq!(message(cache.write(16, &[0.0; 96], &[0.0; 24]).map(drop)), "slot = 16 is outside of 0..16 slots");
    assert_eq!(
        message(cache.write(0, &[0.0; 95], &[0.0; 24]).map(drop)),
        "latent: expected [latent 96] = 96 elements, got 95 elements"
    );
    assert!(message(cache.latent(99).map(drop)).contains("slot = 99"));
    assert!(
        message(layout.check(&Geometry::smollm_135m(16).unwrap())).contains("expected 48 from the geometry, got 96")
    );
}

#[test]
fn dense_and_csr_tables_are_the_same_pages() {
    use latent_attention::reference::up_project;
    let geometry = Geometry::deepseek(2, 8, 2, 3, 2).unwrap();
    let mut rng = rng(3);
    let batch = Batch::new(&mut rng, &[20, 0, 9], &[1, 1, 1], 8);
    let cache = batch.poisoned_cache(&mut rng, &geometry, CacheFormat::INT4);
    let (up_key, up_value) = (random(&mut rng, 2 * 3 * 8), random(&mut rng, 2 * 2 * 8));
    let (indptr, indices) = batch.csr();
    let csr = Sequences { pages: PageTable::Csr { indptr: &indptr, indices: &indices }, ..batch.sequences() };
    let run = |sequences: &Sequences| up_project(&geometry, &up_key, &up_value, None, sequences, &cache).unwrap();
    assert_eq!(run(&csr), run(&batch.sequences()));
}
