//! The test programs, alone and under compute-sanitizer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::process::{self, Ended};

/// Tests of the program `kernels`, one for each of its modules with kernels: enough for the sanitizer, which makes
/// everything many times slower. `cargo xtask test` checks that they exist.
const SANITIZED: &str = include_str!("sanitized.txt");

/// What a program printed at its end, and what became of it.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// What was run.
    pub name: String,
    /// Tests that passed and failed; zeros if it did not get that far.
    pub passed: usize,
    /// Names of the tests that failed.
    pub failed: Vec<String>,
    /// Whether it ended well.
    pub success: bool,
    /// Wall time.
    pub seconds: f64,
    /// The end of its output if it failed.
    pub output: Option<String>,
}

/// Programs end in seconds on a GPU that works; what takes longer hangs.
const LIMIT: Duration = Duration::from_secs(90);

/// Runs everything; a failure is part of the result, not an error.
pub fn run_all(folder: &Path, suite: &Path, device: usize) -> Result<Vec<Outcome>> {
    let (kernels, instructions) = (folder.join("kernels"), folder.join("suite"));
    for program in [&kernels, &instructions] {
        ensure!(program.is_file(), "{} is missing: `cargo xtask gpu-check` puts it there", program.display());
    }
    ensure!(suite.is_dir(), "{} is no folder: --suite names the repository's ptx-sim/suite", suite.display());
    let mut outcomes = Vec::new();
    let device = format!("cuda:{device}");
    outcomes.push(run("kernels", Command::new(&kernels).env("LATENT_ATTENTION_DEVICE", &device))?.0);
    let mut command = Command::new(&instructions);
    // The rest of that program tests the simulator itself.
    command.arg("families::").env("PTX_SIM_DEVICE", &device).env("PTX_SIM_SUITE", suite);
    outcomes.push(run("instruction suite", &mut command)?.0);
    outcomes.extend(sanitize(&kernels, &device)?);
    Ok(outcomes)
}

/// One test of each kernel on the simulator.
pub fn rehearse(folder: &Path) -> Result<Vec<Outcome>> {
    let kernels = folder.join("kernels");
    ensure!(kernels.is_file(), "{} is missing: `cargo xtask gpu-check` puts it there", kernels.display());
    let mut command = Command::new(&kernels);
    command.arg("--exact").args(SANITIZED.lines()).env("LATENT_ATTENTION_DEVICE", "simulated");
    Ok(vec![run("kernels", &mut command)?.0])
}

/// One test of each kernel under the sanitizer's tools.
fn sanitize(kernels: &Path, device: &str) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    match sanitizer() {
        Some(sanitizer) => {
            for tool in ["memcheck", "racecheck"] {
                let mut command = Command::new(&sanitizer);
                command.args(["--error-exitcode", "99", "--tool", tool]).arg(kernels);
                command.arg("--exact").args(SANITIZED.lines()).arg("--test-threads=1");
                command.env("LATENT_ATTENTION_DEVICE", device);
                let (mut outcome, _) = run(&format!("compute-sanitizer {tool}"), &mut command)?;
                outcome.success &= outcome.passed == SANITIZED.lines().count();
                outcomes.push(outcome);
            }
        }
        None => outcomes.push(Outcome {
            name: "compute-sanitizer".into(),
            passed: 0,
            failed: Vec::new(),
            success: false,
            seconds: 0.0,
            output: Some("not found in PATH, CUDA_HOME/bin or /usr/local/cuda/bin".into()),
        }),
    }
    Ok(outcomes)
}

fn sanitizer() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin"));
    let folders = std::env::split_paths(&path).chain(home).chain([PathBuf::from("/usr/local/cuda/bin")]);
    folders.map(|folder| folder.join("compute-sanitizer")).find(|program| program.is_file())
}

pub(crate) fn run(name: &str, command: &mut Command) -> Result<(Outcome, String)> {
    println!("== {name}");
    let start = Instant::now();
    let Ended { status, mut text } = process::run_for(command, LIMIT)?;
    let seconds = start.elapsed().as_secs_f64();
    let (passed, failed) = results(&text);
    let success = status.is_some_and(|status| status.success()) && passed > 0;
    if status.is_none() {
        text += &format!("\nended, as it had not ended by itself within {} s\n", LIMIT.as_secs());
    }
    println!("{passed} passed, {} failed, {seconds:.0} s", failed.len());
    failed.iter().for_each(|test| println!("  {test}"));
    let kept = (!success).then(|| tail(&text, 8000));
    if let Some(end) = &kept {
        println!("{end}");
    }
    Ok((Outcome { name: name.into(), passed, failed, success, seconds, output: kept }, text))
}

/// How many tests passed, and the names of those that failed, in the output of Rust's test harness.
fn results(text: &str) -> (usize, Vec<String>) {
    let tests = text.lines().filter_map(|line| line.trim().strip_prefix("test ")?.rsplit_once(" ... "));
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, result) in tests {
        match result {
            "ok" => passed += 1,
            "FAILED" => failed.push(name.into()),
            _ => {}
        }
    }
    (passed, failed)
}

/// The last `bytes` of a text, from the beginning of a line.
fn tail(text: &str, bytes: usize) -> String {
    let start = text.len().saturating_sub(bytes);
    let start = (start..text.len()).find(|&i| i == 0 || text.as_bytes()[i - 1] == b'\n').unwrap_or(0);
    text[start..].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_the_test_harness_are_counted() {
        let text = "running 3 tests\ntest a::b ... ok\ntest c ... FAILED\ntest d ... ignored\n\ntest result: FAILED. 1";
        assert_eq!(results(text), (1, vec!["c".to_string()]));
    }

    #[test]
    fn the_end_of_a_text_begins_with_a_line() {
        assert_eq!(tail("one\ntwo\nthree", 7), "three");
        assert_eq!(tail("short", 100), "short");
    }

    #[test]
    fn missing_programs_are_named() {
        let message = run_all(Path::new("/nowhere"), Path::new("/"), 0).unwrap_err().to_string();
        assert!(message.starts_with("/nowhere/kernels is missing"), "{message}");
    }
}
