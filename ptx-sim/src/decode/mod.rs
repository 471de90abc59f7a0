//! What an instruction is written as: its operands, as the families ask for them, and the error that says why a family
//! refuses one.
//!
//! `operands` turns what stands in the source into places where an instruction finds its values; `names` knows what the
//! module and the function have declared; `agree` whether an operand is of the type that the instruction has for it.

mod agree;
mod error;
mod names;
mod operands;

pub use error::DecodeError;
pub(crate) use names::{Entity, Names};
pub(crate) use operands::Operands;
