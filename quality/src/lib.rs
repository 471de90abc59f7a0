//! Tables of what conversion and recovery cost a model.
#![deny(missing_docs)]

pub mod args;
pub mod bench;
pub mod context;
pub mod others;
pub mod tables;
