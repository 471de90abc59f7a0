//! The one error type of the crate.

use std::fmt::{self, Display, Formatter, Write};
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
    /// Two arguments are each fine but do not belong together, or an option's value is not one of those known. What is
    /// right for one of them is wrong for the other: the caller has to change one.
    #[error("{}: {}", Line(what), Line(why))]
    Config {
        /// The argument or option.
        what: String,
        /// Why it cannot be used.
        why: String,
    },
    /// What is asked for makes sense, but this crate, or the device, cannot do it: a size beyond what a kernel takes, part
    /// of a model that nothing here computes, what only a GPU has. Another way has to be taken.
    #[error("{}: {}", Line(what), Line(why))]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Where the limit is, or what is missing.
        why: String,
    },
    /// More than an operation was made for, such as query tokens of a batch: one that is made for more takes it.
    #[error("{}: {}", Line(what), Line(why))]
    Capacity {
        /// What is too much, with its size.
        what: String,
        /// The most that there may be.
        why: String,
    },
    /// Memory, a stream or a plan of one device is handed to something on another.
    #[error("{}: {}", Line(what), Line(why))]
    OtherDevice {
        /// The argument.
        what: String,
        /// Which device it is on, and on which it has to be.
        why: String,
    },
    /// A weight, an input or a factor is NaN or infinite.
    #[error("{}: {}", Line(what), Line(why))]
    NotFinite {
        /// Where the number is.
        what: String,
        /// The number.
        why: String,
    },
    /// The host has not enough memory. (A GPU's driver, and the simulator, say so in an [`Error::Driver`].)
    #[error("{}: {}", Line(what), Line(why))]
    OutOfMemory {
        /// What was to be held.
        what: String,
        /// What is too small for it.
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
    /// Memory does not begin where a kernel needs it to.
    #[error("{what}: expected {expected}, got address {got:#x}")]
    Alignment {
        /// The argument, by its name in the API.
        what: &'static str,
        /// The rule, for example `a multiple of 16 bytes`.
        expected: String,
        /// The address that was given.
        got: u64,
    },
    /// The caller's workspace is smaller than the operation's `workspace_bytes` says.
    #[error("workspace: expected at least {needed} bytes, got {got}")]
    WorkspaceTooSmall {
        /// Bytes that are needed.
        needed: usize,
        /// Bytes that were given.
        got: usize,
    },
    /// There is no NVIDIA driver on this machine.
    #[error("no NVIDIA driver: {why}")]
    NoDriver {
        /// What loading its library said.
        why: String,
    },
    /// The driver is older than the kernels' compiler.
    #[error("the NVIDIA driver supports CUDA {found}, the kernels need {needed}: install a newer driver")]
    DriverTooOld {
        /// CUDA version of the driver.
        found: String,
        /// Oldest version that will do.
        needed: String,
    },
    /// There is no such GPU.
    #[error("no GPU {ordinal}: the driver shows {count}")]
    NoDevice {
        /// The number asked for.
        ordinal: usize,
        /// Number of GPUs; they count from 0.
        count: usize,
    },
    /// The GPU is older than Ampere.
    #[error("{device} has compute capability {}.{}, the kernels need 8.0 (Ampere) or newer", capability.0, capability.1)]
    UnsupportedArch {
        /// The GPU's name.
        device: String,
        /// Its compute capability.
        capability: (i32, i32),
    },
    /// This build has no kernels that the device can run.
    #[error(
        "no image of csrc/{kernel_file}.cu for {device}; this build has {built:?}. Build with nvcc (`cargo xtask setup` \
         installs it) and without a CUDA_COMPUTE_CAP that leaves the device out"
    )]
    NoKernelImage {
        /// The file's name without its ending.
        kernel_file: &'static str,
        /// The device.
        device: String,
        /// Architectures that the build has it for.
        built: Vec<&'static str>,
    },
    /// The driver refused a call, or the simulator has not enough memory.
    #[error("{call}: {why}")]
    Driver {
        /// The driver's function, or what of the simulator.
        call: &'static str,
        /// Its error.
        why: String,
    },
    /// A kernel could not be loaded, the simulator found it doing something wrong, or an operation on the CPU panicked.
    #[error("kernel `{name}`: {why}")]
    Kernel {
        /// The kernel, or the file it is in.
        name: String,
        /// What is wrong.
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
    #[error("{path}: {}", Line(why))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A tensor in a checkpoint is missing, or has another shape or type than the model's configuration says.
    #[error("tensor `{}` in {path}: expected {}, got {}", Line(name), Line(expected), Line(got))]
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

/// A text that may quote a file, as part of a message: on one line and of bounded length, whatever the file holds.
struct Line<'a>(&'a str);

impl Line<'_> {
    /// Characters that are shown.
    const LONGEST: usize = 1000;
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (count, c) in self.0.chars().enumerate() {
            match c {
                _ if count == Self::LONGEST => return f.write_str(" ..."),
                _ if c.is_control() => c.escape_default().try_for_each(|part| f.write_char(part))?,
                _ => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Returns [`Error::NotFinite`] unless a factor or bound is a finite number.
pub(crate) fn check_finite(what: &str, value: f64) -> Result<()> {
    if value.is_finite() {
        Ok(())
    } else {
        Err(Error::NotFinite { what: format!("{what} {value}"), why: "must be finite".into() })
    }
}

/// Returns [`Error::Config`] unless `epsilon` can be added to the mean square under a norm's root.
pub(crate) fn check_epsilon(what: &str, epsilon: f32) -> Result<()> {
    if epsilon.is_finite() && epsilon >= 0.0 {
        return Ok(());
    }
    Err(Error::Config {
        what: format!("epsilon {epsilon} of the {what}"),
        why: "must be finite and not negative".into(),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_bounded_line_whatever_a_file_holds() {
        let text = || "a\r\n\0b".repeat(1000);
        let tensor = || Error::Tensor { name: text(), path: "f".into(), expected: text(), got: text() };
        let config = Error::Config { what: text(), why: text() };
        for error in [tensor(), config, Error::File { path: "f".into(), why: text() }] {
            let message = error.to_string();
            assert!(!message.contains(char::is_control) && message.len() < 7000, "{message}");
            assert!(message.contains("a\\r\\n\\u{0}b") && message.ends_with(" ..."), "{message}");
        }
        let config = Error::Config { what: "rank é".into(), why: "must be 1".into() };
        assert_eq!(config.to_string(), "rank é: must be 1");
    }
}
