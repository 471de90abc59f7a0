//! What is written down.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use latent_attention::device::Device;
use serde::Serialize;

use crate::programs::Outcome;
use crate::questions::Answer;
use crate::timing::Timing;

/// The file.
#[derive(Serialize)]
pub struct Report {
    /// The GPU's name.
    pub gpu: String,
    /// Its compute capability, as 9.0.
    pub compute_capability: String,
    /// The driver's version, as nvidia-smi prints it.
    pub driver: String,
    /// The commit that the programs were built from.
    pub commit: &'static str,
    /// Tests and sanitizers.
    pub programs: Vec<Outcome>,
    /// What only a GPU answers; empty on GPUs that are no Hopper.
    pub questions: Vec<Answer>,
    /// Times, unless they were left out.
    pub timing: Option<Timing>,
}

impl Report {
    /// An empty one for a GPU.
    pub fn new(device: &Device) -> Self {
        let (major, minor) = device.compute_capability().unwrap_or_default();
        Self {
            gpu: device.name().into(),
            compute_capability: format!("{major}.{minor}"),
            driver: driver().unwrap_or_else(|| "unknown: nvidia-smi did not say".into()),
            commit: option_env!("LATENT_ATTENTION_COMMIT").unwrap_or("unknown: not built by `cargo xtask gpu-check`"),
            programs: Vec::new(),
            questions: Vec::new(),
            timing: None,
        }
    }

    /// Whether every program did.
    pub fn passed(&self) -> bool {
        let timed = self.timing.as_ref().is_none_or(|timing| timing.success);
        timed && self.programs.iter().all(|outcome| outcome.success)
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(serde_json::to_writer_pretty(file, self)?)
    }
}

fn driver() -> Option<String> {
    let query = ["--query-gpu=driver_version", "--format=csv,noheader"];
    let output = Command::new("nvidia-smi").args(query).output().ok()?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}
