//! Candle's tensors as memory of a device: a GPU's and the CPU's borrowed, those on the CPU copied to the simulator's and back.
//!
//! What is above this file sees addresses and shapes only, so that it is the same code on all of them.

use std::sync::OnceLock;

use candle_core::{Storage, StorageRef, Tensor, WithDType};
use latent_attention::device::{self, Device, Element, Shape, Stream, View, ViewMut};

#[cfg(feature = "cuda")]
use crate::cuda;
use crate::error::{Result, refused};

/// A type of number that kernels and candle both have.
#[cfg(not(feature = "cuda"))]
pub(crate) trait Number: Element + WithDType {}
#[cfg(not(feature = "cuda"))]
impl<T: Element + WithDType> Number for T {}

/// A type of number that kernels and candle both have.
#[cfg(feature = "cuda")]
pub(crate) trait Number: Element + WithDType + cuda::Number {}
#[cfg(feature = "cuda")]
impl<T: Element + WithDType + cuda::Number> Number for T {}

/// Where kernels find the numbers of tensors.
#[derive(Debug)]
pub(crate) struct Memory {
    device: Device,
    stream: Stream,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Host,
    Simulated,
    #[cfg(feature = "cuda")]
    Cuda(candle_core::CudaDevice),
}

/// What operations ask of addresses, in bytes.
const ALIGNMENT: usize = 16;

impl Memory {
    /// The process's own: the same device for all, so that plans are good for all operations of a configuration.
    pub fn host() -> Result<Self> {
        static CPU: OnceLock<Device> = OnceLock::new();
        let device = match CPU.get() {
            Some(device) => device.clone(),
            None => {
                let device = Device::cpu()?;
                CPU.get_or_init(|| device).clone()
            }
        };
        Ok(Self { stream: device.stream()?, device, kind: Kind::Host })
    }

    /// The simulator's, for CPU tensors.
    pub fn simulated(device: Device) -> Result<Self> {
        Ok(Self { stream: device.stream()?, device, kind: Kind::Simulated })
    }

    /// A GPU's, with candle's context and stream.
    #[cfg(feature = "cuda")]
    pub fn cuda(candle: &candle_core::CudaDevice) -> Result<Self> {
        let (device, stream) = cuda::share(candle)?;
        Ok(Self { device, stream, kind: Kind::Cuda(candle.clone()) })
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Whether CPU tensors are its memory, so that nothing is copied.
    pub fn is_host(&self) -> bool {
        matches!(self.kind, Kind::Host)
    }

    /// The numbers of a tensor, to read.
    pub fn lend<'t, T: Number>(&self, what: &'static str, tensor: &'t Tensor) -> Result<Lent<'t, T>> {
        let extent = extent(what, tensor)?;
        let (lock, layout) = tensor.storage_and_layout();
        let numbers = match (&self.kind, &*lock) {
            (Kind::Host | Kind::Simulated, Storage::Cpu(storage)) => {
                let numbers = &storage.as_slice::<T>()?[layout.start_offset()..][..extent];
                if self.is_host() && numbers.as_ptr().addr().is_multiple_of(ALIGNMENT) {
                    let address = View::of_slice(&self.device, numbers)?.address();
                    Numbers::InPlace { device: self.device.clone(), address, extent }
                } else {
                    Numbers::Copied(self.device.upload(numbers)?)
                }
            }
            #[cfg(feature = "cuda")]
            (Kind::Cuda(_), Storage::Cuda(storage)) => {
                let address = cuda::address::<T>(storage, layout.start_offset())?;
                Numbers::InPlace { device: self.device.clone(), address, extent }
            }
            _ => return Err(refused(what, "is on another device")),
        };
        Ok(Lent { what, tensor, numbers, _lock: lock })
    }

    /// Memory for so many numbers, which may hold anything.
    pub fn allocate<T: Number>(&self, len: usize) -> Result<Owned<T>> {
        // Drivers refuse empty allocations.
        let len = len.max(1);
        Ok(match &self.kind {
            Kind::Host | Kind::Simulated => Owned::Buffer(self.device.allocate(len)?),
            #[cfg(feature = "cuda")]
            Kind::Cuda(candle) => Owned::Cuda(cuda::Slice::allocate(&self.device, candle, len)?),
        })
    }

    /// A copy of numbers, of which there is at least one.
    pub fn upload<T: Number>(&self, numbers: &[T]) -> Result<Owned<T>> {
        Ok(match &self.kind {
            Kind::Host | Kind::Simulated => Owned::Buffer(self.device.upload(numbers)?),
            #[cfg(feature = "cuda")]
            Kind::Cuda(candle) => Owned::Cuda(cuda::Slice::upload(&self.device, candle, numbers)?),
        })
    }

    /// A tensor of what kernels wrote, or will have written when candle's stream comes to it.
    pub fn tensor<T: Number>(&self, owned: Owned<T>, dims: &[usize]) -> Result<Tensor> {
        match owned {
            Owned::Buffer(buffer) => {
                let len: usize = dims.iter().product();
                Ok(Tensor::from_vec(buffer.view().slice(..len)?.to_vec()?, dims, &candle_core::Device::Cpu)?)
            }
            #[cfg(feature = "cuda")]
            Owned::Cuda(slice) => Ok(slice.into_tensor(dims)),
        }
    }

    /// Lets bytes of a CPU tensor be written, in place or by way of a copy.
    pub fn lend_mut(&self, bytes: &mut [u8], write: impl FnOnce(ViewMut<'_, u8>) -> Result<()>) -> Result<()> {
        if self.is_host() {
            return write(ViewMut::of_slice(&self.device, bytes)?);
        }
        let mut copy = self.device.upload::<u8>(bytes)?;
        write(copy.view_mut())?;
        bytes.copy_from_slice(&copy.to_vec()?);
        Ok(())
    }

    /// Bytes of a tensor's storage, to write.
    #[cfg(feature = "cuda")]
    pub fn borrow_mut<'t>(
        &self,
        storage: &'t mut candle_core::CudaStorage,
        start: usize,
        len: usize,
    ) -> Result<ViewMut<'t, u8>> {
        cuda::borrow_mut(&self.device, storage, start, len)
    }
}

/// A tensor's numbers on the device, for as long as the tensor is borrowed.
pub(crate) struct Lent<'t, T: Element> {
    what: &'static str,
    tensor: &'t Tensor,
    numbers: Numbers<T>,
    /// Keeps others from writing, and with that from replacing, the tensor's memory.
    _lock: StorageRef<'t>,
}

enum Numbers<T: Element> {
    Copied(device::Buffer<T>),
    InPlace { device: Device, address: u64, extent: usize },
}

impl<T: Element> Lent<'_, T> {
    /// All of it.
    pub fn view(&self) -> View<'_, T> {
        match &self.numbers {
            Numbers::Copied(buffer) => buffer.view(),
            // SAFETY: the tensor has so many elements from that address on, and is locked while it is lent; operations on the
            // CPU are done when they return, and candle orders all work of a GPU, frees included, on the stream that the
            // kernels run on.
            Numbers::InPlace { device, address, extent } => unsafe {
                View::borrow(device, *address, *extent, self.tensor)
            },
        }
    }

    /// As an operation takes it. Of a tensor of two dimensions the last is divided in two.
    pub fn tensor(&self, sizes: [usize; 3]) -> Result<device::Tensor<'_, T>> {
        let strides = match *self.tensor.stride() {
            [outer, middle, _] => [outer, middle],
            [outer, _] => [outer, sizes[2]],
            _ => return Err(refused(self.what, format!("has {} dimensions", self.tensor.rank()))),
        };
        Ok(device::Tensor::new(self.view(), Shape { sizes, strides })?)
    }
}

/// Elements from a tensor's first to behind its last, if those of a row lie side by side.
fn extent(what: &'static str, tensor: &Tensor) -> Result<usize> {
    let (dims, strides) = (tensor.dims(), tensor.stride());
    if let (Some(&size), Some(&stride)) = (dims.last(), strides.last())
        && size > 1
        && stride != 1
    {
        let why = format!("its last dimension must be dense, but {dims:?} has strides {strides:?}");
        return Err(refused(what, why));
    }
    if tensor.elem_count() == 0 {
        return Ok(0);
    }
    Ok(dims.iter().zip(strides).map(|(size, stride)| (size - 1) * stride).sum::<usize>() + 1)
}

/// Memory of the device's own.
#[derive(Debug)]
pub(crate) enum Owned<T: Number> {
    Buffer(device::Buffer<T>),
    #[cfg(feature = "cuda")]
    Cuda(cuda::Slice<T>),
}

impl<T: Number> Owned<T> {
    /// All of it, to read.
    pub fn view(&self) -> View<'_, T> {
        match self {
            Self::Buffer(buffer) => buffer.view(),
            #[cfg(feature = "cuda")]
            Self::Cuda(slice) => slice.view(),
        }
    }

    /// The first `len` numbers, to write.
    pub fn view_mut(&mut self, len: usize) -> Result<ViewMut<'_, T>> {
        let view = match self {
            Self::Buffer(buffer) => buffer.view_mut(),
            #[cfg(feature = "cuda")]
            Self::Cuda(slice) => slice.view_mut(),
        };
        Ok(view.slice(..len)?)
    }
}
