//! `rope_append`: what lands in the cache.

use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, PagedCache};
use latent_attention::reference::{RopeAppendInputs, RopeAppendParams, RopeAppendRotation};
use latent_attention::rope::{FrequencyIndex, Pairing, RopeTables};
use latent_attention::weights::RmsNorm;
use proptest::prelude::*;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

use super::backend::{Backend, numbers};
use super::for_all;
use crate::common::{geometry, page_size, random, rng};

pub const FREQUENCIES: usize = 9;
pub const POSITIONS: usize = 30;

/// Everything one step needs, random.
pub struct Step {
    pub geometry: Geometry,
    pub pairing: Pairing,
    pub tables: RopeTables,
    pub frequencies: FrequencyIndex,
    pub norm: Option<RmsNorm>,
    pub bias: Option<Vec<f32>>,
    pub q_rope: Vec<f32>,
    pub k_rope: Vec<f32>,
    pub c_kv: Vec<f32>,
    pub positions: Vec<i32>,
    pub slots: Vec<i64>,
}

impl Step {
    /// `tokens` tokens in distinct random slots, about a quarter of them -1.
    pub fn new(rng: &mut ChaCha8Rng, geometry: Geometry, tokens: usize, slots: usize) -> Self {
        let mut free: Vec<i64> = (0..slots as i64).collect();
        free.shuffle(rng);
        let pairs = geometry.rope_heads * geometry.rope_dim / 2;
        let indices = (0..pairs).map(|_| rng.random_range(0..FREQUENCIES as u32)).collect();
        let (norm, bias): (bool, bool) = (rng.random(), rng.random());
        Self {
            geometry,
            pairing: if rng.random() { Pairing::Half } else { Pairing::Interleaved },
            tables: RopeTables::from_theta(1e4, 2 * FREQUENCIES, POSITIONS),
            frequencies: FrequencyIndex::new(geometry.rope_heads, indices).unwrap(),
            norm: norm.then(|| RmsNorm { gain: random(rng, geometry.latent_rank), epsilon: 1e-6 }),
            bias: bias.then(|| random(rng, geometry.latent_rank)),
            q_rope: random(rng, tokens * geometry.query_heads * geometry.rope_dim),
            k_rope: random(rng, tokens * geometry.rope_width()),
            c_kv: random(rng, tokens * geometry.latent_rank),
            positions: (0..tokens).map(|_| rng.random_range(0..POSITIONS as i32)).collect(),
            slots: (0..tokens).map(|_| if rng.random_range(0..4) == 0 { -1 } else { free.pop().unwrap() }).collect(),
        }
    }

    pub fn params(&self) -> RopeAppendParams<'_> {
        let rotation =
            RopeAppendRotation { pairing: self.pairing, tables: &self.tables, frequencies: &self.frequencies };
        RopeAppendParams {
            geometry: &self.geometry,
            rotation: Some(rotation),
            norm: self.norm.as_ref(),
            bias: self.bias.as_deref(),
        }
    }

    pub fn inputs(&self) -> RopeAppendInputs<'_> {
        RopeAppendInputs {
            q_rope: Some(&self.q_rope),
            k_rope: &self.k_rope,
            c_kv: &self.c_kv,
            positions: Some(&self.positions),
            slots: &self.slots,
            key_norm: None,
        }
    }
}

/// A cache of four pages.
pub fn empty_cache(geometry: &Geometry, format: CacheFormat, page_size: usize) -> PagedCache {
    PagedCache::new(CacheLayout::new(geometry, format, page_size).unwrap(), 4).unwrap()
}

pub fn tokens_can_come_in_any_order_and_in_any_number_of_steps(backend: &dyn Backend) {
    let cases = (geometry(), page_size(), any::<u64>(), 2usize..8);
    for_all(backend, cases, |(geometry, page_size, seed, tokens)| {
        let mut rng = rng(seed);
        let mut at_once = empty_cache(&geometry, CacheFormat::INT4, page_size);
        let mut step = Step::new(&mut rng, geometry, tokens, at_once.slots());
        for values in [&mut step.q_rope, &mut step.k_rope, &mut step.c_kv] {
            *values = numbers(backend, std::mem::take(values));
        }
        let mut one_by_one = at_once.clone();
        let all = backend.rope_append(&step.params(), &step.inputs(), &mut at_once);
        let mut order: Vec<usize> = (0..tokens).collect();
        order.shuffle(&mut rng);
        let mut saturated = 0;
        for t in order {
            let row = |values: &[f32], len: usize| values[t * len..][..len].to_vec();
            let single = RopeAppendInputs {
                q_rope: Some(&row(&step.q_rope, geometry.query_heads * geometry.rope_dim)),
                k_rope: &row(&step.k_rope, geometry.rope_width()),
                c_kv: &row(&step.c_kv, geometry.latent_rank),
                positions: Some(&step.positions[t..=t]),
                slots: &step.slots[t..=t],
                key_norm: None,
            };
            saturated += backend.rope_append(&step.params(), &single, &mut one_by_one);
        }
        prop_assert!(at_once == one_by_one);
        prop_assert_eq!(all, saturated);
        Ok(())
    });
}
