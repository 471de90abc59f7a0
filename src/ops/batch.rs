//! A batch whose lengths and page table are in device memory.

use super::{CacheView, check};
use crate::cache::{CacheLayout, PageTable, Sequences};
use crate::device::{Buffer, Device, View};
use crate::error::{Error, Result};
use crate::sys;

/// A page table in device memory; as [`PageTable`].
#[derive(Clone, Debug)]
pub enum Pages<'a> {
    /// One row of `max_pages` ids per sequence; entries past a sequence's end may hold anything.
    Dense {
        /// `[sequences, max_pages]`.
        table: View<'a, i32>,
        /// Length of a row.
        max_pages: usize,
    },
    /// The ids of all sequences one after the other: sequence `b` has `indices[indptr[b]..indptr[b + 1]]`.
    Csr {
        /// `[sequences + 1]`, ascending from 0.
        indptr: View<'a, i32>,
        /// `[indptr[sequences]]`.
        indices: View<'a, i32>,
    },
}

/// A batch in device memory; as [`Sequences`].
///
/// Its numbers may change between launches (and between replays of a graph), as long as the promises made to
/// [`Batch::from_device`] hold at each.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    query_starts: View<'a, i32>,
    seq_lens: View<'a, i32>,
    pages: Pages<'a>,
    /// Page ids are below this.
    page_count: usize,
}

impl<'a> Batch<'a> {
    /// A batch whose numbers the host does not see, so that it cannot check them. It is for caches of at least
    /// `page_count` pages.
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths of the views do not fit together, [`Error::OtherDevice`] if they are on
    /// different devices.
    ///
    /// # Safety
    /// Whenever a kernel runs on the batch, `query_starts` must ascend from 0, lengths must not be negative, a page
    /// table must have an id below `page_count` for every page that a sequence's length reaches, and `indptr` must ascend
    /// within `indices`.
    pub unsafe fn from_device(
        query_starts: View<'a, i32>,
        seq_lens: View<'a, i32>,
        pages: Pages<'a>,
        page_count: usize,
    ) -> Result<Self> {
        let (device, sequences) = (seq_lens.device().clone(), seq_lens.len());
        check::view("query starts", &device, &query_starts, &[("sequences + 1", sequences + 1)])?;
        match &pages {
            Pages::Dense { table, max_pages } => {
                check::view("page table", &device, table, &[("sequences", sequences), ("pages", *max_pages)])?;
            }
            Pages::Csr { indptr, indices } => {
                check::view("page table indptr", &device, indptr, &[("sequences + 1", sequences + 1)])?;
                device.check_same("page table indices", indices.device())?;
            }
        }
        Ok(Self { query_starts, seq_lens, pages, page_count })
    }

    /// Number of sequences.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seq_lens.len()
    }

    /// Whether the batch is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seq_lens.is_empty()
    }

    /// Returns [`Error::Config`] if the cache is too small for the batch's page ids.
    pub(super) fn check_cache(&self, cache: &CacheView) -> Result<()> {
        if cache.pages() >= self.page_count {
            Ok(())
        } else {
            Err(Error::Config {
                what: "cache".into(),
                why: format!("has {} pages, the batch is for caches of {} or more", cache.pages(), self.page_count),
            })
        }
    }

    /// What kernels are told of it, if it is on the device.
    pub(super) fn params(&self, device: &Device) -> Result<sys::BatchParams> {
        device.check_same("batch", self.seq_lens.device())?;
        let (page_table, page_starts, max_pages) = match &self.pages {
            Pages::Dense { table, max_pages } => (table.address(), 0, *max_pages),
            Pages::Csr { indptr, indices } => (indices.address(), indptr.address(), 0),
        };
        Ok(sys::BatchParams {
            query_starts: self.query_starts.address(),
            seq_lens: self.seq_lens.address(),
            page_table,
            page_starts,
            sequences: check::count("sequences", self.len())?,
            max_pages: check::count("pages per sequence", max_pages)?,
        })
    }
}

/// A checked batch in device memory of its own.
#[derive(Debug)]
pub struct BatchBuffers {
    query_starts: Buffer<i32>,
    seq_lens: Buffer<i32>,
    table: Buffer<i32>,
    /// `indptr` of a CSR table.
    starts: Option<Buffer<i32>>,
    max_pages: usize,
    page_count: usize,
}

impl BatchBuffers {
    /// Checks a batch against a cache of `pages` pages, and copies it to the device.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Index`] names the number that does not fit; [`Error::Driver`].
    pub fn upload(device: &Device, sequences: &Sequences, layout: &CacheLayout, pages: usize) -> Result<Self> {
        sequences.check(layout.page_size(), pages)?;
        let (table, starts, max_pages) = match sequences.pages {
            PageTable::Dense { table, max_pages } => {
                let used = sequences.len().saturating_mul(max_pages);
                let rows = table.get(..used).ok_or_else(|| Error::Shape {
                    what: "page table",
                    expected: format!("[sequences {}, pages {max_pages}] = {used} elements", sequences.len()),
                    got: format!("{} elements", table.len()),
                })?;
                (device.upload(rows)?, None, max_pages)
            }
            PageTable::Csr { indptr, indices } => {
                crate::error::check_len("page table indptr", indptr.len(), &[("sequences + 1", sequences.len() + 1)])?;
                (device.upload(indices)?, Some(device.upload(indptr)?), 0)
            }
        };
        Ok(Self {
            query_starts: device.upload(sequences.query_starts)?,
            seq_lens: device.upload(sequences.seq_lens)?,
            table,
            starts,
            max_pages,
            page_count: pages,
        })
    }

    /// The batch.
    #[must_use]
    pub fn batch(&self) -> Batch<'_> {
        let table = self.table.view();
        let pages = match &self.starts {
            None => Pages::Dense { table, max_pages: self.max_pages },
            Some(indptr) => Pages::Csr { indptr: indptr.view(), indices: table },
        };
        let (query_starts, seq_lens) = (self.query_starts.view(), self.seq_lens.view());
        Batch { query_starts, seq_lens, pages, page_count: self.page_count }
    }
}
