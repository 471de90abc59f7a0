//! Every check, in the order in which failures are cheapest to find.

use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::bindings::BINDINGS;
use crate::header::HEADER;
use crate::process::{self, FEATURES, output, run, run_inspected};
#[cfg(unix)]
use crate::stand_ins;
use crate::{architecture, capi, newest, resources, setup, tools};

/// Feature sets that must build on their own; the tests build all of them together.
const FEATURE_SETS: [&str; 5] = ["", "simulator", "convert", "load", "gguf"];

pub fn everything() -> Result<()> {
    setup::everything()?;
    step("format");
    run(&mut cargo(["fmt", "--all", "--check"]))?;
    step("spelling");
    tools::spelling()?;
    step("dependencies");
    tools::dependencies()?;
    step("architecture");
    architecture::check()?;
    step("bindings");
    BINDINGS.check()?;
    HEADER.check()?;
    step("minimum Rust version of the dependencies");
    minimum_rust_version()?;
    step("lints");
    run(&mut process::lints([]))?;
    for features in FEATURE_SETS {
        lints_alone("latent-attention", &["--no-default-features", "--features", features])?;
    }
    for package in ["latent-attention-c", "latent-attention-candle", "validate"] {
        lints_alone(package, &[])?;
    }
    step("lints of the library on 64-bit Arm");
    arm_lints()?;
    #[cfg(unix)]
    {
        step("builds with other compilers in PATH");
        stand_ins::check()?;
    }
    step("kernels with the newest nvcc");
    newest::check()?;
    step("registers and shared memory");
    resources::check()?;
    step("documentation");
    // It has a build of its own, too, and says nothing of kernels.
    let mut doc = process::cargo(["doc", "--workspace", FEATURES, "--no-deps"]);
    run(doc.env("RUSTDOCFLAGS", "-D warnings").env("DOCS_RS", "1"))?;
    step("package");
    package()?;
    step("tests that gpu-check sanitizes");
    sanitized()?;
    step("C library");
    capi::check()?;
    tests()
}

/// The lints of one package with no other features than these, which those of its neighbours could make up for.
fn lints_alone(package: &str, features: &[&str]) -> Result<()> {
    let mut command = process::cargo(["clippy", "--package", package]);
    // Each set has a build of its own, but kernels do not depend on features: these go without, as docs.rs does.
    run(command.args(features).args(["--", "-D", "warnings"]).env("DOCS_RS", "1"))
}

/// The lints of what the library has for another architecture, where Rust can compile for it: its standard library is a
/// download of rustup's, which checks do without.
fn arm_lints() -> Result<()> {
    const TARGET: &str = "aarch64-unknown-linux-gnu";
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let library = output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))?;
    if !std::path::Path::new(library.trim()).is_dir() {
        println!("left out: Rust has no {TARGET} here (rustup target add {TARGET})");
        return Ok(());
    }
    lints_alone("latent-attention", &["--lib", "--target", TARGET])
}

/// A test that was renamed would silently not be sanitized.
fn sanitized() -> Result<()> {
    let list = ["test", "--quiet", "--workspace", FEATURES, "--test", "kernels", "--", "--list"];
    let tests = output(&mut cargo(list))?;
    let exists = |name: &str| tests.lines().any(|line| line.strip_suffix(": test") == Some(name));
    let sanitized = include_str!("../../validate/src/bin/gpu-check/sanitized.txt");
    let missing: Vec<_> = sanitized.lines().filter(|name| !exists(name)).collect();
    ensure!(missing.is_empty(), "gpu-check's sanitized.txt names tests that do not exist: {missing:?}");
    Ok(())
}

/// Cargo, made to fail where it would otherwise build without kernels: checks of nothing would pass.
fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = process::cargo(arguments);
    command.env("LATENT_ATTENTION_STRICT", "1");
    command
}

fn step(name: &str) {
    println!("\n== {name}");
}

/// Packs what is published and builds what was packed, but for the operations over candle's tensors: candle would be
/// compiled a second time.
fn package() -> Result<()> {
    let all = ["latent-attention", "latent-attention-candle", "ptx-sim"].map(|name| ["--package", name]);
    run(cargo(["package", "--allow-dirty", "--quiet", "--no-verify"]).args(all.as_flattened()))?;
    let mut command = cargo(["package", "--allow-dirty", "--package", "latent-attention", "--package", "ptx-sim"]);
    // Cargo takes what it built of the package for builds of the workspace, and then sees no edits of the latter. The
    // folder of its own that avoids this has no compiler.
    command.arg("--target-dir").arg(setup::target()?.join("package-check"));
    // That kernels compile for every architecture shows elsewhere.
    command.env("CUDA_COMPUTE_CAP", "80");
    if let Some(compiler) = setup::cuda()? {
        command.env("CUDA_PATH", compiler.join("nvidia/cu13"));
    }
    run(&mut command)
}

/// Runs all tests, those of the kernels on the CPU too, and closes with their number.
fn tests() -> Result<()> {
    let (mut passed, mut failed, mut success) = (0, 0, true);
    let mut count_in = |name: &str, command: &mut Command| -> Result<()> {
        step(name);
        success &= run_inspected(command, |line| {
            if let Some(result) = line.strip_prefix("test result: ") {
                passed += count(result, "passed");
                failed += count(result, "failed");
            }
        })?;
        Ok(())
    };
    let all = ["test", "--workspace", FEATURES, "--no-fail-fast"];
    count_in("tests", &mut cargo(all))?;
    for level in [None, Some("portable")] {
        let mut command = cargo(all);
        command.args(["--test", "kernels", "--quiet"]).env("LATENT_ATTENTION_DEVICE", "cpu");
        command.envs(level.map(|level| ("LATENT_ATTENTION_CPU", level)));
        count_in(&format!("kernel tests on the CPU, level: {}", level.unwrap_or("the best")), &mut command)?;
    }
    println!("\n{passed} passed, {failed} failed");
    ensure!(success && passed > 0, "the tests failed");
    Ok(())
}

/// The number in front of `word` in a line like `ok. 12 passed; 0 failed; 0 ignored`.
fn count(line: &str, word: &str) -> usize {
    let mut words = line.split([' ', ';']).filter(|w| !w.is_empty());
    let mut previous = "";
    words
        .find_map(|w| {
            if w == word {
                previous.parse().ok()
            } else {
                previous = w;
                None
            }
        })
        .unwrap_or(0)
}

/// No dependency of the library may ask for a newer Rust than the library declares. (That the library's own code does
/// not is clippy's `incompatible_msrv`, which reads the same declaration.)
fn minimum_rust_version() -> Result<()> {
    let metadata: Value =
        serde_json::from_str(&output(&mut cargo(["metadata", "--format-version", "1", "--all-features"]))?)?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let find = |name: &str| packages.iter().find(|package| package["name"] == name);
    let ours = find("latent-attention").and_then(|package| version(&package["rust_version"]));
    let Some(ours) = ours else { anyhow::bail!("latent-attention declares no rust-version") };
    let newer: Vec<String> = packages
        .iter()
        .filter(|package| version(&package["rust_version"]).is_some_and(|theirs| theirs > ours))
        .map(|package| format!("{} {} needs Rust {}", package["name"], package["version"], package["rust_version"]))
        .collect();
    ensure!(newer.is_empty(), "newer than the declared rust-version {ours:?}: {newer:#?}");
    Ok(())
}

/// `"1.88.0"` as numbers that compare.
fn version(value: &Value) -> Option<Vec<u32>> {
    let mut numbers: Vec<u32> = value.as_str()?.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    numbers.resize(3, 0);
    Some(numbers)
}
