//! The face of the simulator: memory, modules, launches.

use std::sync::{Arc, Mutex};

use crate::assemble::assemble;
use crate::decode::DecodeError;
use crate::exec::{Code, Grid, Job, Pool, Program, SHARED_SPAN, run};
use crate::fault::{Fault, Finding};
use crate::limits::Limits;
use crate::memory::Memory;
use crate::meter::Meter;
use crate::parse::{ParseError, parse};
use crate::profile::Executed;

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

/// Most blocks of a grid and most threads of a block along each axis, as CUDA has them.
const GRID: [u32; 3] = [i32::MAX as u32, 65535, 65535];
const BLOCK: [u32; 3] = [1024, 1024, 64];

/// Most blocks of a cluster, whatever the limits say.
const CLUSTER: u32 = 16;

/// Why a module cannot be loaded, completely: the place where it is no PTX, or every instruction and variable that
/// the simulator does not know. Empty if it can be.
///
/// ```
/// let ptx = ".version 9.0\n.target sm_80\n.address_size 64\n.entry k() {\nfoo.u32 1;\nret;\nbar.baz;\n}";
/// let errors: Vec<_> = ptx_sim::check(ptx).iter().map(ToString::to_string).collect();
/// assert_eq!(errors[0], "line 5: `foo.u32`: unknown instruction");
/// assert_eq!(errors.len(), 2);
/// ```
#[must_use]
pub fn check(ptx: &str) -> Vec<LoadError> {
    match parse(ptx) {
        Err(error) => vec![error.into()],
        Ok(syntax) => match assemble(&syntax, &mut Memory::default()) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.into_iter().map(LoadError::from).collect(),
        },
    }
}

/// A loaded module.
#[derive(Clone)]
pub struct Module {
    program: Arc<Program>,
    /// The memory that its variables lie in, if it has any there.
    home: Option<u64>,
}

impl Module {
    /// The names of its kernels.
    #[must_use]
    pub fn kernels(&self) -> Vec<&str> {
        self.program.functions.iter().filter(|code| code.is_kernel()).map(|code| code.name.as_str()).collect()
    }

    /// Whether any machine may launch its kernels. If not, it has variables in the memory of the machine that loaded it.
    #[must_use]
    pub fn is_portable(&self) -> bool {
        self.home.is_none()
    }

    /// Bytes of a kernel's parameter block, and offset and size of each parameter in it.
    #[must_use]
    pub fn parameters(&self, kernel: &str) -> Option<(usize, Vec<(usize, usize)>)> {
        let code = self.kernel(kernel)?;
        let list = code.params.iter().map(|slot| (slot.offset, slot.size)).collect();
        Some((code.params.last().map_or(0, |slot| slot.offset + slot.size), list))
    }

    /// Bytes of a kernel's static shared memory.
    #[must_use]
    pub fn shared_bytes(&self, kernel: &str) -> Option<usize> {
        self.kernel(kernel).map(|code| code.shared_bytes)
    }

    fn kernel(&self, name: &str) -> Option<&Code> {
        let code = &self.program.functions[*self.program.by_name.get(name)?];
        code.is_kernel().then_some(code)
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
    /// Blocks per cluster: x, y, z. `None` leaves it to the kernel's `.reqnctapercluster`, and is one block without.
    pub cluster: Option<[u32; 3]>,
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: usize,
    /// Whether the checker looks at every access to shared memory and at what memory was ever written.
    pub checked: bool,
    /// Whether it counts how often each instruction is issued, which takes some time.
    pub profiled: bool,
}

impl Launch {
    /// A launch of `grid` blocks of `block` threads, checked, without dynamic shared memory.
    #[must_use]
    pub fn new(grid: [u32; 3], block: [u32; 3]) -> Self {
        Self { grid, block, cluster: None, dynamic_shared: 0, checked: true, profiled: false }
    }

    /// The same with dynamic shared memory.
    #[must_use]
    pub fn with_dynamic_shared(self, bytes: usize) -> Self {
        Self { dynamic_shared: bytes, ..self }
    }

    /// The same with clusters of blocks.
    #[must_use]
    pub fn with_cluster(self, cluster: [u32; 3]) -> Self {
        Self { cluster: Some(cluster), ..self }
    }

    /// The same with or without the checker.
    #[must_use]
    pub fn with_checked(self, checked: bool) -> Self {
        Self { checked, ..self }
    }

    /// The same with or without [`Report::profile`].
    #[must_use]
    pub fn with_profile(self, profiled: bool) -> Self {
        Self { profiled, ..self }
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
    /// How often each instruction was issued, in the order of functions and instructions; empty unless
    /// [`Launch::profiled`].
    pub profile: Vec<Executed>,
}

/// A machine: memory, and kernels that run on it.
#[derive(Debug, Default)]
pub struct Machine {
    /// Its global memory.
    pub memory: Memory,
    limits: Limits,
    /// What ended launches have left for the next one.
    pools: Mutex<Vec<Pool>>,
}

impl Machine {
    /// A machine with the given limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { memory: Memory::new(limits.memory_bytes), limits, ..Self::default() }
    }

    /// Parses and assembles PTX, and places its variables in memory.
    ///
    /// # Errors
    /// [`LoadError`] names line and reason.
    pub fn load(&mut self, ptx: &str) -> Result<Module, LoadError> {
        let syntax = parse(ptx)?;
        let allocations = self.memory.allocations();
        match assemble(&syntax, &mut self.memory) {
            Ok(program) => {
                let home = (self.memory.allocations() > allocations).then(|| self.memory.number());
                Ok(Module { program: Arc::new(program), home })
            }
            Err(mut errors) => {
                self.memory.truncate(allocations);
                Err(errors.swap_remove(0).into())
            }
        }
    }

    /// Runs a kernel to its end. `params` is its parameter block, laid out as C would lay out a struct of them.
    ///
    /// # Errors
    /// [`LaunchError`]; memory keeps what was written until then.
    pub fn launch(&self, module: &Module, kernel: &str, launch: &Launch, params: &[u8]) -> Result<Report, LaunchError> {
        let program = &module.program;
        if module.home.is_some_and(|home| home != self.memory.number()) {
            let why = "the module's variables lie in the memory of the machine that loaded it, which is another one";
            return Err(LaunchError::Configuration(why.into()));
        }
        let found = program.by_name.get(kernel).copied().filter(|&index| program.functions[index].is_kernel());
        let Some(index) = found else {
            let known = module.kernels().into_iter().map(String::from).collect();
            return Err(LaunchError::NoKernel { name: kernel.into(), known });
        };
        let cluster = launch.cluster.or(program.functions[index].required("reqnctapercluster"));
        let grid = Grid {
            memory: &self.memory,
            constants: &program.constants,
            params,
            grid: launch.grid,
            block: launch.block,
            cluster: cluster.unwrap_or([1; 3]),
            explicit_cluster: cluster.is_some(),
            dynamic_shared: launch.dynamic_shared,
            step_limit: self.limits.steps,
            held_bytes: self.limits.held_bytes,
            checked: launch.checked,
            profiled: launch.profiled,
            multiprocessors: self.limits.multiprocessors,
            pools: &self.pools,
        };
        let job = Job { program, kernel: index, grid: &grid };
        self.check(&job)?;
        let cores = match self.limits.cores {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            cores => cores,
        };
        let ran = run(&job, cores);
        match ran.fatal {
            Some(finding) => Err(LaunchError::Fault(Box::new(finding))),
            None => Ok(Report { meter: ran.meter, findings: ran.findings, printed: ran.printed, profile: ran.profile }),
        }
    }

    /// What a driver would refuse.
    fn check(&self, job: &Job) -> Result<(), LaunchError> {
        let (grid, code) = (job.grid, job.code());
        let refuse = |why: String| Err(LaunchError::Configuration(format!("kernel `{}`: {why}", code.name)));
        let within = |dims: [u32; 3], most: [u32; 3]| (0..3).all(|axis| (1..=most[axis]).contains(&dims[axis]));
        if !within(grid.grid, GRID) || !within(grid.block, BLOCK) || grid.threads() > 1024 {
            return refuse(format!("cannot launch {:?} blocks of {:?} threads", grid.grid, grid.block));
        }
        if let Some(why) = self.refuses_clusters(grid) {
            return refuse(why);
        }
        let expected = code.params.last().map_or(0, |slot| slot.offset + slot.size);
        if grid.params.len() != expected {
            return refuse(format!("expected {expected} bytes of parameters, got {}", grid.params.len()));
        }
        let shared = code.shared_bytes.saturating_add(grid.dynamic_shared);
        let most = self.limits.shared_bytes.min(SHARED_SPAN);
        if shared > most {
            return refuse(format!("needs {shared} bytes of shared memory of {most}"));
        }
        code.check_directives(grid).or_else(refuse)
    }

    /// Why a grid cannot be launched in its clusters.
    fn refuses_clusters(&self, grid: &Grid) -> Option<String> {
        let (cluster, most) = (grid.cluster, u64::from(self.limits.cluster_blocks.min(CLUSTER)));
        let blocks = cluster.iter().fold(1, |blocks: u64, &n| blocks.saturating_mul(n.into()));
        if blocks == 0 {
            return Some(format!("clusters of {cluster:?} blocks: there is at least one in each direction"));
        }
        if blocks > most {
            let more = if blocks <= CLUSTER.into() { ", unless `Limits::cluster_blocks` allows more" } else { "" };
            return Some(format!("clusters of {cluster:?}, {blocks} blocks: there are at most {most}{more}"));
        }
        let axis = (0..3).find(|&axis| !grid.grid[axis].is_multiple_of(cluster[axis]))?;
        let (have, want, name) = (grid.grid[axis], cluster[axis], ["x", "y", "z"][axis]);
        let why = format!("{have} is no multiple of {want} in {name}");
        Some(format!("{:?} blocks do not divide into clusters of {cluster:?}: {why}", grid.grid))
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
