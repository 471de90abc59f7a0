//! Multi-head Latent Attention served from a 4-bit paged cache.
//!
//! - [`geometry`] says what a model is, [`weights`] what a layer holds, [`rope`] which dimensions turn.
//! - [`cache`] says how bytes lie: int4 or bf16 latents and rotated keys in pages, specified to the bit.
//! - [`layer`] puts one attention layer's step together, on a device.
//! - [`reference`](mod@reference) says what each operation computes, in f64.
//! - [`image`] holds the CUDA kernels that this build compiled, if any.
//! - [`device`] is where operations run: a GPU, the CPU, or the simulator.
//! - [`ops`] checks an operation's arguments and launches its kernel.
//! - `convert` (feature) makes latent-attention weights of MHA/GQA weights, as MHA2MLA does.
//! - `load` (feature; `gguf` for GGUF files) reads and writes models.
//! - `latent-attention-c` and `latent-attention-candle`, crates of their own, are the C library and the operations over
//!   candle's tensors.
#![deny(missing_docs, unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

pub mod cache;
#[cfg(feature = "convert")]
pub mod convert;
mod cpu;
pub mod device;
pub mod error;
pub mod geometry;
pub mod image;
pub mod layer;
#[cfg(feature = "load")]
pub mod load;
pub mod ops;
pub mod reference;
pub mod rope;
pub mod splits;
pub mod sys;
mod warp;
pub mod weights;

/// The README's example is compiled with the documentation tests.
#[cfg(all(doctest, feature = "convert"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// So is its second half, a step of a layer.
#[cfg(doctest)]
#[doc = include_str!("../docs/using.md")]
struct Using;

pub use error::{Error, Result};
pub use geometry::Geometry;
