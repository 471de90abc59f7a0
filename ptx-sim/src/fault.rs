//! What can go wrong, and where.

use std::fmt;

use crate::ast::Space;

/// One kind of fault.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// An address outside of every allocation, or across the end of one.
    #[error("{action} of {size} bytes at {space} address {address:#x}: {why}")]
    OutOfBounds {
        /// `read`, `write`, `atomic`, ...
        action: &'static str,
        /// The state space.
        space: SpaceName,
        /// The address.
        address: u64,
        /// Bytes accessed.
        size: usize,
        /// What lies nearest.
        why: String,
    },
    /// More memory than the machine, or this computer, has.
    #[error("cannot allocate {bytes} bytes: {why}")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
        /// What there is.
        why: String,
    },
    /// An address that is not a multiple of the access size.
    #[error("{action} of {size} bytes at {space} address {address:#x} is not aligned to {alignment} bytes")]
    Misaligned {
        /// `read`, `write`, `atomic`, ...
        action: &'static str,
        /// The state space.
        space: SpaceName,
        /// The address.
        address: u64,
        /// Bytes accessed.
        size: usize,
        /// Required alignment.
        alignment: usize,
    },
    /// A read of memory that nothing has written.
    #[error("read of {size} bytes at {space} address {address:#x}, which nothing has written")]
    Uninitialised {
        /// The state space.
        space: SpaceName,
        /// The address.
        address: u64,
        /// Bytes accessed.
        size: usize,
    },
    /// Two threads touch the same shared memory without a barrier between, and one of them writes.
    #[error("{action} at shared address {address:#x} races with {other}'s {other_action} (PTX line {other_line})")]
    Race {
        /// `read` or `write`.
        action: &'static str,
        /// The address.
        address: u64,
        /// Who else.
        other: Other,
        /// `read` or `write`.
        other_action: &'static str,
        /// Where the other access stands.
        other_line: u32,
    },
    /// Data of an asynchronous copy used before it was waited for.
    #[error(
        "{action} at {space} address {address:#x} while the asynchronous copy of PTX line {copy_line} is in flight"
    )]
    CopyInFlight {
        /// `read` or `write`.
        action: &'static str,
        /// The state space.
        space: SpaceName,
        /// The address.
        address: u64,
        /// Where the copy was issued.
        copy_line: u32,
    },
    /// Bytes written while something asynchronous, a bulk copy or `wgmma`, reads them.
    #[error("{action} at shared address {address:#x} while what PTX line {line} has issued reads it")]
    ReadInFlight {
        /// `write`.
        action: &'static str,
        /// The address.
        address: u64,
        /// Where the reader was issued.
        line: u32,
    },
    /// Something asynchronous touches what ordinary stores have written, and no `fence.proxy.async` lies between.
    #[error(
        "asynchronous {action} at shared address {address:#x}, which {other} has written (PTX line {other_line}) without \
         a `fence.proxy.async` since"
    )]
    NoProxyFence {
        /// `read` or `write`.
        action: &'static str,
        /// The address.
        address: u64,
        /// Who has written.
        other: Other,
        /// Where the write stands.
        other_line: u32,
    },
    /// A register of a `wgmma` touched before it was waited for.
    #[error(
        "{register} of the `wgmma.mma_async` of PTX line {line} is touched before a `wgmma.wait_group` has waited for it"
    )]
    ProductInFlight {
        /// Which register, by its place in the accumulators D or in A.
        register: String,
        /// Where the `wgmma` stands.
        line: u32,
    },
    /// A register that a `wgmma` takes, touched by something else, and no `wgmma.fence` lies between.
    #[error("{register} was touched by PTX line {line} without a `wgmma.fence` since")]
    NoRegisterFence {
        /// Which register, by its place in the accumulators D or in A.
        register: String,
        /// Where the other access stands.
        line: u32,
    },
    /// A wrong use of `wgmma`: a descriptor, warps that do not act together, products that nobody waits for.
    #[error("wgmma: {0}")]
    Wgmma(String),
    /// An `mbarrier` object misused: an address where there is none, a count that it cannot hold.
    #[error("mbarrier: {0}")]
    Mbarrier(String),
    /// Shared memory of another block of the cluster that has exited, or may have by then.
    #[error("{action} of shared memory of the cluster's block {rank}, {why}")]
    Exited {
        /// `read`, `write`, `atomic`, ...
        action: &'static str,
        /// The block's rank in the cluster.
        rank: u32,
        /// How the access and the block's end lie to each other.
        why: &'static str,
    },
    /// A barrier that only a part of a warp or block reaches.
    #[error("divergent barrier: {0}")]
    DivergentBarrier(String),
    /// No thread of the block can go on.
    #[error("deadlock: {0}")]
    Deadlock(String),
    /// The launch's limit of instructions is used up.
    #[error("a warp has executed {0} instructions: the kernel does not seem to finish")]
    StepLimit(u64),
    /// `trap`, a failed `assert`, or a wrong use of an instruction that the ISA leaves undefined.
    #[error("{0}")]
    Trap(String),
}

/// Who accessed memory, as a thread of the same cluster sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Other {
    /// A thread of the same block, by its linear index.
    Thread(u32),
    /// A thread of another block of the cluster.
    Remote {
        /// The block's rank in the cluster.
        rank: u32,
        /// The thread's linear index in its block.
        thread: u32,
    },
    /// An asynchronous copy, store or reduction that has completed.
    Copy,
    /// A `wgmma` that has completed, which reads its matrices in shared memory.
    Product,
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread(thread) => write!(f, "thread {thread}"),
            Self::Remote { rank, thread } => write!(f, "thread {thread} of the cluster's block {rank}"),
            Self::Copy => f.write_str("an asynchronous operation"),
            Self::Product => f.write_str("a `wgmma`"),
        }
    }
}

/// A state space as messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceName(pub Space);

impl fmt::Display for SpaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Space::Reg => "register",
            Space::Const => "constant",
            Space::Global => "global",
            Space::Local => "local",
            Space::Param => "parameter",
            Space::Shared => "shared",
        })
    }
}

/// A fault and where it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What happened.
    pub fault: Fault,
    /// The kernel.
    pub kernel: String,
    /// `%ctaid`.
    pub block: [u32; 3],
    /// `%tid`.
    pub thread: [u32; 3],
    /// Line in the PTX.
    pub ptx_line: u32,
    /// The instruction.
    pub instruction: String,
    /// File and line in the CUDA source, if the PTX has line information.
    pub source: Option<(String, u32)>,
    /// How often it was found at this instruction; the rest of the fields describe the first time.
    pub count: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([bx, by, bz], [tx, ty, tz]) = (self.block, self.thread);
        write!(f, "{}\n  in {} block ({bx},{by},{bz}) thread ({tx},{ty},{tz})", self.fault, self.kernel)?;
        write!(f, "\n  at PTX line {}: {}", self.ptx_line, self.instruction)?;
        if let Some((file, line)) = &self.source {
            write!(f, "\n  from {file}:{line}")?;
        }
        if self.count > 1 {
            write!(f, "\n  ({} times)", self.count)?;
        }
        Ok(())
    }
}
