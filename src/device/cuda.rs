//! GPUs, through the driver API.
//!
//! cudarc's safe layer has no clusters, no programmatic launch, and tracks memory by events that do not suit graph
//! capture, so this goes to the driver's functions as cudarc declares them, with its context.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::{CudaContext, sys};

use super::{LaunchConfig, Limits, probe};
use crate::error::{Error, Result};
use crate::image::{self, Arch, Image};

pub(super) struct Cuda {
    context: Arc<CudaContext>,
    name: String,
    capability: (i32, i32),
    limits: Limits,
    modules: Mutex<HashMap<&'static str, Module>>,
    /// Held for writing while a stream is captured. What waits for the whole context would fail meanwhile, in whichever
    /// thread, and spoil the capture: it holds this for reading.
    captures: RwLock<()>,
}

thread_local! {
    /// Whether this thread is in a capture: then it does not wait for its end.
    static IS_CAPTURING: Cell<bool> = const { Cell::new(false) };
}

macro_rules! handle {
    ($($(#[$doc:meta])* $name:ident($raw:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name($raw);

        // SAFETY: a handle is a name that the driver looks up; its functions may be called from any thread.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}
    )*};
}

handle! {
    /// A kernel.
    Function(sys::CUfunction);
    Module(sys::CUmodule);
    RawStream(sys::CUstream);
    RawGraph(sys::CUgraphExec);
    RawEvent(sys::CUevent);
}

impl RawStream {
    pub(super) fn null() -> Self {
        Self(std::ptr::null_mut())
    }

    pub(super) fn from_raw(raw: usize) -> Self {
        Self(std::ptr::with_exposed_provenance_mut(raw))
    }
}

impl Cuda {
    pub(super) fn new(ordinal: usize) -> Result<Self> {
        let count = probe::devices()?;
        if ordinal >= count {
            return Err(Error::NoDevice { ordinal, count });
        }
        Self::share(CudaContext::new(ordinal).map_err(failed("cuDevicePrimaryCtxRetain"))?)
    }

    pub(super) fn share(context: Arc<CudaContext>) -> Result<Self> {
        use sys::CUdevice_attribute_enum as Attribute;
        let device = context.cu_device();
        let attribute = |attribute| {
            // SAFETY: the device is that of a context, which exists.
            let value = unsafe { result::device::get_attribute(device, attribute) };
            value.map_err(failed("cuDeviceGetAttribute"))
        };
        let size = |which| Ok(usize::try_from(attribute(which)?).unwrap_or(0));
        let capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let name = result::device::get_name(device).map_err(failed("cuDeviceGetName"))?;
        if capability < (8, 0) {
            return Err(Error::UnsupportedArch { device: name, capability });
        }
        let limits = Limits {
            shared_bytes: size(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            shared_bytes_per_multiprocessor: size(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
            multiprocessors: size(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        };
        Ok(Self { context, name, capability, limits, modules: Mutex::default(), captures: RwLock::default() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn capability(&self) -> (i32, i32) {
        self.capability
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn allocate(&self, bytes: usize) -> Result<u64> {
        self.bind()?;
        // SAFETY: the memory is only reached through addresses handed to kernels and copies.
        self.between_captures(|| unsafe { result::malloc_sync(bytes) }.map_err(failed("cuMemAlloc")))
    }

    pub(super) fn allocate_zeros(&self, bytes: usize) -> Result<u64> {
        let address = self.allocate(bytes)?;
        let written = super::memory::host_zeros::<u8>(bytes).and_then(|zeros| self.write(address, &zeros));
        match written {
            Ok(()) => Ok(address),
            Err(error) => {
                self.free(address);
                Err(error)
            }
        }
    }

    /// A failure is that of an earlier kernel, which the next call reports again.
    pub(super) fn free(&self, address: u64) {
        if self.bind().is_ok() {
            // SAFETY: buffers free what they allocated, once.
            let _ = self.between_captures(|| unsafe { result::free_sync(address) });
        }
    }

    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.bind()?;
        self.between_captures(|| {
            result::ctx::synchronize().map_err(failed("cuCtxSynchronize"))?;
            // SAFETY: views reach over memory of this device only, and the copy is done on return.
            unsafe { result::memcpy_htod_sync(address, bytes) }.map_err(failed("cuMemcpyHtoD"))
        })
    }

    pub(super) fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.bind()?;
        self.between_captures(|| {
            result::ctx::synchronize().map_err(failed("cuCtxSynchronize"))?;
            // SAFETY: as for writing.
            unsafe { result::memcpy_dtoh_sync(bytes, address) }.map_err(failed("cuMemcpyDtoH"))
        })
    }

    pub(super) fn synchronize(&self) -> Result<()> {
        self.bind()?;
        self.between_captures(|| result::ctx::synchronize().map_err(failed("cuCtxSynchronize")))
    }

    /// Runs what does not go together with a capture when no other thread is in one. In a capture of this thread it
    /// runs at once, for the driver to refuse.
    fn between_captures<T>(&self, run: impl FnOnce() -> T) -> T {
        let _held =
            if IS_CAPTURING.get() { None } else { Some(self.captures.read().unwrap_or_else(PoisonError::into_inner)) };
        run()
    }

    /// The kernel `name` of a file, allowed that much dynamic shared memory.
    pub(super) fn function(&self, file: &'static str, name: &'static str, shared_bytes: usize) -> Result<Function> {
        let module = self.module(file)?;
        let symbol = CString::new(name).map_err(|error| Error::Kernel { name: name.into(), why: error.to_string() })?;
        // SAFETY: the module is loaded and is never unloaded before its context ends.
        let function =
            unsafe { result::module::get_function(module.0, symbol) }.map_err(failed("cuModuleGetFunction"))?;
        let (attribute, bytes) = (
            sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
            i32::try_from(shared_bytes).unwrap_or(i32::MAX),
        );
        // SAFETY: the function belongs to a loaded module. Several users of a kernel each need their amount, so it only
        // ever grows; asking for more costs nothing.
        unsafe {
            let granted =
                result::function::get_function_attribute(function, attribute).map_err(failed("cuFuncGetAttribute"))?;
            if bytes > granted {
                result::function::set_function_attribute(function, attribute, bytes)
                    .map_err(failed("cuFuncSetAttribute"))?;
            }
        }
        Ok(Function(function))
    }

    /// How many blocks of a kernel a multiprocessor holds, given its registers, shared memory and threads.
    pub(super) fn blocks_per_multiprocessor(
        &self,
        function: Function,
        threads: u32,
        shared_bytes: usize,
    ) -> Result<usize> {
        self.bind()?;
        let mut blocks = 0;
        let threads = i32::try_from(threads).unwrap_or(i32::MAX);
        // SAFETY: the function belongs to a loaded module, and the driver writes one number.
        let code = unsafe {
            sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&raw mut blocks, function.0, threads, shared_bytes)
        };
        code.result().map_err(failed("cuOccupancyMaxActiveBlocksPerMultiprocessor"))?;
        Ok(usize::try_from(blocks).unwrap_or(0))
    }

    /// How many clusters of `blocks` blocks along z, of a kernel, the GPU holds at once. That a cluster's blocks have to be
    /// neighbours, on multiprocessors of one GPC, leaves some of these without any.
    pub(super) fn clusters_at_once(
        &self,
        function: Function,
        threads: u32,
        blocks: u32,
        shared_bytes: usize,
    ) -> Result<usize> {
        self.bind()?;
        let mut attribute = in_clusters([1, 1, blocks]);
        let launch = sys::CUlaunchConfig {
            gridDimX: 1,
            gridDimY: 1,
            gridDimZ: blocks,
            blockDimX: threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: u32::try_from(shared_bytes).unwrap_or(u32::MAX),
            hStream: std::ptr::null_mut(),
            attrs: &raw mut attribute,
            numAttrs: 1,
        };
        let mut clusters = 0;
        // SAFETY: the function belongs to a loaded module, and the driver reads the launch and writes one number.
        let code = unsafe { sys::cuOccupancyMaxActiveClusters(&raw mut clusters, function.0, &raw const launch) };
        code.result().map_err(failed("cuOccupancyMaxActiveClusters"))?;
        Ok(usize::try_from(clusters).unwrap_or(0))
    }

    pub(super) fn image_arch(&self, file: &'static str) -> Result<Arch> {
        self.image(file).map(|image| image.arch)
    }

    /// The image of a file that this GPU runs best.
    fn image(&self, file: &'static str) -> Result<&'static Image> {
        let (major, minor) = self.capability;
        image::choose(file, self.capability)
            .ok_or_else(|| image::missing(file, format!("{} (compute capability {major}.{minor})", self.name)))
    }

    fn module(&self, file: &'static str) -> Result<Module> {
        self.bind()?;
        self.between_captures(|| {
            let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(&module) = modules.get(file) {
                return Ok(module);
            }
            let image = self.image(file)?;
            // PTX must end with a zero, and machine code should begin on an aligned address.
            let mut words = vec![0u64; image.bytes.len() / 8 + 1];
            bytemuck::cast_slice_mut(&mut words)[..image.bytes.len()].copy_from_slice(image.bytes);
            // SAFETY: the driver copies the image, which is an ELF file or ends with a zero.
            let loaded = unsafe { result::module::load_data(words.as_ptr().cast()) };
            let module = Module(loaded.map_err(failed("cuModuleLoadData"))?);
            modules.insert(file, module);
            Ok(module)
        })
    }

    /// # Safety
    /// As [`Kernel::launch`](super::Kernel::launch).
    pub(super) unsafe fn launch<P: Copy>(
        &self,
        function: Function,
        stream: RawStream,
        config: &LaunchConfig,
        params: &P,
    ) -> Result<()> {
        self.bind()?;
        let (mut attributes, mut count) = ([no_attribute(); 2], 0);
        for attribute in [config.cluster.map(in_clusters), config.programmatic.then(programmatic)].into_iter().flatten()
        {
            attributes[count] = attribute;
            count += 1;
        }
        let launch = sys::CUlaunchConfig {
            gridDimX: config.grid[0],
            gridDimY: config.grid[1],
            gridDimZ: config.grid[2],
            blockDimX: config.block[0],
            blockDimY: config.block[1],
            blockDimZ: config.block[2],
            sharedMemBytes: u32::try_from(config.shared_bytes).unwrap_or(u32::MAX),
            hStream: stream.0,
            attrs: attributes.as_mut_ptr(),
            numAttrs: count as u32,
        };
        let mut argument: *mut c_void = std::ptr::from_ref(params).cast_mut().cast();
        // SAFETY: the driver copies the parameter block before it returns; the rest is promised by the caller.
        let code = unsafe { sys::cuLaunchKernelEx(&launch, function.0, &mut argument, std::ptr::null_mut()) };
        code.result().map_err(failed("cuLaunchKernelEx"))
    }

    /// Ordered with the default stream, as copies are.
    pub(super) fn new_stream(&self) -> Result<RawStream> {
        self.bind()?;
        result::stream::create(result::stream::StreamKind::Default).map(RawStream).map_err(failed("cuStreamCreate"))
    }

    pub(super) fn synchronize_stream(&self, stream: RawStream) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream exists, as its owner does.
        unsafe { result::stream::synchronize(stream.0) }.map_err(failed("cuStreamSynchronize"))
    }

    pub(super) fn destroy_stream(&self, stream: RawStream) {
        if self.bind().is_ok() {
            // SAFETY: streams are destroyed by their owner, once.
            let _ = unsafe { result::stream::destroy(stream.0) };
        }
    }

    pub(super) fn capture(&self, stream: RawStream, work: impl FnOnce() -> Result<()>) -> Result<RawGraph> {
        self.bind()?;
        if IS_CAPTURING.get() {
            return Err(Error::Config { what: "graph capture".into(), why: "this thread is in one already".into() });
        }
        let captured = {
            let _alone = self.captures.write().unwrap_or_else(PoisonError::into_inner);
            let capture = Capture::begin(stream)?;
            work()?;
            capture.end()?
        };
        // SAFETY: the graph was just captured, and is no longer needed once it is instantiated.
        unsafe {
            let instance = result::graph::instantiate(captured, sys::CUgraphInstantiate_flags(0));
            let destroyed = result::graph::destroy(captured);
            let instance = instance.map_err(failed("cuGraphInstantiate"))?;
            destroyed.map_err(failed("cuGraphDestroy"))?;
            Ok(RawGraph(instance))
        }
    }

    pub(super) fn launch_graph(&self, graph: RawGraph, stream: RawStream) -> Result<()> {
        self.bind()?;
        // SAFETY: both exist, as their owners do.
        unsafe { result::graph::launch(graph.0, stream.0) }.map_err(failed("cuGraphLaunch"))
    }

    pub(super) fn destroy_graph(&self, graph: RawGraph) {
        if self.bind().is_ok() {
            // SAFETY: graphs are destroyed by their owner, once.
            let _ = unsafe { result::graph::exec_destroy(graph.0) };
        }
    }

    pub(super) fn new_event(&self) -> Result<RawEvent> {
        self.bind()?;
        let created = result::event::create(sys::CUevent_flags_enum::CU_EVENT_DEFAULT);
        created.map(RawEvent).map_err(failed("cuEventCreate"))
    }

    pub(super) fn record(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        self.bind()?;
        // SAFETY: both exist, as their owners do.
        unsafe { result::event::record(event.0, stream.0) }.map_err(failed("cuEventRecord"))
    }

    pub(super) fn elapsed(&self, from: RawEvent, to: RawEvent) -> Result<f32> {
        self.bind()?;
        // SAFETY: both exist, as their owners do.
        unsafe {
            result::event::synchronize(to.0).map_err(failed("cuEventSynchronize"))?;
            result::event::elapsed(from.0, to.0).map_err(failed("cuEventElapsedTime"))
        }
    }

    pub(super) fn destroy_event(&self, event: RawEvent) {
        if self.bind().is_ok() {
            // SAFETY: events are destroyed by their owner, once.
            let _ = unsafe { result::event::destroy(event.0) };
        }
    }

    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(failed("cuCtxSetCurrent"))
    }
}

/// A capture that this thread is in. It ends in any case, also when the work fails or panics.
struct Capture(RawStream);

impl Capture {
    fn begin(stream: RawStream) -> Result<Self> {
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream exists, as its owner does.
        unsafe { result::stream::begin_capture(stream.0, mode) }.map_err(failed("cuStreamBeginCapture"))?;
        IS_CAPTURING.set(true);
        Ok(Self(stream))
    }

    fn end(self) -> Result<sys::CUgraph> {
        let stream = self.0;
        std::mem::forget(self);
        Self::end_on(stream)
    }

    fn end_on(stream: RawStream) -> Result<sys::CUgraph> {
        IS_CAPTURING.set(false);
        // SAFETY: the stream exists, as its owner does.
        unsafe { result::stream::end_capture(stream.0) }.map_err(failed("cuStreamEndCapture"))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Ok(graph) = Self::end_on(self.0) {
            // SAFETY: the graph was just captured, and nobody has it.
            let _ = unsafe { result::graph::destroy(graph) };
        }
    }
}

/// An attribute of a launch that says nothing.
fn no_attribute() -> sys::CUlaunchAttribute {
    // SAFETY: an attribute is plain data, and zeros are valid for each of its members.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Blocks of a launch are in clusters.
fn in_clusters([x, y, z]: [u32; 3]) -> sys::CUlaunchAttribute {
    let mut attribute = no_attribute();
    attribute.id = sys::CUlaunchAttributeID_enum::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attribute.value.clusterDim = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z };
    attribute
}

/// A launch may begin before the one before it has ended.
fn programmatic() -> sys::CUlaunchAttribute {
    let mut attribute = no_attribute();
    attribute.id = sys::CUlaunchAttributeID_enum::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attribute.value.programmaticStreamSerializationAllowed = 1;
    attribute
}

fn failed(call: &'static str) -> impl Fn(DriverError) -> Error {
    move |error| Error::Driver { call, why: error.to_string() }
}
