//! The driver's enumerations, in its order, so that `as u32` is the driver's number.

/// Type of a tensor's elements: `CUtensorMapDataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DataType {
    /// `CU_TENSOR_MAP_DATA_TYPE_UINT8`, for any type of 1 byte.
    U8,
    /// `CU_TENSOR_MAP_DATA_TYPE_UINT16`.
    U16,
    /// `CU_TENSOR_MAP_DATA_TYPE_UINT32`.
    U32,
    /// `CU_TENSOR_MAP_DATA_TYPE_INT32`.
    S32,
    /// `CU_TENSOR_MAP_DATA_TYPE_UINT64`.
    U64,
    /// `CU_TENSOR_MAP_DATA_TYPE_INT64`.
    S64,
    /// `CU_TENSOR_MAP_DATA_TYPE_FLOAT16`.
    F16,
    /// `CU_TENSOR_MAP_DATA_TYPE_FLOAT32`.
    F32,
    /// `CU_TENSOR_MAP_DATA_TYPE_FLOAT64`.
    F64,
    /// `CU_TENSOR_MAP_DATA_TYPE_BFLOAT16`.
    Bf16,
    /// `CU_TENSOR_MAP_DATA_TYPE_FLOAT32_FTZ`: f32 whose subnormals become zeros when they are loaded.
    F32Ftz,
    /// `CU_TENSOR_MAP_DATA_TYPE_TFLOAT32`: f32 in global memory, rounded to tf32 when it is loaded.
    Tf32,
    /// `CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ`: both.
    Tf32Ftz,
    /// `CU_TENSOR_MAP_DATA_TYPE_16U4_ALIGN8B`: 16 packed 4-bit values in 8 bytes. Not supported.
    U4x16Align8,
    /// `CU_TENSOR_MAP_DATA_TYPE_16U4_ALIGN16B`: 16 packed 4-bit values in 16 bytes of shared memory. Not supported.
    U4x16Align16,
    /// `CU_TENSOR_MAP_DATA_TYPE_16U6_ALIGN16B`: 16 packed 6-bit values in 16 bytes of shared memory. Not supported.
    U6x16Align16,
}

impl DataType {
    /// Every type, in the driver's order.
    pub const ALL: [Self; 16] = [
        Self::U8,
        Self::U16,
        Self::U32,
        Self::S32,
        Self::U64,
        Self::S64,
        Self::F16,
        Self::F32,
        Self::F64,
        Self::Bf16,
        Self::F32Ftz,
        Self::Tf32,
        Self::Tf32Ftz,
        Self::U4x16Align8,
        Self::U4x16Align16,
        Self::U6x16Align16,
    ];

    /// The driver's name of the type, without the prefix that all have.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "UINT8",
            Self::U16 => "UINT16",
            Self::U32 => "UINT32",
            Self::S32 => "INT32",
            Self::U64 => "UINT64",
            Self::S64 => "INT64",
            Self::F16 => "FLOAT16",
            Self::F32 => "FLOAT32",
            Self::F64 => "FLOAT64",
            Self::Bf16 => "BFLOAT16",
            Self::F32Ftz => "FLOAT32_FTZ",
            Self::Tf32 => "TFLOAT32",
            Self::Tf32Ftz => "TFLOAT32_FTZ",
            Self::U4x16Align8 => "16U4_ALIGN8B",
            Self::U4x16Align16 => "16U4_ALIGN16B",
            Self::U6x16Align16 => "16U6_ALIGN16B",
        }
    }

    /// Bytes of an element; `None` for the packed types, whose elements are no whole bytes.
    #[must_use]
    pub fn size(self) -> Option<usize> {
        match self {
            Self::U8 => Some(1),
            Self::U16 | Self::F16 | Self::Bf16 => Some(2),
            Self::U32 | Self::S32 | Self::F32 | Self::F32Ftz | Self::Tf32 | Self::Tf32Ftz => Some(4),
            Self::U64 | Self::S64 | Self::F64 => Some(8),
            Self::U4x16Align8 | Self::U4x16Align16 | Self::U6x16Align16 => None,
        }
    }

    /// Whether elements are floating-point numbers.
    #[must_use]
    pub fn is_float(self) -> bool {
        match self {
            Self::F16 | Self::F32 | Self::F64 | Self::Bf16 | Self::F32Ftz | Self::Tf32 | Self::Tf32Ftz => true,
            Self::U8 | Self::U16 | Self::U32 | Self::S32 | Self::U64 | Self::S64 => false,
            Self::U4x16Align8 | Self::U4x16Align16 | Self::U6x16Align16 => false,
        }
    }
}

/// How slices of channels lie in memory: `CUtensorMapInterleave`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Interleave {
    /// `CU_TENSOR_MAP_INTERLEAVE_NONE`.
    None,
    /// `CU_TENSOR_MAP_INTERLEAVE_16B`. Not supported.
    B16,
    /// `CU_TENSOR_MAP_INTERLEAVE_32B`. Not supported.
    B32,
}

/// How 16-byte chunks of a box change places in shared memory: `CUtensorMapSwizzle`, PTX ISA 5.5.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Swizzle {
    /// `CU_TENSOR_MAP_SWIZZLE_NONE`.
    None,
    /// `CU_TENSOR_MAP_SWIZZLE_32B`: within 32 bytes.
    B32,
    /// `CU_TENSOR_MAP_SWIZZLE_64B`: within 64 bytes.
    B64,
    /// `CU_TENSOR_MAP_SWIZZLE_128B`: within 128 bytes.
    B128,
    /// `CU_TENSOR_MAP_SWIZZLE_128B_ATOM_32B`: chunks of 32 bytes within 128. Not supported.
    B128Atom32,
    /// `CU_TENSOR_MAP_SWIZZLE_128B_ATOM_32B_FLIP_8B`: the same with 8-byte halves exchanged. Not supported.
    B128Atom32Flip8,
    /// `CU_TENSOR_MAP_SWIZZLE_128B_ATOM_64B`: chunks of 64 bytes within 128. Not supported.
    B128Atom64,
}

impl Swizzle {
    /// Bytes within which chunks change places; `None` if they stay.
    pub(crate) fn span(self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::B32 => Some(32),
            Self::B64 => Some(64),
            Self::B128 | Self::B128Atom32 | Self::B128Atom32Flip8 | Self::B128Atom64 => Some(128),
        }
    }
}

/// How much the L2 cache fetches at once: `CUtensorMapL2promotion`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum L2Promotion {
    /// `CU_TENSOR_MAP_L2_PROMOTION_NONE`.
    None,
    /// `CU_TENSOR_MAP_L2_PROMOTION_L2_64B`.
    B64,
    /// `CU_TENSOR_MAP_L2_PROMOTION_L2_128B`.
    B128,
    /// `CU_TENSOR_MAP_L2_PROMOTION_L2_256B`.
    B256,
}

/// What is loaded for elements outside of the tensor: `CUtensorMapFloatOOBfill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum OobFill {
    /// `CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE`: zeros.
    Zeros,
    /// `CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA`: NaNs, of which `fma.oob` makes zeros. Their bits are not
    /// documented; here they are those of the format's canonical NaN.
    Nan,
}
