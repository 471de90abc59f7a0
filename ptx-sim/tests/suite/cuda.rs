//! A GPU as a back end: what the simulator does, hardware has to do too.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::{CudaContext, DriverError, result, sys};
use ptx_sim::tensor_map::Tiled;

use crate::cases::Case;
use crate::run::{Backend, ptx};

/// The driver compiles the suite's PTX.
pub struct Cuda {
    context: Arc<CudaContext>,
    modules: HashMap<&'static str, sys::CUmodule>,
}

impl Cuda {
    /// The GPU of this number.
    pub fn new(number: usize) -> Self {
        Self { context: CudaContext::new(number).unwrap(), modules: HashMap::new() }
    }

    /// Whether the GPU runs a file's instructions: some are Hopper's own.
    fn runs(&self, file: &str) -> bool {
        !file.ends_with("_90") || self.context.compute_capability().unwrap() == (9, 0)
    }

    fn load(&mut self, file: &'static str) -> sys::CUmodule {
        *self.modules.entry(file).or_insert_with(|| {
            let source = CString::new(ptx(file)).unwrap();
            // SAFETY: the source ends with a zero, and the driver copies it.
            let loaded = unsafe { result::module::load_data(source.as_ptr().cast()) };
            loaded.unwrap_or_else(|error| panic!("{file}.ptx: {error}"))
        })
    }
}

/// The launch attribute that asks for clusters of so many blocks along x.
fn cluster_dimension(blocks: u32) -> sys::CUlaunchAttribute {
    let mut value = sys::CUlaunchAttributeValue { pad: [0; 64] };
    value.clusterDim = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: blocks, y: 1, z: 1 };
    let id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    sys::CUlaunchAttribute { id, pad: [0; 4], value }
}

impl Backend for Cuda {
    fn run(&mut self, case: &Case, input: &[u64], words: usize) -> Option<Vec<u64>> {
        if !self.runs(case.file) {
            println!("{} of {}: skipped, this GPU does not have the instruction", case.kernel, case.file);
            return None;
        }
        self.context.bind_to_thread().unwrap();
        let module = self.load(case.file);
        let name = CString::new(case.kernel.as_str()).unwrap();
        let n = case.rows.len() as u32;
        let mut result = vec![0u64; words];
        // SAFETY: the kernel takes two arrays of that many words, their number of rows and `extra`, as the parameter
        // buffer has them; the launch is over before the arrays are freed.
        unsafe {
            let function = result::module::get_function(module, name).unwrap();
            let (from, to) = (result::malloc_sync(8 * input.len()).unwrap(), result::malloc_sync(8 * words).unwrap());
            result::memcpy_htod_sync(from, input).unwrap();
            result::memcpy_htod_sync(to, &result).unwrap();
            let mut params: Vec<u8> = [from, to].iter().flat_map(|pointer| pointer.to_le_bytes()).collect();
            params.extend(n.to_le_bytes());
            params.extend(&case.extra);
            for map in &case.maps {
                let map = tensor_map(&map.at(from, to)).unwrap_or_else(|error| panic!("{}: {error}", case.kernel));
                params.resize(params.len().next_multiple_of(128), 0);
                params.extend(map.opaque.iter().flat_map(|word| word.to_le_bytes()));
            }
            let mut size = params.len();
            // CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE and CU_LAUNCH_PARAM_END of cuda.h.
            let key = std::ptr::without_provenance_mut::<c_void>;
            let mut extra =
                [key(1), params.as_mut_ptr().cast(), key(2), std::ptr::from_mut(&mut size).cast::<c_void>(), key(0)];
            // More than this a function may have when it is told so, and not otherwise.
            if case.dynamic_shared > 48 << 10 {
                let most = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                sys::cuFuncSetAttribute(function, most, case.dynamic_shared as i32).result().unwrap();
            }
            let mut attributes = [cluster_dimension(case.cluster)];
            let config = sys::CUlaunchConfig {
                gridDimX: n.div_ceil(case.threads),
                gridDimY: 1,
                gridDimZ: 1,
                blockDimX: case.threads,
                blockDimY: 1,
                blockDimZ: 1,
                sharedMemBytes: case.dynamic_shared as u32,
                hStream: std::ptr::null_mut(),
                attrs: attributes.as_mut_ptr(),
                numAttrs: u32::from(case.cluster > 1),
            };
            for _ in 0..case.launches {
                let launched =
                    sys::cuLaunchKernelEx(&raw const config, function, std::ptr::null_mut(), extra.as_mut_ptr());
                launched.result().unwrap_or_else(|error| panic!("{}: {error}", case.kernel));
            }
            result::ctx::synchronize().unwrap_or_else(|error| panic!("{}: {error}", case.kernel));
            result::memcpy_dtoh_sync(&mut result, to).unwrap();
            result::free_sync(from).unwrap();
            result::free_sync(to).unwrap();
        }
        Some(result)
    }
}

/// The driver's tensor map of a tensor that the simulator takes too.
fn tensor_map(tiled: &Tiled) -> Result<sys::CUtensorMap, DriverError> {
    tiled.encode().unwrap_or_else(|error| panic!("{error}"));
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    // SAFETY: the lists have as many values as the driver reads, which `encode` checks. The enumerations are 32-bit
    // numbers, numbered as the driver's, and those that `encode` takes are in the driver's since there are tensor maps.
    unsafe {
        sys::cuTensorMapEncodeTiled(
            &raw mut map,
            std::mem::transmute::<u32, sys::CUtensorMapDataType>(tiled.data_type as u32),
            tiled.global_dim.len() as u32,
            std::ptr::without_provenance_mut(tiled.global_address as usize),
            tiled.global_dim.as_ptr(),
            tiled.global_strides.as_ptr(),
            tiled.box_dim.as_ptr(),
            tiled.element_strides.as_ptr(),
            std::mem::transmute::<u32, sys::CUtensorMapInterleave>(tiled.interleave as u32),
            std::mem::transmute::<u32, sys::CUtensorMapSwizzle>(tiled.swizzle as u32),
            std::mem::transmute::<u32, sys::CUtensorMapL2promotion>(tiled.l2_promotion as u32),
            std::mem::transmute::<u32, sys::CUtensorMapFloatOOBfill>(tiled.oob_fill as u32),
        )
        .result()?;
    }
    Ok(map)
}
