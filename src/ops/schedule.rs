//! `schedule`: cuts a batch's attention into splits, on the device.

use super::Batch;
use super::check;
use crate::device::{Device, Kernel, LaunchConfig, Stream, ViewMut};
use crate::error::{Error, Result};
use crate::splits::SplitCosts;
use crate::sys;

/// How the tokens that a query sees are divided among blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SplitPolicy {
    /// Splits of the same length for all queries, with which the batch is predicted to take least. The sums of a query are
    /// taken in another order when the batch is another one, which changes last bits.
    Balanced,
    /// Splits that begin at multiples of so many tokens. A query's result is the same to the bit whatever else is in
    /// the batch.
    Fixed {
        /// Tokens per split, at least 1.
        tokens: usize,
    },
}

/// What stays the same from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScheduleConfig {
    /// How tokens are divided.
    pub policy: SplitPolicy,
    /// Most query tokens in a batch.
    pub max_query_tokens: usize,
    /// Most tokens in a sequence; longer ones are cut off.
    pub max_tokens: usize,
    /// Tokens in a page of the cache.
    pub page_size: usize,
    /// Tokens that the attention kernel takes at a time: balanced splits are multiples of it.
    pub tile_tokens: usize,
    /// Splits that run at once.
    pub target_splits: usize,
    /// What balanced splits cost.
    pub costs: SplitCosts,
}

impl ScheduleConfig {
    /// A schedule for caches of `page_size` tokens per page, and an attention kernel that takes `tile_tokens` at a time
    /// on `target_splits` blocks at once.
    #[must_use]
    pub fn new(
        policy: SplitPolicy,
        max_query_tokens: usize,
        max_tokens: usize,
        page_size: usize,
        tile_tokens: usize,
        target_splits: usize,
    ) -> Self {
        let costs = SplitCosts::default();
        Self { policy, max_query_tokens, max_tokens, page_size, tile_tokens, target_splits, costs }
    }

    /// The same with other costs of splits.
    #[must_use]
    pub fn with_costs(self, costs: SplitCosts) -> Self {
        Self { costs, ..self }
    }

    /// Most splits of one query token.
    #[must_use]
    pub fn max_splits(&self) -> usize {
        match self.policy {
            SplitPolicy::Balanced => {
                let tiles = self.max_tokens.div_ceil(self.tile_tokens.max(1));
                SplitCosts::most_splits(self.max_query_tokens, self.target_splits).min(tiles).max(1)
            }
            SplitPolicy::Fixed { tokens } => self.max_tokens.div_ceil(tokens.max(1)).max(1),
        }
    }

    /// Splits of most query tokens of a batch of `query_tokens`, where they see about as much.
    #[must_use]
    pub fn expected_splits(&self, query_tokens: usize) -> usize {
        match self.policy {
            SplitPolicy::Balanced => self.target_splits.div_ceil(query_tokens.max(1)),
            SplitPolicy::Fixed { .. } => self.max_splits(),
        }
    }

    /// Most splits of a batch of `query_tokens`.
    #[must_use]
    pub fn max_batch_splits(&self, query_tokens: usize) -> usize {
        match self.policy {
            SplitPolicy::Balanced => query_tokens.max(self.most_cut(query_tokens)),
            SplitPolicy::Fixed { .. } => query_tokens.saturating_mul(self.max_splits()),
        }
    }

    /// Most partials of a batch.
    #[must_use]
    pub fn max_partials(&self) -> usize {
        match self.policy {
            _ if self.max_splits() == 1 => 0,
            SplitPolicy::Balanced => self.most_cut(self.max_query_tokens),
            SplitPolicy::Fixed { .. } => self.max_batch_splits(self.max_query_tokens),
        }
    }

    /// Most splits of a batch of `query_tokens`, or of fewer, of which anything is cut.
    fn most_cut(&self, query_tokens: usize) -> usize {
        let most = SplitCosts::most_splits(query_tokens, self.target_splits);
        most.min(query_tokens.saturating_mul(self.max_splits()))
    }

    /// Whether anything can be cut in a batch of `query_tokens`.
    pub(crate) fn can_cut(&self, query_tokens: usize) -> bool {
        match self.policy {
            SplitPolicy::Balanced => query_tokens < self.most_cut(query_tokens),
            SplitPolicy::Fixed { .. } => self.max_splits() > 1,
        }
    }

    /// Checks that a schedule can be made: the sizes, and how many splits there may be.
    ///
    /// # Errors
    /// [`Error::Config`] names the number that is out of range.
    pub fn check(&self) -> Result<()> {
        let bad = |what: String, why: String| Err(Error::Config { what, why });
        for (what, n) in [
            ("most query tokens", self.max_query_tokens),
            ("most tokens", self.max_tokens),
            ("tokens per tile", self.tile_tokens),
            ("splits at once", self.target_splits),
        ] {
            if n == 0 || i32::try_from(n).is_err() {
                return bad(format!("schedule: {what} {n}"), "must be 1..2^31".into());
            }
        }
        if !crate::cache::PAGE_SIZES.contains(&self.page_size) {
            return bad(
                format!("schedule: page size {}", self.page_size),
                format!("must be one of {:?}", crate::cache::PAGE_SIZES),
            );
        }
        if let SplitPolicy::Fixed { tokens: 0 } = self.policy {
            return bad("schedule: splits of 0 tokens".into(), "must be at least 1".into());
        }
        if i32::try_from(self.max_batch_splits(self.max_query_tokens)).is_err() {
            return bad(
                format!("schedule: {} splits for each of {} query tokens", self.max_splits(), self.max_query_tokens),
                "must be less than 2^31 in all".into(),
            );
        }
        Ok(())
    }
}

/// Divides the work of [`Decode`](super::Decode). No number of the batch is seen by the host, so a captured graph follows
/// the batch wherever its lengths go.
#[derive(Clone, Debug)]
pub struct Schedule {
    kernel: Kernel,
    config: ScheduleConfig,
}

/// The arguments of [`Schedule::run`].
#[derive(Debug)]
pub struct ScheduleArgs<'a> {
    /// The batch.
    pub batch: &'a Batch<'a>,
    /// T: rows of the outputs. Those past the end of the batch get a split that sees nothing.
    pub query_tokens: usize,
    /// Out: u32 `[max_batch_splits(T), 8]`, as [`DecodeSplit`](sys::DecodeSplit).
    pub splits: ViewMut<'a, u32>,
    /// Out: `[1]`.
    pub split_count: ViewMut<'a, u32>,
    /// Out: `[T + 1]`: the partials of query token `q` are `split_starts[q]..split_starts[q + 1]`; none if it has
    /// one split.
    pub split_starts: ViewMut<'a, i32>,
    /// Out: `[T, n]`, for any n: zeros, by which blocks of [`Decode`](super::Decode) merge. May be empty.
    pub merges: ViewMut<'a, u64>,
}

impl Schedule {
    /// Loads the kernel.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes that are 0 or too large; as [`Device::kernel`].
    pub fn new(device: &Device, config: ScheduleConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { kernel: device.kernel("schedule", "schedule", 0)?, config })
    }

    /// What it was made for.
    #[must_use]
    pub fn config(&self) -> &ScheduleConfig {
        &self.config
    }

    /// Divides a batch.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::OtherDevice`] or [`Error::Capacity`] names the argument that does not fit; as
    /// [`Kernel::launch`].
    pub fn run(&self, stream: &Stream, args: ScheduleArgs) -> Result<()> {
        let (device, config) = (self.kernel.device(), &self.config);
        check_query_tokens(args.query_tokens, config.max_query_tokens)?;
        let splits = config.max_batch_splits(args.query_tokens);
        check::view("splits", device, &args.splits.view(), &[("splits", splits), ("words", SPLIT_WORDS)])?;
        check::view("split count", device, &args.split_count.view(), &[("numbers", 1)])?;
        check::view("split starts", device, &args.split_starts.view(), &[("query tokens + 1", args.query_tokens + 1)])?;
        check::alignment("splits", &args.splits.view(), size_of::<sys::DecodeSplit>() as u64)?;
        let merge_tiles = args.merges.view().len() / args.query_tokens.max(1);
        check::view(
            "merges",
            device,
            &args.merges.view(),
            &[("query tokens", args.query_tokens), ("tiles", merge_tiles)],
        )?;
        let fixed = match config.policy {
            SplitPolicy::Balanced => 0,
            SplitPolicy::Fixed { tokens } => tokens.min(config.max_tokens),
        };
        let params = sys::ScheduleParams {
            batch: args.batch.params(device)?,
            splits: args.splits.view().address(),
            split_count: args.split_count.view().address(),
            split_starts: args.split_starts.view().address(),
            merges: args.merges.view().address(),
            query_tokens: check::count("query tokens", args.query_tokens)?,
            max_tokens: check::count("most tokens", config.max_tokens)?,
            page_size: check::count("page size", config.page_size)?,
            tile_tokens: check::count("tokens per tile", config.tile_tokens)?,
            target_splits: check::count("splits at once", config.target_splits)?,
            fixed_tokens: check::count("tokens per split", fixed)?,
            merge_tiles: check::count("tiles of heads", merge_tiles)?,
            reserved: 0,
            costs: sys::SplitCosts {
                block: config.costs.block,
                merge: config.costs.merge,
                merge_partial: config.costs.merge_partial,
                merge_batch: config.costs.merge_batch,
            },
        };
        // SAFETY: the views are as large as the parameters say and on the kernel's device, the batch keeps its promises.
        unsafe { self.launch(stream, &params) }
    }

    /// Launches the kernel with this parameter block: one block of it.
    ///
    /// # Errors
    /// As [`Kernel::launch`].
    ///
    /// # Safety
    /// Every address must point to device memory as `csrc/params.h` says, and the batch be one.
    pub unsafe fn launch(&self, stream: &Stream, params: &sys::ScheduleParams) -> Result<()> {
        let config = LaunchConfig::new([1, 1, 1], [sys::SCHEDULE_THREADS, 1, 1]).with_programmatic();
        // SAFETY: promised by the caller.
        unsafe { self.kernel.launch(stream, &config, params) }
    }
}

/// 32-bit words of a split.
pub(super) const SPLIT_WORDS: usize = size_of::<sys::DecodeSplit>() / 4;

pub(super) fn check_query_tokens(got: usize, most: usize) -> Result<()> {
    if got <= most {
        return Ok(());
    }
    Err(Error::Capacity {
        what: format!("{got} query tokens"),
        why: format!("this operation was made for at most {most}"),
    })
}
