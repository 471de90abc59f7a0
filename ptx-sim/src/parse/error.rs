//! Why a source is not PTX, and where.

/// Why a source is not PTX, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ParseError {
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
    /// What was expected, and what was found instead.
    pub message: String,
}

impl ParseError {
    /// An error at a byte of the source, which is on `line`.
    pub(super) fn new(source: &str, start: usize, line: u32, message: String) -> Self {
        let before = &source[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = u32::try_from(before[line_start..].chars().count()).unwrap_or(u32::MAX).saturating_add(1);
        Self { line, column, message }
    }
}

pub(super) type Result<T> = std::result::Result<T, ParseError>;
