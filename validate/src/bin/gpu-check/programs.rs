//! The test programs, alone and under compute-sanitizer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::beside;
use crate::process::{self, Ended};

/// Tests of the program `kernels`, one for each of its modules with kernels: enough for the sanitizer, which makes
/// everything many times slower. `cargo xtask test` checks that they exist.
const SANITIZED: &str = include_str!("sanitized.txt");

/// What a program printed at its end, and what became of it.
#[derive(Debug, Serialize, Deserialize)]
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
pub const LIMIT: Duration = Duration::from_secs(90);

/// A test program that has not run yet.
pub struct Program {
    name: String,
    /// How to start it, or why that is not possible.
    command: Result<Command, String>,
    /// How many tests it runs, if that is known.
    tests: Option<usize>,
}

impl Program {
    fn new(name: &str, command: Command) -> Self {
        Self { name: name.into(), command: Ok(command), tests: None }
    }

    /// Runs it; a failure is part of the result, not an error.
    pub fn run(self, limit: Duration) -> Outcome {
        let mut outcome = match self.command {
            Ok(mut command) => run(&self.name, &mut command, limit).0,
            Err(why) => Outcome::failed(&self.name, why),
        };
        outcome.success &= self.tests.is_none_or(|tests| outcome.passed == tests);
        outcome
    }
}

impl Outcome {
    /// Of a program that was not run.
    fn failed(name: &str, why: String) -> Self {
        println!("{name}: {why}");
        Self { name: name.into(), passed: 0, failed: Vec::new(), success: false, seconds: 0.0, output: Some(why) }
    }
}

/// All of them: of the kernels, of the instructions, and one test of each kernel under the sanitizer's tools.
///
/// # Errors
/// Names what is missing.
pub fn all(folder: &Path, suite: &Path, device: usize) -> Result<Vec<Program>> {
    let (kernels, instructions) = (beside(folder, "kernels")?, beside(folder, "suite")?);
    ensure!(suite.is_dir(), "{} is no folder: --suite names the repository's ptx-sim/suite", suite.display());
    let device = format!("cuda:{device}");
    let mut of_kernels = Command::new(&kernels);
    of_kernels.env("LATENT_ATTENTION_DEVICE", &device);
    let mut of_instructions = Command::new(instructions);
    // The rest of that program tests the simulator itself.
    of_instructions.arg("families::").env("PTX_SIM_DEVICE", &device).env("PTX_SIM_SUITE", suite);
    let mut programs = vec![Program::new("kernels", of_kernels), Program::new("instruction suite", of_instructions)];
    programs.extend(["memcheck", "racecheck"].map(|tool| sanitized(tool, &kernels, &device)));
    Ok(programs)
}

/// One test of each kernel on the simulator.
///
/// # Errors
/// If the program is missing.
pub fn rehearsal(folder: &Path) -> Result<Vec<Program>> {
    let mut command = Command::new(beside(folder, "kernels")?);
    command.arg("--exact").args(SANITIZED.lines()).env("LATENT_ATTENTION_DEVICE", "simulated");
    Ok(vec![Program::new("kernels", command)])
}

/// One test of each kernel under one of the sanitizer's tools.
fn sanitized(tool: &str, kernels: &Path, device: &str) -> Program {
    let command = sanitizer().map(|sanitizer| {
        let mut command = Command::new(sanitizer);
        command.args(["--error-exitcode", "99", "--tool", tool]).arg(kernels);
        command.arg("--exact").args(SANITIZED.lines()).arg("--test-threads=1");
        command.env("LATENT_ATTENTION_DEVICE", device);
        command
    });
    Program {
        name: format!("compute-sanitizer {tool}"),
        command: command.ok_or_else(|| "not found in PATH, CUDA_HOME/bin or /usr/local/cuda/bin".into()),
        tests: Some(SANITIZED.lines().count()),
    }
}

fn sanitizer() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin"));
    let folders = std::env::split_paths(&path).chain(home).chain([PathBuf::from("/usr/local/cuda/bin")]);
    folders.map(|folder| folder.join("compute-sanitizer")).find(|program| program.is_file())
}

/// Runs a program of Rust's test harness; what it printed is returned too.
pub fn run(name: &str, command: &mut Command, limit: Duration) -> (Outcome, String) {
    if limit.is_zero() {
        return (Outcome::failed(name, "no time was left for it".into()), String::new());
    }
    println!("== {name}");
    let start = Instant::now();
    let Ended { status, mut text } = match process::run_for(command, limit) {
        Ok(ended) => ended,
        Err(why) => return (Outcome::failed(name, format!("{why:#}")), String::new()),
    };
    let seconds = start.elapsed().as_secs_f64();
    let (passed, failed) = results(&text);
    let success = status.is_some_and(|status| status.success()) && passed > 0;
    if status.is_none() {
        text += &format!("\nended after {seconds:.1} s, as it had not ended by itself\n");
    }
    println!("{passed} passed, {} failed, {seconds:.0} s", failed.len());
    failed.iter().for_each(|test| println!("  {test}"));
    let kept = (!success).then(|| tail(&text, 8000));
    if let Some(end) = &kept {
        println!("{end}");
    }
    (Outcome { name: name.into(), passed, failed, success, seconds, output: kept }, text)
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
        let message = all(Path::new("/nowhere"), Path::new("/"), 0).err().unwrap().to_string();
        assert!(message.starts_with("/nowhere/kernels is missing"), "{message}");
    }

    #[test]
    fn what_cannot_be_started_or_has_no_time_is_a_failure_with_its_reason() {
        let outcome = |program: &str, limit| Program::new("tests", Command::new(program)).run(limit);
        for (outcome, why) in [
            (outcome("/nowhere/kernels", LIMIT), "cannot start \"/nowhere/kernels\": "),
            (outcome("true", Duration::ZERO), "no time was left for it"),
        ] {
            assert!(!outcome.success && outcome.output.as_ref().unwrap().starts_with(why), "{outcome:?}");
        }
    }

    /// A sanitizer that skips tests has found nothing.
    #[cfg(unix)]
    #[test]
    fn fewer_tests_than_there_are_are_a_failure() {
        for (tests, success) in [(1, true), (2, false)] {
            let mut command = Command::new("echo");
            command.arg("test a::b ... ok");
            let program = Program { tests: Some(tests), ..Program::new("tests", command) };
            assert_eq!(program.run(LIMIT).success, success);
        }
    }
}
