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
    /// Most blocks of a cluster. 8 is what every device with clusters has; a Hopper device runs up to 16 where the
    /// kernel's attribute `CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED` is set, and here where this is more.
    /// There are never more than 16.
    pub cluster_blocks: u32,
    /// Most bytes of this computer's memory that a cluster may hold for asynchronous operations that it has begun and
    /// not ended: bytes on their way, and what simulator and checker know of them and of `mbarrier`s. Each core runs a
    /// cluster at a time.
    pub held_bytes: u64,
    /// Number of multiprocessors that `%nsmid` reports.
    pub multiprocessors: u32,
    /// Cores of this computer to run on; 0 means all. Clusters that wait for others do not count: while they sleep, the
    /// others run.
    pub cores: usize,
}

impl Default for Limits {
    /// An H100's memory, shared memory and multiprocessors, and the clusters that it runs without further ado.
    fn default() -> Self {
        Self {
            memory_bytes: 80 << 30,
            shared_bytes: 232_448,
            steps: 100_000_000,
            cluster_blocks: 8,
            held_bytes: 1 << 30,
            multiprocessors: 132,
            cores: 0,
        }
    }
}
