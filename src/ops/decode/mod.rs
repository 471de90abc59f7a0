//! `decode`: attention over the cached latents themselves.

mod candidate;
mod choices;
mod cpu;
mod latents;
mod merging;
mod sm80;
mod sm90;
mod splits;
mod tuned;
mod workspace;

use half::bf16;

use self::candidate::Candidate;
pub use self::candidate::{DecodeVariant, KernelFamily};
use self::merging::Merge;
pub use self::merging::Merging;
use self::workspace::{ALIGNMENT, Workspace};
use super::cache::geometry_params;
use super::schedule::{SPLIT_WORDS, check_query_tokens};
use super::{Batch, CacheView, Schedule, ScheduleArgs, ScheduleConfig, SplitPolicy, check};
use crate::cache::CacheLayout;
use crate::device::{Device, Kernel, LaunchConfig, Stream, Tensor, View, ViewMut};
use crate::error::{Error, Result, check_finite};
use crate::geometry::Geometry;
use crate::splits::SplitCosts;
use crate::sys;

/// What stays the same from run to run.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct DecodeConfig {
    /// The layer's sizes.
    pub geometry: Geometry,
    /// How the cache's bytes lie.
    pub layout: CacheLayout,
    /// Factor on every score, finite.
    pub scale: f32,
    /// How the tokens that a query sees are divided among blocks.
    pub policy: SplitPolicy,
    /// Which kernels may serve the layer.
    pub kernels: KernelFamily,
    /// The one way to serve it, instead of one that is chosen: for measurements.
    pub variant: Option<DecodeVariant>,
    /// Who merges what was divided.
    pub merging: Merging,
    /// Most query tokens in a batch.
    pub max_query_tokens: usize,
    /// Most tokens in a sequence; longer ones are cut off.
    pub max_tokens: usize,
}

impl DecodeConfig {
    /// Balanced work, for up to `max_query_tokens` query tokens and sequences of up to `max_tokens` tokens.
    #[must_use]
    pub fn new(
        geometry: Geometry,
        layout: CacheLayout,
        scale: f32,
        max_query_tokens: usize,
        max_tokens: usize,
    ) -> Self {
        let (policy, kernels, merging) = (SplitPolicy::Balanced, KernelFamily::Measured, Merging::Fused);
        Self { geometry, layout, scale, policy, kernels, variant: None, merging, max_query_tokens, max_tokens }
    }

    /// Checks that the parts fit together, on any device. Returns the geometry.
    ///
    /// # Errors
    /// As [`Geometry::validate`]; [`Error::Shape`] if the layout is another geometry's; [`Error::NotFinite`] if the scale is
    /// not finite.
    pub fn check(&self) -> Result<Geometry> {
        let geometry = self.geometry.validate()?;
        self.layout.check(&geometry)?;
        check_finite("scale", self.scale.into())?;
        Ok(geometry)
    }

    /// The same with another way to divide work.
    #[must_use]
    pub fn with_policy(self, policy: SplitPolicy) -> Self {
        Self { policy, ..self }
    }

    /// The same with other kernels.
    #[must_use]
    pub fn with_kernels(self, kernels: KernelFamily) -> Self {
        Self { kernels, ..self }
    }

    /// The same, served in this way alone, one of [`Decode::variants`].
    #[must_use]
    pub fn with_variant(self, variant: DecodeVariant) -> Self {
        Self { variant: Some(variant), ..self }
    }

    /// The same, merged by others.
    #[must_use]
    pub fn with_merging(self, merging: Merging) -> Self {
        Self { merging, ..self }
    }
}

/// Attention of a batch's query tokens over the cache, as [`reference::decode`](crate::reference::decode) says: straight
/// over the quantised latents, split over the device, results rounded to bf16 once. A query token that sees nothing, as
/// those of a sequence of length 0, gets zeros and a log-sum-exp of minus infinity, which is no weight for
/// [`Combine`](super::Combine).
///
/// A layer's step is one launch, whose blocks merge what was split, or leave that to a second ([`Merging`]). How a batch is
/// split depends on its lengths only, so that layers of the same configuration share one [`Plan`].
#[derive(Clone, Debug)]
pub struct Decode {
    config: DecodeConfig,
    candidate: Candidate,
    kernel: Kernel,
    schedule: Schedule,
    merge: Merge,
}

/// How a batch is split, in the caller's workspace: made by [`Decode::plan`].
#[derive(Debug)]
pub struct Plan<'a> {
    config: DecodeConfig,
    query_tokens: usize,
    workspace: ViewMut<'a, u8>,
    batch: Batch<'a>,
}

/// The kernel that serves a layer on a device, and how it takes tokens and heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecodeTiles {
    /// The kernel's file in `csrc`, without its ending.
    pub file: &'static str,
    /// The kernel's name.
    pub kernel: &'static str,
    /// Query heads of a block.
    pub heads: usize,
    /// Blocks that share each tile, with a part of the latent each: a cluster, if there are several.
    pub cluster: usize,
    /// Tokens that a block takes at a time.
    pub tile_tokens: usize,
    /// Tiles in shared memory: with one, copies wait until a tile is computed.
    pub stages: usize,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: usize,
    /// Blocks that a multiprocessor holds.
    pub blocks_per_multiprocessor: usize,
    /// Splits that run at once on the whole device.
    pub target_splits: usize,
    /// What splits are taken to cost beside their tiles.
    pub split_costs: SplitCosts,
}

/// The arguments of [`Decode::run`].
#[derive(Debug)]
pub struct DecodeArgs<'a> {
    /// `[T, H, L]`: the absorbed query.
    pub q_latent: Tensor<'a, bf16>,
    /// `[T, H, R]`: rotated.
    pub q_rope: Tensor<'a, bf16>,
    /// The layer's cache.
    pub cache: CacheView<'a>,
    /// Out: `[T, H, L]`: the softmax-weighted mean of the latents; zeros where a query sees no token.
    pub o_latent: ViewMut<'a, bf16>,
    /// Out: `[T, H]`: natural logarithm of the sum of `exp(score)`; minus infinity where a query sees no token.
    pub lse: ViewMut<'a, f32>,
}

impl Decode {
    /// Chooses the kernel and its tiles for the layer and the device, and loads it. Latents have up to 2560 numbers; up to
    /// 2048 they are served on every device (99 KiB of shared memory per block), in each format.
    ///
    /// # Errors
    /// [`Error::Shape`] if the layout is another geometry's; [`Error::NotFinite`] for such a scale; [`Error::Unsupported`]
    /// if there is no kernel for the latent's size, or the device has too little shared memory for it; as
    /// [`Device::kernel`].
    pub fn new(device: &Device, config: DecodeConfig) -> Result<Self> {
        let geometry = config.check()?;
        let (candidate, kernel) =
            candidate::choose(device, &geometry, &config.layout, config.kernels, config.variant.as_ref())?;
        // Clusters that have no place in the first wave would make a second one of a few of them.
        let at_once = if candidate.cluster > 1 {
            kernel.clusters_at_once(candidate.threads, check::count("blocks of a cluster", candidate.cluster)?)?
        } else {
            device.limits().multiprocessors * candidate.blocks_per_multiprocessor
        };
        let costs = if device.is_cpu() { cpu::split_costs() } else { splits::costs(&candidate, &geometry) };
        let target_splits = (at_once / geometry.query_heads.div_ceil(candidate.heads)).max(1);
        let schedule = Schedule::new(
            device,
            ScheduleConfig::new(
                config.policy,
                config.max_query_tokens,
                config.max_tokens,
                config.layout.page_size(),
                candidate.tile_tokens,
                target_splits,
            )
            .with_costs(costs),
        )?;
        let splits = schedule.config().max_splits();
        let merge = Merge::new(device, config.merging, &candidate, geometry.latent_rank, splits)?;
        Ok(Self { config, candidate, kernel, schedule, merge })
    }

    /// Every way to serve a layer on a device that this build has, of all families of kernels: first the one that
    /// [`new`](Self::new) chooses, then by predicted cost. The configuration's own variant is not considered.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn variants(device: &Device, config: &DecodeConfig) -> Result<Vec<DecodeVariant>> {
        candidate::variants(device, &config.check()?, &config.layout, config.kernels)
    }

    /// What it was made for.
    #[must_use]
    pub fn config(&self) -> &DecodeConfig {
        &self.config
    }

    /// The kernel that was chosen.
    #[must_use]
    pub fn tiles(&self) -> DecodeTiles {
        let chosen = &self.candidate;
        DecodeTiles {
            file: chosen.file,
            kernel: chosen.kernel,
            heads: chosen.heads,
            cluster: chosen.cluster,
            tile_tokens: chosen.tile_tokens,
            stages: chosen.shared.stage_count as usize,
            shared_bytes: chosen.shared_bytes,
            blocks_per_multiprocessor: chosen.blocks_per_multiprocessor,
            target_splits: self.schedule.config().target_splits,
            split_costs: self.schedule.config().costs,
        }
    }

    /// Bytes of workspace that a plan needs.
    #[must_use]
    pub fn workspace_bytes(&self) -> usize {
        self.workspace(self.config.max_query_tokens).bytes
    }

    /// Tiles of heads: each is a block's.
    fn head_tiles(&self) -> usize {
        self.config.geometry.query_heads.div_ceil(self.candidate.heads)
    }

    /// Words by which blocks merge what is split of so many query tokens, if anything can be.
    fn merges(&self, query_tokens: usize) -> usize {
        let fused = matches!(self.merge, Merge::Fused) && self.schedule.config().can_cut(query_tokens);
        if fused { query_tokens.saturating_mul(self.head_tiles()) } else { 0 }
    }

    fn workspace(&self, query_tokens: usize) -> Workspace {
        let tiles = if matches!(self.merge, Merge::Fused) { self.head_tiles() } else { 0 };
        Workspace::new(self.schedule.config(), &self.config.geometry, tiles, query_tokens)
    }

    /// Divides a batch of `query_tokens` rows, of which the batch may fill the first ones. The plan holds for every run on the
    /// same batch, until its lengths change.
    ///
    /// # Errors
    /// [`Error::WorkspaceTooSmall`], [`Error::Alignment`], [`Error::OtherDevice`] or [`Error::Capacity`] names the argument
    /// that does not fit; as [`Kernel::launch`].
    pub fn plan<'a>(
        &self,
        stream: &Stream,
        batch: &Batch<'a>,
        query_tokens: usize,
        workspace: ViewMut<'a, u8>,
    ) -> Result<Plan<'a>> {
        let device = self.kernel.device();
        check_query_tokens(query_tokens, self.config.max_query_tokens)?;
        device.check_same("workspace", workspace.view().device())?;
        let mut plan = self.borrow_plan(batch, query_tokens, workspace)?;
        let map = self.workspace(query_tokens);
        // In the order of the regions.
        let (splits, rest) = plan.workspace.reborrow().split_at(map.split_count)?;
        let (split_count, rest) = rest.split_at(map.split_starts - map.split_count)?;
        let (split_starts, merges) = rest.split_at(map.merges - map.split_starts)?;
        let words = self.schedule.config().max_batch_splits(query_tokens) * SPLIT_WORDS;
        let splits = splits.slice(map.splits..)?.slice(..words * size_of::<u32>())?.cast()?;
        let split_count = split_count.slice(..size_of::<u32>())?.cast()?;
        let split_starts = split_starts.slice(..(query_tokens + 1) * size_of::<i32>())?.cast()?;
        let merges = merges.slice(..self.merges(query_tokens) * size_of::<u64>())?.cast()?;
        self.schedule.run(stream, ScheduleArgs { batch, query_tokens, splits, split_count, split_starts, merges })?;
        Ok(plan)
    }

    /// The plan that [`plan`](Self::plan) left in a workspace, borrowed again: for owners of a batch and a workspace, who
    /// cannot keep beside them a plan that borrows both. Launches nothing.
    ///
    /// # Errors
    /// [`Error::WorkspaceTooSmall`], [`Error::Alignment`], [`Error::OtherDevice`] or [`Error::Capacity`] names the argument
    /// that does not fit.
    ///
    /// # Safety
    /// This operation, or another of the same configuration and device, must have made a plan in this workspace, for as
    /// many `query_tokens` of a batch of the same numbers and page table, and nothing but [`run`](Self::run) may have
    /// written to the workspace since.
    pub unsafe fn planned<'a>(
        &self,
        batch: &Batch<'a>,
        query_tokens: usize,
        workspace: ViewMut<'a, u8>,
    ) -> Result<Plan<'a>> {
        check_query_tokens(query_tokens, self.config.max_query_tokens)?;
        self.kernel.device().check_same("plan", workspace.view().device())?;
        self.borrow_plan(batch, query_tokens, workspace)
    }

    /// A plan in a workspace of this device, if it fits there.
    fn borrow_plan<'a>(&self, batch: &Batch<'a>, query_tokens: usize, workspace: ViewMut<'a, u8>) -> Result<Plan<'a>> {
        check::alignment("workspace", &workspace.view(), ALIGNMENT as u64)?;
        if workspace.view().len() < self.workspace_bytes() {
            let (needed, got) = (self.workspace_bytes(), workspace.view().len());
            return Err(Error::WorkspaceTooSmall { needed, got });
        }
        Ok(Plan { config: self.config, query_tokens, workspace, batch: batch.clone() })
    }

    /// Attends, by a plan that this operation or one of the same configuration made. Runs of one plan share its workspace:
    /// on several streams the caller orders them, or their results are any numbers.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::OtherDevice`] or [`Error::Config`] names the argument that does not fit; as
    /// [`Kernel::launch`].
    pub fn run(&self, stream: &Stream, plan: &mut Plan, args: DecodeArgs) -> Result<()> {
        let (device, g, tokens) = (self.kernel.device(), &self.config.geometry, plan.query_tokens);
        let cache = self.check_plan(plan, &args.cache)?;
        let rows = [("query tokens", tokens), ("query heads", g.query_heads)];
        let latent = ("latent", g.latent_rank);
        let q_latent = check::tensor("q_latent", device, &args.q_latent, [rows[0], rows[1], latent])?;
        let q_rope = check::tensor("q_rope", device, &args.q_rope, [rows[0], rows[1], ("rope", g.rope_dim)])?;
        check::view("o_latent", device, &args.o_latent.view(), &[rows[0], rows[1], latent])?;
        check::view("lse", device, &args.lse.view(), &rows)?;
        let map = self.workspace(tokens);
        let address = |offset: usize| plan.workspace.view().address() + offset as u64;
        let params = sys::DecodeParams {
            geometry: geometry_params(g)?,
            cache,
            shared: self.candidate.shared,
            page_table: plan.batch.params(device)?.page_table,
            splits: address(map.splits),
            split_count: address(map.split_count),
            q_latent: args.q_latent.view().address(),
            q_rope: args.q_rope.view().address(),
            o_latent: args.o_latent.view().address(),
            lse: args.lse.view().address(),
            o_partial: address(map.o_partial),
            lse_partial: address(map.lse_partial),
            split_starts: address(map.split_starts),
            merges: if self.merges(tokens) > 0 { address(map.merges) } else { 0 },
            q_latent_token_stride: q_latent[0],
            q_latent_head_stride: q_latent[1],
            q_rope_token_stride: q_rope[0],
            q_rope_head_stride: q_rope[1],
            scale: self.config.scale,
            tile_tokens: check::count("tokens per tile", self.candidate.tile_tokens)?,
            latent_group_log2: log2(cache.latent_group),
            rope_group_log2: log2(cache.rope_group / sys::DECODE_ROPE_STEP),
            latent_steps: check::count("latent steps", self.candidate.latent_steps)?,
            rope_steps: check::count("rope steps", self.candidate.rope_steps)?,
            rope_span: check::count("rope span", self.candidate.rope_span)?,
            sm90: self.candidate.sm90,
        };
        let splits = check::count("splits", self.schedule.config().max_batch_splits(tokens))?;
        // SAFETY: views and plan are as large as the parameters say and on the kernel's device; the plan's splits are of a
        // batch that keeps its promises.
        unsafe { self.launch(stream, splits, &params)? };
        let Merge::Separate(combine) = &self.merge else { return Ok(()) };
        if !self.schedule.config().can_cut(tokens) {
            return Ok(());
        }
        let params = sys::CombineParams {
            o_partial: params.o_partial,
            lse_partial: params.lse_partial,
            o_latent: params.o_latent,
            lse: params.lse,
            split_starts: params.split_starts,
            rows: check::count("rows", tokens * g.query_heads)?,
            splits: check::count("splits", self.schedule.config().max_splits())?,
            latent_rank: check::count("latent rank", g.latent_rank)?,
            heads: check::count("query heads", g.query_heads)?,
        };
        // SAFETY: as above; `decode` wrote the partials.
        unsafe { combine.launch(stream, self.schedule.config().expected_splits(tokens), &params) }
    }

    /// What the kernel is told of a cache, if the plan is this operation's and its batch lies in the cache.
    pub(crate) fn check_plan(&self, plan: &Plan, cache: &CacheView) -> Result<sys::CacheParams> {
        if plan.config != self.config {
            return Err(Error::Config {
                what: "plan".into(),
                why: "was made by an operation of another configuration".into(),
            });
        }
        self.kernel.device().check_same("plan", plan.workspace.view().device())?;
        plan.batch.check_cache(cache)?;
        cache.params(self.kernel.device(), &self.config.layout)
    }

    /// Launches the attention kernel with this parameter block, for up to `splits` splits.
    ///
    /// # Errors
    /// As [`Kernel::launch`].
    ///
    /// # Safety
    /// Every address must point to device memory as `csrc/params.h` says; geometry, layout of the cache, tile and shared
    /// memory must be this operation's, and the splits' tokens lie in the page table.
    pub unsafe fn launch(&self, stream: &Stream, splits: u32, params: &sys::DecodeParams) -> Result<()> {
        if splits == 0 {
            return Ok(());
        }
        let cluster = check::count("blocks of a cluster", self.candidate.cluster)?;
        let grid = [splits, check::count("tiles of heads", self.head_tiles())?, cluster];
        let config = LaunchConfig::new(grid, [self.candidate.threads, 1, 1])
            .with_shared(self.candidate.shared_bytes)
            .with_programmatic();
        let config = if cluster > 1 { config.with_cluster([1, 1, cluster]) } else { config };
        // SAFETY: promised by the caller.
        unsafe { self.kernel.launch(stream, &config, params) }
    }
}

impl Plan<'_> {
    /// T: rows of the tensors that it is for.
    #[must_use]
    pub fn query_tokens(&self) -> usize {
        self.query_tokens
    }

    /// The workspace, which the plan need not fill.
    #[must_use]
    pub fn workspace(&self) -> View<'_, u8> {
        self.workspace.view()
    }
}

/// The logarithm to base 2 of a power of two; 0 of 0.
fn log2(n: u32) -> u32 {
    n.checked_ilog2().unwrap_or(0)
}
