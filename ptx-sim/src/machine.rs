//! The face of the simulator: memory, modules, launches.

use std::sync::{Arc, Mutex};

use crate::decode::{DecodeError, decode};
use crate::exec::{Grid, run};
use crate::fault::{Fault, Finding};
use crate::memory::Memory;
use crate::meter::Meter;
use crate::parse::{ParseError, parse};
use crate::program::Program;

/// Why a module could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// It is not PTX as the parser knows it.
    #[error("{0}")]
    Parse(#[from] ParseError),
    /// It has an instruction or variable that the simulator does not know.
    #[error("{0}")]
    Decode(#[from] DecodeError),
}

/// Why a launch did not run, or ended early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The module has no such kernel.
    #[error("no kernel `{name}`; the module has {known:?}")]
    NoKernel {
        /// The name asked for.
        name: String,
        /// The module's kernels.
        known: Vec<String>,
    },
    /// The launch does not fit the kernel or the machine.
    #[error("{0}")]
    Configuration(String),
    /// A fault ended it.
    #[error("{0}")]
    Fault(Box<Finding>),
}

/// Limits of the machine that kernels run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Most bytes of shared memory of a block, static and dynamic.
    pub shared_bytes: usize,
    /// Most instructions that one warp may issue in a launch.
    pub steps: u64,
    /// Number of multiprocessors that `%nsmid` reports.
    pub multiprocessors: u32,
    /// Cores of this computer to run on; 0 means all.
    pub cores: usize,
}

impl Default for Limits {
    /// An H100's shared memory and multiprocessors.
    fn default() -> Self {
        Self { shared_bytes: 232_448, steps: 100_000_000, multiprocessors: 132, cores: 0 }
    }
}

/// A loaded module.
#[derive(Clone)]
pub struct Module {
    program: Arc<Program>,
}

impl Module {
    /// The names of its kernels.
    #[must_use]
    pub fn kernels(&self) -> Vec<&str> {
        self.program.functions.iter().filter(|code| code.entry).map(|code| code.name.as_str()).collect()
    }

    /// Bytes of a kernel's parameter block, and offset and size of each parameter in it.
    #[must_use]
    pub fn parameters(&self, kernel: &str) -> Option<(usize, Vec<(usize, usize)>)> {
        let code = &self.program.functions[*self.program.by_name.get(kernel)?];
        let list = code.params.iter().map(|slot| (slot.offset, slot.size)).collect();
        code.entry.then_some((code.params.last().map_or(0, |slot| slot.offset + slot.size), list))
    }
}

/// How a kernel is launched.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Launch {
    /// Blocks: x, y, z.
    pub grid: [u32; 3],
    /// Threads per block: x, y, z.
    pub block: [u32; 3],
    /// Blocks per cluster: x, y, z.
    pub cluster: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: usize,
    /// Whether the checker looks at every access to shared memory and at what memory was ever written.
    pub checked: bool,
}

impl Launch {
    /// A launch of `grid` blocks of `block` threads, checked, without dynamic shared memory.
    #[must_use]
    pub fn new(grid: [u32; 3], block: [u32; 3]) -> Self {
        Self { grid, block, cluster: [1; 3], dynamic_shared: 0, checked: true }
    }

    /// The same with dynamic shared memory.
    #[must_use]
    pub fn with_dynamic_shared(self, bytes: usize) -> Self {
        Self { dynamic_shared: bytes, ..self }
    }

    /// The same with clusters of blocks.
    #[must_use]
    pub fn with_cluster(self, cluster: [u32; 3]) -> Self {
        Self { cluster, ..self }
    }

    /// The same with or without the checker.
    #[must_use]
    pub fn with_checked(self, checked: bool) -> Self {
        Self { checked, ..self }
    }
}

/// What a launch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Its counts.
    pub meter: Meter,
    /// What the checker found; empty for a clean kernel.
    pub findings: Vec<Finding>,
    /// What `printf` printed.
    pub printed: String,
}

/// A machine: memory, and kernels that run on it.
#[derive(Debug, Default)]
pub struct Machine {
    /// Its global memory.
    pub memory: Memory,
    limits: Limits,
    wide_atomics: Mutex<()>,
}

impl Machine {
    /// A machine with the given limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Parses and decodes PTX, and places its variables in memory.
    ///
    /// # Errors
    /// [`LoadError`] names line and reason.
    pub fn load(&mut self, ptx: &str) -> Result<Module, LoadError> {
        let syntax = parse(ptx)?;
        Ok(Module { program: Arc::new(decode(&syntax, &mut self.memory)?) })
    }

    /// Runs a kernel to its end. `params` is its parameter block, laid out as C would lay out a struct of them.
    ///
    /// # Errors
    /// [`LaunchError`]; memory keeps what was written until then.
    pub fn launch(&self, module: &Module, kernel: &str, launch: &Launch, params: &[u8]) -> Result<Report, LaunchError> {
        let program = &module.program;
        let found = program.by_name.get(kernel).copied().filter(|&index| program.functions[index].entry);
        let Some(index) = found else {
            let known = module.kernels().into_iter().map(String::from).collect();
            return Err(LaunchError::NoKernel { name: kernel.into(), known });
        };
        let grid = Grid {
            program,
            kernel: index,
            memory: &self.memory,
            params,
            grid: launch.grid,
            block: launch.block,
            cluster: launch.cluster,
            dynamic_shared: launch.dynamic_shared,
            step_limit: self.limits.steps,
            checked: launch.checked,
            multiprocessors: self.limits.multiprocessors,
            wide_atomics: &self.wide_atomics,
        };
        self.check(&grid)?;
        let cores = match self.limits.cores {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            cores => cores,
        };
        let ran = run(&grid, cores);
        match ran.fatal {
            Some(finding) => Err(LaunchError::Fault(Box::new(finding))),
            None => Ok(Report { meter: ran.meter, findings: ran.findings, printed: ran.printed }),
        }
    }

    /// What a driver would refuse.
    fn check(&self, grid: &Grid) -> Result<(), LaunchError> {
        let code = &grid.program.functions[grid.kernel];
        let refuse = |why: String| Err(LaunchError::Configuration(format!("kernel `{}`: {why}", code.name)));
        let product = |dims: [u32; 3]| dims.iter().map(|&n| u64::from(n)).product::<u64>();
        if product(grid.grid) == 0 || product(grid.cluster) == 0 || !(1..=1024).contains(&product(grid.block)) {
            return refuse(format!("cannot launch {:?} blocks of {:?} threads", grid.grid, grid.block));
        }
        if (0..3).any(|axis| !grid.grid[axis].is_multiple_of(grid.cluster[axis])) || product(grid.cluster) > 16 {
            return refuse(format!("{:?} blocks do not divide into clusters of {:?}", grid.grid, grid.cluster));
        }
        let expected = code.params.last().map_or(0, |slot| slot.offset + slot.size);
        if grid.params.len() != expected {
            return refuse(format!("expected {expected} bytes of parameters, got {}", grid.params.len()));
        }
        let shared = code.shared_bytes + grid.dynamic_shared;
        if shared > self.limits.shared_bytes {
            return refuse(format!("needs {shared} bytes of shared memory of {}", self.limits.shared_bytes));
        }
        for (name, numbers) in &code.directives {
            let limit: u64 = numbers.iter().map(|&n| u64::from(n)).product();
            let threads = product(grid.block);
            if name == "maxntid" && threads > limit || name == "reqntid" && threads != limit {
                return refuse(format!("`.{name} {numbers:?}` does not allow {threads} threads"));
            }
        }
        Ok(())
    }

    /// The fault of a launch, if it was one: shorthand for tests.
    #[must_use]
    pub fn fault(result: &Result<Report, LaunchError>) -> Option<&Fault> {
        match result {
            Err(LaunchError::Fault(finding)) => Some(&finding.fault),
            _ => None,
        }
    }
}
