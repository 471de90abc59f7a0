//! The programs that check the kernels on a GPU, here or on a machine without cargo.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{self, output, run};
use crate::setup;

/// What can be carried to a machine with a GPU, in bytes, where this project is lent one.
const CARRIED: u64 = 64 << 20;

/// Batches and contexts that variants are timed at (`Point::TIMED` of `benches/tune/trial.rs`), of which predictions are made.
const PREDICTED: [&str; 8] = ["--batch", "1", "16", "64", "--context", "2048", "8192", "16384"];

/// Builds the programs into target/gpu and runs them if this machine has a driver.
pub fn gpu_check(arguments: &[String]) -> Result<()> {
    let (folder, programs) = (setup::target()?.join("gpu"), programs()?);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for (name, built) in &programs {
        let program = folder.join(name);
        fs::copy(built, &program)
            .with_context(|| format!("cannot copy {} to {}", built.display(), program.display()))?;
        // Symbols are most of a program's bytes, and what is carried elsewhere should be small. Without the tool for it
        // the programs only stay larger.
        let _ = Command::new("strip").arg(&program).status();
        println!("{} ({:.1} MB)", program.display(), fs::metadata(&program)?.len() as f64 / 1e6);
    }
    if arguments.first().is_some_and(|task| task == "tune") {
        prepare_tuning(&folder)?;
        pack(&folder)?;
    }
    if !has_driver() && !arguments.iter().any(|argument| argument == "--rehearse") {
        println!(
            "\nThere is no NVIDIA driver here. Copy target/gpu and ptx-sim/suite to a machine that has one, and run \
             target/gpu/gpu-check there, in the folder that both are in. On a machine that is lent for minutes: docs/gpu.md."
        );
        return Ok(());
    }
    let suite = crate::root().join("ptx-sim/suite");
    run(Command::new(folder.join("gpu-check")).arg("--suite").arg(suite).args(arguments))
}

/// Puts beside the programs what `gpu-check tune` takes besides: the C library, by which others' kernels are measured beside
/// ours, and predictions of every way to serve a layer, which are counted here.
fn prepare_tuning(folder: &Path) -> Result<()> {
    let library = crate::capi::build()?.join("liblatent_attention.so");
    fs::copy(&library, folder.join("liblatent_attention.so"))
        .with_context(|| format!("cannot copy {}", library.display()))?;
    let predicted = folder.join("predicted.json");
    let mut command = crate::cost_model();
    command.arg("--variants").args(PREDICTED).arg("--json").arg(&predicted);
    predict(&mut command, &predicted)
}

/// Runs a program that writes predictions. Without them the rest is as good, but not with what is left of a file when it
/// fails: an empty one, which nobody reads there, or that of another build.
fn predict(command: &mut Command, file: &Path) -> Result<()> {
    let Err(why) = run(command) else { return Ok(()) };
    println!("no times are predicted: {why:#}");
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// What of the repository `gpu-check tune` reads: with it, the one file is enough wherever it is unpacked.
const READ: [&str; 3] = ["ptx-sim/suite/ptx", "benches/peers", "bindings/python/latent_attention"];

/// How the folder is packed. Every program has the same kernels in it: the dictionary has to reach back over a whole one, and
/// the largest of the presets, 64 MiB, does not.
const PACKER: &str = "xz --lzma2=preset=9,dict=256MiB";

/// Makes one file of the folder, with what was put there by hand.
fn pack(folder: &Path) -> Result<()> {
    let packed = folder.with_extension("tar.xz");
    let mut tar = Command::new("tar");
    tar.arg("--create").arg(format!("--use-compress-program={PACKER}")).arg("--exclude=__pycache__");
    tar.arg("--file").arg(&packed);
    tar.arg("--directory").arg(folder.with_file_name("")).arg(folder.file_name().unwrap_or_default());
    tar.arg("--directory").arg(std::path::absolute(crate::root())?).args(READ);
    run(&mut tar)?;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let bytes = fs::metadata(&packed)?.len();
    println!("{} ({:.1} MB, of {:.1} MB that can be carried)", packed.display(), mb(bytes), mb(CARRIED));
    ensure!(bytes <= CARRIED, "{} is larger than what can be carried", packed.display());
    Ok(())
}

/// The programs' names and where cargo built them.
fn programs() -> Result<Vec<(&'static str, PathBuf)>> {
    let commit =
        output(Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=40"]).current_dir(crate::root()))
            .unwrap_or_else(|_| "unknown: no git".into());
    let build = |name: &'static str, arguments: &[&str]| -> Result<(&'static str, PathBuf)> {
        let mut command = process::cargo(["--quiet"]);
        command.args(arguments).args(["--release", "--message-format", "json"]);
        command.env("LATENT_ATTENTION_STRICT", "1").env("LATENT_ATTENTION_COMMIT", commit.trim());
        let program = process::messages(&mut command)?.iter().find_map(|message| {
            let is_it = message["reason"] == "compiler-artifact" && message["target"]["name"] == name;
            is_it.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
        });
        let program = program.with_context(|| format!("cargo named no program `{name}`"))?;
        ensure!(Path::is_file(&program), "{} is missing", program.display());
        Ok((name, program))
    };
    Ok(vec![
        build("gpu-check", &["build", "--package", "validate", "--bin", "gpu-check"])?,
        build("validate", &["build", "--package", "validate", "--bin", "validate"])?,
        build("kernels", &["test", "--no-run", "--package", "latent-attention", "--test", "kernels"])?,
        build("benchmarks", &["build", "--package", "latent-attention", "--bench", "benchmarks"])?,
        build("suite", &["test", "--no-run", "--package", "ptx-sim", "--test", "suite"])?,
    ])
}

/// Whether this machine has a GPU, as far as can be told without loading the driver.
pub fn has_driver() -> bool {
    Command::new("nvidia-smi").arg("--list-gpus").output().is_ok_and(|output| output.status.success())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn predictions_that_fail_leave_no_file() {
        let folder = std::env::temp_dir().join(format!("xtask-predict-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("predicted.json");
        for (script, is_left) in [("echo '[]' > \"$0\"", true), ("exit 1", false), ("> \"$0\"; exit 1", false)] {
            predict(Command::new("sh").args(["-c", script]).arg(&file), &file).unwrap();
            assert_eq!(file.exists(), is_left, "{script}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
