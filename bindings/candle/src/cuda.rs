//! Candle's GPU memory, by the addresses that it gives out.
//!
//! Candle puts all work of a [`CudaDevice`] on one stream, frees included, and the kernels run on the same. So the order
//! of calls is the order of execution, and the events that cudarc keeps for other streams are not needed: their guards
//! are dropped at once.

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr, DevicePtrMut, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Storage, Tensor};
use latent_attention::device::{Device, Element, Stream, View, ViewMut};

use crate::error::Result;

/// What cudarc and candle's GPU storage ask of a number.
pub(crate) trait Number: CudaDType + DeviceRepr {}
impl<T: CudaDType + DeviceRepr> Number for T {}

/// Candle's context as a device, and its stream.
pub(crate) fn share(candle: &CudaDevice) -> Result<(Device, Stream)> {
    let stream = candle.cuda_stream();
    let device = Device::from_cudarc(stream.context().clone())?;
    // SAFETY: the stream belongs to the context; `Memory` keeps candle's device, which owns the stream, beside this.
    let borrowed = unsafe { Stream::borrow(&device, stream.cu_stream().expose_provenance()) };
    Ok((device, borrowed))
}

/// The address of a storage's element at `offset`.
pub(crate) fn address<T: Number>(storage: &CudaStorage, offset: usize) -> Result<u64> {
    let slice = storage.as_cuda_slice::<T>()?;
    let (start, _) = slice.device_ptr(slice.stream());
    Ok(start + (offset * size_of::<T>()) as u64)
}

/// `len` bytes of a tensor's storage from `start` on.
pub(crate) fn borrow_mut<'t>(
    device: &Device,
    storage: &'t mut CudaStorage,
    start: usize,
    len: usize,
) -> Result<ViewMut<'t, u8>> {
    let slice = storage.as_cuda_slice_mut::<u8>()?;
    let stream = slice.stream().clone();
    let (first, _) = slice.device_ptr_mut(&stream);
    let address = first + start as u64;
    // SAFETY: the storage, borrowed for writing meanwhile, has so many bytes from that address on.
    Ok(unsafe { ViewMut::borrow(device, address, len, slice) })
}

/// Memory that candle allocated, and frees on its stream.
#[derive(Debug)]
pub(crate) struct Slice<T> {
    device: Device,
    candle: CudaDevice,
    slice: CudaSlice<T>,
    address: u64,
}

impl<T: Number + Element> Slice<T> {
    pub fn allocate(device: &Device, candle: &CudaDevice, len: usize) -> Result<Self> {
        // SAFETY: elements are numbers of which every bit pattern is one.
        let slice = unsafe { candle.alloc::<T>(len) }?;
        Ok(Self::new(device, candle, slice))
    }

    pub fn upload(device: &Device, candle: &CudaDevice, numbers: &[T]) -> Result<Self> {
        let slice = candle.cuda_stream().clone_htod(numbers).w()?;
        Ok(Self::new(device, candle, slice))
    }

    fn new(device: &Device, candle: &CudaDevice, slice: CudaSlice<T>) -> Self {
        let (address, _) = slice.device_ptr(slice.stream());
        Self { device: device.clone(), candle: candle.clone(), address, slice }
    }

    pub fn view(&self) -> View<'_, T> {
        // SAFETY: the slice has so many elements, and lives as long as it is borrowed.
        unsafe { View::borrow(&self.device, self.address, self.slice.len(), &self.slice) }
    }

    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        let len = self.slice.len();
        // SAFETY: as above, and nothing else borrows it.
        unsafe { ViewMut::borrow(&self.device, self.address, len, &mut self.slice) }
    }

    /// A tensor of its first elements.
    pub fn into_tensor(self, dims: &[usize]) -> Tensor {
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(self.slice, self.candle));
        Tensor::from_storage(storage, dims, BackpropOp::none(), false)
    }
}
