//! Runs PTX on the CPU, with a checker and a meter.
#![deny(missing_docs)]

pub mod ast;
mod decode;
mod exec;
mod families;
pub mod fault;
mod machine;
pub mod memory;
pub mod meter;
mod params;
pub mod parse;
mod program;
mod shared;

pub use decode::DecodeError;
pub use machine::{Launch, LaunchError, Limits, LoadError, Machine, Module, Report, check};
pub use params::Params;
