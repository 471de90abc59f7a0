//! Properties of `latent_attention::load`: what is written to disk by hand is read back as it was meant, whatever
//! the layout, and damaged files are errors.
#![cfg(feature = "load")]

#[cfg(feature = "gguf")]
#[path = "../common/backtrace.rs"]
mod backtrace;
mod damage;
mod deepseek;
mod experts;
mod fixture;
#[cfg(feature = "gguf")]
mod gguf;
#[cfg(feature = "gguf")]
mod gguf_header;
#[cfg(feature = "gguf")]
mod gguf_latent;
mod hugging_face;
mod mha2mla;
mod mistral;
mod quantised;
mod rope;
mod save;
mod save_shared_key;
mod scores;
