//! What is written down.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use latent_attention::device::Device;
use serde::{Deserialize, Serialize};

use crate::programs::Outcome;
use crate::questions::Answer;
use crate::timing::Timing;

/// What everything is measured on, and with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The GPU's name.
    pub gpu: String,
    /// Its compute capability, as 9.0.
    pub compute_capability: String,
    /// The driver's version, as nvidia-smi prints it.
    pub driver: String,
    /// The commit that the programs were built from.
    pub commit: String,
}

/// What was not measured, and why.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Absent {
    pub what: String,
    pub why: String,
}

/// The file.
#[derive(Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub machine: Machine,
    /// Tests and sanitizers.
    pub programs: Vec<Outcome>,
    /// What only a GPU answers; empty on GPUs that are no Hopper.
    pub questions: Vec<Answer>,
    /// Times, unless they were left out.
    pub timing: Option<Timing>,
}

impl Machine {
    /// A device.
    pub fn of(device: &Device) -> Self {
        let (major, minor) = device.compute_capability().unwrap_or_default();
        Self {
            gpu: device.name().into(),
            compute_capability: format!("{major}.{minor}"),
            driver: driver().unwrap_or_else(|| "unknown: nvidia-smi did not say".into()),
            commit: option_env!("LATENT_ATTENTION_COMMIT")
                .unwrap_or("unknown: not built by `cargo xtask gpu-check`")
                .into(),
        }
    }
}

/// Writes a file, in a folder that is made if it is not there. An earlier one is replaced at once: there is a whole one at
/// any time.
pub fn write(path: &Path, content: &impl Serialize) -> Result<()> {
    let (partial, text) = (path.with_extension("partial"), serde_json::to_vec_pretty(content)?);
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = folder.and_then(|()| fs::write(&partial, text)).and_then(|()| fs::rename(&partial, path));
    written.with_context(|| format!("cannot write {}", path.display()))
}

impl Report {
    /// An empty one.
    pub fn new(machine: Machine) -> Self {
        Self { machine, programs: Vec::new(), questions: Vec::new(), timing: None }
    }

    /// Whether every program did.
    pub fn passed(&self) -> bool {
        let timed = self.timing.as_ref().is_none_or(|timing| timing.success);
        timed && self.programs.iter().all(|outcome| outcome.success)
    }
}

fn driver() -> Option<String> {
    let query = ["--query-gpu=driver_version", "--format=csv,noheader"];
    let output = Command::new("nvidia-smi").args(query).output().ok()?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}
