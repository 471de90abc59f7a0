//! Measured rows, as the benchmarks wrote them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// One row of `decode`, or of a layer's whole step.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The model's name.
    pub model: String,
    /// The cache format's name.
    pub format: String,
    /// Sequences.
    pub batch: usize,
    /// Cached tokens of each.
    pub context: usize,
    /// Median time.
    pub median_us: f64,
}

/// A file of the benchmarks.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The device's name.
    pub device: String,
    /// The commit that was measured.
    pub commit: String,
    /// Its rows of `decode`.
    pub rows: Vec<Row>,
    /// Its rows of whole steps.
    pub steps: Vec<Row>,
}

#[derive(Deserialize)]
struct File {
    device: String,
    commit: String,
    rows: Vec<FileRow>,
}

#[derive(Deserialize)]
struct FileRow {
    operation: String,
    model: String,
    format: String,
    batch: usize,
    context: usize,
    timed: Option<Timed>,
}

#[derive(Deserialize)]
struct Timed {
    median_us: f64,
}

impl Measured {
    /// Rows of an H200, which is what the law predicts.
    ///
    /// # Errors
    /// If they are another device's.
    pub fn of_h200(self) -> Result<Self> {
        let is_h200 = self.device.split_whitespace().any(|word| word == "H200");
        ensure!(is_h200, "the measured rows are of {:?}, and the law is that of an H200", self.device);
        Ok(self)
    }
}

/// Reads what `benchmarks --json` wrote on a GPU.
///
/// # Errors
/// If the file cannot be read, is not such a file, or has no timed row of `decode`.
pub fn read(path: &Path) -> Result<Measured> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file: File =
        serde_json::from_str(&text).with_context(|| format!("{} is no file of benchmarks", path.display()))?;
    let of = |wanted: &str| -> Vec<Row> {
        let rows = file.rows.iter().filter(|row| row.operation == wanted);
        let timed = rows.filter_map(|row| {
            let FileRow { model, format, batch, context, timed, .. } = row;
            let median_us = timed.as_ref()?.median_us;
            Some(Row { model: model.clone(), format: format.clone(), batch: *batch, context: *context, median_us })
        });
        timed.collect()
    };
    let (rows, steps) = (of("decode"), of("layer"));
    ensure!(!rows.is_empty(), "{} has no timed row of decode", path.display());
    Ok(Measured { device: file.device, commit: file.commit, rows, steps })
}
