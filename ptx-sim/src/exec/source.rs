//! Where an instruction takes a value from.

/// Where an instruction takes a value from. Values narrower than 64 bits are zero-extended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Source {
    Register(usize),
    /// A predicate as 0 or 1.
    Predicate {
        index: usize,
        negated: bool,
    },
    Immediate(u64),
    Special(Special),
    /// Start of dynamic shared memory, rounded up to an alignment.
    DynamicShared {
        align: usize,
    },
    /// An offset in this call's `.local` variables.
    FrameLocal(usize),
    /// An offset in this call's `.param` variables.
    FrameParam(usize),
}

/// Special registers (PTX ISA section 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    Clusterid(usize),
    Nclusterid(usize),
    ClusterCtaid(usize),
    ClusterNctaid(usize),
    ClusterCtarank,
    ClusterNctarank,
    IsExplicitCluster,
    Laneid,
    Warpid,
    Nwarpid,
    Smid,
    Nsmid,
    Gridid,
    LanemaskEq,
    LanemaskLe,
    LanemaskLt,
    LanemaskGe,
    LanemaskGt,
    Clock,
    Clock64,
    Globaltimer,
    GlobaltimerLo,
    GlobaltimerHi,
    DynamicSmemSize,
    TotalSmemSize,
}

/// The address of function `index`: not a number that a data access could reach.
pub(crate) fn function_address(index: usize) -> u64 {
    0xF000_0000_0000_0000 + 16 * index as u64
}

/// The inverse of [`function_address`].
pub(crate) fn function_index(address: u64) -> Option<usize> {
    let offset = address.checked_sub(function_address(0))?;
    offset.is_multiple_of(16).then_some(offset as usize / 16)
}
