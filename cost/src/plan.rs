//! How a batch's attention is divided among blocks, as `schedule` does it on the device (csrc/schedule.cu): for sequences
//! of equal length, on the host.

use latent_attention::reference::balanced_split_tokens;
use latent_attention::splits::SplitCosts;

/// A kernel's tiles, and what of it runs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    /// Tokens that a block takes at a time.
    pub tile_tokens: usize,
    /// Splits that run at once on the whole machine.
    pub target_splits: usize,
    /// Blocks that share a split's tokens: each has other heads.
    pub head_tiles: usize,
    /// Blocks that run at once.
    pub blocks: usize,
    /// What splits are taken to cost. Of the kernels that were measured: nothing, and they are as short as they can be while
    /// all of them run at once.
    pub costs: Option<SplitCosts>,
}

/// The division of one launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Splits of each sequence.
    pub splits: usize,
    /// Tiles of a split, the longest.
    pub tiles: usize,
    /// Blocks of the launch that do something.
    pub blocks: usize,
    /// How often the machine is filled with them.
    pub waves: usize,
}

impl Division {
    /// Divides `batch` sequences of `context` tokens.
    #[must_use]
    pub fn plan(&self, batch: usize, context: usize) -> Plan {
        let most = context.div_ceil(self.tile_tokens).max(1);
        let fits = |tiles: &usize| batch * context.div_ceil(tiles * self.tile_tokens) <= self.target_splits;
        let tiles = match &self.costs {
            None => (1..=most).find(fits).unwrap_or(most),
            Some(costs) => {
                let seen = vec![context; batch];
                balanced_split_tokens(&seen, self.tile_tokens, self.target_splits, costs) / self.tile_tokens
            }
        };
        let splits = most.div_ceil(tiles);
        let blocks = batch * splits * self.head_tiles;
        Plan { splits, tiles, blocks, waves: blocks.div_ceil(self.blocks) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of 32 of 32 heads, two on each of 132 multiprocessors.
    const LLAMA3: Division = Division { tile_tokens: 64, target_splits: 264, head_tiles: 1, blocks: 264, costs: None };

    #[test]
    fn splits_are_as_short_as_they_can_be_while_all_run_at_once() {
        // 16 splits of a sequence run at once, 16 of 16 tiles each.
        assert_eq!(LLAMA3.plan(16, 16384), Plan { splits: 16, tiles: 16, blocks: 256, waves: 1 });
        assert_eq!(LLAMA3.plan(1, 8192), Plan { splits: 128, tiles: 1, blocks: 128, waves: 1 });
        // 2048 tiles in at most 264 splits: 8 tiles each.
        assert_eq!(LLAMA3.plan(1, 131_072), Plan { splits: 256, tiles: 8, blocks: 256, waves: 1 });
    }

    #[test]
    fn more_sequences_than_run_at_once_are_not_split_and_come_in_waves() {
        let v3 = Division { head_tiles: 4, target_splits: 66, ..LLAMA3 };
        assert_eq!(v3.plan(128, 1024), Plan { splits: 1, tiles: 16, blocks: 512, waves: 2 });
    }
    #[test]
    fn with_costs_splits_may_come_in_waves() {
        let costs = SplitCosts::default();
        let division = Division { costs: Some(costs), ..LLAMA3 };
        // 300 sequences of 256 tiles: not two waves of 256 tiles, of which the second is small, but four of 86.
        assert_eq!(LLAMA3.plan(300, 16384), Plan { splits: 1, tiles: 256, blocks: 300, waves: 2 });
        assert_eq!(division.plan(300, 16384), Plan { splits: 3, tiles: 86, blocks: 900, waves: 4 });
        // And where one wave is best, one.
        assert_eq!(division.plan(16, 16384), LLAMA3.plan(16, 16384));
    }
}
