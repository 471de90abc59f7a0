//! The kernels, compiled by the newest nvcc too: users build with the one they have.

use anyhow::Result;

use crate::process;
use crate::setup;

/// Checks that the build compiles every kernel for every architecture: without warnings, notices and spilled registers,
/// which are its errors.
pub fn check() -> Result<()> {
    let Some(toolkit) = setup::newest_cuda()? else {
        println!("skipped: there is no CUDA compiler to download for this system");
        return Ok(());
    };
    let mut command = process::cargo(["check", "--package", "latent-attention", "--lib", "--no-default-features"]);
    // A folder of its own, as another compiler makes other images.
    command.arg("--target-dir").arg(setup::target()?.join("cuda-newest-check"));
    command.env("NVCC", toolkit.join("nvidia/cu13/bin/nvcc")).env("LATENT_ATTENTION_STRICT", "1");
    process::run(command.env_remove("CUDA_COMPUTE_CAP"))
}
