//! The simulator as a device.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ptx_sim::meter::Meter;
use ptx_sim::profile::Executed;
use ptx_sim::{Launch, Machine, Module};

use super::{LaunchConfig, Limits};
use crate::error::{Error, Result};
use crate::image::{self, Arch};

/// Properties of a simulated device. The default is a small one: few multiprocessors, so that short sequences are not
/// split into crumbs, with an A100's shared memory and 80 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Simulation {
    /// The PTX that it runs: [`Arch::Compute80`] or [`Arch::Compute90a`].
    pub arch: Arch,
    /// Device memory, in bytes, of all buffers together. They take this computer's memory only where they are written; a
    /// single buffer is still refused if the operating system does not let the process reserve as much.
    pub memory_bytes: u64,
    /// Most shared memory of a block, in bytes.
    pub shared_bytes: usize,
    /// Number of multiprocessors that kernels divide their work among.
    pub multiprocessors: usize,
    /// Whether the checker looks at every access. Without it, launches run several times as fast.
    pub checked: bool,
    /// Whether launches count how often each instruction is issued ([`Counted::profile`]).
    pub profiled: bool,
}

impl Default for Simulation {
    fn default() -> Self {
        Self {
            arch: Arch::Compute80,
            memory_bytes: 80 << 30,
            shared_bytes: 163 * 1024,
            multiprocessors: 4,
            checked: true,
            profiled: false,
        }
    }
}

impl Simulation {
    /// The same running other PTX.
    #[must_use]
    pub fn with_arch(self, arch: Arch) -> Self {
        Self { arch, ..self }
    }

    /// The same with another amount of device memory, in bytes.
    #[must_use]
    pub fn with_memory_bytes(self, memory_bytes: u64) -> Self {
        Self { memory_bytes, ..self }
    }

    /// The same with another amount of shared memory per block, in bytes.
    #[must_use]
    pub fn with_shared_bytes(self, shared_bytes: usize) -> Self {
        Self { shared_bytes, ..self }
    }

    /// The same with another number of multiprocessors.
    #[must_use]
    pub fn with_multiprocessors(self, multiprocessors: usize) -> Self {
        Self { multiprocessors, ..self }
    }

    /// The same with or without the checker.
    #[must_use]
    pub fn with_checked(self, checked: bool) -> Self {
        Self { checked, ..self }
    }

    /// The same with or without [`Counted::profile`].
    #[must_use]
    pub fn with_profile(self, profiled: bool) -> Self {
        Self { profiled, ..self }
    }
}

/// What the launches of one kernel counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counted {
    /// Number of launches.
    pub launches: u64,
    /// Sum of their counts.
    pub meter: Meter,
    /// How often each instruction was issued in the latest launch; empty unless [`Simulation::profiled`].
    pub profile: Vec<Executed>,
}

/// Modules that this process has loaded once: assembling one takes longer than many a kernel, and every device would
/// make the same of it. There are as many as the library has sources, for each architecture.
static LOADED: Mutex<Vec<((&str, Arch), Module)>> = Mutex::new(Vec::new());

pub(super) struct Simulated {
    simulation: Simulation,
    machine: RwLock<Machine>,
    modules: Mutex<HashMap<&'static str, Module>>,
    counts: Mutex<BTreeMap<String, Counted>>,
}

impl Simulated {
    pub(super) fn new(simulation: Simulation) -> Self {
        let mut limits = ptx_sim::Limits::default();
        (limits.memory_bytes, limits.shared_bytes) = (simulation.memory_bytes, simulation.shared_bytes);
        limits.multiprocessors = u32::try_from(simulation.multiprocessors).unwrap_or(u32::MAX);
        Self {
            simulation,
            machine: RwLock::new(Machine::new(limits)),
            modules: Mutex::default(),
            counts: Mutex::default(),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            shared_bytes: self.simulation.shared_bytes,
            shared_bytes_per_multiprocessor: self.simulation.shared_bytes.saturating_add(Limits::RESERVED_SHARED_BYTES),
            multiprocessors: self.simulation.multiprocessors,
        }
    }

    pub(super) fn image_arch(&self, file: &'static str) -> Result<Arch> {
        let arch = self.simulation.arch;
        image::ptx(file, arch).map(|_| arch).ok_or_else(|| self.missing(file))
    }

    fn missing(&self, file: &'static str) -> Error {
        image::missing(file, format!("the simulator ({})", self.simulation.arch.name()))
    }

    pub(super) fn allocate(&self, bytes: usize) -> Result<u64> {
        self.machine_mut().memory.allocate(bytes).map_err(|fault| out_of_memory(&fault))
    }

    pub(super) fn allocate_zeros(&self, bytes: usize) -> Result<u64> {
        self.machine_mut().memory.allocate_zeros(bytes).map_err(|fault| out_of_memory(&fault))
    }

    pub(super) fn free(&self, address: u64) {
        self.machine_mut().memory.free(address);
    }

    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.machine().memory.write(address, bytes).map_err(|fault| failed("copy to the device", fault.to_string()))
    }

    pub(super) fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.machine().memory.read(address, bytes).map_err(|fault| failed("copy to the host", fault.to_string()))
    }

    pub(super) fn module(&self, file: &'static str, name: &'static str) -> Result<Module> {
        let mut modules = lock(&self.modules);
        let module = match modules.get(file) {
            Some(module) => module.clone(),
            None => {
                let ptx = image::ptx(file, self.simulation.arch).ok_or_else(|| self.missing(file))?;
                let key = (file, self.simulation.arch);
                let known = lock(&LOADED).iter().find(|(loaded, _)| *loaded == key).map(|(_, module)| module.clone());
                let module = match known {
                    Some(module) => module,
                    None => {
                        let module = self.machine_mut().load(ptx).map_err(|error| failed(file, error.to_string()))?;
                        if module.is_portable() {
                            lock(&LOADED).push((key, module.clone()));
                        }
                        module
                    }
                };
                modules.insert(file, module.clone());
                module
            }
        };
        if module.kernels().contains(&name) {
            Ok(module)
        } else {
            Err(failed(name, format!("is not in csrc/{file}.cu, which has {:?}", module.kernels())))
        }
    }

    pub(super) fn launch(&self, module: &Module, name: &str, config: &LaunchConfig, params: &[u8]) -> Result<()> {
        let mut launch = Launch::new(config.grid, config.block)
            .with_dynamic_shared(config.shared_bytes)
            .with_checked(self.simulation.checked)
            .with_profile(self.simulation.profiled);
        launch.cluster = config.cluster;
        let report = self.machine().launch(module, name, &launch, params);
        let report = report.map_err(|error| failed(name, error.to_string()))?;
        if let Some(finding) = report.findings.first() {
            return Err(failed(name, format!("{finding} ({} findings)", report.findings.len())));
        }
        let mut counts = lock(&self.counts);
        let counted = counts.entry(name.into()).or_default();
        counted.launches += 1;
        counted.meter.add(&report.meter);
        counted.profile = report.profile;
        Ok(())
    }

    pub(super) fn take_counts(&self) -> BTreeMap<String, Counted> {
        std::mem::take(&mut lock(&self.counts))
    }

    fn machine(&self) -> RwLockReadGuard<'_, Machine> {
        self.machine.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn machine_mut(&self) -> RwLockWriteGuard<'_, Machine> {
        self.machine.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a GPU's driver says of it, too.
fn out_of_memory(fault: &ptx_sim::fault::Fault) -> Error {
    Error::Driver { call: "device memory", why: fault.to_string() }
}

fn failed(what: &str, why: String) -> Error {
    Error::Kernel { name: what.into(), why }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
