//! Kernels and their launches.

use super::{Backend, Device, Stream, cuda};
use crate::cpu;
use crate::error::{Error, Result};

/// How a kernel is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaunchConfig {
    /// Blocks: x, y, z.
    pub grid: [u32; 3],
    /// Threads per block: x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory per block, in bytes; at most what the kernel was loaded with.
    pub shared_bytes: usize,
    /// Blocks per cluster: x, y, z (Hopper and later).
    pub cluster: Option<[u32; 3]>,
    /// Whether it may begin before the kernel in front of it has ended (programmatic dependent launch). The kernel must
    /// wait itself (`griddepcontrol.wait`) before it touches memory, in code for Hopper and later; code for older devices
    /// cannot, and is launched when that one has ended.
    pub programmatic: bool,
}

impl LaunchConfig {
    /// `grid` blocks of `block` threads, without shared memory, clusters and early start.
    #[must_use]
    pub fn new(grid: [u32; 3], block: [u32; 3]) -> Self {
        Self { grid, block, shared_bytes: 0, cluster: None, programmatic: false }
    }

    /// The same with dynamic shared memory.
    #[must_use]
    pub fn with_shared(self, shared_bytes: usize) -> Self {
        Self { shared_bytes, ..self }
    }

    /// The same with clusters.
    #[must_use]
    pub fn with_cluster(self, cluster: [u32; 3]) -> Self {
        Self { cluster: Some(cluster), ..self }
    }

    /// The same with early start.
    #[must_use]
    pub fn with_programmatic(self) -> Self {
        Self { programmatic: true, ..self }
    }
}

/// A kernel that is loaded and ready to be launched.
#[derive(Clone, Debug)]
pub struct Kernel {
    device: Device,
    name: &'static str,
    shared_bytes: usize,
    /// Whether its code can wait for the kernel in front.
    waits: bool,
    loaded: Loaded,
}

/// The first architecture whose code has `griddepcontrol`.
const FIRST_TO_WAIT: (i32, i32) = (9, 0);

#[derive(Clone)]
enum Loaded {
    Cuda(cuda::Function),
    Cpu(cpu::Operation),
    #[cfg(feature = "simulator")]
    Simulated(ptx_sim::Module),
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Loaded")
    }
}

impl Kernel {
    pub(super) fn load(device: &Device, file: &'static str, name: &'static str, shared_bytes: usize) -> Result<Self> {
        let most = device.limits().shared_bytes;
        if shared_bytes > most {
            return Err(Error::Unsupported {
                what: format!("kernel `{name}`"),
                why: format!("needs {shared_bytes} bytes of shared memory per block; {device:?} has {most}"),
            });
        }
        let loaded = match device.backend() {
            Backend::Cuda(cuda) => Loaded::Cuda(cuda.function(file, name, shared_bytes)?),
            Backend::Cpu(_) => Loaded::Cpu(cpu::operation(name).ok_or_else(|| Error::Unsupported {
                what: format!("kernel `{name}` of csrc/{file}.cu"),
                why: "there is no such operation on the CPU".into(),
            })?),
            #[cfg(feature = "simulator")]
            Backend::Simulated(simulated) => Loaded::Simulated(simulated.module(file, name)?),
        };
        let waits = !device.is_cpu() && device.image_arch(file)?.capability() >= FIRST_TO_WAIT;
        Ok(Self { device: device.clone(), name, shared_bytes, waits, loaded })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The device it is loaded on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How many blocks of `threads` threads, each with the dynamic shared memory that it was loaded with, a multiprocessor
    /// holds at a time: as the driver says of the image that it loaded, or on the simulator, which has as many registers
    /// as kernels want, as shared memory allows. One on the CPU, which has none.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub(crate) fn blocks_per_multiprocessor(&self, threads: u32) -> Result<usize> {
        match (&self.loaded, self.device.backend()) {
            (Loaded::Cuda(function), Backend::Cuda(cuda)) => {
                cuda.blocks_per_multiprocessor(*function, threads, self.shared_bytes)
            }
            (Loaded::Cpu(_), Backend::Cpu(_)) => Ok(1),
            #[cfg(feature = "simulator")]
            (Loaded::Simulated(module), Backend::Simulated(simulated)) => {
                let fixed = module.shared_bytes(self.name).unwrap_or(0);
                Ok(simulated.limits().blocks_with(fixed.saturating_add(self.shared_bytes)))
            }
            _ => unreachable!("a kernel is on the device that loaded it"),
        }
    }

    /// How many clusters of `blocks` blocks along z, of `threads` threads each, the device holds at a time: as the driver says,
    /// which knows how many multiprocessors its GPCs have, of which a cluster takes those of one; elsewhere as many as there are
    /// blocks for, which is more.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub(crate) fn clusters_at_once(&self, threads: u32, blocks: u32) -> Result<usize> {
        if let (Loaded::Cuda(function), Backend::Cuda(cuda)) = (&self.loaded, self.device.backend()) {
            return cuda.clusters_at_once(*function, threads, blocks, self.shared_bytes);
        }
        let all = self.device.limits().multiprocessors * self.blocks_per_multiprocessor(threads)?;
        Ok(all / blocks.max(1) as usize)
    }

    /// Launches it. CPU and simulator run it to its end; a GPU runs it when the stream gets there.
    ///
    /// # Errors
    /// [`Error::OtherDevice`] or [`Error::Capacity`] if stream or shared memory do not fit; [`Error::Driver`] for what the
    /// driver refuses; [`Error::Kernel`] for what the simulator found, or for a panic on the CPU.
    ///
    /// # Safety
    /// `params` must be the kernel's parameter block as `csrc/params.h` declares it, every address in it must point
    /// to memory of the device of the size and alignment stated there, which outlives the launch on its stream.
    pub unsafe fn launch<P: Copy>(&self, stream: &Stream, config: &LaunchConfig, params: &P) -> Result<()> {
        self.device.check_same("stream", stream.device())?;
        if config.shared_bytes > self.shared_bytes {
            return Err(Error::Capacity {
                what: format!("kernel `{}`", self.name),
                why: format!("loaded for {} bytes of shared memory, not {}", self.shared_bytes, config.shared_bytes),
            });
        }
        let config = &LaunchConfig { programmatic: config.programmatic && self.waits, ..*config };
        match (&self.loaded, self.device.backend()) {
            (Loaded::Cuda(function), Backend::Cuda(cuda)) => {
                // SAFETY: promised by the caller.
                unsafe { cuda.launch(*function, stream.raw(), config, params) }
            }
            (Loaded::Cpu(operation), Backend::Cpu(cpu)) => {
                // SAFETY: promised by the caller.
                unsafe { cpu.launch(self.name, *operation, params) }
            }
            #[cfg(feature = "simulator")]
            (Loaded::Simulated(module), Backend::Simulated(simulated)) => {
                // SAFETY: parameter blocks have no padding (`cargo xtask bindings` refuses it), so that all bytes are a field's.
                let bytes = unsafe { std::slice::from_raw_parts(std::ptr::from_ref(params).cast(), size_of::<P>()) };
                simulated.launch(module, self.name, config, bytes)
            }
            _ => unreachable!("a kernel is launched on the device that loaded it"),
        }
    }
}
