//! Devices, streams and memory.

use std::ffi::{CString, c_char, c_void};

use latent_attention::device::{Buffer, Device, Stream};
use latent_attention::error::Error;

use crate::data::{LA_DTYPE_U8, LaArray};
use crate::status::{Failure, LaStatus, Outcome, create, destroy, give, read, report};

/// A GPU, the CPU, or the simulator. What is made for a device keeps it alive, so it may be destroyed at any time.
pub struct LaDevice {
    pub(crate) device: Device,
    name: CString,
}

impl LaDevice {
    fn new(device: Device) -> Self {
        // Names come from the driver, which has them as C texts.
        let name = CString::new(device.name()).unwrap_or_default();
        Self { device, name }
    }
}

/// A queue of work: what is launched on a stream runs in order.
pub struct LaStream(pub(crate) Stream);

/// Device memory of its own.
pub struct LaBuffer(Buffer<u8>);

/// The `ordinal`-th NVIDIA GPU that the driver shows, with its primary context, which the CUDA runtime and PyTorch use
/// too. The driver is opened here: programs need not link it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_device_cuda(ordinal: usize, out: *mut *mut LaDevice) -> LaStatus {
    // SAFETY: as the header says.
    unsafe { create(out, || Ok(LaDevice::new(Device::cuda(ordinal)?))) }
}

/// The CPU: the same operations without kernels, done when a call returns. Its addresses are those of the process, so that
/// arrays and tensors may lie in any memory of the program. The environment variable LATENT_ATTENTION_CPU names the
/// instructions to use, else the best that there are; one that is unknown or not there is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_device_cpu(out: *mut *mut LaDevice) -> LaStatus {
    // SAFETY: as the header says.
    unsafe { create(out, || Ok(LaDevice::new(Device::cpu()?))) }
}

/// A simulated device: runs the same kernels on the CPU, slowly, and checks every access. Its addresses are its own,
/// not those of the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_device_simulated(out: *mut *mut LaDevice) -> LaStatus {
    // SAFETY: as the header says.
    unsafe { create(out, || Ok(LaDevice::new(Device::simulated()))) }
}

/// The device's name, which lives as long as the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_device_name(device: *const LaDevice, out: *mut *const c_char) -> LaStatus {
    // SAFETY: as the header says.
    unsafe { give(out, || Ok(read("device", device)?.name.as_ptr())) }
}

/// Waits until everything given to the device is done. A failure may be that of an earlier kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_device_synchronize(device: *const LaDevice) -> LaStatus {
    // SAFETY: as the header says.
    report(|| Ok(unsafe { read("device", device) }?.device.synchronize()?))
}

/// Null is ignored, here and in every function that destroys.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_device_destroy(device: *mut LaDevice) {
    // SAFETY: as the header says.
    unsafe { destroy(device) };
}

/// A new stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_stream_create(device: *const LaDevice, out: *mut *mut LaStream) -> LaStatus {
    // SAFETY: as the header says.
    unsafe { create(out, || Ok(LaStream(read("device", device)?.device.stream()?))) }
}

/// A stream of someone else: its `CUstream` or `cudaStream_t`, null for the default stream. It must belong to the
/// device's primary context and outlive the handle; destroying the handle leaves it alone. On CPU and simulator, any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_stream_borrow(
    device: *const LaDevice,
    cuda_stream: *mut c_void,
    out: *mut *mut LaStream,
) -> LaStatus {
    // SAFETY: as the header says.
    unsafe {
        create(out, || {
            let device = &read("device", device)?.device;
            Ok(LaStream(Stream::borrow(device, cuda_stream.expose_provenance())))
        })
    }
}

/// Waits until everything on the stream is done. A failure may be that of an earlier kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_stream_synchronize(stream: *const LaStream) -> LaStatus {
    // SAFETY: as the header says.
    report(|| Ok(unsafe { read("stream", stream) }?.0.synchronize()?))
}

/// Destroys the handle, and the stream unless it is borrowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_stream_destroy(stream: *mut LaStream) {
    // SAFETY: as the header says.
    unsafe { destroy(stream) };
}

/// Device memory, for programs that have no allocator of their own. It begins on a multiple of 256 bytes and may hold
/// anything; the simulator reports reads of what was not written. More than the device has is refused with
/// LA_STATUS_DRIVER, on the CPU with LA_STATUS_CONFIG; the simulator has 80 GiB, which take this computer's memory only
/// where they are written (one buffer is refused where the operating system does not let a process reserve as much).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_buffer_create(device: *const LaDevice, bytes: usize, out: *mut *mut LaBuffer) -> LaStatus {
    // SAFETY: as the header says.
    unsafe { create(out, || Ok(LaBuffer(read("device", device)?.device.allocate(bytes)?))) }
}

/// Where the memory begins.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_buffer_address(buffer: *const LaBuffer, out: *mut u64) -> LaStatus {
    // SAFETY: as the header says.
    unsafe { give(out, || Ok(read("buffer", buffer)?.0.view().address())) }
}

/// Frees the memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_buffer_destroy(buffer: *mut LaBuffer) {
    // SAFETY: as the header says.
    unsafe { destroy(buffer) };
}

/// Copies `bytes` bytes from the host to device memory, this library's or not, after all work given to the device
/// before. Waits for the copy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_upload(device: *const LaDevice, to: u64, from: *const c_void, bytes: usize) -> LaStatus {
    report(|| {
        // SAFETY: as the header says.
        let (mut to, values) = unsafe {
            let to = bytes_at(to, bytes).view_mut(&read("device", device)?.device, "to")?;
            (to, std::slice::from_raw_parts(host("from", from.cast_mut(), bytes)?, bytes))
        };
        Ok(to.write(values)?)
    })
}

/// Copies `bytes` bytes of device memory to the host, after all work given to the device before. Waits for the copy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_download(device: *const LaDevice, from: u64, to: *mut c_void, bytes: usize) -> LaStatus {
    report(|| {
        // SAFETY: as the header says; the copy does not overlap what was just allocated.
        unsafe {
            let to = host("to", to, bytes)?;
            let from = bytes_at(from, bytes).view::<u8>(&read("device", device)?.device, "from")?;
            let values = from.to_vec()?;
            std::ptr::copy_nonoverlapping(values.as_ptr(), to, bytes);
        }
        Ok(())
    })
}

fn bytes_at(address: u64, bytes: usize) -> LaArray {
    LaArray { address, elements: bytes, dtype: LA_DTYPE_U8 }
}

/// A pointer to host memory, which may be null if it is to hold nothing.
fn host(what: &'static str, pointer: *mut c_void, bytes: usize) -> Outcome<*mut u8> {
    if isize::try_from(bytes).is_err() {
        let (expected, got) = ("memory that a process can have".into(), format!("{bytes} bytes"));
        return Err(Error::Shape { what, expected, got }.into());
    }
    match (pointer.is_null(), bytes) {
        (true, 0) => Ok(std::ptr::NonNull::dangling().as_ptr()),
        (true, _) => Err(Failure::Null(what)),
        (false, _) => Ok(pointer.cast()),
    }
}
