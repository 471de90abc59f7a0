//! What a layer's kernels cost, counted from their machine code: all that the law needs to know.

use latent_attention::ops::CombineConfig;
use latent_attention::splits::SplitCosts;
use latent_attention::sys::COMBINE_FEW;
use serde::{Deserialize, Serialize};

use crate::counts::Gap;
use crate::machine::Machine;
use crate::plan::{Division, Plan};
use crate::work::{Shares, Work};

/// A model's layer with one cache format, and the kernel that serves it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// The model's name.
    pub model: String,
    /// The cache format's name.
    pub format: String,
    /// The kernel's name.
    pub kernel: String,
    /// Query heads of the layer, and of a block.
    pub query_heads: usize,
    /// Query heads of a block.
    pub block_heads: usize,
    /// Numbers of a latent.
    pub latent_rank: usize,
    /// Tokens of a tile.
    pub tile_tokens: usize,
    /// Tiles in shared memory: with one, copies wait until a tile is computed.
    pub stages: usize,
    /// Blocks that a multiprocessor holds.
    pub blocks: usize,
    /// Splits that run at once on the whole machine.
    pub target_splits: usize,
    /// Launches of attention with its merge: of the kernels that were measured two, of this build's one.
    #[serde(default = "two", skip_serializing_if = "is_two")]
    pub launches: usize,
    /// What splits are taken to cost beside their tiles, where they are chosen by it: the fields of [`SplitCosts`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_costs: Option<[u32; 4]>,
    /// What a tile costs a block.
    pub tile: Work,
    /// What a block costs beside its tiles: the query into shared memory, the results out of it.
    pub rest: Work,
    /// Of the issue slots of a tile, the share of each kind of evidence.
    pub tile_evidence: Shares,
    /// Of those of the rest.
    pub rest_evidence: Shares,
    /// Code that runs an unknown number of times, with the slots of a block of [`TILES`](crate::survey::TILES)`[0]` tiles.
    /// Known of layers that have just been counted.
    #[serde(skip)]
    pub gaps: Vec<Gap>,
}

impl Layer {
    /// How a batch is divided.
    #[must_use]
    pub fn plan(&self, machine: &Machine, batch: usize, context: usize) -> Plan {
        let division = Division {
            tile_tokens: self.tile_tokens,
            target_splits: self.target_splits,
            head_tiles: self.query_heads.div_ceil(self.block_heads),
            blocks: machine.multiprocessors * self.blocks,
            costs: self.split_costs.map(|costs| SplitCosts::new(f64::from(SplitCosts::TILE), costs.map(f64::from))),
        };
        division.plan(batch, context)
    }

    /// What 64 cached tokens cost a block.
    #[must_use]
    pub fn per_64_tokens(&self) -> Work {
        self.tile * (64.0 / self.tile_tokens as f64)
    }
}

/// The merging of splits, for latents of one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Merge {
    /// Numbers of a latent.
    pub latent_rank: usize,
    /// Threads of a block.
    pub threads: usize,
    /// Blocks that merge a row together.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub blocks: usize,
    /// Splits that a block takes at a time: its cost grows with whole batches of them.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub batch: usize,
    /// Blocks that a multiprocessor has registers for, if they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident: Option<usize>,
    /// What each batch of splits costs a block.
    pub split: Work,
    /// What it costs beside.
    pub rest: Work,
    /// Of the issue slots of a block that merges the fewer splits, the share of each kind of evidence.
    pub evidence: Shares,
    /// Which rows these blocks merge.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: MergeKind,
    /// The blocks of other kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Merge>,
}

/// What decides how a row is merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeKind {
    /// Whether the warps of a block share a chunk of latents, or have one each.
    pub shares_chunks: bool,
    /// Whether splits are more than are summed one after the other.
    pub has_many: bool,
}

fn is_default(kind: &MergeKind) -> bool {
    *kind == MergeKind::default()
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_two(number: &usize) -> bool {
    *number == 2
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_one(number: &usize) -> bool {
    *number == 1
}

impl Merge {
    /// The blocks that merge `rows` rows of `splits` splits, where about `expected` of them are expected of each row.
    #[must_use]
    pub fn blocks_for(&self, machine: &Machine, expected: usize, splits: usize, rows: usize) -> &Self {
        let tiles = CombineConfig::new(self.latent_rank, 1).tiles(expected, rows, machine.multiprocessors);
        let kind = MergeKind { shares_chunks: tiles.shares_chunks, has_many: splits > COMBINE_FEW as usize };
        self.others.iter().find(|other| other.kind == kind).unwrap_or(self)
    }
}

/// Everything that was counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// Layers, by model and format.
    pub layers: Vec<Layer>,
    /// Merges, by size of latents.
    pub merges: Vec<Merge>,
}

impl Survey {
    /// A layer with its merge.
    #[must_use]
    pub fn find(&self, model: &str, format: &str) -> Option<(&Layer, &Merge)> {
        let layer = self.layers.iter().find(|layer| layer.model == model && layer.format == format)?;
        Some((layer, self.merges.iter().find(|merge| merge.latent_rank == layer.latent_rank)?))
    }
}
