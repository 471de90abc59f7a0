//! Instructions on the values of one lane, from registers to registers: integers, floats, conversions, moves.
//!
//! `numeric` makes closures of functions on typed values, and `rounding` rounds exact results; both serve the others. A
//! family that computes lane by lane belongs here, whatever the width of its values.

pub(crate) mod approximate;
pub(crate) mod bits;
pub(crate) mod carry;
pub(crate) mod compare;
pub(crate) mod convert;
pub(crate) mod data;
pub(crate) mod float;
pub(crate) mod half;
pub(crate) mod integer;
pub(crate) mod logic;
pub(crate) mod numeric;
pub(crate) mod rounding;
pub(crate) mod video;
