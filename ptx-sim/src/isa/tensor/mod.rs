//! Tensor-core products, and the instructions that move matrices into and out of a warp's registers.
//!
//! `fragments` says which lane holds which element, and `mma_formats` what an element's bits mean; both serve the others.
//! A family that multiplies matrices belongs here, wherever its operands lie.

pub(crate) mod fragments;
pub(crate) mod matrix;
pub(crate) mod mma;
pub(crate) mod mma_formats;
