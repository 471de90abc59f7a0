//! Recovery of converted models: the student, whose attention is latent, learns from the original.
#![deny(missing_docs)]

pub mod ops;

pub mod frame;
pub mod original;
pub mod step;
pub mod student;
pub mod weight;
