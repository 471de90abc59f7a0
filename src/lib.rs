//! Multi-head Latent Attention served from a 4-bit paged cache.
#![deny(missing_docs, unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

pub mod error;
pub mod geometry;
pub mod rope;
pub mod weights;

pub use error::{Error, Result};
pub use geometry::Geometry;
