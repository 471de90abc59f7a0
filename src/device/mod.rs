//! Where operations run: an NVIDIA GPU, the CPU, or the simulator.
//!
//! A [`Device`] has memory ([`Buffer`], [`View`], [`Tensor`]), queues of work ([`Stream`]) and kernels ([`Kernel`]).
//! It knows nothing about attention. All kinds take the same calls in the same order:
//!
//! ```
//! use latent_attention::device::Device;
//!
//! let device = Device::best()?; // or Device::cuda(0)?, Device::cpu()?, Device::simulated()
//! let mut numbers = device.zeros::<f32>(3)?;
//! numbers.write(&[1.0, 2.0, 3.0])?;
//! assert_eq!(numbers.to_vec()?, [1.0, 2.0, 3.0]);
//! # Ok::<(), latent_attention::Error>(())
//! ```
//!
//! Loading a kernel and asking for shared memory happen when an operation is made; a launch allocates nothing, waits
//! for nothing and sets nothing, so it can be captured in a CUDA graph ([`Stream::capture`]).

mod ceiling;
mod cpu;
mod cuda;
mod graph;
mod kernel;
mod memory;
mod probe;
#[cfg(feature = "simulator")]
mod simulated;
mod stream;
mod tensor;

use std::fmt;
use std::sync::Arc;

pub use ceiling::Ceiling;
pub use cpu::CpuConfig;
pub use graph::{Event, Graph};
pub use kernel::{Kernel, LaunchConfig};
pub use memory::{Buffer, Element, View, ViewMut};
#[cfg(feature = "simulator")]
pub use simulated::{Counted, Simulation};
pub use stream::Stream;
pub use tensor::{Shape, Tensor, TensorMut};

pub use crate::cpu::Level as CpuLevel;
use crate::error::{Error, Result};
use crate::image::Arch;

/// A device. Cheap to clone; clones are the same device.
#[derive(Clone)]
pub struct Device(Arc<Backend>);

/// The kinds of device.
enum Backend {
    Cuda(cuda::Cuda),
    Cpu(cpu::Cpu),
    #[cfg(feature = "simulator")]
    Simulated(simulated::Simulated),
}

/// What kernels choose their tiles and grids by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Most shared memory of a block, in bytes, that a kernel can ask for.
    pub shared_bytes: usize,
    /// Shared memory of a multiprocessor, in bytes.
    pub shared_bytes_per_multiprocessor: usize,
    /// Number of multiprocessors.
    pub multiprocessors: usize,
}

impl Limits {
    /// Shared memory of a multiprocessor, in bytes, that each block takes beside its own: the driver keeps it for itself.
    pub(crate) const RESERVED_SHARED_BYTES: usize = 1024;

    /// How many blocks a multiprocessor has shared memory for, if each has so many bytes of its own.
    pub(crate) fn blocks_with(&self, shared_bytes: usize) -> usize {
        self.shared_bytes_per_multiprocessor / shared_bytes.saturating_add(Self::RESERVED_SHARED_BYTES)
    }
}

impl Device {
    /// The `ordinal`-th NVIDIA GPU that the driver shows (`CUDA_VISIBLE_DEVICES` chooses), with its primary context,
    /// which other CUDA code in the process shares.
    ///
    /// # Errors
    /// [`Error::NoDriver`], [`Error::DriverTooOld`], [`Error::NoDevice`], [`Error::UnsupportedArch`] for GPUs older than
    /// Ampere, [`Error::Driver`] for everything else that the driver refuses.
    pub fn cuda(ordinal: usize) -> Result<Self> {
        Ok(Self(Arc::new(Backend::Cuda(cuda::Cuda::new(ordinal)?))))
    }

    /// The device of an existing context of cudarc, to share it with code that uses cudarc itself.
    ///
    /// # Errors
    /// As [`Device::cuda`].
    pub fn from_cudarc(context: Arc<cudarc::driver::CudaContext>) -> Result<Self> {
        Ok(Self(Arc::new(Backend::Cuda(cuda::Cuda::share(context)?))))
    }

    /// This computer's CPU: the same operations as plain code, with the same parameter blocks, checks and refusals. Memory
    /// is the process's own, so that slices can be used in place ([`View::of_slice`]).
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Unsupported`] if the environment variable `LATENT_ATTENTION_CPU` names no
    /// [`CpuLevel`], or one that this machine lacks.
    pub fn cpu() -> Result<Self> {
        Self::cpu_with(CpuConfig::default())
    }

    /// [`Device::cpu`] with instructions and threads of your choice.
    ///
    /// # Errors
    /// As [`Device::cpu`], of either.
    pub fn cpu_with(config: CpuConfig) -> Result<Self> {
        Ok(Self(Arc::new(Backend::Cpu(cpu::Cpu::new(config)?))))
    }

    /// The first GPU, if there is one that this build has kernels for, else the CPU. Its [`name`](Self::name) says which.
    ///
    /// # Errors
    /// [`Error::Driver`] if there is a GPU that does not work; as [`Device::cpu`].
    pub fn best() -> Result<Self> {
        match Self::cuda(0) {
            Ok(cuda) if cuda.image_arch("schedule").is_ok() => Ok(cuda),
            Ok(_)
            | Err(
                Error::NoDriver { .. }
                | Error::DriverTooOld { .. }
                | Error::NoDevice { .. }
                | Error::UnsupportedArch { .. },
            ) => Self::cpu(),
            Err(error) => Err(error),
        }
    }

    /// A simulated device: runs the same kernels on the CPU, slowly, and checks every memory access, barrier and
    /// asynchronous copy. A launch that does something wrong is an error ([`Error::Kernel`]).
    #[cfg(feature = "simulator")]
    #[must_use]
    pub fn simulated() -> Self {
        Self::simulate(Simulation::default())
    }

    /// A simulated device with properties of your choice.
    #[cfg(feature = "simulator")]
    #[must_use]
    pub fn simulate(simulation: Simulation) -> Self {
        Self(Arc::new(Backend::Simulated(simulated::Simulated::new(simulation))))
    }

    /// What the launches since the last call counted, by kernel. Empty but on a simulated device.
    #[cfg(feature = "simulator")]
    #[must_use]
    pub fn take_counts(&self) -> std::collections::BTreeMap<String, Counted> {
        match &*self.0 {
            Backend::Cuda(_) | Backend::Cpu(_) => Default::default(),
            Backend::Simulated(simulated) => simulated.take_counts(),
        }
    }

    /// Its name: a GPU's own, or as `cpu (avx2)` with the CPU's [level](CpuLevel).
    #[must_use]
    pub fn name(&self) -> &str {
        match &*self.0 {
            Backend::Cuda(cuda) => cuda.name(),
            Backend::Cpu(cpu) => cpu.name(),
            #[cfg(feature = "simulator")]
            Backend::Simulated(_) => "ptx-sim",
        }
    }

    /// Whether this is a GPU.
    #[must_use]
    pub fn is_cuda(&self) -> bool {
        self.0.cuda().is_some()
    }

    /// Whether this is the CPU.
    #[must_use]
    pub fn is_cpu(&self) -> bool {
        matches!(*self.0, Backend::Cpu(_))
    }

    /// What the CPU's operations use of it; none of a GPU and of the simulator.
    #[must_use]
    pub fn cpu_level(&self) -> Option<CpuLevel> {
        match &*self.0 {
            Backend::Cpu(cpu) => Some(cpu.level()),
            _ => None,
        }
    }

    /// Sizes that kernels are fitted to.
    #[must_use]
    pub fn limits(&self) -> Limits {
        match &*self.0 {
            Backend::Cuda(cuda) => cuda.limits(),
            Backend::Cpu(cpu) => cpu.limits(),
            #[cfg(feature = "simulator")]
            Backend::Simulated(simulated) => simulated.limits(),
        }
    }

    /// Compute capability of a GPU, as (9, 0).
    #[must_use]
    pub fn compute_capability(&self) -> Option<(i32, i32)> {
        self.0.cuda().map(cuda::Cuda::capability)
    }

    /// Memory for `len` elements, which may hold anything. (The simulator reports reads of what was not written.)
    ///
    /// # Errors
    /// [`Error::Driver`] if there is not enough, also on the simulator ([`Simulation::memory_bytes`]), but on the CPU
    /// [`Error::OutOfMemory`], as everywhere if `len` elements are more bytes than there are addresses.
    pub fn allocate<T: Element>(&self, len: usize) -> Result<Buffer<T>> {
        Buffer::allocate(self, len)
    }

    /// Memory for `len` zeros.
    ///
    /// # Errors
    /// As [`Device::allocate`].
    pub fn zeros<T: Element>(&self, len: usize) -> Result<Buffer<T>> {
        Buffer::zeros(self, len)
    }

    /// A copy of `values`.
    ///
    /// # Errors
    /// As [`Device::allocate`].
    pub fn upload<T: Element>(&self, values: &[T]) -> Result<Buffer<T>> {
        let mut buffer = self.allocate(values.len())?;
        buffer.write(values)?;
        Ok(buffer)
    }

    /// Loads the kernel `name` of `csrc/FILE.cu`, once per device, and lets its blocks have `shared_bytes` of dynamic
    /// shared memory.
    ///
    /// # Errors
    /// [`Error::NoKernelImage`] if this build has no image that the device runs, [`Error::Unsupported`] if it has
    /// less shared memory, or on the CPU if that has no such operation, [`Error::Driver`] or [`Error::Kernel`] if it does not load.
    pub fn kernel(&self, file: &'static str, name: &'static str, shared_bytes: usize) -> Result<Kernel> {
        Kernel::load(self, file, name, shared_bytes)
    }

    /// The architecture that the image of `csrc/FILE.cu` which the device runs was compiled for.
    ///
    /// # Errors
    /// [`Error::NoKernelImage`] if this build has none that the device runs; [`Error::Unsupported`] on the CPU.
    pub(crate) fn image_arch(&self, file: &'static str) -> Result<Arch> {
        match &*self.0 {
            Backend::Cuda(cuda) => cuda.image_arch(file),
            Backend::Cpu(_) => {
                Err(Error::Unsupported { what: format!("csrc/{file}.cu"), why: "the CPU runs no kernels".into() })
            }
            #[cfg(feature = "simulator")]
            Backend::Simulated(simulated) => simulated.image_arch(file),
        }
    }

    /// A new stream.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn stream(&self) -> Result<Stream> {
        Stream::new(self)
    }

    /// Waits until everything given to the device is done.
    ///
    /// # Errors
    /// [`Error::Driver`], which may be that of an earlier kernel.
    pub fn synchronize(&self) -> Result<()> {
        self.0.cuda().map_or(Ok(()), cuda::Cuda::synchronize)
    }

    fn backend(&self) -> &Backend {
        &self.0
    }

    /// Returns [`Error::OtherDevice`] unless `other` is this device.
    pub(crate) fn check_same(&self, what: &str, other: &Self) -> Result<()> {
        if self == other {
            return Ok(());
        }
        Err(Error::OtherDevice { what: what.into(), why: format!("is on {other:?}, not on {self:?}") })
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device `{}` at {:p}", self.name(), Arc::as_ptr(&self.0))
    }
}

impl Backend {
    /// The GPU, if it is one.
    fn cuda(&self) -> Option<&cuda::Cuda> {
        match self {
            Self::Cuda(cuda) => Some(cuda),
            Self::Cpu(_) => None,
            #[cfg(feature = "simulator")]
            Self::Simulated(_) => None,
        }
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        match self {
            Self::Cuda(cuda) => cuda.allocate(bytes),
            Self::Cpu(cpu) => cpu.allocate(bytes),
            #[cfg(feature = "simulator")]
            Self::Simulated(simulated) => simulated.allocate(bytes),
        }
    }

    /// The same, zeros.
    fn allocate_zeros(&self, bytes: usize) -> Result<u64> {
        match self {
            Self::Cuda(cuda) => cuda.allocate_zeros(bytes),
            Self::Cpu(cpu) => cpu.allocate(bytes),
            #[cfg(feature = "simulator")]
            Self::Simulated(simulated) => simulated.allocate_zeros(bytes),
        }
    }

    fn free(&self, address: u64) {
        match self {
            Self::Cuda(cuda) => cuda.free(address),
            Self::Cpu(cpu) => cpu.free(address),
            #[cfg(feature = "simulator")]
            Self::Simulated(simulated) => simulated.free(address),
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Cuda(cuda) => cuda.write(address, bytes),
            Self::Cpu(cpu) => {
                cpu.write(address, bytes);
                Ok(())
            }
            #[cfg(feature = "simulator")]
            Self::Simulated(simulated) => simulated.write(address, bytes),
        }
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        match self {
            Self::Cuda(cuda) => cuda.read(address, bytes),
            Self::Cpu(cpu) => {
                cpu.read(address, bytes);
                Ok(())
            }
            #[cfg(feature = "simulator")]
            Self::Simulated(simulated) => simulated.read(address, bytes),
        }
    }
}
