//! Where nvcc is.

use std::env::consts::EXE_SUFFIX;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Environment variables that decide which compiler is found, in the order of precedence.
///
/// `PATH`, which comes next, is not among them: it differs between a terminal and an editor, and rebuilding at every
/// change of it would cost more than noticing a newly installed toolkit is worth.
pub const VARIABLES: [&str; 3] = ["NVCC", "CUDA_HOME", "CUDA_PATH"];

/// The compiler that `NVCC`, `CUDA_HOME`, `CUDA_PATH` or `PATH` leads to, or that `cargo xtask setup` has installed in
/// one of the target folders; the first of these that exists. `NVCC` names one compiler, so a wrong one is an error;
/// the others are often set where no compiler is, in images made for running only.
pub fn nvcc(
    variable: impl Fn(&str) -> Option<OsString>,
    targets: &[PathBuf],
    exists: impl Fn(&Path) -> bool,
) -> Result<Option<PathBuf>, String> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let path = set("PATH").unwrap_or_default();
    let in_path = |program: &Path| std::env::split_paths(&path).map(|folder| folder.join(program)).find(|p| exists(p));
    if let Some(named) = set("NVCC").map(PathBuf::from) {
        // A bare name is looked up as a shell would.
        let bare = named.components().count() == 1;
        let found = if bare { in_path(&named) } else { Some(named.clone()).filter(|p| exists(p)) };
        return found.map(Some).ok_or_else(|| format!("NVCC={}: there is no such program", named.display()));
    }
    let program = format!("nvcc{EXE_SUFFIX}");
    let in_toolkit = |folder: &Path| Some(folder.join("bin").join(&program)).filter(|p| exists(p));
    let toolkits = VARIABLES[1..].iter().filter_map(|name| set(name));
    let installed = || targets.iter().find_map(|target| in_toolkit(&target.join("cuda/nvidia/cu13")));
    Ok(toolkits
        .map(PathBuf::from)
        .find_map(|folder| in_toolkit(&folder))
        .or_else(|| in_path(Path::new(&program)))
        .or_else(installed))
}

/// The target folders in which `cargo xtask setup` may have installed the compiler: that of the sources, and the one
/// that this build's output lies in (a packaged crate is verified far from its sources). Cargo marks those it makes;
/// going up from there would end in folders like `/tmp`, where anyone can put a compiler.
pub fn targets(sources: &Path, out: &Path, exists: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let around = out.ancestors().find(|folder| exists(&folder.join("CACHEDIR.TAG")));
    std::iter::once(sources.join("target")).chain(around.map(Path::to_path_buf)).collect()
}
