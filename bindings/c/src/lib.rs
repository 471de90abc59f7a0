//! The C library: `include/latent_attention.h`, which `cargo xtask bindings` makes of this crate.
//!
//! Every function checks its arguments through the safe tier of [`ops`](latent_attention::ops) and
//! [`device`](latent_attention::device), so a refusal in C has the words of one in Rust. Nothing unwinds into the caller:
//! a panic is [`LaStatus::Internal`].
//!
//! What unsafe functions ask of their caller is said once, at the head of the header (`xtask/src/header.txt`): pointers
//! are null or point to what their type says, handles are those that this library made and has not destroyed, and
//! addresses lie in the device's memory.
#![allow(clippy::missing_safety_doc)] // As said above.

mod absorb;
mod combine;
mod data;
mod decode;
mod device;
mod gather;
mod memory;
mod rope_append;
mod status;
mod up_project;
mod version;

pub use absorb::*;
pub use combine::*;
pub use data::*;
pub use decode::*;
pub use device::*;
pub use gather::*;
pub use rope_append::*;
pub use status::*;
pub use up_project::*;
pub use version::*;
