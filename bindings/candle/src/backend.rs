//! What computes.

use candle_core::{DType, Tensor};

use crate::error::Result;
use crate::kernels::Kernels;

/// What an [`Mla`](crate::Mla) does its work with.
#[derive(Debug)]
pub(crate) enum Backend {
    Reference,
    Kernels(Box<Kernels>),
}

/// Types of numbers that CPU tensors may hold.
static FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::BF16, DType::F16];

impl Backend {
    /// Whether it works on CPU tensors as they are: of any type, and nothing is refused late.
    pub fn is_on_host(&self) -> bool {
        match self {
            Self::Reference => true,
            Self::Kernels(kernels) => kernels.memory().is_host(),
        }
    }

    /// What numbers may be stored as, where kernels read them as `types`.
    pub fn types(&self, types: &'static [DType]) -> &'static [DType] {
        if self.is_on_host() { &FLOATS } else { types }
    }
}

/// A tensor's numbers as kernels read them: the tensor itself, if it holds such.
pub(crate) fn as_read(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.to_dtype(DType::BF16)?)
}
