//! Tensor-core products, and the instructions that move matrices into and out of a warp's registers.
//!
//! `fragments` says which lane holds which element, `mma_formats` what an element's bits mean, and `product` multiplies
//! what lies so; they serve the others.
//! A family that multiplies matrices belongs here, wherever its operands lie: `wgmma` finds them in shared memory
//! by a `wgmma_descriptor`, knows the shapes of a `wgmma_type`, and computes in `wgmma_multiply`.

pub(crate) mod fragments;
pub(crate) mod matrix;
pub(crate) mod mma;
pub(crate) mod mma_formats;
pub(crate) mod product;
mod rounded;
pub(crate) mod wgmma;
mod wgmma_descriptor;
mod wgmma_multiply;
mod wgmma_type;
