//! `gather`: cached tokens as the cache decodes them.

use std::ops::Range;

use proptest::prelude::*;

use super::backend::Backend;
use super::for_all;
use crate::common::{Batch, formats, geometry, page_size, ragged, rng};

pub fn tokens_are_the_latents_and_keys_of_their_slots(backend: &dyn Backend) {
    let cases = (geometry(), page_size(), ragged(), any::<u64>(), prop::sample::select(formats()));
    for_all(backend, cases, |(geometry, page_size, (lens, queries), seed, format)| {
        let mut rng = rng(seed);
        let batch = Batch::new(&mut rng, &lens, &queries, page_size);
        let cache = batch.poisoned_cache(&mut rng, &geometry, format);
        let row = |b, t| {
            let slot = batch.slot(b, t);
            [cache.latent(slot).unwrap(), cache.rope(slot).unwrap()].concat()
        };
        let places = lens.iter().enumerate().flat_map(|(b, &len)| (0..len).map(move |t| (b, t)));
        let all: Vec<f64> = places.flat_map(|(b, t)| row(b, t)).map(|number| backend.number(number)).collect();
        prop_assert_eq!(backend.gather(&batch.sequences(), None, &cache), all.clone());

        // Chunks of each sequence, one after the other, are the whole.
        let width = geometry.latent_rank + geometry.rope_width();
        let halves: Vec<[Range<usize>; 2]> = lens.iter().map(|&len| [0..len / 2, len / 2..len]).collect();
        let [mut first, mut second] = [0, 1].map(|half| {
            let ranges: Vec<_> = halves.iter().map(|halves| halves[half].clone()).collect();
            backend.gather(&batch.sequences(), Some(&ranges), &cache)
        });
        let mut together = Vec::new();
        for [one, other] in halves {
            together.extend(first.drain(..one.len() * width));
            together.extend(second.drain(..other.len() * width));
        }
        prop_assert_eq!(together, all);
        prop_assert!(first.is_empty() && second.is_empty());
        Ok(())
    });
}
