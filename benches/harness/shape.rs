//! What is measured: an operation on a model's layer, a cache format, a batch and a context.

use anyhow::Result;
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, Group, PageTable, RangeSetting, Sequences};
use latent_attention::device::Device;
use latent_attention::ops::BatchBuffers;
pub use latent_attention_cost::models::PAGE_SIZE;
use latent_attention_cost::models::{MODELS, geometry};

use super::lab::{Lab, Sample};

/// A number format of the cache, or, for operations without a cache, of their tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Bf16,
    /// Latents and rotated keys in groups of 64.
    Int4Group64,
    /// One scale for up to 512 latents: the library's default.
    Int4,
    /// The same bytes with ranges of least squared error, which only writing differs by.
    Int4Mse,
}

impl Format {
    /// Those that lie differently in memory.
    pub const READ: [Self; 3] = [Self::Bf16, Self::Int4Group64, Self::Int4];

    pub const WRITTEN: [Self; 4] = [Self::Bf16, Self::Int4Group64, Self::Int4, Self::Int4Mse];

    /// Its name in rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Int4Group64 => "int4-g64",
            Self::Int4 => "int4",
            Self::Int4Mse => "int4-mse",
        }
    }

    fn cache(self) -> CacheFormat {
        match self {
            Self::Bf16 => CacheFormat::BF16,
            Self::Int4Group64 => CacheFormat::int4(Group::G64),
            Self::Int4 => CacheFormat::INT4,
            Self::Int4Mse => CacheFormat::INT4.with_range(RangeSetting::Mse),
        }
    }
}

/// A model's name in rows, and one layer of it.
pub type Model = (&'static str, Geometry);

/// The models that are measured, large ones first.
///
/// # Errors
/// None, as long as the library knows them.
pub fn models() -> Result<Vec<Model>> {
    MODELS.iter().map(|name| Ok((*name, geometry(name)?))).collect()
}

/// One layer and one batch: `batch` sequences with `context` tokens each in the cache, one new token each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub model: Model,
    pub format: Format,
    pub batch: usize,
    pub context: usize,
}

impl Shape {
    /// The layer's sizes.
    pub fn geometry(&self) -> &Geometry {
        &self.model.1
    }

    /// The layout of its cache.
    ///
    /// # Errors
    /// As [`CacheLayout::new`].
    pub fn layout(&self) -> Result<CacheLayout> {
        Ok(CacheLayout::new(self.geometry(), self.format.cache(), PAGE_SIZE)?)
    }

    /// Pages of all sequences together.
    pub fn pages(&self) -> usize {
        self.batch * self.context.div_ceil(PAGE_SIZE)
    }

    /// Where each sequence's tokens begin, if those of all stand one behind the other.
    pub fn token_starts(&self) -> Vec<i32> {
        (0..=self.batch).map(|b| (b * self.context) as i32).collect()
    }

    /// Where the newest token of each sequence lies: page `i * batch + b` is the `i`-th of sequence `b`.
    pub fn newest_slots(&self) -> Vec<i64> {
        let newest = self.context - 1;
        let slot = |b: usize| (newest / PAGE_SIZE * self.batch + b) * PAGE_SIZE + newest % PAGE_SIZE;
        (0..self.batch).map(|b| slot(b) as i64).collect()
    }

    /// The batch on a device. Sequences take turns page by page, so that no two pages of one are neighbours.
    ///
    /// # Errors
    /// As [`BatchBuffers::upload`].
    pub fn batch_buffers(&self, device: &Device) -> Result<BatchBuffers> {
        let max_pages = self.context.div_ceil(PAGE_SIZE);
        let page = |i: usize| (i % max_pages * self.batch + i / max_pages) as i32;
        let table: Vec<i32> = (0..self.pages()).map(page).collect();
        let starts: Vec<i32> = (0..=self.batch as i32).collect();
        let lens = vec![self.context as i32; self.batch];
        let pages = PageTable::Dense { table: &table, max_pages };
        let sequences = Sequences { query_starts: &starts, seq_lens: &lens, pages };
        Ok(BatchBuffers::upload(device, &sequences, &self.layout()?, self.pages())?)
    }
}

/// What an operation cannot do without: bytes that it reads or writes at least once, and arithmetic. What lies between
/// the launches of a layer's step is not counted, nor are page tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    pub bytes: u64,
    pub flops: u64,
}

/// What an operation's work grows with, which also decides on the batches and contexts that it is measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Attention of one new token per sequence over the cached ones: grows with these.
    Attention,
    /// A whole step, on the same batches and contexts, but counted per new token.
    Step,
    /// All cached tokens at once.
    Prefill,
    /// One new token per sequence, whatever is cached.
    Tokens,
}

/// One operation, as a file of this folder describes it.
pub struct Operation {
    pub name: &'static str,
    pub kind: Kind,
    /// The cache formats that make a difference to it.
    pub formats: &'static [Format],
    pub work: fn(&Shape) -> Result<Work>,
    pub run: fn(&mut Lab, &Shape) -> Result<Sample>,
}

impl Operation {
    /// The tokens that its work grows with.
    pub fn tokens(&self, shape: &Shape) -> usize {
        match self.kind {
            Kind::Attention | Kind::Prefill => shape.batch * shape.context,
            Kind::Step | Kind::Tokens => shape.batch,
        }
    }

    /// A shape with half as many of these tokens.
    pub fn half(&self, shape: &Shape) -> Shape {
        match self.kind {
            Kind::Attention | Kind::Prefill => Shape { context: shape.context / 2, ..*shape },
            Kind::Step | Kind::Tokens => Shape { batch: shape.batch / 2, ..*shape },
        }
    }
}
