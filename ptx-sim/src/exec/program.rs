//! A module in the form that is executed: names resolved, each instruction a closure.

use std::collections::HashMap;

use super::context::{Context, Outcome};
use super::flow::Flow;
use super::frame::{FrameSize, Slot};
use super::grid::Grid;
use super::source::Source;
use crate::ast::Location;
use crate::fault::Fault;
use crate::meter::Class;

/// What an instruction does to the lanes of [`Context::mask`].
pub(crate) type Run = Box<dyn Fn(&mut Context) -> Result<Outcome, Fault> + Send + Sync>;

/// What a function that the driver provides does for the lanes of [`Context::mask`].
pub(crate) type Builtin = fn(&mut Context, &Call) -> Result<(), Fault>;

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
    /// Empty if the function is declared only.
    pub steps: Vec<Step>,
    /// What the driver has in place of a body that is not there.
    pub builtin: Option<Builtin>,
    /// What a call of it needs.
    pub frame: FrameSize,
    /// Registers other than predicates that it may read before it writes them, which are zero then.
    pub unwritten: Vec<usize>,
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

    /// What performance directives say against a launch (PTX ISA sections 11.4, 11.7 and 11.8).
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
                // The ISA forbids both together (section 11.7.3).
                "maxclusterrank" if self.required("reqnctapercluster").is_some() => {
                    return Err("`.maxclusterrank` does not go with `.reqnctapercluster`".into());
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

/// Who notices that a warp has executed an instruction: what a warp that polls may do again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nobody: it works on the warp's registers, its lanes' places and their local memory.
    Private,
    /// Nobody, but it depends on what the cluster's warps change: shared memory, the phase of an `mbarrier`.
    Polls,
    /// Nobody, but it depends on the time.
    Times,
    /// Nobody, but it depends on what others than the cluster change: global memory.
    Looks,
    /// Whoever looks, if memory was not the same before.
    Writes,
    /// Who waits at the same barrier.
    Meets,
    /// Whoever looks.
    Stirs,
}

/// A decoded instruction.
pub(crate) struct Step {
    pub guard: Option<Guard>,
    pub action: Action,
    pub class: Class,
    pub effect: Effect,
    pub flow: Flow,
    /// Registers that it touches and that a `wgmma` of the function accumulates in or takes A from; empty for `wgmma`.
    pub product_registers: Box<[u32]>,
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
    pub target: Callee,
    pub arguments: Vec<Slot>,
    pub results: Vec<Slot>,
}

/// Who is called.
pub(crate) enum Callee {
    /// A function of the module.
    Direct(usize),
    /// A function whose address, [`function_address`](super::source::function_address) of its index, is in a register.
    Indirect(Source),
}
