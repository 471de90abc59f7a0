//! Where nvcc may be.

use std::env::consts::EXE_SUFFIX;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Environment variables that decide which compilers are found, in the order of precedence.
///
/// `PATH`, which comes next, is not among them: it differs between a terminal and an editor, and rebuilding at every
/// change of it would cost more than noticing a newly installed toolkit is worth.
pub const VARIABLES: [&str; 3] = ["NVCC", "CUDA_HOME", "CUDA_PATH"];

/// The way to a compiler that can do the work.
pub const ADVICE: &str = "`cargo xtask setup` installs one in a checkout of latent-attention; NVIDIA's CUDA toolkit, 13.0 \
                          or newer, is found by CUDA_HOME";

/// Where `cargo xtask setup` leaves the toolkit in a target folder.
const INSTALLED: &str = "cuda/nvidia/cu13";

/// Whether a compiler is that of `cargo xtask setup`, which is then no advice.
pub fn is_installed(nvcc: &Path) -> bool {
    nvcc.parent().is_some_and(|folder| folder.ends_with(Path::new(INSTALLED).join("bin")))
}

/// The compilers that `CUDA_HOME`, `CUDA_PATH` and `PATH` lead to and that `cargo xtask setup` has installed in the
/// target folders, in this order. The variables are often set where no compiler is, in images made for running only.
/// `NVCC` names one compiler: it is then the only one, and a wrong one is an error.
pub fn nvccs(
    variable: impl Fn(&str) -> Option<OsString>,
    targets: &[PathBuf],
    exists: impl Fn(&Path) -> bool,
) -> Result<Vec<PathBuf>, String> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let path = set("PATH").unwrap_or_default();
    let in_path =
        |program: PathBuf| std::env::split_paths(&path).map(move |folder| folder.join(&program)).filter(|p| exists(p));
    if let Some(named) = set("NVCC").map(PathBuf::from) {
        // A bare name is looked up as a shell would.
        let bare = named.components().count() == 1;
        let found = if bare { in_path(named.clone()).next() } else { Some(named.clone()).filter(|p| exists(p)) };
        return found
            .map(|nvcc| vec![nvcc])
            .ok_or_else(|| format!("NVCC={}: there is no such program", named.display()));
    }
    let program = format!("nvcc{EXE_SUFFIX}");
    let in_toolkit = |folder: PathBuf| Some(folder.join("bin").join(&program)).filter(|p| exists(p));
    let toolkits = VARIABLES[1..].iter().filter_map(|name| set(name)).map(PathBuf::from);
    let installed = targets.iter().map(|target| target.join(INSTALLED));
    let mut found: Vec<PathBuf> = toolkits.filter_map(in_toolkit).collect();
    found.extend(in_path(PathBuf::from(&program)));
    found.extend(installed.filter_map(in_toolkit));
    Ok(found)
}

/// The target folders in which `cargo xtask setup` may have installed the compiler: that of the sources, and the one
/// that this build's output lies in (a packaged crate is verified far from its sources). Cargo marks those it makes;
/// going up from there would end in folders like `/tmp`, where anyone can put a compiler.
pub fn targets(sources: &Path, out: &Path, exists: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let around = out.ancestors().find(|folder| exists(&folder.join("CACHEDIR.TAG")));
    std::iter::once(sources.join("target")).chain(around.map(Path::to_path_buf)).collect()
}

/// The program to start for one that was found. A toolkit lies around the place that nvcc was started from, so a link
/// to nvcc is followed; a link to something else (ccache under the name `nvcc`) is run under its own name.
pub fn program(found: &Path) -> PathBuf {
    let is_nvcc = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("nvcc"));
    found.canonicalize().ok().filter(is_nvcc).unwrap_or_else(|| found.to_path_buf())
}
