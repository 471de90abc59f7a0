//! What is written down.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::super::tune::variant::Variant;
use super::ceilings::Ceilings;
use super::clock::Times;
use super::counts::Counts;
use super::lab::{Gauge, Lab, nvidia_smi};
use super::shape::{Shape, Work};
use super::sweep;

/// The file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether rows hold times or counts.
    pub kind: Kind,
    /// The device's name.
    pub device: String,
    /// A GPU's compute capability, as 9.0.
    pub compute_capability: Option<String>,
    /// A GPU's driver, as nvidia-smi prints it.
    pub driver: Option<String>,
    /// The commit that the program was built from.
    pub commit: String,
    /// The library's version.
    pub version: String,
    /// When the program was started, in UTC.
    pub date: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Measured at the beginning, which fractions refer to, and at the end; or the assumed ones.
    pub ceilings: Vec<Ceilings>,
    pub rows: Vec<Row>,
    pub left_out: Vec<LeftOut>,
    /// The row that is being measured, in a file that is not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
}

/// What rows hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    #[serde(rename = "timed")]
    Timed,
    #[serde(rename = "counted, not timed")]
    Counted,
}

/// One operation on one shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub operation: String,
    pub model: String,
    pub format: String,
    /// Sequences, one new token each.
    pub batch: usize,
    /// Tokens that each has in the cache.
    pub context: usize,
    /// How the operation was served, where the ways to do it are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<Variant>,
    /// Bytes and floating-point operations that it cannot do without.
    pub bytes: u64,
    pub flops: u64,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Timed(Timed),
    Counted(Counts),
}

/// Times and what follows from them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    #[serde(flatten)]
    pub times: Times,
    pub tb_per_s: f64,
    pub tflop_per_s: f64,
    /// The time that its own roofline allows, over the median: the larger of bytes and of arithmetic at the ceilings'
    /// rates.
    pub fraction: f64,
}

/// A row that there is not, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeftOut {
    pub row: String,
    pub why: String,
}

impl Report {
    /// An empty one. `ordinal` is a GPU's number.
    pub fn new(lab: &Lab, ordinal: Option<usize>, command: Vec<String>, ceilings: Vec<Ceilings>) -> Self {
        Self {
            kind: if matches!(lab.gauge, Gauge::Clock(_)) { Kind::Timed } else { Kind::Counted },
            device: lab.device.name().into(),
            compute_capability: lab.device.compute_capability().map(|(major, minor)| format!("{major}.{minor}")),
            driver: ordinal.and_then(|ordinal| nvidia_smi(ordinal, "driver_version")),
            commit: commit(),
            version: env!("CARGO_PKG_VERSION").into(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            command,
            ceilings,
            rows: Vec::new(),
            left_out: Vec::new(),
            doing: None,
        }
    }

    /// The rates that were reached at any time of the run.
    pub fn highest(&self) -> Option<Ceilings> {
        self.ceilings.iter().cloned().reduce(|highest, other| highest.highest(&other))
    }

    /// Makes all fractions those of the rates that were reached at any time of the run. Returns the rows that are above
    /// them, which is to say that their work or these rates are wrong.
    pub fn settle(&mut self) -> Vec<String> {
        let Some(ceilings) = self.highest().filter(|_| self.kind == Kind::Timed) else { return Vec::new() };
        let mut above = Vec::new();
        for row in &mut self.rows {
            let work = row.work();
            if let Outcome::Timed(timed) = &mut row.outcome {
                *timed = Timed::new(timed.times, &work, &ceilings);
                if timed.fraction > 1.0 {
                    above.push(row.id());
                }
            }
        }
        above
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it is not there, or not a report.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no report of the benchmarks", path.display()))
    }

    /// Writes the file. An earlier one is replaced at once: there is a whole one at any time.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let partial = path.with_extension("partial");
        let written = fs::write(&partial, serde_json::to_vec_pretty(self)?).and_then(|()| fs::rename(&partial, path));
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The commit that the program was built from: named by `cargo xtask`, or else, since cargo has just built it, that of
/// the repository, if it is still there.
fn commit() -> String {
    let repository = || {
        let arguments = ["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=40"];
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    let named = option_env!("LATENT_ATTENTION_COMMIT").map(str::to_owned);
    named.or_else(repository).unwrap_or_else(|| "unknown".into())
}

impl Row {
    /// A row of a shape.
    pub fn new(operation: &str, shape: &Shape, work: &Work, outcome: Outcome) -> Self {
        Self {
            operation: operation.into(),
            model: shape.model.0.into(),
            format: shape.format.name().into(),
            batch: shape.batch,
            context: shape.context,
            variant: None,
            bytes: work.bytes,
            flops: work.flops,
            outcome,
        }
    }

    /// What it cannot do without.
    pub fn work(&self) -> Work {
        Work { bytes: self.bytes, flops: self.flops }
    }

    /// Its name: as [`sweep::Case::id`], with that of the variant behind.
    pub fn id(&self) -> String {
        let shape = sweep::id(&self.operation, &self.model, &self.format, self.batch, self.context);
        self.variant.as_ref().map_or(shape.clone(), |variant| variant.id(&shape))
    }

    /// Its median in microseconds, if it was timed.
    pub fn median_us(&self) -> Option<f64> {
        match &self.outcome {
            Outcome::Timed(timed) => Some(timed.times.median_us),
            Outcome::Counted(_) => None,
        }
    }
}

impl Timed {
    /// Times of some work on a machine.
    pub fn new(times: Times, work: &Work, ceilings: &Ceilings) -> Self {
        let per_us = |amount: u64| amount as f64 / times.median_us / 1e6;
        Self {
            tb_per_s: per_us(work.bytes),
            tflop_per_s: per_us(work.flops),
            fraction: ceilings.least_us(work) / times.median_us,
            times,
        }
    }
}
