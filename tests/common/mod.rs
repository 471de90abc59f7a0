//! Random inputs and comparisons shared by the tests.

pub mod layers;

use latent_attention::Geometry;
use latent_attention::cache::{
    CacheFormat, CacheLayout, Group, LatentFormat, PageTable, PagedCache, RopeFormat, Sequences,
};
use proptest::prelude::*;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// A reproducible random source.
pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// `len` numbers, uniform in -1..1.
pub fn random(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// 0, and the sums of the first one, two, ... numbers.
pub fn prefix_sums(numbers: impl IntoIterator<Item = i32>) -> Vec<i32> {
    let mut sums = vec![0];
    sums.extend(numbers.into_iter().scan(0, |sum, n| {
        *sum += n;
        Some(*sum)
    }));
    sums
}

/// Panics at the first element that differs by more than `tolerance` absolutely, or relatively for large values.
#[track_caller]
pub fn assert_close(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let close = got == want || (got - want).abs() <= tolerance * want.abs().max(1.0);
        assert!(close, "element {i}: got {got}, want {want}");
    }
}

pub const GROUPS: [Group; 4] = [Group::G32, Group::G64, Group::G128, Group::Whole];

/// Every combination of formats.
pub fn formats() -> Vec<CacheFormat> {
    let latents = GROUPS.map(|group| LatentFormat::Int4 { group }).into_iter().chain([LatentFormat::Bf16]);
    latents
        .flat_map(|latent| {
            let ropes = GROUPS.map(|group| RopeFormat::Int4 { group });
            ropes
                .into_iter()
                .chain([RopeFormat::Int8, RopeFormat::Bf16])
                .map(move |rope| CacheFormat::new(latent, rope))
        })
        .collect()
}

/// Small geometries of every kind: shared and per-head rotated keys, odd sizes, no rotation, nothing but rotation.
pub fn geometry() -> impl Strategy<Value = Geometry> {
    let heads = (1usize..=3, 1usize..=3, 1usize..=3);
    (heads, 1usize..=80, 0usize..=4, 0usize..=5, 1usize..=5).prop_map(
        |((per_rope, rope_heads, per_kv), latent_rank, pairs, nope_dim, value_dim)| {
            let kv_heads = rope_heads * per_rope;
            let head_dim = 2 * pairs + nope_dim.max(usize::from(pairs == 0));
            let mut geometry = Geometry::mha2mla(kv_heads * per_kv, kv_heads, head_dim, 2 * pairs, 1).unwrap();
            geometry.rope_heads = rope_heads;
            geometry.latent_rank = latent_rank;
            geometry.value_dim = value_dim;
            geometry.validate().unwrap()
        },
    )
}

pub fn page_size() -> impl Strategy<Value = usize> {
    prop_oneof![Just(8usize), Just(16), Just(32), Just(64)]
}

/// A batch with its own page table: sequences of given lengths in randomly permuted pages, some pages unused.
#[derive(Clone)]
pub struct Batch {
    pub query_starts: Vec<i32>,
    pub seq_lens: Vec<i32>,
    pub table: Vec<i32>,
    pub max_pages: usize,
    pub page_size: usize,
    pub pages: usize,
}

/// What unused page-table entries hold: an id that no cache has.
pub const POISON_PAGE: i32 = 2_147_480_000;

impl Batch {
    /// `lens[b]` tokens in the cache and `queries[b]` query tokens for each sequence.
    pub fn new(rng: &mut ChaCha8Rng, lens: &[usize], queries: &[usize], page_size: usize) -> Self {
        let max_pages = lens.iter().max().unwrap().div_ceil(page_size) + 1;
        let used: usize = lens.iter().map(|len| len.div_ceil(page_size)).sum();
        let pages = used + 2;
        let mut free: Vec<i32> = (0..pages as i32).collect();
        free.shuffle(rng);
        let mut table = vec![POISON_PAGE; lens.len() * max_pages];
        for (row, len) in table.chunks_exact_mut(max_pages).zip(lens) {
            row[..len.div_ceil(page_size)].fill_with(|| free.pop().unwrap());
        }
        Self {
            query_starts: prefix_sums(queries.iter().map(|&n| n as i32)),
            seq_lens: lens.iter().map(|&len| len as i32).collect(),
            table,
            max_pages,
            page_size,
            pages,
        }
    }

    pub fn sequences(&self) -> Sequences<'_> {
        Sequences {
            query_starts: &self.query_starts,
            seq_lens: &self.seq_lens,
            pages: PageTable::Dense { table: &self.table, max_pages: self.max_pages },
        }
    }

    /// The same pages as lists of just those that are used: `indptr` and `indices` of a CSR table.
    pub fn csr(&self) -> (Vec<i32>, Vec<i32>) {
        let (mut indptr, mut indices) = (vec![0], Vec::new());
        for (row, len) in self.table.chunks(self.max_pages).zip(&self.seq_lens) {
            indices.extend_from_slice(&row[..(*len as usize).div_ceil(self.page_size)]);
            indptr.push(indices.len() as i32);
        }
        (indptr, indices)
    }

    pub fn query_tokens(&self) -> usize {
        *self.query_starts.last().unwrap() as usize
    }

    pub fn slot(&self, sequence: usize, token: usize) -> usize {
        let page = self.table[sequence * self.max_pages + token / self.page_size] as usize;
        page * self.page_size + token % self.page_size
    }

    /// A cache whose used slots hold random tokens and every other byte is 0xFF: NaN as bf16 and as scale and min.
    pub fn poisoned_cache(&self, rng: &mut ChaCha8Rng, geometry: &Geometry, format: CacheFormat) -> PagedCache {
        let layout = CacheLayout::new(geometry, format, self.page_size).unwrap();
        let mut cache = PagedCache::new(layout, self.pages).unwrap();
        cache.bytes_mut().fill(0xFF);
        for (b, &len) in self.seq_lens.iter().enumerate() {
            for t in 0..len as usize {
                let latent = random(rng, geometry.latent_rank);
                let rope = random(rng, geometry.rope_width());
                let factors: Vec<f32> = random(rng, geometry.key_factors()).into_iter().map(|x| 1.25 + x).collect();
                cache.write_normalised(self.slot(b, t), &latent, &rope, &factors).unwrap();
            }
        }
        cache
    }
}

/// Lengths and query counts of a small ragged batch, padded rows and queries without enough tokens included.
pub fn ragged() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    prop::collection::vec((prop_oneof![Just(0usize), 1usize..40, Just(64usize), Just(65usize)], 0usize..4), 1..4)
        .prop_map(|rows| rows.into_iter().unzip())
}
