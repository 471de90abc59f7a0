//! Running other programs.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Every feature of the workspace but those that build candle for CUDA: candle's own kernels take minutes to compile, and
/// what links them does not start without CUDA's libraries. `avx512`, which changes no result by more than rounding, is left
/// out too.
pub const FEATURES: &str =
    "--features=latent-attention/convert,latent-attention/gguf,latent-attention-demo/simulator,ptx-sim/cli";

/// The lints of the whole workspace, with every feature. Its build scripts are those of the tests.
pub fn lints<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = cargo(["clippy", "--workspace", "--all-targets", FEATURES]);
    command.env("LATENT_ATTENTION_STRICT", "1").args(arguments).args(["--", "-D", "warnings"]);
    command
}

/// The cargo that runs this task, at the workspace's root.
pub fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(crate::root());
    command
}

/// Runs a program to its end; its failure is ours.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

/// Lets a program take this one's place, where the system can: Ctrl-C then ends what the program wants ended, and not a
/// parent that it leaves behind. Otherwise runs it, and ends with its exit status.
pub fn become_program(command: &mut Command) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let why = command.exec();
        Err(why).with_context(|| format!("cannot start {command:?}"))
    }
    #[cfg(not(unix))]
    {
        let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
        std::process::exit(status.code().unwrap_or(2))
    }
}

/// Runs a program and hands each line of its output to `inspect` after printing it. Returns whether it succeeded.
pub fn run_inspected(command: &mut Command, mut inspect: impl FnMut(&str)) -> Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {command:?}"))?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line?;
            println!("{line}");
            inspect(&line);
        }
    }
    Ok(child.wait()?.success())
}

/// Major and minor version of the compiler that cargo would use.
pub fn rust_version() -> Result<(u32, u32)> {
    let line = output(Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version"))?;
    let version = line.split(' ').nth(1).unwrap_or_default();
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => anyhow::bail!("`rustc --version` says {line:?}"),
    }
}

/// Formats Rust source as `cargo fmt` does.
pub fn format(source: &str) -> Result<String> {
    let mut command = Command::new("rustfmt");
    command.args(["--edition", "2024", "--config-path"]).arg(crate::root().join("rustfmt.toml"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start rustfmt")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(source.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "rustfmt failed: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a program and returns the lines that it prints as JSON, such as cargo's messages.
pub fn messages(command: &mut Command) -> Result<Vec<Value>> {
    Ok(output(command)?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Runs a program and returns what it prints.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
