//! `copy_pages`: whole pages of a cache copied to other pages of it.

use latent_attention::cache::{CacheLayout, PagedCache};
use proptest::prelude::*;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use super::backend::Backend;
use super::for_all;
use crate::common::{formats, geometry, page_size, random, rng};

/// Copies to distinct pages from others, some of which are asked for more than once.
pub fn random_copies(rng: &mut impl Rng, pages: usize) -> Vec<[i32; 2]> {
    let mut ids: Vec<i32> = (0..pages as i32).collect();
    ids.shuffle(rng);
    let (sources, destinations) = ids.split_at(rng.random_range(1..=pages));
    destinations.iter().map(|&to| [sources[rng.random_range(0..sources.len())], to]).collect()
}

pub fn copied_tokens_are_those_of_the_source_and_all_others_stay(backend: &dyn Backend) {
    let cases = (geometry(), page_size(), 1usize..8, any::<u64>(), prop::sample::select(formats()));
    for_all(backend, cases, |(geometry, page_size, pages, seed, format)| {
        let mut rng = rng(seed);
        let layout = CacheLayout::new(&geometry, format, page_size).unwrap();
        let mut cache = PagedCache::new(layout, pages).unwrap();
        for slot in 0..cache.slots() {
            let (latent, rope) = (random(&mut rng, geometry.latent_rank), random(&mut rng, geometry.rope_width()));
            cache.write(slot, &latent, &rope).unwrap();
        }
        let before = cache.clone();
        let copies = random_copies(&mut rng, pages);
        backend.copy_pages(&copies, &mut cache);
        for slot in 0..cache.slots() {
            let page = (slot / page_size) as i32;
            let source = copies.iter().find(|copy| copy[1] == page).map_or(page, |copy| copy[0]);
            let from = source as usize * page_size + slot % page_size;
            prop_assert_eq!(cache.latent(slot).unwrap(), before.latent(from).unwrap());
            prop_assert_eq!(cache.rope(slot).unwrap(), before.rope(from).unwrap());
        }
        Ok(())
    });
}
