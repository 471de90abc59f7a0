//! What the cost model predicts, counted beforehand: the machine with a GPU need not count.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::trial::Point;
use super::variant::{Tiles, Variant};

/// The rows of `cargo xtask cost --json`.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Predicted {
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    model: String,
    format: String,
    #[serde(flatten)]
    tiles: Tiles,
    #[serde(flatten)]
    point: Point,
    predicted_us: Option<f64>,
}

impl Predicted {
    /// Reads a file.
    ///
    /// # Errors
    /// If it is not there, or no such file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no file of `cargo xtask cost`", path.display()))
    }

    /// Microseconds of a row whose splits are chosen as they are by default: the model counts no others.
    pub fn find(&self, variant: &Variant, model: &str, format: &str, point: Point) -> Option<f64> {
        let is_it = |row: &&Row| {
            (row.model.as_str(), row.format.as_str(), &row.tiles, row.point) == (model, format, &variant.tiles, point)
        };
        self.rows.iter().find(is_it)?.predicted_us
    }
}
