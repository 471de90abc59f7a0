//! Compiles the kernels, `csrc/*.cu`, once for each architecture, and writes `images.rs`, which embeds the results.
//!
//! Neither network nor git nor a GPU is asked for anything: the same sources and variables build the same crate
//! anywhere. The crate `cc` is not used: it makes objects to link into a host program, and these are images that the
//! driver loads. nvcc finds its host compiler itself (`NVCC_CCBIN` overrides).

#[path = "src/image/arch.rs"]
mod arch;
#[path = "build/compile.rs"]
mod compile;
#[path = "build/find.rs"]
mod find;
#[path = "build/select.rs"]
mod select;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, process, thread};

use compile::Job;

/// Makes a build without a compiler fail, for checks that would pass emptily without kernels.
const STRICT: &str = "LATENT_ATTENTION_STRICT";

fn main() {
    if let Err(why) = build() {
        eprintln!("{why}");
        process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let [root, out] = ["CARGO_MANIFEST_DIR", "OUT_DIR"].map(|name| PathBuf::from(variable(name)));
    let sources = root.join("csrc");
    // Cargo looks at every file below a folder, so headers are tracked too.
    println!("cargo::rerun-if-changed={}", sources.display());
    let jobs = match compiler(&root, &out)? {
        Some(nvcc) => {
            let jobs = compile::jobs(&sources, &select::architectures(&tracked("CUDA_COMPUTE_CAP"))?)?;
            compile::run(&jobs, &nvcc, &out, at_a_time())?;
            jobs
        }
        None => Vec::new(),
    };
    fs::write(out.join("images.rs"), generated(&jobs)?).map_err(|error| format!("cannot write images.rs: {error}"))
}

/// The compiler to use, if any.
fn compiler(root: &Path, out: &Path) -> Result<Option<PathBuf>, String> {
    if is_docs_rs() {
        return Ok(None);
    }
    for name in find::VARIABLES.iter().chain(&["NVCC_CCBIN", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"]) {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let targets = find::targets(root, out, Path::is_file);
    let found = find::nvcc(|name| env::var_os(name), &targets, Path::is_file)?;
    match &found {
        // Another version in the same place makes other images. (A compiler that is not there yet cannot be waited for:
        // Cargo would rebuild every time. `cargo xtask setup` touches this file instead.)
        Some(nvcc) => println!("cargo::rerun-if-changed={}", nvcc.display()),
        None if is_strict() => {
            return Err(format!(
                "{STRICT}=1 asks for the kernels, but there is no nvcc: neither NVCC, CUDA_HOME nor CUDA_PATH names \
                 one, none is in PATH, and `cargo xtask setup` has installed none in target/cuda (run it, or install \
                 NVIDIA's CUDA toolkit and set CUDA_HOME to it)"
            ));
        }
        None => {
            println!("cargo::warning=no nvcc found, building without CUDA kernels; `cargo xtask setup` installs it")
        }
    }
    Ok(found)
}

/// docs.rs builds only documentation, which is the same without kernels.
fn is_docs_rs() -> bool {
    !tracked("DOCS_RS").is_empty()
}

/// Only asked when there is no compiler, so that `cargo xtask test` and a plain build share their images.
fn is_strict() -> bool {
    tracked(STRICT) == "1"
}

/// As many compilers as Cargo runs jobs. It does not count them, but no other crate's build is likely to be left when
/// the library's begins.
fn at_a_time() -> usize {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    variable("NUM_JOBS").parse().unwrap_or_else(|_| cores())
}

/// An environment variable's value, empty if it is not set.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// The same, of one whose change changes the build.
fn tracked(name: &str) -> String {
    println!("cargo::rerun-if-env-changed={name}");
    variable(name)
}

/// The Rust source that `src/image/mod.rs` includes.
fn generated(jobs: &[Job]) -> Result<String, String> {
    let mut source = String::from("static IMAGES: &[Image] = &[\n");
    for job in jobs {
        let (file, arch, image) = (job.kernel_file(), job.arch, format!("/{}", job.image()));
        writeln!(
            source,
            "    Image {{ kernel_file: {file:?}, arch: Arch::{arch:?}, \
             bytes: include_bytes!(concat!(env!(\"OUT_DIR\"), {image:?})) }},"
        )
        .map_err(|error| error.to_string())?;
    }
    source.push_str("];\n");
    Ok(source)
}
