//! The launch as every block of it sees it.

use std::sync::Mutex;

use super::pool::Pool;
use crate::memory::Memory;

/// Everything that is the same for all blocks of a launch.
pub(crate) struct Grid<'a> {
    pub memory: &'a Memory,
    /// The module's constant bank.
    pub constants: &'a [u8],
    /// The parameter block.
    pub params: &'a [u8],
    /// `%nctaid`.
    pub grid: [u32; 3],
    /// `%ntid`.
    pub block: [u32; 3],
    /// Blocks per cluster.
    pub cluster: [u32; 3],
    /// Whether the launch or the kernel says how many they are.
    pub explicit_cluster: bool,
    pub dynamic_shared: usize,
    pub step_limit: u64,
    /// Most bytes that a cluster may hold for what is in flight.
    pub held_bytes: u64,
    pub checked: bool,
    /// Whether the launch counts how often each instruction is issued.
    pub profiled: bool,
    pub multiprocessors: u32,
    /// What cores that run no clusters have left, for those that do.
    pub pools: &'a Mutex<Vec<Pool>>,
}

impl Grid<'_> {
    /// Threads per block.
    pub fn threads(&self) -> usize {
        self.block.iter().fold(1, |product: usize, &n| product.saturating_mul(n as usize))
    }

    /// `%tid` of a thread.
    pub fn thread_index(&self, thread: usize) -> [u32; 3] {
        let [x, y, _] = self.block.map(|n| n as usize);
        [thread % x, thread / x % y, thread / (x * y)].map(|i| i as u32)
    }

    /// Index of a block in the order x, y, z.
    pub fn linear_block(&self, [x, y, z]: [u32; 3]) -> u64 {
        let [gx, gy, _] = self.grid.map(u64::from);
        u64::from(x) + gx * (u64::from(y) + gy * u64::from(z))
    }

    /// Clusters of the grid.
    pub fn clusters(&self) -> u64 {
        (0..3).map(|axis| u64::from(self.grid[axis] / self.cluster[axis])).product()
    }

    /// `%ctaid` of the blocks of a cluster, by rank.
    pub fn blocks_of(&self, cluster: u64) -> Vec<[u32; 3]> {
        let per_axis: [u64; 3] = std::array::from_fn(|axis| u64::from(self.grid[axis] / self.cluster[axis]));
        let origin =
            [cluster % per_axis[0], cluster / per_axis[0] % per_axis[1], cluster / (per_axis[0] * per_axis[1])];
        let origin: [u32; 3] = std::array::from_fn(|axis| origin[axis] as u32 * self.cluster[axis]);
        let [cx, cy, cz] = self.cluster;
        let all = (0..cz).flat_map(|z| (0..cy).flat_map(move |y| (0..cx).map(move |x| [x, y, z])));
        all.map(|[x, y, z]| [origin[0] + x, origin[1] + y, origin[2] + z]).collect()
    }
}
