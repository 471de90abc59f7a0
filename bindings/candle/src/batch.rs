//! A batch's lengths and pages, read and checked on the host.

use std::ops::Range;

use candle_core::Tensor;
use latent_attention::Error;
use latent_attention::cache::{PageTable, Sequences};
use latent_attention::ops::DecodeConfig;

use crate::check;
use crate::error::{Result, refused};

/// A checked batch in host memory.
#[derive(Debug)]
pub(crate) struct HostBatch {
    query_starts: Vec<i32>,
    seq_lens: Vec<i32>,
    table: Vec<i32>,
    max_pages: usize,
    /// Page ids are below this.
    pages: usize,
}

impl HostBatch {
    /// `block_tables` is `[sequences, pages]`; caches have `pages` pages.
    pub fn new(
        config: &DecodeConfig,
        block_tables: &Tensor,
        seq_lens: Vec<i32>,
        query_starts: Vec<i32>,
        pages: usize,
    ) -> Result<Self> {
        let max_pages = block_tables.dims().get(1).copied().unwrap_or(0);
        check::shape("block_tables", block_tables, &[("sequences", seq_lens.len()), ("pages", max_pages)])?;
        let table = check::integers("block_tables", block_tables)?;
        let batch = Self { query_starts, seq_lens, table, max_pages, pages };
        batch.sequences().check(config.layout.page_size(), pages)?;
        Ok(batch)
    }

    pub fn sequences(&self) -> Sequences<'_> {
        Sequences {
            query_starts: &self.query_starts,
            seq_lens: &self.seq_lens,
            pages: PageTable::Dense { table: &self.table, max_pages: self.max_pages },
        }
    }

    /// Page ids are below this.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// `[sequences, max_pages]`, and the latter.
    pub fn table(&self) -> (&[i32], usize) {
        (&self.table, self.max_pages)
    }

    /// Pages that a sequence's length reaches, in order.
    pub fn used_pages(&self, sequence: usize, page_size: usize) -> &[i32] {
        let used = (self.seq_lens[sequence] as usize).div_ceil(page_size);
        &self.table[sequence * self.max_pages..][..used]
    }

    /// Returns an error unless a cache has the pages that the batch is for.
    pub fn check_cache(&self, pages: usize) -> Result<()> {
        if pages >= self.pages {
            return Ok(());
        }
        Err(refused("cache", format!("has {pages} pages, the plan is for caches of {} or more", self.pages)))
    }
}

/// `[0, n0, n0 + n1, ..]`.
pub(crate) fn query_starts(config: &DecodeConfig, lens: &[usize]) -> Result<Vec<i32>> {
    let tokens = lens.iter().fold(0usize, |sum, n| sum.saturating_add(*n));
    if tokens > config.max_query_tokens {
        let why = format!("these operations were made for at most {}", config.max_query_tokens);
        return Err(refused(format!("{tokens} query tokens"), why));
    }
    let sums = lens.iter().scan(0, |sum, &n| {
        *sum += n as i32;
        Some(*sum)
    });
    Ok(std::iter::once(0).chain(sums).collect())
}

/// The lengths of the sequences, none longer than the configuration allows.
pub(crate) fn context_lens(config: &DecodeConfig, tensor: &Tensor) -> Result<Vec<i32>> {
    check::shape("context_lens", tensor, &[("sequences", check::rows("context_lens", tensor)?)])?;
    let lens = check::integers("context_lens", tensor)?;
    match lens.iter().position(|&len| usize::try_from(len).is_ok_and(|len| len > config.max_tokens)) {
        None => Ok(lens),
        Some(b) => {
            let bound = format!("0..={} tokens that these operations were made for", config.max_tokens);
            Err(Error::Index { what: format!("context_lens [{b}]"), got: lens[b].into(), bound }.into())
        }
    }
}

/// Which tokens of each sequence are gathered.
#[derive(Debug)]
pub(crate) struct Chunks {
    /// `[sequences + 1]`: rows `starts[b]..starts[b + 1]` are sequence `b`'s.
    pub starts: Vec<i32>,
    /// `[sequences]`: the token in the first of these rows.
    pub firsts: Vec<i32>,
}

impl Chunks {
    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.firsts.len()
    }

    /// Rows of all sequences.
    pub fn tokens(&self) -> usize {
        self.starts.last().map_or(0, |&end| end as usize)
    }

    /// The tokens of each sequence. One without any may begin anywhere, as one that has ended before this chunk does.
    pub fn ranges(&self) -> Vec<Range<usize>> {
        let chunk = |(&first, starts): (&i32, &[i32])| match starts[1] - starts[0] {
            0 => 0..0,
            count => first as usize..first as usize + count as usize,
        };
        self.firsts.iter().zip(self.starts.windows(2)).map(chunk).collect()
    }

    /// How many tokens each sequence must have; too many for any if they cannot be counted.
    pub fn ends(&self) -> Vec<i32> {
        self.ranges().into_iter().map(|tokens| i32::try_from(tokens.end).unwrap_or(i32::MAX)).collect()
    }
}

/// `cu_seq_lens` `[0, n0, n0 + n1, ..]` and, unless each sequence is gathered from its token 0 on, `seq_starts`.
pub(crate) fn chunks(cu_seq_lens: &Tensor, seq_starts: Option<&Tensor>) -> Result<Chunks> {
    let what = "cu_seq_lens";
    check::shape(what, cu_seq_lens, &[("sequences + 1", check::rows(what, cu_seq_lens)?)])?;
    let starts = check::integers(what, cu_seq_lens)?;
    if starts.first() != Some(&0) || !starts.is_sorted() {
        let (expected, got) = ("ascending numbers from 0".into(), format!("{starts:?}"));
        return Err(Error::Shape { what, expected, got }.into());
    }
    let sequences = starts.len() - 1;
    let firsts = match seq_starts {
        None => vec![0; sequences],
        Some(seq_starts) => {
            check::shape("seq_starts", seq_starts, &[("sequences", sequences)])?;
            check::integers("seq_starts", seq_starts)?
        }
    };
    match firsts.iter().position(|&first| first < 0) {
        None => Ok(Chunks { starts, firsts }),
        Some(b) => {
            let (what, got) = (format!("seq_starts [{b}]"), firsts[b].into());
            Err(Error::Index { what, got, bound: "0 and above".into() }.into())
        }
    }
}
