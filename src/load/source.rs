//! Where tensors come from: one trait for all file formats, and the helpers that turn tensors into layer parts.

use std::path::Path;

use super::blocks::QuantizedMatrix;
use crate::error::{Error, Result};
use crate::weights::{Linear, Matrix};

/// A file or directory of named tensors, read one at a time.
///
/// Names and row orders are Hugging Face's whatever the file format, so layouts know nothing of formats. Nothing
/// is kept in memory between two reads.
pub trait TensorSource: Send + Sync {
    /// The file or directory, for messages.
    fn path(&self) -> &Path;

    /// The shape of a tensor, outermost dimension first, or `None` if there is no such tensor.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// Reads a tensor of floating-point (or dequantisable) numbers, row-major.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the tensor is missing, has another shape than `shape`, or holds a type that is not
    /// converted to f32; [`Error::Io`] if the file cannot be read.
    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>>;

    /// Reads a tensor of integers, row-major.
    ///
    /// # Errors
    /// As for [`TensorSource::read`]; a tensor of floating-point numbers is of a wrong type.
    fn read_integers(&self, name: &str, shape: &[usize]) -> Result<Vec<i64>>;

    /// Reads the matrix of number `index` of a tensor of matrices, `shape` long (`[matrices, rows, cols]`).
    ///
    /// # Errors
    /// As for [`TensorSource::read`]; a source that knows no such tensors says that it is missing.
    fn read_one_of(&self, name: &str, shape: [usize; 3], index: usize) -> Result<Vec<f32>> {
        let _ = index;
        Err(unfit(self.path(), name, format!("{shape:?} that can be read in parts"), None))
    }

    /// Reads a matrix of `rows` and `cols` as the file quantises it: what [`TensorSource::read`] dequantises, in the same
    /// order of rows. `None` if the file holds no blocks of a [`BlockFormat`](super::BlockFormat).
    ///
    /// # Errors
    /// As for [`TensorSource::read`].
    fn read_blocks(&self, name: &str, rows: usize, cols: usize) -> Result<Option<QuantizedMatrix>> {
        let _ = (name, rows, cols);
        Ok(None)
    }
}

/// The error for a tensor that is absent or unfit; `got` is its shape and type if there is one.
pub(crate) fn unfit(path: &Path, name: &str, expected: String, got: Option<String>) -> Error {
    Error::Tensor {
        name: name.to_owned(),
        path: path.to_owned(),
        expected,
        got: got.unwrap_or_else(|| "no such tensor".into()),
    }
}

/// The error for a tensor that the layout needs and the source does not have.
pub(crate) fn missing(source: &dyn TensorSource, name: &str, expected: &str) -> Error {
    unfit(source.path(), name, expected.to_owned(), None)
}

pub(crate) fn matrix(source: &dyn TensorSource, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
    Matrix::new(rows, cols, source.read(name, &[rows, cols])?)
}

pub(crate) fn optional_vector(source: &dyn TensorSource, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
    source.shape(name).map(|_| source.read(name, &[len])).transpose()
}

/// Reads `{module}.weight`, `[rows, cols]`, and `{module}.bias`, `[rows]`, if there is one.
pub(crate) fn linear(source: &dyn TensorSource, module: &str, rows: usize, cols: usize) -> Result<Linear> {
    let weight = matrix(source, &format!("{module}.weight"), rows, cols)?;
    let bias = optional_vector(source, &format!("{module}.bias"), rows)?;
    Ok(Linear { weight, bias })
}

/// The rows of a matrix whose height only the file knows, such as a latent rank.
pub(crate) fn rows_of(source: &dyn TensorSource, name: &str, cols: usize) -> Result<usize> {
    let expected = || format!("[any, {cols}]");
    match source.shape(name).as_deref() {
        Some(&[rows, found]) if found == cols => Ok(rows),
        Some(other) => Err(unfit(source.path(), name, expected(), Some(format!("{other:?}")))),
        None => Err(missing(source, name, &expected())),
    }
}
