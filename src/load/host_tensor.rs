//! A tensor in host memory, as safetensors files hold it.

use std::borrow::Cow;

use safetensors::{Dtype, View};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostTensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Numbers in row-major order, little-endian.
    pub bytes: Vec<u8>,
}

impl View for &HostTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
