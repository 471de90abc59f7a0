//! The one error type of the crate.

use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can be wrong with what a caller hands in.
///
/// Each variant says what was expected and what was got. Nothing in the crate panics on input, and an
/// operation that returns an error has not written any of its outputs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model's sizes contradict each other.
    #[error("geometry: {field} must be {expected}, got {got}")]
    Geometry {
        /// The field of [`Geometry`](crate::Geometry) at fault.
        field: &'static str,
        /// The rule that the field must obey.
        expected: String,
        /// The value that was given.
        got: usize,
    },
    /// A tensor, slice or table has the wrong number of elements.
    #[error("{what}: expected {expected}, got {got}")]
    Shape {
        /// The argument, by its name in the API.
        what: &'static str,
        /// The expected shape with its meaning, for example `[tokens 4, latent 96] = 384 elements`.
        expected: String,
        /// What was given.
        got: String,
    },
    /// An index (slot, page id, position, frequency) lies outside of what it points into.
    #[error("{what} = {got} is outside of {bound}")]
    Index {
        /// The index, with the place it stands at, for example `page table [sequence 3, page 7]`.
        what: String,
        /// The value that was given.
        got: i64,
        /// The range that would be right.
        bound: String,
    },
    /// Two arguments are each fine but do not belong together, or an option's value is not one of those known.
    #[error("{what}: {why}")]
    Config {
        /// The argument or option.
        what: String,
        /// Why it cannot be used.
        why: String,
    },
    /// A matrix factorisation failed.
    #[error("{what} of a {rows} x {cols} matrix failed: {why}")]
    Numeric {
        /// The factorisation.
        what: &'static str,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
        /// What the factorisation reported.
        why: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said; part of the message, so not repeated as its source.
        cause: std::io::Error,
    },
    /// A file is not what its name says, is cut short, or misses a key.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A tensor in a checkpoint is missing, or has another shape or type than the model's configuration says.
    #[error("tensor `{name}` in {path}: expected {expected}, got {got}")]
    Tensor {
        /// The tensor's name in the file.
        name: String,
        /// The file or directory that was searched.
        path: PathBuf,
        /// Expected shape and type.
        expected: String,
        /// Found shape and type, or `no such tensor`.
        got: String,
    },
}

/// Returns [`Error::Shape`] unless `got` elements are as many as the product of the named `dims`.
pub(crate) fn check_len(what: &'static str, got: usize, dims: &[(&str, usize)]) -> Result<()> {
    let expected = dims.iter().fold(1usize, |product, (_, n)| product.saturating_mul(*n));
    if got == expected {
        return Ok(());
    }
    let dims: Vec<String> = dims.iter().map(|(name, n)| format!("{name} {n}")).collect();
    Err(Error::Shape {
        what,
        expected: format!("[{}] = {expected} elements", dims.join(", ")),
        got: format!("{got} elements"),
    })
}
