//! A whole language model around an exchangeable attention: reading it from disk, its tokenizer, its blocks, and its
//! original attention. The demo and quality evaluate models with it, and recovery trains them.
#![deny(missing_docs)]

pub mod conversion;
pub mod dense;
pub mod evaluate;
pub mod latent;
pub mod loss;
pub mod model;
#[cfg(test)]
mod noise;
pub mod options;
pub mod own_text;
pub mod packed;
pub mod progress;
pub mod recipe;
pub mod tensors;
pub mod text;
pub mod tokenizer;
pub mod transformer;
pub mod worth;
