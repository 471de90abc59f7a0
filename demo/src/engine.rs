//! What computes attention: the kernels on a GPU, or the reference with the kernels beside it on the simulator.

use latent_attention::device::{Device, Simulation};
use latent_attention::{Error, image};

/// Tokens at the beginning of a sequence for which the simulator runs a sampled layer's kernels too.
pub const SAMPLED_TOKENS: usize = 32;

/// What computes the attention of a model's layers.
#[derive(Clone, Debug)]
pub enum Engine {
    /// The kernels, all of it.
    Gpu(Device),
    /// The reference; the kernels also compute the first [`SAMPLED_TOKENS`] tokens of the first and the last layer, on a
    /// simulated device.
    Sampled(Device),
    /// The reference alone: the build has no kernels.
    Reference,
}

impl Engine {
    /// The best that this machine and this build have, and a line that says what it is and why.
    #[must_use]
    pub fn detect() -> (Self, String) {
        match Device::cuda(0) {
            Ok(device) => {
                let line = format!("Attention is computed by the kernels, on {}.", device.name());
                (Self::Gpu(device), line)
            }
            Err(_) if image::images().is_empty() => {
                let line = "Attention is computed by the reference: this build has no kernels (`cargo xtask setup` \
                            installs their compiler).";
                (Self::Reference, line.into())
            }
            Err(why) => {
                let why = match why {
                    Error::NoDriver { .. } => "no NVIDIA driver".into(),
                    other => other.to_string(),
                };
                let line = format!(
                    "Attention is computed by the reference, as there is no GPU ({why}). Beside it, the kernels \
                     compute the first {SAMPLED_TOKENS} tokens of each sequence in the first and the last layer, on \
                     the simulator; the last column says by how much they differ from the reference given the same \
                     bf16 numbers, relative to the largest."
                );
                // What the checker finds is the tests' business.
                (Self::Sampled(Device::simulate(Simulation::default().with_checked(false))), line)
            }
        }
    }
}
