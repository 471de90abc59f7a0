//! Runs PTX on the CPU, with a checker and a meter.
//!
//! A [`Machine`] has [memory](memory::Memory) and loads [modules](Module) of PTX. [`Machine::launch`] runs a kernel of
//! one with a block of [parameters](Params), [tensor maps](tensor_map) among them, and returns a [`Report`]: what the
//! [meter](meter::Meter) counted, and what the checker [found](fault::Finding). [`check`] tells whether a file can be
//! run; [`parse::parse`] reads PTX alone.
//!
#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod assemble;
pub mod ast;
mod clocks;
mod decode;
mod exec;
pub mod fault;
mod isa;
mod limits;
mod machine;
pub mod memory;
pub mod meter;
mod params;
pub mod parse;
pub mod profile;
mod shared;
pub mod tensor_map;

pub use decode::DecodeError;
pub use limits::Limits;
pub use machine::{Launch, LaunchError, LoadError, Machine, Module, Report, check};
pub use params::Params;
