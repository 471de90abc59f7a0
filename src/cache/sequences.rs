//! Which sequences a batch holds and in which pages their tokens lie.

use super::paged::PagedCache;
use crate::error::{Error, Result};

/// For each sequence, the page ids of its tokens in order: token `t` lies in page `t / page_size` of the list.
#[derive(Clone, Copy, Debug)]
pub enum PageTable<'a> {
    /// One row of `max_pages` ids per sequence; entries past a sequence's end may hold anything.
    Dense {
        /// `[sequences, max_pages]`.
        table: &'a [i32],
        /// Length of a row.
        max_pages: usize,
    },
    /// The ids of all sequences one after the other: sequence `b` has `indices[indptr[b]..indptr[b + 1]]`.
    Csr {
        /// `[sequences + 1]`, ascending.
        indptr: &'a [i32],
        /// `[indptr[sequences]]`.
        indices: &'a [i32],
    },
}

impl<'a> PageTable<'a> {
    /// The list of one sequence; `None` if the table is too short for it.
    fn row(&self, sequence: usize) -> Option<&'a [i32]> {
        match *self {
            Self::Dense { table, max_pages } => {
                let start = sequence.checked_mul(max_pages)?;
                table.get(start..start.checked_add(max_pages)?)
            }
            Self::Csr { indptr, indices } => {
                let start = usize::try_from(*indptr.get(sequence)?).ok()?;
                let end = usize::try_from(*indptr.get(sequence + 1)?).ok()?;
                indices.get(start..end)
            }
        }
    }
}

/// A batch: how many query tokens each sequence brings, how many tokens it has in the cache, and where.
///
/// The query tokens of all sequences stand one after the other. They are the *last* tokens of their sequence and
/// causal among themselves: of `n` query tokens in a sequence of length `s`, number `j` sees the tokens
/// `0 ..= s - n + j`.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'a> {
    /// `[sequences + 1]`, ascending from 0: sequence `b` has the query tokens `query_starts[b]..query_starts[b + 1]`.
    pub query_starts: &'a [i32],
    /// `[sequences]`: tokens in the cache, the query tokens included.
    pub seq_lens: &'a [i32],
    /// Where the tokens lie.
    pub pages: PageTable<'a>,
}

/// One sequence of a checked batch.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    /// Its query tokens, as rows of the batch.
    pub queries: std::ops::Range<usize>,
    /// The slot of each of its tokens.
    pub slots: Vec<usize>,
}

impl Sequence {
    /// How many tokens the `j`-th query token sees.
    pub(crate) fn visible(&self, j: usize) -> usize {
        (self.slots.len() + j + 1).saturating_sub(self.queries.len())
    }
}

impl Sequences<'_> {
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

    /// Number of query tokens in the batch; 0 if `query_starts` is malformed.
    #[must_use]
    pub fn query_tokens(&self) -> usize {
        self.query_starts.last().map_or(0, |&end| usize::try_from(end).unwrap_or(0))
    }

    /// Checks the batch against pages of `page_size` tokens, of which there are `pages`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `query_starts` does not ascend from 0 or the page table is too short, [`Error::Index`] for a
    /// negative length or a page that does not exist.
    pub fn check(&self, page_size: usize, pages: usize) -> Result<()> {
        let starts = self.query_starts;
        let ascending = starts.first() == Some(&0) && starts.is_sorted();
        if starts.len() != self.len() + 1 || !ascending {
            return Err(Error::Shape {
                what: "query starts",
                expected: format!("{} ascending numbers from 0", self.len() + 1),
                got: format!("{starts:?}"),
            });
        }
        (0..self.len()).try_for_each(|sequence| self.used_pages(sequence, page_size, pages).map(drop))
    }

    /// Checks the batch against a cache and resolves every token to its slot.
    pub(crate) fn resolve(&self, cache: &PagedCache) -> Result<Vec<Sequence>> {
        let page_size = cache.layout().page_size();
        self.check(page_size, cache.pages())?;
        let queries = self.query_starts.windows(2).map(|w| w[0] as usize..w[1] as usize);
        let sequence = |(b, queries)| {
            let (length, row) = self.used_pages(b, page_size, cache.pages())?;
            let slots = (0..length).map(|t| row[t / page_size] as usize * page_size + t % page_size).collect();
            Ok(Sequence { queries, slots })
        };
        queries.enumerate().map(sequence).collect()
    }

    /// The length of a sequence and the ids of its pages, as many as that length reaches.
    fn used_pages(&self, sequence: usize, page_size: usize, pages: usize) -> Result<(usize, &[i32])> {
        let length = self.seq_lens[sequence];
        let length = usize::try_from(length).map_err(|_| Error::Index {
            what: format!("seq_lens [{sequence}]"),
            got: length.into(),
            bound: "0 and above".into(),
        })?;
        let used = length.div_ceil(page_size);
        let row = self.pages.row(sequence).filter(|row| row.len() >= used).ok_or_else(|| Error::Shape {
            what: "page table",
            expected: format!("{used} pages for the {length} tokens of sequence {sequence}"),
            got: format!("{} pages", self.pages.row(sequence).map_or(0, <[i32]>::len)),
        })?;
        for (i, &page) in row[..used].iter().enumerate() {
            if usize::try_from(page).map_or(true, |page| page >= pages) {
                return Err(Error::Index {
                    what: format!("page table [sequence {sequence}, page {i}]"),
                    got: page.into(),
                    bound: format!("0..{pages} pages"),
                });
            }
        }
        Ok((length, &row[..used]))
    }
}
