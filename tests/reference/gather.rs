//! `gather`: cached tokens as the cache decodes them.

use std::ops::Range;

use latent_attention::Geometry;
use latent_attention::cache::CacheFormat;
use latent_attention::reference::gather;
use proptest::prelude::*;

use crate::common::{Batch, formats, geometry, page_size, ragged, rng};

proptest! {
    #[test]
    fn tokens_are_the_latents_and_keys_of_their_slots(
        geometry in geometry(),
        page_size in page_size(),
        (lens, queries) in ragged(),
        seed: u64,
        format in prop::sample::select(formats()),
    ) {
        let mut rng = rng(seed);
        let batch = Batch::new(&mut rng, &lens, &queries, page_size);
        let cache = batch.poisoned_cache(&mut rng, &geometry, format);
        let row = |b, t| {
            let slot = batch.slot(b, t);
            [cache.latent(slot).unwrap(), cache.rope(slot).unwrap()].concat()
        };
        let places = lens.iter().enumerate().flat_map(|(b, &len)| (0..len).map(move |t| (b, t)));
        let all: Vec<f64> = places.flat_map(|(b, t)| row(b, t)).collect();
        prop_assert_eq!(gather(&batch.sequences(), None, &cache).unwrap(), all.clone());

        // Chunks of each sequence, one after the other, are the whole.
        let width = geometry.latent_rank + geometry.rope_width();
        let halves: Vec<[Range<usize>; 2]> = lens.iter().map(|&len| [0..len / 2, len / 2..len]).collect();
        let [mut first, mut second] = [0, 1].map(|half| {
            let ranges: Vec<_> = halves.iter().map(|halves| halves[half].clone()).collect();
            gather(&batch.sequences(), Some(&ranges), &cache).unwrap()
        });
        let mut together = Vec::new();
        for [one, other] in halves {
            together.extend(first.drain(..one.len() * width));
            together.extend(second.drain(..other.len() * width));
        }
        prop_assert_eq!(together, all);
        prop_assert!(first.is_empty() && second.is_empty());
    }
}

#[test]
fn ranges_that_do_not_fit_are_named() {
    let geometry = Geometry::deepseek(2, 8, 2, 3, 2).unwrap();
    let batch = Batch::new(&mut rng(1), &[3, 5], &[0, 0], 8);
    let cache = batch.poisoned_cache(&mut rng(2), &geometry, CacheFormat::INT4);
    let refused = |ranges: &[Range<usize>]| gather(&batch.sequences(), Some(ranges), &cache).unwrap_err().to_string();
    let message = refused(&[0..3, 0..5, 0..0]);
    assert_eq!(message, "ranges of tokens: expected [sequences 2] = 2 elements, got 3 elements");
    assert_eq!(refused(&[0..3, 2..6]), "end of the tokens 2..6 of sequence 1 = 6 is outside of 2..=5");
    #[allow(clippy::reversed_empty_ranges)] // That is what is refused.
    let reversed = 2..1;
    assert_eq!(refused(&[reversed, 0..5]), "end of the tokens 2..1 of sequence 0 = 1 is outside of 2..=3");
}
