//! From syntax to a [`Program`](crate::exec::Program): gives every name its place and every instruction its closure.
//!
//! `module` places the variables and assembles the functions; `function` resolves labels and calls, which move lanes,
//! and hands every other instruction to the `families` until one takes it; `effect` says who notices an instruction,
//! and `places` which registers may share a place, and `flow` which ones it reads and writes. A new family is a file in
//! `isa` and a line in `families`.

mod effect;
mod families;
mod flow;
mod function;
mod module;
mod places;
mod products;
mod variables;

pub(crate) use module::assemble;
