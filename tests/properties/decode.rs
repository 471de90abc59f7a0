//! `decode`: what of a cache reaches a result.

use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, PagedCache};
use latent_attention::reference::DecodeInputs;
use proptest::prelude::*;
use rand::rngs::ChaCha8Rng;

use super::backend::{Backend, numbers};
use super::for_all;
use crate::common::{Batch, formats, geometry, page_size, ragged, random, rng, widen};

/// A batch, its cache and random queries, of numbers that the backend takes.
pub struct Case {
    pub geometry: Geometry,
    pub batch: Batch,
    pub cache: PagedCache,
    pub q_latent: Vec<f64>,
    pub q_rope: Vec<f64>,
}

impl Case {
    pub fn new(
        backend: &dyn Backend,
        rng: &mut ChaCha8Rng,
        geometry: Geometry,
        format: CacheFormat,
        batch: Batch,
    ) -> Self {
        let cache = batch.poisoned_cache(rng, &geometry, format);
        let rows = batch.query_tokens() * geometry.query_heads;
        let q_latent = widen(&numbers(backend, random(rng, rows * geometry.latent_rank)));
        let q_rope = widen(&numbers(backend, random(rng, rows * geometry.rope_dim)));
        Self { geometry, batch, cache, q_latent, q_rope }
    }

    pub fn inputs(&self) -> DecodeInputs<'_> {
        DecodeInputs {
            geometry: &self.geometry,
            q_latent: &self.q_latent,
            q_rope: &self.q_rope,
            scale: self.geometry.default_scale(),
            sequences: self.batch.sequences(),
        }
    }
}

fn decodes(backend: &dyn Backend, geometry: Geometry, format: CacheFormat, page_size: usize) -> bool {
    backend.decodes(&geometry, &CacheLayout::new(&geometry, format, page_size).unwrap())
}

pub fn poison_in_unused_slots_and_table_entries_never_reaches_a_result(backend: &dyn Backend) {
    let cases = (geometry(), page_size(), ragged(), any::<u64>(), 0usize..30);
    for_all(backend, cases, |(geometry, page_size, (lens, queries), seed, format)| {
        prop_assume!(decodes(backend, geometry, formats()[format], page_size));
        // Batch fills unused table entries with 2147480000 and unused slots with NaN.
        let mut rng = rng(seed);
        let batch = Batch::new(&mut rng, &lens, &queries, page_size);
        let mut case = Case::new(backend, &mut rng, geometry, formats()[format], batch);
        let poisoned = backend.decode(&case.inputs(), &case.cache);
        prop_assert!(poisoned.o_latent.iter().all(|o| o.is_finite()));
        prop_assert!(poisoned.lse.iter().all(|lse| lse.is_finite() || *lse == f64::NEG_INFINITY));
        let places = lens.iter().enumerate().flat_map(|(b, &len)| (0..len).map(move |t| (b, t)));
        let used: Vec<usize> = places.map(|(b, t)| case.batch.slot(b, t)).collect();
        for slot in (0..case.cache.slots()).filter(|slot| !used.contains(slot)) {
            case.cache.write(slot, &vec![0.0; geometry.latent_rank], &vec![0.0; geometry.rope_width()]).unwrap();
        }
        prop_assert_eq!(poisoned, backend.decode(&case.inputs(), &case.cache));
        Ok(())
    });
}

pub fn where_the_pages_lie_does_not_matter(backend: &dyn Backend) {
    for_all(backend, (geometry(), page_size(), 1usize..100, any::<u64>()), |(geometry, page_size, len, seed)| {
        prop_assume!(decodes(backend, geometry, CacheFormat::INT4, page_size));
        let results = [1, 2].map(|page_seed| {
            let batch = Batch::new(&mut rng(page_seed), &[len], &[1], page_size);
            let case = Case::new(backend, &mut rng(seed), geometry, CacheFormat::INT4, batch);
            backend.decode(&DecodeInputs { scale: 1.0, ..case.inputs() }, &case.cache)
        });
        prop_assert_eq!(&results[0], &results[1]);
        Ok(())
    });
}
