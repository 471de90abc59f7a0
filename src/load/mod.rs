//! Reads models from disk, and writes converted ones.
//!
//! [`open`] takes a directory in Hugging Face's layout (`config.json` and safetensors) or, with feature `gguf`, a
//! GGUF file. [`Checkpoint::attention`] yields a layer in the crate's own terms, whatever stands on disk:
//!
//! | layout | found by | read as |
//! |---|---|---|
//! | Llama, Qwen2, Qwen3, Mistral, Ministral, Phi3, Granite, Glm4, SmolLm3, Gemma, Gemma2: MHA, GQA | `architectures`, GGUF `general.architecture` | [`Attention::Dense`] |
//! | DeepSeek V2, V3; Axk1, Youtu, Glm4MoeLite, SarvamMla, MiniCpm3, Mistral4, LongcatFlash, DeepSeekV32, GlmMoeDsa, Axk2, KimiLinear and BailingHybrid (layers of full attention) | `architectures` | [`Attention::Latent`] |
//! | MHA2MLA, `kv_proj.*` | `mha2mla` in `config.json` | [`Attention::Latent`] |
//! | a shared key, as [`save_shared_key`] writes it | `LatentAttentionForCausalLM` in `architectures` | [`Attention::Latent`] |
//! | MHA2MLA's first release, `W_down_k` and so on | `RoPE` and `SVD` in `config.json` | [`Attention::Latent`] |
//!
//! ```no_run
//! use latent_attention::load::{self, Attention};
//!
//! let checkpoint = load::open("models/SmolLM2-135M".as_ref())?;
//! for layer in 0..checkpoint.config().layers {
//!     match checkpoint.attention(layer)? {
//!         Attention::Dense(dense) => println!("{} query heads, to be converted", dense.query_heads),
//!         Attention::Latent(latent) => println!("latent of {} dimensions", latent.geometry.latent_rank),
//!     }
//! }
//! # Ok::<(), latent_attention::Error>(())
//! ```
//!
//! [`save_mha2mla`] writes a model that was converted by MHA2MLA's recipe in its own layout, [`save_shared_key`] one with a
//! shared rotated key in DeepSeek's.
//!
//! Keys and tensors that would change what a layer computes are read or refused by name; `docs/models.md` lists them.
//!
//! Nothing is copied on the way from disk: each tensor is mapped into memory while it is read, and becomes `f32` in
//! one pass (quantised tensors, GGUF's and FP8's, on all cores). So files must not be changed *in place* while one of
//! their tensors is being read: numbers overwritten meanwhile are read in either state, and if the file is cut off, the
//! operating system ends the process (SIGBUS on Unix). A file cut off before is an error. Replacing a file by another of the same name,
//! as downloads do, is always fine: the open [`Checkpoint`] goes on reading the old one.
//!
//! Files are untrusted: whatever they hold, the outcome is a value or an [`Error`](crate::Error) that names the
//! tensor or key, and nothing is allocated that the file's length does not vouch for.

mod blocks;
mod checkpoint;
mod config;
mod converted;
mod experts;
mod families;
mod fields;
mod file;
mod frequencies;
#[cfg(feature = "gguf")]
mod gguf;
mod host_tensor;
mod output;
mod quantised;
mod rope_object;
mod safetensors;
mod save_mha2mla;
mod save_shared_key;
mod source;
mod tokenizer;
mod unread;

pub use blocks::{BlockFormat, QuantizedMatrix};
pub use checkpoint::{Block, Checkpoint, GateInput, ModelParts, OutputGate, open};
pub use config::{DeepSeekDims, ModelConfig, QueryScaling};
pub use experts::{Choice, GatedMlp, GroupRank, Mixture, Router, Scores};
pub use families::{Architecture, Attention};
pub use safetensors::SafetensorsSource;
pub use save_mha2mla::save_mha2mla;
pub use save_shared_key::save_shared_key;
pub use source::TensorSource;
pub use tokenizer::Tokenizer;
