//! Tensor maps: what `cp.async.bulk.tensor` is told of a tensor in global memory (PTX ISA 5.5.8).
//!
//! [`Tiled`] has the arguments of the CUDA driver's `cuTensorMapEncodeTiled` under the same names, and
//! [`Tiled::encode`] refuses what that function is documented to refuse, with an error that names the argument. What
//! the driver takes and the simulator cannot run (im2col, interleaved layouts, packed 4-bit and 6-bit types, swizzles
//! of 32-byte and 64-byte atoms) is an error as well, one of another kind.
//!
//! A tensor map is opaque: on a GPU the driver makes it, for that GPU. The 128 bytes made here are an encoding of the
//! simulator's own, which no GPU understands; nor does the simulator understand a map that a driver made. They begin
//! with a mark and carry a checksum, so that a kernel's pointer to anything else is recognised as no tensor map.
//!
//! A kernel gets its map as CUDA says: as a parameter `const __grid_constant__ CUtensorMap`, in constant or in global
//! memory. Its address has to be a multiple of 64; CUDA 13 aligns the type to 128.
//!
//! ```
//! use ptx_sim::tensor_map::{DataType, Swizzle, TensorMapError, Tiled};
//! use ptx_sim::{Machine, Params};
//!
//! // A row-major matrix of 100 rows and 256 columns of f16, in boxes of 8 rows and 64 columns.
//! let mut machine = Machine::default();
//! let matrix = machine.memory.allocate_zeros(100 * 256 * 2)?;
//! let map = Tiled::new(DataType::F16, matrix, &[256, 100], &[512], &[64, 8]).with_swizzle(Swizzle::B128).encode()?;
//! let params = Params::new().bytes_aligned(map.bytes(), 128);
//! assert_eq!(params.bytes().len(), 128);
//!
//! let error = Tiled::new(DataType::F16, matrix, &[256, 100], &[500], &[64, 8]).encode().unwrap_err();
//! assert_eq!(error.to_string(), "`globalStrides[0]`: 500 is not a multiple of 16 bytes");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod check;
mod opaque;
mod types;

pub use check::TensorMapError;
pub use types::{DataType, Interleave, L2Promotion, OobFill, Swizzle};

/// Bytes of a tensor map.
pub(crate) const TENSOR_MAP_BYTES: usize = 128;

/// The address of a tensor map is a multiple of this many bytes.
pub(crate) const TENSOR_MAP_ALIGNMENT: u64 = 64;

/// Most dimensions of a tensor.
pub(crate) const MOST_DIMENSIONS: usize = 5;

/// A tensor map of the simulator's, to be passed to a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(128))]
pub struct TensorMap {
    bytes: [u8; TENSOR_MAP_BYTES],
}

impl TensorMap {
    /// Its bytes, for a kernel's parameter block or for memory.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 128] {
        &self.bytes
    }
}

/// The arguments of `cuTensorMapEncodeTiled`; the rank of the tensor is the length of `global_dim`.
///
/// Dimension 0 is the one whose elements lie side by side. The driver's documentation also shows how the strides of a
/// tensor with padding come about; as its code is no requirement, tensors that overlap themselves are taken here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiled {
    /// `tensorDataType`: the type of an element.
    pub data_type: DataType,
    /// `globalAddress`: where the tensor begins in global memory.
    pub global_address: u64,
    /// `globalDim`: elements along each dimension.
    pub global_dim: Vec<u64>,
    /// `globalStrides`: bytes from one element to the next along each dimension but the first, whose stride is the
    /// element's size.
    pub global_strides: Vec<u64>,
    /// `boxDim`: elements that a box spans along each dimension.
    pub box_dim: Vec<u32>,
    /// `elementStrides`: along dimension `i`, each `elementStrides[i]`-th element of the box is copied, beginning with
    /// the first. That of dimension 0 is ignored.
    pub element_strides: Vec<u32>,
    /// `interleave`: how slices of channels lie in memory.
    pub interleave: Interleave,
    /// `swizzle`: how 16-byte chunks change places in shared memory.
    pub swizzle: Swizzle,
    /// `l2Promotion`: how much the L2 cache fetches at once; it changes no result.
    pub l2_promotion: L2Promotion,
    /// `oobFill`: what is loaded for elements outside of the tensor.
    pub oob_fill: OobFill,
}

impl Tiled {
    /// A tensor without interleave and swizzle, each element of a box copied, and zeros outside of it.
    #[must_use]
    pub fn new(
        data_type: DataType,
        global_address: u64,
        global_dim: &[u64],
        global_strides: &[u64],
        box_dim: &[u32],
    ) -> Self {
        Self {
            data_type,
            global_address,
            global_dim: global_dim.to_vec(),
            global_strides: global_strides.to_vec(),
            box_dim: box_dim.to_vec(),
            element_strides: vec![1; global_dim.len()],
            interleave: Interleave::None,
            swizzle: Swizzle::None,
            l2_promotion: L2Promotion::None,
            oob_fill: OobFill::Zeros,
        }
    }

    /// The same with a swizzle.
    #[must_use]
    pub fn with_swizzle(self, swizzle: Swizzle) -> Self {
        Self { swizzle, ..self }
    }

    /// The same with element strides.
    #[must_use]
    pub fn with_element_strides(self, element_strides: &[u32]) -> Self {
        Self { element_strides: element_strides.to_vec(), ..self }
    }

    /// The same with another fill for elements outside of the tensor.
    #[must_use]
    pub fn with_oob_fill(self, oob_fill: OobFill) -> Self {
        Self { oob_fill, ..self }
    }

    /// The same with another L2 promotion.
    #[must_use]
    pub fn with_l2_promotion(self, l2_promotion: L2Promotion) -> Self {
        Self { l2_promotion, ..self }
    }

    /// The same with an interleaved layout.
    #[must_use]
    pub fn with_interleave(self, interleave: Interleave) -> Self {
        Self { interleave, ..self }
    }

    /// Makes the tensor map.
    ///
    /// # Errors
    /// [`TensorMapError`] names the argument and what is wrong with it.
    pub fn encode(&self) -> Result<TensorMap, TensorMapError> {
        self.check()?;
        Ok(TensorMap { bytes: self.to_bytes() })
    }

    /// What a tensor map says; `None` if the bytes are none that [`Tiled::encode`] made.
    #[must_use]
    pub fn decode(bytes: &[u8; 128]) -> Option<Self> {
        Self::from_bytes(bytes).filter(|tiled| tiled.check().is_ok())
    }

    /// Dimensions of the tensor.
    pub(crate) fn rank(&self) -> usize {
        self.global_dim.len()
    }
}
