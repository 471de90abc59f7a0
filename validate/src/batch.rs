//! A ragged batch among poison.

use latent_attention::cache::{CacheLayout, PageTable, PagedCache, Sequences};
use latent_attention::device::Device;
use latent_attention::ops::BatchBuffers;
use latent_attention::{Error, Result};

use crate::draw::Draw;
use crate::tensors::Tensors;

/// What unused page-table entries hold: an id that no cache has.
const POISON_PAGE: i32 = 2_147_480_000;

/// Every byte of an unused slot: as bf16, and as f16 scale and min, a NaN.
const POISON_BYTE: u8 = 0xFF;

/// Pages that no sequence uses.
const SPARE_PAGES: usize = 2;

/// Sequences with their page table.
#[derive(Debug)]
pub(crate) struct RaggedBatch {
    query_starts: Vec<i32>,
    seq_lens: Vec<i32>,
    /// `[sequences, max_pages]`.
    page_table: Vec<i32>,
    max_pages: usize,
}

impl RaggedBatch {
    /// Sequences of given lengths and query tokens, in pages in random order; rows of the table have room to spare.
    pub fn draw(draw: &mut Draw, lens: &[usize], queries: &[usize], page_size: usize) -> Self {
        let used: usize = lens.iter().map(|len| len.div_ceil(page_size)).sum();
        let mut free: Vec<i32> = (0..(used + SPARE_PAGES) as i32).collect();
        draw.shuffle(&mut free);
        let max_pages = lens.iter().max().map_or(0, |longest| longest.div_ceil(page_size)) + 1;
        let mut page_table = vec![POISON_PAGE; lens.len() * max_pages];
        for (row, len) in page_table.chunks_exact_mut(max_pages).zip(lens) {
            let taken = free.split_off(free.len() - len.div_ceil(page_size));
            row[..taken.len()].copy_from_slice(&taken);
        }
        let mut query_starts = vec![0];
        for queries in queries {
            query_starts.push(query_starts.last().map_or(0, |start| start + *queries as i32));
        }
        Self { query_starts, seq_lens: lens.iter().map(|&len| len as i32).collect(), page_table, max_pages }
    }

    pub fn put(&self, tensors: &mut Tensors) {
        tensors.put("query_starts", &[self.query_starts.len()], &self.query_starts);
        tensors.put("seq_lens", &[self.seq_lens.len()], &self.seq_lens);
        tensors.put("page_table", &[self.seq_lens.len(), self.max_pages], &self.page_table);
    }

    /// The batch of a case, for a cache of `pages` pages.
    ///
    /// # Errors
    /// [`Error::Tensor`], and as [`Sequences::check`]; [`Error::Index`] for a sequence longer than the cache, as only
    /// repeated pages could make it.
    pub fn get(tensors: &Tensors, page_size: usize, pages: usize) -> Result<Self> {
        let [sequences, max_pages] = tensors.sizes("page_table")?;
        let batch = Self {
            query_starts: tensors.get("query_starts", &[sequences + 1])?,
            seq_lens: tensors.get("seq_lens", &[sequences])?,
            page_table: tensors.get("page_table", &[sequences, max_pages])?,
            max_pages,
        };
        batch.sequences().check(page_size, pages)?;
        if batch.longest() > pages.saturating_mul(page_size) {
            Err(Error::Index {
                what: "longest of seq_lens".into(),
                got: batch.longest() as i64,
                bound: format!("0..={} slots of the cache", pages.saturating_mul(page_size)),
            })
        } else {
            Ok(batch)
        }
    }

    pub fn sequences(&self) -> Sequences<'_> {
        Sequences {
            query_starts: &self.query_starts,
            seq_lens: &self.seq_lens,
            pages: PageTable::Dense { table: &self.page_table, max_pages: self.max_pages },
        }
    }

    pub fn upload(&self, device: &Device, layout: &CacheLayout, pages: usize) -> Result<BatchBuffers> {
        BatchBuffers::upload(device, &self.sequences(), layout, pages)
    }

    /// T.
    pub fn query_tokens(&self) -> usize {
        self.sequences().query_tokens()
    }

    /// Tokens of each sequence.
    pub fn lens(&self) -> impl Iterator<Item = usize> {
        self.seq_lens.iter().map(|&len| len as usize)
    }

    /// Tokens of the longest sequence.
    pub fn longest(&self) -> usize {
        self.seq_lens.iter().max().map_or(0, |&len| len as usize)
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.seq_lens.iter().map(|&len| len as usize).sum()
    }

    /// Length of a row of the page table.
    pub fn max_pages(&self) -> usize {
        self.max_pages
    }

    /// Prefix sums of the lengths.
    pub fn token_starts(&self) -> Vec<i32> {
        let ends = self.seq_lens.iter().scan(0i32, |sum, len| {
            *sum = len.saturating_add(*sum);
            Some(*sum)
        });
        std::iter::once(0).chain(ends).collect()
    }

    /// The place of each query token in its sequence: they are its last ones. `None` for those in front of the first
    /// token, where a sequence has fewer tokens than query tokens.
    pub fn query_places(&self) -> Vec<Option<Place>> {
        let queries = self.query_starts.windows(2).map(|starts| (starts[1] - starts[0]) as usize);
        let sequences = self.seq_lens.iter().map(|&len| len as usize).zip(queries).enumerate();
        let places = sequences.flat_map(|(sequence, (len, queries))| {
            (0..queries).map(move |j| (len + j).checked_sub(queries).map(|token| Place { sequence, token }))
        });
        places.collect()
    }

    /// The place of every token, sequence after sequence.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        let lens = self.seq_lens.iter().enumerate();
        lens.flat_map(|(sequence, &len)| (0..len as usize).map(move |token| Place { sequence, token }))
    }

    /// Where a token lies in the cache.
    pub fn slot(&self, Place { sequence, token }: Place, page_size: usize) -> usize {
        self.page_table[sequence * self.max_pages + token / page_size] as usize * page_size + token % page_size
    }

    /// A cache of random tokens, without the query tokens if they are `to_come`, whose every other byte is poison.
    pub fn cache(&self, draw: &mut Draw, layout: CacheLayout, to_come: bool) -> Result<PagedCache> {
        let page_size = layout.page_size();
        let used: usize = self.seq_lens.iter().map(|&len| (len as usize).div_ceil(page_size)).sum();
        let mut cache = PagedCache::new(layout, used + SPARE_PAGES)?;
        cache.bytes_mut().fill(POISON_BYTE);
        let new = self.query_places();
        for place in self.places() {
            let (latent, key) = (draw.f32(layout.latent_rank(), 1.0), draw.f32(layout.rope_width(), 1.0));
            if !to_come || !new.contains(&Some(place)) {
                cache.write(self.slot(place, page_size), &latent, &key)?;
            }
        }
        Ok(cache)
    }
}

/// One token of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub sequence: usize,
    pub token: usize,
}
