//! Builds with other versions of nvcc in PATH than the one that is installed: scripts in their place, which print a
//! version, and compile nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::{self, run};
use crate::setup;

/// Versions that cudarc has bindings for, has none for yet, and no longer has any for.
const VERSIONS: [&str; 6] = ["10.1", "11.2", "11.4", "12.7", "13.5", "14.0"];

/// The one with which kernels are built too: they need the compiler that comes after it.
const OLD: &str = "11.4";

/// Checks that the library builds with each of them, from its dependencies' build scripts on, and with its kernels
/// though an nvcc that is too old comes first.
pub fn check() -> Result<()> {
    let folder = setup::target()?.join("stand-ins");
    for version in VERSIONS {
        let said = ["nvcc: NVIDIA (R) Cuda compiler driver", "Copyright", "Built", &release(version)].join("\n");
        build(&folder, version, &said, version == OLD)?;
    }
    build(&folder, "terse", "nvcc", false)
}

/// The line in which nvcc names its version.
fn release(version: &str) -> String {
    format!("Cuda compilation tools, release {version}, V{version}.0")
}

/// Builds the library with an nvcc in PATH that says this when asked for its version.
fn build(folder: &Path, name: &str, said: &str, with_kernels: bool) -> Result<()> {
    println!("nvcc {name}");
    let mut paths: Vec<PathBuf> = vec![stand_in(&folder.join(name), said)?];
    paths.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let target = folder.join("target");
    // Build scripts run again where what they made is gone; Cargo does not know that they may look into PATH.
    let clean = ["clean", "--quiet", "--package", "cudarc", "--package", "latent-attention", "--target-dir"];
    run(process::cargo(clean).arg(&target))?;
    let check = ["check", "--quiet", "--package", "latent-attention", "--lib", "--no-default-features", "--target-dir"];
    let mut command = process::cargo(check);
    command.arg(&target).env("PATH", std::env::join_paths(paths)?);
    if with_kernels {
        command.env("LATENT_ATTENTION_STRICT", "1").env("CUDA_COMPUTE_CAP", "80")
    } else {
        command.env("DOCS_RS", "1")
    };
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
        command.env_remove(variable); // They come before PATH.
    }
    run(&mut command)
}

/// Writes a script in the place of nvcc, and returns its folder.
fn stand_in(folder: &Path, said: &str) -> Result<PathBuf> {
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && {{ echo '{said}'; exit; }}\n\
         echo \"nvcc fatal   : Unsupported gpu architecture\" >&2\nexit 1\n"
    );
    let program = folder.join("nvcc");
    fs::create_dir_all(folder)?;
    fs::write(&program, script).with_context(|| format!("cannot write {}", program.display()))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(folder.into())
}
