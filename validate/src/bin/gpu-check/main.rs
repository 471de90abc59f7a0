//! Everything that only a GPU can show, in one command for a machine that has one but need not have cargo.
//!
//! `cargo xtask gpu-check` builds this program and puts the test programs beside it: the kernels' property tests and
//! the simulator's instruction suite, and the benchmarks. It runs the tests on the GPU, asks it what only a GPU answers, runs
//! one test of each kernel under compute-sanitizer, then the smallest sweep of the benchmarks, and writes what came out to
//! one JSON file.

mod programs;
mod questions;
mod report;
mod timing;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use latent_attention::device::Device;

use report::Report;

#[derive(Parser)]
#[command(about = "Tests, sanitizes and times the kernels on this machine's GPU")]
struct Arguments {
    /// The GPU's number
    #[arg(long, default_value_t = 0)]
    device: usize,
    /// Where the JSON goes
    #[arg(long, value_name = "FILE", default_value = "gpu-check.json")]
    json: PathBuf,
    /// The repository's `ptx-sim/suite`, whose PTX the instruction suite loads
    #[arg(long, value_name = "DIR", default_value = "ptx-sim/suite")]
    suite: PathBuf,
    /// Leave out the tests and the sanitizer
    #[arg(long)]
    only_timing: bool,
    /// Leave out the timing
    #[arg(long)]
    only_tests: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let device = Device::cuda(arguments.device)?;
    let mut report = Report::new(&device);
    println!("{} on commit {}", report.gpu, report.commit);
    // The programs beside this one.
    let here = std::env::current_exe()?.parent().context("this program is in no folder")?.to_path_buf();
    if !arguments.only_timing {
        report.programs = programs::run_all(&here, &arguments.suite, arguments.device)?;
        let is_hopper = device.compute_capability() == Some((9, 0));
        let (outcome, answers) = questions::ask(&here, &arguments.suite, arguments.device, is_hopper)?;
        report.programs.push(outcome);
        report.questions = answers;
        // Kept, should the rest be cut short.
        report.write(&arguments.json)?;
    }
    if !arguments.only_tests {
        report.timing = Some(timing::run(&here, arguments.device, &arguments.json.with_extension("timing.json"))?);
    }
    report.write(&arguments.json)?;
    println!("wrote {}", arguments.json.display());
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
