//! The benchmarks' program: what it counts, writes, draws, compares and refuses. (Times of GPUs are not among it.)

#[allow(dead_code)] // `main`, and what only a GPU needs.
#[path = "../../benches/main.rs"]
mod program;

mod counted;
mod memory;
mod refusals;
mod reports;
mod timed;
mod tuning;

use std::process::ExitCode;

use program::harness::command;

/// Runs the program with these arguments.
fn run(arguments: &[&str]) -> anyhow::Result<ExitCode> {
    let command: Vec<_> = std::iter::once(&"benchmarks").chain(arguments).map(Into::into).collect();
    command::run(&program::OPERATIONS, &command)
}
