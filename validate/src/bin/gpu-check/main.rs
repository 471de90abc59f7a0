//! Everything that only a GPU can show, in one command for a machine that has one but need not have cargo.
//!
//! `cargo xtask gpu-check` builds this program and puts the test programs beside it: the kernels' property tests and
//! the simulator's instruction suite, and the benchmarks. It runs the tests on the GPU, asks it what only a GPU answers, runs
//! one test of each kernel under compute-sanitizer, then the smallest sweep of the benchmarks, and writes what came out to
//! one JSON file. `gpu-check tune` times every way to serve a layer instead: docs/gpu.md.

mod process;
mod programs;
mod questions;
mod report;
mod timing;
mod tune;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use latent_attention::device::Device;

use programs::LIMIT;
use report::{Machine, Report};
use tune::Tune;

#[derive(Parser)]
#[command(about = "Tests, sanitizes and times the kernels on this machine's GPU")]
struct Arguments {
    #[command(subcommand)]
    task: Option<Task>,
    /// The GPU's number
    #[arg(long, default_value_t = 0, global = true)]
    device: usize,
    /// Where the JSON goes
    #[arg(long, value_name = "FILE", default_value = "gpu-check.json")]
    json: PathBuf,
    /// The repository's `ptx-sim/suite`, whose PTX the instruction suite loads
    #[arg(long, value_name = "DIR", default_value = "ptx-sim/suite", global = true)]
    suite: PathBuf,
    /// Leave out the tests and the sanitizer
    #[arg(long)]
    only_timing: bool,
    /// Leave out the timing
    #[arg(long)]
    only_tests: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Tests, asks and times all that there is of decode, others' kernels and those of before, in a given time
    Tune(Tune),
}

/// A file in a folder.
///
/// # Errors
/// If it is not there.
fn beside(folder: &Path, name: &str) -> Result<PathBuf> {
    let file = folder.join(name);
    ensure!(file.is_file(), "{} is missing: `cargo xtask gpu-check` puts it there", file.display());
    Ok(file)
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let is_rehearsed = matches!(&arguments.task, Some(Task::Tune(tune)) if tune.rehearse);
    let device = if is_rehearsed { Device::simulated() } else { Device::cuda(arguments.device)? };
    let machine = Machine::of(&device);
    println!("{} on commit {}", machine.gpu, machine.commit);
    // The programs beside this one.
    let here = std::env::current_exe()?.parent().context("this program is in no folder")?.to_path_buf();
    let is_hopper = device.compute_capability() == Some((9, 0));
    if let Some(Task::Tune(tune)) = &arguments.task {
        // Its own memory, and the context that holds it, are not needed.
        drop(device);
        #[cfg(unix)]
        process::end_on_signals()?;
        tune::check(&here, &arguments.suite)?;
        let passed = tune::run(tune, &here, &arguments.suite, arguments.device, machine, is_hopper)?;
        return Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut report = Report::new(machine);
    if !arguments.only_timing {
        let programs = programs::all(&here, &arguments.suite, arguments.device)?;
        report.programs = programs.into_iter().map(|program| program.run(LIMIT)).collect();
        let device = format!("cuda:{}", arguments.device);
        let (outcome, answers) = questions::ask(&here, &arguments.suite, &device, is_hopper, LIMIT);
        report.programs.push(outcome);
        report.questions = answers;
        // Kept, should the rest be cut short.
        report::write(&arguments.json, &report)?;
    }
    if !arguments.only_tests {
        report.timing = Some(timing::run(&here, arguments.device, &arguments.json.with_extension("timing.json"))?);
    }
    report::write(&arguments.json, &report)?;
    println!("wrote {}", arguments.json.display());
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
