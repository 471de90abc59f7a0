//! Every operation on a device against the f64 reference, on inputs that are reproducible from a seed.
//!
//! A [`Validation`] says of what: a geometry, a cache format, a batch. Each [`Case`] is one operation with its inputs;
//! [`Case::run`] adds a device's outputs, [`Case::check`] compares them, and a [`Report`] shows what came out. Cases go
//! to files and come back ([`Dump`], [`read_dump`]), so that the outputs can be another implementation's: `check` needs
//! neither kernels nor a device. `cargo xtask validate` is this library as a program; `docs/validate.md` describes the
//! files.
//!
//! Unused slots of the caches hold NaN, unused entries of page tables ids that no cache has, and outputs are NaN before
//! they are written.
//!
//! ```
//! use latent_attention::Geometry;
//! use latent_attention::cache::CacheFormat;
//! use latent_attention::device::Device;
//! use validate::Validation;
//!
//! # if latent_attention::image::images().is_empty() { return Ok(()) } // built without nvcc
//! let mut validation = Validation::new(Geometry::mha2mla(4, 2, 16, 4, 8)?, CacheFormat::INT4);
//! validation.seq_lens = vec![9, 0, 30];
//! let report = validation.report(&Device::simulated())?;
//! assert!(report.passed(), "{report}");
//! # Ok::<(), latent_attention::Error>(())
//! ```

mod absorb;
mod batch;
mod case;
mod combine;
mod compare;
mod copy_pages;
mod decode;
mod draw;
mod dump;
mod gather;
mod head_norm;
mod layer;
mod operations;
mod report;
mod rope_append;
mod schedule;
mod settings;
mod sizes;
mod tensors;
mod tolerance;
mod up_project;

pub use case::{Case, Kind};
pub use compare::{Comparison, Worst};
pub use dump::{Dump, read_dump};
pub use report::Report;
pub use settings::{LATENT_FORMATS, PAIRINGS, RANGE_SETTINGS, ROPE_FORMATS, by_name};
pub use tolerance::Rule;

use latent_attention::cache::{CacheFormat, CacheLayout};
use latent_attention::device::Device;
use latent_attention::rope::Pairing;
use latent_attention::{Error, Geometry, Result};

use crate::batch::RaggedBatch;
use crate::draw::Draw;

/// What is validated.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Validation {
    /// The layer's sizes.
    pub geometry: Geometry,
    /// The cache's number formats.
    pub format: CacheFormat,
    /// Tokens per page of the cache.
    pub page_size: usize,
    /// Which dimensions of a rope head form a pair.
    pub pairing: Pairing,
    /// Tokens of each sequence, the query tokens included.
    pub seq_lens: Vec<usize>,
    /// Query tokens of each sequence; repeated if there are more sequences.
    pub query_tokens: Vec<usize>,
    /// Tokens per split where that is fixed.
    pub fixed_tokens: usize,
    /// All inputs follow from it.
    pub seed: u64,
}

impl Validation {
    /// Pages of 64 tokens, a batch of sequences that end around every edge, seed 0.
    #[must_use]
    pub fn new(geometry: Geometry, format: CacheFormat) -> Self {
        Self {
            geometry,
            format,
            page_size: 64,
            pairing: Pairing::Half,
            // Without tokens, one, around a page's end, and several pages.
            seq_lens: vec![0, 1, 63, 64, 65, 150],
            query_tokens: vec![1, 1, 2, 1, 3, 1],
            fixed_tokens: 48,
            seed: 0,
        }
    }

    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// [`Error::Geometry`] or [`Error::Config`] names the part that does not.
    pub fn check(&self) -> Result<()> {
        CacheLayout::new(&self.geometry, self.format, self.page_size)?;
        let bad = |what: &str, why: &str| Err(Error::Config { what: what.into(), why: why.into() });
        let queries = self.queries();
        if self.seq_lens.is_empty() || queries.iter().all(|&n| n == 0) {
            return bad("batch", "needs a sequence with a query token");
        }
        let total = |counts: &[usize]| counts.iter().fold(0usize, |sum, &n| sum.saturating_add(n));
        if i32::try_from(total(&self.seq_lens)).is_err() || i32::try_from(total(&queries)).is_err() {
            return bad("batch", "must have less than 2^31 tokens");
        }
        if self.fixed_tokens == 0 {
            return bad("splits of 0 tokens", "must be at least 1");
        }
        Ok(())
    }

    /// The inputs of one case.
    ///
    /// # Errors
    /// As [`Validation::check`].
    pub fn case(&self, kind: Kind) -> Result<Case> {
        self.check()?;
        Case::new(kind.operation(), self)
    }

    /// Runs every case on a device and checks it.
    ///
    /// # Errors
    /// As [`Case::run`].
    pub fn report(&self, device: &Device) -> Result<Report> {
        let mut report = Report::new(format!("{self} on {}", device.name()));
        for kind in Kind::ALL {
            report.comparisons.extend(self.case(kind)?.run(device)?.check()?);
        }
        Ok(report)
    }

    /// Query tokens of each sequence.
    fn queries(&self) -> Vec<usize> {
        self.query_tokens.iter().copied().cycle().take(self.seq_lens.len()).collect()
    }

    fn batch(&self, draw: &mut Draw) -> RaggedBatch {
        RaggedBatch::draw(draw, &self.seq_lens, &self.queries(), self.page_size)
    }
}

impl std::fmt::Display for Validation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (g, lens) = (&self.geometry, &self.seq_lens);
        let [latent, rope, range] = settings::format_names(self.format);
        write!(
            f,
            "{} query heads, {} KV heads, {} rope heads, latent {}, rope {}, nope {}, value {}; latent in {latent}, \
             rotated key in {rope}, ranges {range}, pages of {}; sequences of {lens:?} tokens with {:?} query tokens; \
             seed {}",
            g.query_heads,
            g.kv_heads,
            g.rope_heads,
            g.latent_rank,
            g.rope_dim,
            g.nope_dim,
            g.value_dim,
            self.page_size,
            self.queries(),
            self.seed
        )
    }
}
