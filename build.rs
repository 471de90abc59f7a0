//! Compiles the kernels, `csrc/*.cu`, once for each architecture, and writes `images.rs`, which embeds the results.
//!
//! Neither network nor git nor a GPU is asked for anything: the same sources and variables build the same crate
//! anywhere. The crate `cc` finds the host compiler that nvcc needs; it compiles nothing, as it makes objects to link
//! into a host program, and these are images that the driver loads.

#[path = "src/image/arch.rs"]
mod arch;
#[path = "build/compile.rs"]
mod compile;
#[path = "build/find.rs"]
mod find;
#[path = "build/host.rs"]
mod host;
#[path = "build/notices.rs"]
mod notices;
#[path = "build/nvcc.rs"]
mod nvcc;
#[path = "build/reuse.rs"]
mod reuse;
#[path = "build/select.rs"]
mod select;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, process, thread};

use compile::Job;
use host::Host;
use nvcc::Nvcc;
use reuse::Shared;

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
    let jobs = if is_docs_rs() { Vec::new() } else { compiled(&root, &sources, &out)? };
    fs::write(out.join("images.rs"), generated(&jobs)?).map_err(|error| format!("cannot write images.rs: {error}"))
}

/// Compiles the kernels, if there is a compiler that can. What it made is named by the jobs.
fn compiled(root: &Path, sources: &Path, out: &Path) -> Result<Vec<Job>, String> {
    for name in find::VARIABLES.iter().chain(&host::FLAGS).chain(&["NVCC_CCBIN"]) {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let targets = find::targets(root, out, Path::is_file);
    let found = find::nvccs(|name| env::var_os(name), &targets, Path::is_file)?;
    if found.is_empty() {
        let places = "neither NVCC, CUDA_HOME nor CUDA_PATH names one, and none is in PATH or in target/cuda";
        return without_kernels(&format!("there is no nvcc: {places}\n{}", find::ADVICE));
    }
    for nvcc in &found {
        // Another version in the same place makes other images. (A compiler that is not there yet cannot be waited for:
        // Cargo would rebuild every time. `cargo xtask setup` touches this file instead.)
        println!("cargo::rerun-if-changed={}", nvcc.display());
    }
    let (architectures, note) = select::architectures(&tracked("CUDA_COMPUTE_CAP"))?;
    if let Some(note) = note {
        println!("cargo::warning={note}");
    }
    let host = match Host::find(|name| env::var_os(name), &variable("HOST")) {
        Ok(host) => host,
        Err(why) => return without_kernels(&why),
    };
    let (nvcc, passed_over) = match Nvcc::first_able(&found, host, &architectures, out) {
        Ok(able) => able,
        Err(why) => return without_kernels(&why),
    };
    for nvcc in passed_over {
        println!("passed over: {nvcc}");
    }
    let jobs = compile::jobs(sources, &architectures)?;
    // Not tracked: images are equal wherever they come from.
    let shared = Shared::new(Path::new(&variable(reuse::SHARED)));
    compile::run(&jobs, &nvcc, out, &shared, at_a_time())?;
    Ok(jobs)
}

/// Goes on without images, and says why; or does not, if kernels are a must or the compiler is one that the user names.
fn without_kernels(why: &str) -> Result<Vec<Job>, String> {
    if is_strict() {
        return Err(format!("{STRICT}=1 asks for the kernels, but {why}"));
    }
    if !variable("NVCC").is_empty() {
        return Err(format!("NVCC names the compiler of the kernels, but {why}"));
    }
    for line in format!("building without CUDA kernels: {why}").lines() {
        println!("cargo::warning={line}");
    }
    Ok(Vec::new())
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
