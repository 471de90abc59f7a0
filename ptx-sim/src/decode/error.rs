//! Why a module cannot be executed.

/// Why a module cannot be executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct DecodeError {
    /// Line in the PTX.
    pub line: u32,
    /// What is wrong: the instruction and why it is refused.
    pub message: String,
}

impl DecodeError {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}
