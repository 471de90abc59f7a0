//! What `cuTensorMapEncodeTiled` is documented to refuse, and what the simulator cannot run.

use super::types::{Interleave, OobFill, Swizzle};
use super::{MOST_DIMENSIONS, Tiled};

/// The global address, strides and rows of a box are multiples of this many bytes.
const GRANULE: u64 = 16;

/// Strides are smaller than this many bytes.
const STRIDES_END: u64 = 1 << 40;

/// Most elements along a dimension of a tensor.
const LONGEST_DIMENSION: u64 = 1 << 32;

/// Most elements along a dimension of a box.
const LONGEST_BOX: u32 = 256;

/// Largest element stride.
const LARGEST_STEP: u32 = 8;

/// Why there is no tensor map. Arguments have the names that the driver gives them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorMapError {
    /// The driver refuses it too, by `CUDA_ERROR_INVALID_VALUE`.
    #[error("`{argument}`: {why}")]
    Invalid {
        /// The argument.
        argument: String,
        /// What is wrong with it.
        why: String,
    },
    /// The driver takes it, on some devices at least, and the simulator does not.
    #[error("`{argument}`: {what} is not supported by the simulator")]
    Unsupported {
        /// The argument.
        argument: String,
        /// What is missing.
        what: String,
    },
}

fn invalid(argument: impl Into<String>, why: impl Into<String>) -> Result<(), TensorMapError> {
    Err(TensorMapError::Invalid { argument: argument.into(), why: why.into() })
}

fn unsupported(argument: &str, what: impl Into<String>) -> Result<(), TensorMapError> {
    Err(TensorMapError::Unsupported { argument: argument.into(), what: what.into() })
}

impl Tiled {
    /// Returns an error unless this is a tensor map that the driver would make and the simulator can use.
    pub(super) fn check(&self) -> Result<(), TensorMapError> {
        let Some(element) = self.data_type.size() else {
            return unsupported("tensorDataType", format!("CU_TENSOR_MAP_DATA_TYPE_{}", self.data_type.name()));
        };
        match self.interleave {
            Interleave::None => {}
            Interleave::B16 => return unsupported("interleave", "CU_TENSOR_MAP_INTERLEAVE_16B"),
            Interleave::B32 => return unsupported("interleave", "CU_TENSOR_MAP_INTERLEAVE_32B"),
        }
        match self.swizzle {
            Swizzle::None | Swizzle::B32 | Swizzle::B64 | Swizzle::B128 => {}
            Swizzle::B128Atom32 => return unsupported("swizzle", "CU_TENSOR_MAP_SWIZZLE_128B_ATOM_32B"),
            Swizzle::B128Atom32Flip8 => return unsupported("swizzle", "CU_TENSOR_MAP_SWIZZLE_128B_ATOM_32B_FLIP_8B"),
            Swizzle::B128Atom64 => return unsupported("swizzle", "CU_TENSOR_MAP_SWIZZLE_128B_ATOM_64B"),
        }
        self.check_lengths()?;
        self.check_tensor()?;
        self.check_box(element as u64)?;
        if self.oob_fill == OobFill::Nan && !self.data_type.is_float() {
            let name = self.data_type.name();
            return invalid("oobFill", format!("NaNs are for floating-point types, not for {name}"));
        }
        Ok(())
    }

    /// The rank, and that every argument has an element for each dimension.
    fn check_lengths(&self) -> Result<(), TensorMapError> {
        let rank = self.rank();
        if !(1..=MOST_DIMENSIONS).contains(&rank) {
            return invalid("tensorRank", format!("{rank} dimensions, where 1 to {MOST_DIMENSIONS} are possible"));
        }
        let lists = [
            ("globalStrides", self.global_strides.len(), rank - 1),
            ("boxDim", self.box_dim.len(), rank),
            ("elementStrides", self.element_strides.len(), rank),
        ];
        for (argument, length, wanted) in lists {
            if length != wanted {
                return invalid(argument, format!("{length} values, where a tensor of rank {rank} needs {wanted}"));
            }
        }
        Ok(())
    }

    fn check_tensor(&self) -> Result<(), TensorMapError> {
        if !self.global_address.is_multiple_of(GRANULE) {
            let address = self.global_address;
            return invalid("globalAddress", format!("{address:#x} is not a multiple of {GRANULE} bytes"));
        }
        for (i, &dim) in self.global_dim.iter().enumerate() {
            if !(1..=LONGEST_DIMENSION).contains(&dim) {
                return invalid(format!("globalDim[{i}]"), format!("{dim} elements, where 1 to 2^32 are possible"));
            }
        }
        for (i, &stride) in self.global_strides.iter().enumerate() {
            let argument = format!("globalStrides[{i}]");
            if !stride.is_multiple_of(GRANULE) {
                return invalid(argument, format!("{stride} is not a multiple of {GRANULE} bytes"));
            }
            if stride >= STRIDES_END {
                return invalid(argument, format!("{stride} bytes, where less than 2^40 are possible"));
            }
        }
        Ok(())
    }

    /// The box, for elements of so many bytes.
    fn check_box(&self, element: u64) -> Result<(), TensorMapError> {
        for (i, &dim) in self.box_dim.iter().enumerate() {
            if !(1..=LONGEST_BOX).contains(&dim) {
                let why = format!("{dim} elements, where 1 to {LONGEST_BOX} are possible");
                return invalid(format!("boxDim[{i}]"), why);
            }
        }
        for (i, &step) in self.element_strides.iter().enumerate() {
            if !(1..=LARGEST_STEP).contains(&step) {
                let why = format!("{step}, where 1 to {LARGEST_STEP} are possible");
                return invalid(format!("elementStrides[{i}]"), why);
            }
        }
        let row = u64::from(self.box_dim[0]) * element;
        if !row.is_multiple_of(GRANULE) {
            let why = format!("{} elements of {element} bytes are no multiple of {GRANULE} bytes", self.box_dim[0]);
            return invalid("boxDim[0]", why);
        }
        match self.swizzle.span() {
            Some(span) if row > span => {
                invalid("boxDim[0]", format!("{row} bytes, where a swizzle of {span} bytes takes at most {span}"))
            }
            // Where rows begin that are shorter than the swizzle's span is not documented.
            Some(span) if row < span => {
                unsupported("boxDim[0]", format!("a row of {row} bytes, less than the {span} of the swizzle,"))
            }
            _ => Ok(()),
        }
    }
}
