//! The C library: `target/capi` and what is checked of it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::header::HEADER;
use crate::process::{self, output, run};
use crate::setup;

/// The warnings that neither the header nor the example may cause.
const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-pedantic", "-Werror"];

/// What the shared library may need at run time: glibc and the unwinder. Not CUDA, nor a C++ runtime.
const NEEDED: [&str; 5] = ["libc.so", "libm.so", "libgcc_s.so", "libdl.so", "ld-linux"];

/// Builds the shared and the static library into target/capi, beside the header. Returns the folder.
pub fn build() -> Result<PathBuf> {
    setup::cuda()?;
    let mut command = process::cargo(["rustc", "--quiet", "--package", "latent-attention", "--lib", "--release"]);
    command.args(["--features", "capi", "--crate-type", "cdylib", "--crate-type", "staticlib"]);
    command.args(["--message-format", "json", "--", "-C", "strip=debuginfo"]).env("LATENT_ATTENTION_STRICT", "1");
    let messages = process::messages(&mut command)?;
    let is_ours = |message: &&serde_json::Value| {
        message["reason"] == "compiler-artifact" && message["target"]["name"] == "latent_attention"
    };
    let artifact = messages.iter().rfind(is_ours).context("cargo named no library")?;
    let files = artifact["filenames"].as_array().map(Vec::as_slice).unwrap_or_default();
    let folder = setup::target()?.join("capi");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let built = files.iter().filter_map(|file| file.as_str().map(PathBuf::from));
    for from in built.chain([HEADER.path()]) {
        let to = folder.join(from.file_name().unwrap_or_default());
        fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        println!("{} ({:.1} MB)", to.display(), fs::metadata(&to)?.len() as f64 / 1e6);
    }
    Ok(folder)
}

/// Compiles the header and the example in C, and runs the example with either library; runs the one in Python.
pub fn check() -> Result<()> {
    let folder = build()?;
    let cc = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    for (language, standard) in [("c", "-std=c99"), ("c++", "-std=c++11")] {
        let mut compiler = Command::new(&cc);
        run(compiler.args(["-x", language, standard, "-fsyntax-only"]).args(WARNINGS).arg(HEADER.path()))?;
    }
    let rpath = format!("-Wl,-rpath,{}", folder.display());
    example(&cc, &folder, "decode-shared", &["-L.", "-llatent_attention", "-lm", &rpath])?;
    example(&cc, &folder, "decode-static", &["liblatent_attention.a", "-lpthread", "-ldl", "-lm"])?;
    if cfg!(target_os = "linux") {
        needed(&folder.join("liblatent_attention.so"))?;
    }
    for script in ["tests/python/mirror.py", "examples/python/decode.py", "tests/python/peers.py"] {
        run(setup::python_with_numpy()?.arg(crate::root().join(script)))?;
    }
    Ok(())
}

/// Compiles the example in C with these arguments of the linker, and runs it on the simulator.
fn example(cc: &OsStr, folder: &Path, name: &str, link: &[&str]) -> Result<()> {
    let source = crate::root().join("examples/c/decode.c").canonicalize()?;
    let mut compiler = Command::new(cc);
    compiler.current_dir(folder).args(["-std=c99", "-O1", "-I."]).args(WARNINGS);
    run(compiler.arg(source).args(link).args(["-o", name]))?;
    run(&mut Command::new(folder.join(name)))
}

/// Fails if the shared library needs more than a C program does.
fn needed(library: &Path) -> Result<()> {
    let dynamic = output(Command::new("readelf").arg("--dynamic").arg(library))?;
    let names = dynamic.lines().filter(|line| line.contains("(NEEDED)")).filter_map(|line| {
        let (_, name) = line.split_once('[')?;
        name.strip_suffix(']')
    });
    let foreign: Vec<_> = names.filter(|name| !NEEDED.iter().any(|known| name.starts_with(known))).collect();
    ensure!(foreign.is_empty(), "{} needs {foreign:?}", library.display());
    Ok(())
}
