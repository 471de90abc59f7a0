//! A module in the form that is executed: names resolved, each instruction a closure.

use std::collections::HashMap;

use crate::ast::Location;
use crate::exec::{Context, Grid, Outcome};
use crate::fault::Fault;
use crate::meter::Class;

/// What an instruction does to the lanes of [`Context::mask`].
pub(crate) type Run = Box<dyn Fn(&mut Context) -> Result<Outcome, Fault> + Send + Sync>;

/// A decoded module.
pub(crate) struct Program {
    pub functions: Vec<Code>,
    /// Index of each kernel and device function.
    pub by_name: HashMap<String, usize>,
    /// `.file` numbers and paths.
    pub files: HashMap<u32, String>,
    /// The constant bank.
    pub constants: Vec<u8>,
}

/// A decoded function.
pub(crate) struct Code {
    pub name: String,
    pub entry: bool,
    pub steps: Vec<Step>,
    pub registers: usize,
    pub predicates: usize,
    /// Bytes of `.local` variables of one call.
    pub local_bytes: usize,
    /// Bytes of `.param` variables of one call: its own parameters and results first, then those it passes on.
    pub param_bytes: usize,
    /// Offset and size of each parameter, in the kernel's parameter block or the call's parameter area.
    pub params: Vec<Slot>,
    /// Offset and size of each result in the call's parameter area.
    pub returns: Vec<Slot>,
    /// Bytes of static shared memory; dynamic shared memory begins behind them.
    pub shared_bytes: usize,
    /// `.reqntid`, `.maxntid`, cluster directives: name and numbers.
    pub directives: Vec<(String, Vec<u32>)>,
}

impl Code {
    /// Whether it can be launched.
    pub fn is_kernel(&self) -> bool {
        self.entry && !self.steps.is_empty()
    }

    /// The three dimensions that a directive asks for.
    pub fn required(&self, directive: &str) -> Option<[u32; 3]> {
        let (_, numbers) = self.directives.iter().find(|(name, _)| name == directive)?;
        Some(std::array::from_fn(|axis| numbers.get(axis).copied().unwrap_or(1)))
    }

    /// What performance directives say against a launch (PTX ISA sections 11.4 and 11.5).
    pub fn check_directives(&self, grid: &Grid) -> Result<(), String> {
        for (name, numbers) in &self.directives {
            let limit = numbers.iter().fold(1, |product: u64, n| product.saturating_mul(u64::from(*n)));
            let blocks = grid.cluster.iter().product::<u32>();
            let (what, fits) = match name.as_str() {
                "maxntid" => (format!("{} threads", grid.threads()), grid.threads() as u64 <= limit),
                "reqntid" => (format!("{:?} threads", grid.block), self.required(name) == Some(grid.block)),
                "reqnctapercluster" => {
                    (format!("clusters of {:?} blocks", grid.cluster), self.required(name) == Some(grid.cluster))
                }
                "maxclusterrank" => (format!("clusters of {blocks} blocks"), u64::from(blocks) <= limit),
                "explicitcluster" => ("a launch without clusters".into(), grid.explicit_cluster),
                "blocksareclusters" => ("a launch: it counts blocks, not clusters".into(), false),
                _ => continue,
            };
            if !fits {
                let numbers = numbers.iter().map(|n| format!(" {n}")).collect::<Vec<_>>().join(",");
                return Err(format!("`.{name}{numbers}` does not allow {what}"));
            }
        }
        Ok(())
    }
}

/// Where a parameter lies.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub offset: usize,
    pub size: usize,
}

/// A decoded instruction.
pub(crate) struct Step {
    pub guard: Option<Guard>,
    pub action: Action,
    pub class: Class,
    pub line: u32,
    pub text: String,
    pub location: Option<Location>,
}

/// `@p` or `@!p`.
#[derive(Clone, Copy)]
pub(crate) struct Guard {
    pub predicate: usize,
    pub negated: bool,
}

/// Instructions that move lanes elsewhere are known to the executor; everything else is a closure.
pub(crate) enum Action {
    Run(Run),
    Branch {
        target: usize,
    },
    /// Lane by lane, `targets[index]`.
    BranchIndexed {
        index: Source,
        targets: Vec<usize>,
    },
    Call(Call),
    Return,
    Exit,
}

/// A call: who, and which `.param` variables of the caller carry arguments and results.
pub(crate) struct Call {
    pub target: Target,
    pub arguments: Vec<Slot>,
    pub results: Vec<Slot>,
}

/// Who is called.
pub(crate) enum Target {
    /// A function of the module.
    Direct(usize),
    /// A function whose address, [`function_address`] of its index, is in a register.
    Indirect(Source),
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
