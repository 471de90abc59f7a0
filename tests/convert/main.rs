//! The conversion of dense attention to latent attention, held against plain f64 attention.
#![cfg(feature = "convert")]

mod basis;
mod equivalence;
mod errors;
mod low_rank;
mod oracle;
mod partial_rope;
mod samples;
mod shared_key;
