//! Room for variables: their sizes and places, and how many bytes a module may ask for.

use crate::ast::Variable;
use crate::decode::DecodeError;
use crate::exec::{FRAME_LOCAL, FRAME_PARAMS};

/// Most bytes of a module's variables in each space, so that a few bytes of PTX cannot ask for all of a computer's
/// memory. Shared and local memory are limited far above what a block or a thread can have: a launch says what fits.
pub(super) const GLOBAL_BYTES: usize = 1 << 30;
pub(super) const CONSTANT_BYTES: usize = 11 << 16;
pub(super) const SHARED_BYTES: usize = 1 << 20;
pub(super) const LOCAL_BYTES: usize = FRAME_LOCAL / 2;
pub(super) const PARAM_BYTES: usize = FRAME_PARAMS / 2;

/// Bytes of `count` elements of a variable.
pub(super) fn size_of(variable: &Variable, count: usize) -> usize {
    variable.ty.size() * variable.vector * count
}

/// Takes room for a variable of `count` elements behind `end`, and returns where it begins.
pub(super) fn reserve(end: &mut usize, variable: &Variable, count: usize, limit: usize) -> Result<usize, DecodeError> {
    let size = size_of(variable, count);
    let start = end.checked_next_multiple_of(variable.align.max(1));
    match start.and_then(|start| Some((start, start.checked_add(size)?))) {
        Some((start, behind)) if behind <= limit => {
            *end = behind;
            Ok(start)
        }
        _ => {
            let what = format!("variable `{}` of {size} bytes in {:?} memory", variable.name, variable.space);
            Err(DecodeError::new(variable.line, format!("{what}: more than {limit} bytes in all")))
        }
    }
}
