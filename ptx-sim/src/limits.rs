//! How large a machine is.

/// Limits of the machine that kernels run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Most bytes of global memory, of all allocations together. They take this computer's memory only where they are
    /// written.
    pub memory_bytes: u64,
    /// Most bytes of shared memory of a block, static and dynamic; there are never more than 16 MiB.
    pub shared_bytes: usize,
    /// Most instructions that one warp may issue in a launch.
    pub steps: u64,
    /// Number of multiprocessors that `%nsmid` reports.
    pub multiprocessors: u32,
    /// Cores of this computer to run on; 0 means all.
    pub cores: usize,
}

impl Default for Limits {
    /// An H100's memory, shared memory and multiprocessors.
    fn default() -> Self {
        Self { memory_bytes: 80 << 30, shared_bytes: 232_448, steps: 100_000_000, multiprocessors: 132, cores: 0 }
    }
}
