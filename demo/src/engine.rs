//! What computes attention: the kernels on a GPU, or the CPU, with the kernels beside it on the simulator.

use anyhow::Result;
use latent_attention::device::Device;

/// Tokens at the beginning of a sequence for which the simulator runs a sampled layer's kernels too.
pub const SAMPLED_TOKENS: usize = 32;

/// What computes the attention of a model's layers.
#[derive(Clone, Debug)]
pub enum Engine {
    /// A device, all of it.
    Device(Device),
    /// The reference; the kernels also compute the first [`SAMPLED_TOKENS`] tokens of the first and the last layer, on a
    /// simulated device.
    Sampled(Device),
    /// The reference alone.
    Reference,
}

/// What this machine and this build compute with.
pub struct Engines {
    /// Everything that is measured and written.
    pub engine: Engine,
    /// A check beside it, where there is no GPU: the kernels against the reference.
    pub check: Option<Engine>,
}

impl Engines {
    /// The best that there are, and a line that says what they are and why. With `kernels` the kernels are checked beside a
    /// CPU.
    ///
    /// # Errors
    /// If the environment asks for instructions that the CPU lacks, or this build has no kernels to check.
    pub fn detect(kernels: bool) -> Result<(Self, String)> {
        let device = Device::best()?;
        let mut line = format!("Attention is computed on {}.", device.name());
        let check = if device.is_cpu() && kernels {
            line += &format!(
                " Beside it, the CUDA kernels compute the first {SAMPLED_TOKENS} tokens in the first and the last layer, on \
                 the simulator; the last column says by how much they differ from the f64 reference given the same bf16 \
                 numbers, relative to the largest."
            );
            Some(Engine::Sampled(simulated()?))
        } else {
            None
        };
        Ok((Self { engine: Engine::Device(device), check }, line))
    }
}

/// The device that checks kernels.
#[cfg(feature = "simulator")]
fn simulated() -> Result<Device> {
    use latent_attention::device::Simulation;
    use latent_attention::image;

    let built = !image::images().is_empty();
    anyhow::ensure!(built, "--kernels: this build has none (`cargo xtask setup` installs their compiler)");
    // What the checker finds is the tests' business.
    Ok(Device::simulate(Simulation::default().with_checked(false)))
}

/// Why there is no device that checks kernels.
#[cfg(not(feature = "simulator"))]
fn simulated() -> Result<Device> {
    anyhow::bail!(
        "--kernels: this build has no simulator (the demo's feature `simulator`; `cargo xtask demo --kernels` has it)"
    )
}
