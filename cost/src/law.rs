//! The law: from what kernels cost to how long they take.
//!
//! ```text
//! time     = launches / 2 launch + waves * (prologue + tiles * tile) + merge
//! tile     = a lone + b (c issue + d lsu) + [one stage] e b bytes / rate
//! prologue = f lone + g b issue
//! merge    = h lone + i b issue + j bytes / rate                                  if anything is split
//! ```
//!
//! with `lone`, `issue` and `lsu` in cycles of a block's work, `b` blocks on a multiprocessor. Latency, issue and lsu
//! memory add up, because between barriers a block's warps do one thing at a time, and its neighbour on the multiprocessor
//! fills little of what is left. Ten constants, all of them not negative, are the same for all kernels, models and shapes.

use serde::{Deserialize, Serialize};

use crate::layer::{Layer, Merge};
use crate::machine::Machine;
use crate::plan::Plan;

/// Constants of the law.
pub const CONSTANTS: usize = 10;

/// The last of them are those of merging.
const MERGING: usize = 3;

/// The fitted constants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Constants {
    /// Microseconds of two launches in a graph.
    pub launch_us: f64,
    /// Of a lone warp's path through a tile.
    pub tile_lone: f64,
    /// Of the issue slots of a multiprocessor's blocks.
    pub tile_issue: f64,
    /// Of their wavefronts of shared memory.
    pub tile_lsu: f64,
    /// Of the time that a copy takes for a tile's bytes, where no other tile is computed in it.
    pub tile_exposed: f64,
    /// Of a lone warp's path through what is beside the tiles.
    pub rest_lone: f64,
    /// Of the issue slots beside the tiles.
    pub rest_issue: f64,
    /// Of a lone warp's path through a merge.
    pub merge_lone: f64,
    /// Of the issue slots of a multiprocessor's merges.
    pub merge_issue: f64,
    /// Of the time that a copy takes for the merged bytes.
    pub merge_bytes: f64,
}

impl Constants {
    /// In the order of [`terms`].
    #[must_use]
    pub fn to_array(self) -> [f64; CONSTANTS] {
        [
            self.launch_us,
            self.tile_lone,
            self.tile_issue,
            self.tile_lsu,
            self.tile_exposed,
            self.rest_lone,
            self.rest_issue,
            self.merge_lone,
            self.merge_issue,
            self.merge_bytes,
        ]
    }

    /// The inverse of [`to_array`](Self::to_array).
    #[must_use]
    pub fn from_array(constants: [f64; CONSTANTS]) -> Self {
        let [launch_us, tile_lone, tile_issue, tile_lsu, tile_exposed, rest_lone, rest_issue, rest @ ..] = constants;
        let [merge_lone, merge_issue, merge_bytes] = rest;
        Self {
            launch_us,
            tile_lone,
            tile_issue,
            tile_lsu,
            tile_exposed,
            rest_lone,
            rest_issue,
            merge_lone,
            merge_issue,
            merge_bytes,
        }
    }

    /// Microseconds of attention over `batch` sequences of `context` cached tokens, and of merging what was split: as the
    /// law says, but no less than a copy takes for the cache's bytes.
    #[must_use]
    pub fn predict(self, machine: &Machine, layer: &Layer, merge: &Merge, batch: usize, context: usize) -> f64 {
        let terms = terms(machine, layer, merge, batch, context);
        let law: f64 = terms.iter().zip(self.to_array()).map(|(term, factor)| term * factor).sum();
        law.max(floor_us(machine, layer, batch, context))
    }

    /// Of the time, merging.
    #[must_use]
    pub fn merge_us(self, machine: &Machine, layer: &Layer, merge: &Merge, batch: usize, context: usize) -> f64 {
        let terms = terms(machine, layer, merge, batch, context);
        terms.iter().zip(self.to_array()).skip(CONSTANTS - MERGING).map(|(term, factor)| term * factor).sum()
    }
}

/// Microseconds of a copy of the cached bytes, which no kernel undercuts: they are read once at least.
#[must_use]
pub fn floor_us(machine: &Machine, layer: &Layer, batch: usize, context: usize) -> f64 {
    (batch * context) as f64 * layer.tile.bytes / layer.tile_tokens as f64 / machine.bytes_per_us
}

/// What each constant is a factor of, in microseconds but for the first, which is the share of two launches.
#[must_use]
pub fn terms(machine: &Machine, layer: &Layer, merge: &Merge, batch: usize, context: usize) -> [f64; CONSTANTS] {
    let plan = layer.plan(machine, batch, context);
    let us = |cycles: f64| cycles / machine.cycles_per_us;
    let b = residents(&plan, layer.blocks, machine.multiprocessors);
    let (waves, tiles) = (plan.waves as f64, (plan.waves * plan.tiles) as f64);
    let (tile, rest) = (&layer.tile, &layer.rest);
    let exposed = if layer.stages == 1 { us(tiles * b * tile.bytes / machine.bytes_per_cycle()) } else { 0.0 };
    let [merge_lone, merge_issue, merge_bytes] = merge_terms(machine, layer, merge, &plan, batch);
    [
        layer.launches as f64 / 2.0,
        us(tiles * tile.lone),
        us(tiles * b * tile.issue),
        us(tiles * b * tile.lsu),
        exposed,
        us(waves * rest.lone),
        us(waves * b * rest.issue),
        merge_lone,
        merge_issue,
        merge_bytes,
    ]
}

/// Blocks that share a multiprocessor: the hardware fills one before it goes on to the next, as far as the measurements
/// tell, unless there is one for each.
fn residents(plan: &Plan, blocks: usize, multiprocessors: usize) -> f64 {
    if plan.blocks > multiprocessors { blocks as f64 } else { 1.0 }
}

/// Threads that a multiprocessor holds, and blocks.
const MOST_THREADS: usize = 2048;
const MOST_BLOCKS: usize = 32;

fn merge_terms(machine: &Machine, layer: &Layer, merge: &Merge, plan: &Plan, batch: usize) -> [f64; MERGING] {
    if plan.splits == 1 {
        return [0.0; MERGING];
    }
    let rows = batch * layer.query_heads;
    let merge = merge.blocks_for(machine, layer.target_splits.div_ceil(batch), plan.splits, rows);
    let blocks = rows * merge.blocks;
    let by_threads = (MOST_THREADS / merge.threads.max(1)).clamp(1, MOST_BLOCKS);
    let together = merge.resident.map_or(by_threads, |resident| resident.clamp(1, by_threads));
    let waves = blocks.div_ceil(machine.multiprocessors * together) as f64;
    let b = together.min(blocks.div_ceil(machine.multiprocessors)) as f64;
    let work = merge.rest + merge.split * plan.splits.div_ceil(merge.batch) as f64;
    let bytes = blocks as f64 * merge.split.bytes / merge.batch as f64 * plan.splits as f64;
    [
        waves * work.lone / machine.cycles_per_us,
        waves * b * work.issue / machine.cycles_per_us,
        bytes / machine.bytes_per_us,
    ]
}
