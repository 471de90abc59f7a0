//! Named tensors in host memory, as a dump holds them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use half::bf16;
use latent_attention::device::{Buffer, Device, Element};
use latent_attention::{Error, Result};
use safetensors::Dtype;

/// A type of number that dumps hold, little-endian.
pub(crate) trait Number: Element {
    const DTYPE: Dtype;
    fn to_bytes(values: &[Self]) -> Vec<u8>;
    fn of_bytes(bytes: &[u8]) -> Vec<Self>;
    /// Exact for the numbers that are compared.
    fn wide(self) -> f64;
}

macro_rules! number {
    ($($ty:ty, $dtype:ident, $wide:expr;)*) => {$(
        impl Number for $ty {
            const DTYPE: Dtype = Dtype::$dtype;

            fn to_bytes(values: &[Self]) -> Vec<u8> {
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            }

            fn of_bytes(bytes: &[u8]) -> Vec<Self> {
                bytes.as_chunks().0.iter().map(|&raw| <$ty>::from_le_bytes(raw)).collect()
            }

            fn wide(self) -> f64 {
                let wide: fn($ty) -> f64 = $wide;
                wide(self)
            }
        }
    )*};
}

number! {
    u8, U8, f64::from;
    i32, I32, f64::from;
    u32, U32, f64::from;
    i64, I64, |value| value as f64;
    u64, U64, |value| value as f64;
    f32, F32, f64::from;
    bf16, BF16, bf16::to_f64;
}

/// Numbers as f64.
pub(crate) fn wide<T: Number>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| value.wide()).collect()
}

/// bf16 numbers as f32, exactly.
pub(crate) fn single(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|value| value.to_f32()).collect()
}

/// One tensor, as a file holds it.
#[derive(Clone, Debug)]
pub(crate) struct HostTensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Numbers in row-major order, little-endian.
    pub bytes: Vec<u8>,
}

/// The tensors of one case by name.
#[derive(Clone, Debug)]
pub(crate) struct Tensors {
    /// The file that they are from or could be from, for messages.
    source: PathBuf,
    by_name: BTreeMap<String, HostTensor>,
}

impl Tensors {
    pub fn new(source: PathBuf, by_name: BTreeMap<String, HostTensor>) -> Self {
        Self { source, by_name }
    }

    pub fn source(&self) -> &PathBuf {
        &self.source
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, &HostTensor)> {
        self.by_name.iter()
    }

    /// Adds or replaces a tensor.
    pub fn put<T: Number>(&mut self, name: &str, shape: &[usize], values: &[T]) {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
        let tensor = HostTensor { dtype: T::DTYPE, shape: shape.to_vec(), bytes: T::to_bytes(values) };
        self.by_name.insert(name.into(), tensor);
    }

    /// The numbers of a tensor that has to have this type and shape.
    ///
    /// # Errors
    /// [`Error::Tensor`] if there is no such tensor or it has not.
    pub fn get<T: Number>(&self, name: &str, shape: &[usize]) -> Result<Vec<T>> {
        let expected = || format!("{shape:?} {}", T::DTYPE);
        let tensor = self.find(name, expected)?;
        if tensor.shape == shape && tensor.dtype == T::DTYPE {
            Ok(T::of_bytes(&tensor.bytes))
        } else {
            Err(self.unfit(name, expected(), format!("{:?} {}", tensor.shape, tensor.dtype)))
        }
    }

    /// The sizes of a tensor that has to have N dimensions.
    pub fn sizes<const N: usize>(&self, name: &str) -> Result<[usize; N]> {
        let expected = || format!("{N} dimensions");
        let shape = &self.find(name, expected)?.shape;
        shape.as_slice().try_into().map_err(|_| self.unfit(name, expected(), format!("{shape:?}")))
    }

    /// A copy in device memory.
    pub fn upload<T: Number>(&self, device: &Device, name: &str, shape: &[usize]) -> Result<Buffer<T>> {
        device.upload(&self.get(name, shape)?)
    }

    fn find(&self, name: &str, expected: impl Fn() -> String) -> Result<&HostTensor> {
        self.by_name.get(name).ok_or_else(|| self.unfit(name, expected(), "no such tensor".into()))
    }

    fn unfit(&self, name: &str, expected: String, got: String) -> Error {
        Error::Tensor { name: name.into(), path: self.source.clone(), expected, got }
    }
}
