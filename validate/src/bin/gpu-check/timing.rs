//! Times, which the benchmarks' program takes.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

/// The program begins no row after so many seconds. Its smallest sweep needs far less on a GPU that works.
const TIME_LIMIT: &str = "120";

/// What the benchmarks wrote, and whether they ended well.
#[derive(Debug, Serialize)]
pub struct Timing {
    /// Whether every row was measured.
    pub success: bool,
    /// Their report; what there is of it if they did not end well.
    pub report: Option<Value>,
}

/// Runs the program `benchmarks` in `folder`, which writes to `json` meanwhile.
pub fn run(folder: &Path, device: usize, json: &Path) -> Result<Timing> {
    let program = folder.join("benchmarks");
    ensure!(program.is_file(), "{} is missing: `cargo xtask gpu-check` puts it there", program.display());
    println!("== benchmarks");
    // That of an earlier run would pass for this one's.
    if json.exists() {
        fs::remove_file(json).with_context(|| format!("cannot delete {}", json.display()))?;
    }
    let mut command = Command::new(&program);
    command.args(["--sweep", "smoke", "--time-limit", TIME_LIMIT]).arg("--device").arg(format!("cuda:{device}"));
    command.arg("--json").arg(json);
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    let report = match fs::read(json) {
        Ok(text) => Some(serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", json.display()))?),
        Err(_) => None,
    };
    Ok(Timing { success: status.success() && report.is_some(), report })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named() {
        let message = run(Path::new("/nowhere"), 0, Path::new("/nowhere/json")).unwrap_err().to_string();
        assert!(message.starts_with("/nowhere/benchmarks is missing"), "{message}");
    }
}
