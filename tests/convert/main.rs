//! The conversion of dense attention to latent attention, held against plain f64 attention.
#![cfg(feature = "convert")]

mod equivalence;

mod oracle;
mod partial_rope;
mod samples;
