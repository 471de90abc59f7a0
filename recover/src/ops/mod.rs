//! Differentiable operations on candle's tensors, with forward and backward written by hand.
//!
//! candle's own graph would hold an intermediate tensor for every multiplication, and its products compute the gradients
//! of both factors, of frozen weights too. These operations are nodes of that graph which keep no more than their inputs,
//! run on all cores, and skip what nobody asks for: a gradient is only computed of an argument that leads to a variable.
//!
//! On a GPU, the same functions are candle's operations (`primitives`), which candle differentiates.
//!
//! All of them take f32 or f64 (the latter so that their gradients can be checked tightly against finite differences),
//! contiguous or not, all arguments on one device. Rows are tokens: `[tokens, width]`, where `tokens` are sequences of equal length
//! one after the other.

mod attention;
mod divergence;
#[cfg(test)]
mod gradient_check;
mod hidden_error;
mod inner;
mod linear;
mod node;
mod primitives;
#[cfg(test)]
pub(crate) mod primitives_tests;
mod product;
mod quantise;
mod real;
mod rms_norm;
mod rope;
mod swiglu;

pub use attention::{causal_attention, latent_attention};
pub use divergence::{Compared, compare, divergence};
pub use hidden_error::hidden_error;
pub use inner::inner;
pub use linear::linear;
pub(crate) use primitives::by_hand;
pub use quantise::{Stored, StoredPart, fake_quantise};
pub use rms_norm::rms_norm;
pub use rope::{Rotation, rotate};
pub use swiglu::swiglu;
