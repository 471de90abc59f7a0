//! The build script's decisions.

#[path = "../src/image/arch.rs"]
#[allow(dead_code)] // The library's tests use the rest.
mod arch;
#[path = "../build/find.rs"]
mod find;
#[path = "../build/select.rs"]
mod select;

use std::env::consts::EXE_SUFFIX;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use arch::Arch;

/// What is found with the given environment if the given files exist.
fn nvcc(variables: &[(&str, &str)], files: &[&str]) -> Result<Option<PathBuf>, String> {
    let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
    let exists = |path: &Path| files.iter().any(|file| path == Path::new(&format!("{file}{EXE_SUFFIX}")));
    find::nvcc(variable, &[PathBuf::from("/repo/target"), PathBuf::from("/elsewhere")], exists)
}

fn found(file: &str) -> Result<Option<PathBuf>, String> {
    Ok(Some(PathBuf::from(format!("{file}{EXE_SUFFIX}"))))
}

#[test]
#[cfg(unix)] // Folders in PATH are separated otherwise on Windows.
fn the_compiler_is_searched_for_in_the_documented_order() {
    let named = format!("/named/nvcc{EXE_SUFFIX}");
    let variables =
        [("NVCC", named.as_str()), ("CUDA_HOME", "/home"), ("CUDA_PATH", "/path"), ("PATH", "/none:/usr/bin:/opt")];
    let installed = "/elsewhere/cuda/nvidia/cu13/bin/nvcc";
    let files = ["/named/nvcc", "/home/bin/nvcc", "/path/bin/nvcc", "/usr/bin/nvcc", installed];
    for first in 0..files.len() {
        // One place after the other is emptied, and the variable that names it is unset.
        assert_eq!(nvcc(&variables[first.min(3)..], &files[first..]), found(files[first]));
    }
    assert_eq!(nvcc(&variables[1..], &[]), Ok(None));
    assert_eq!(
        nvcc(&[], &["/repo/target/cuda/nvidia/cu13/bin/nvcc", installed]),
        found("/repo/target/cuda/nvidia/cu13/bin/nvcc")
    );
}

#[test]
fn empty_variables_are_unset_ones_and_folders_without_compiler_are_passed_over() {
    let empty = [("NVCC", ""), ("CUDA_HOME", ""), ("CUDA_PATH", "/cuda")];
    assert_eq!(nvcc(&empty, &["/cuda/bin/nvcc"]), found("/cuda/bin/nvcc"));
    let runtime_only = [("CUDA_HOME", "/runtime"), ("PATH", "/bin")];
    assert_eq!(nvcc(&runtime_only, &["/bin/nvcc"]), found("/bin/nvcc"));
}

#[test]
fn a_compiler_that_is_named_must_exist() {
    let bare = format!("nvcc-12{EXE_SUFFIX}");
    assert_eq!(nvcc(&[("NVCC", &bare), ("PATH", "/bin")], &["/bin/nvcc-12"]), found("/bin/nvcc-12"));
    let error = nvcc(&[("NVCC", "/gone/nvcc"), ("PATH", "/bin")], &["/bin/nvcc"]).unwrap_err();
    assert_eq!(error, "NVCC=/gone/nvcc: there is no such program");
}

#[test]
fn only_target_folders_are_searched_for_an_installed_compiler() {
    let targets = |tags: &[&str]| {
        let exists = |path: &Path| tags.iter().any(|tag| path == Path::new(tag));
        find::targets(Path::new("/repo"), Path::new("/tmp/ours/debug/build/crate-0/out"), exists)
    };
    let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(targets(&["/tmp/ours/CACHEDIR.TAG", "/tmp/CACHEDIR.TAG"]), paths(&["/repo/target", "/tmp/ours"]));
    assert_eq!(targets(&[]), paths(&["/repo/target"]));
}

#[test]
fn all_architectures_are_built_unless_some_are_listed() {
    for all in ["", " "] {
        assert_eq!(select::architectures(all).unwrap(), Arch::ALL);
    }
    let ptx = [Arch::Compute80, Arch::Compute90a];
    for (list, real) in [("80", vec![Arch::Sm80]), ("90a, 80,80", vec![Arch::Sm80, Arch::Sm90a])] {
        assert_eq!(select::architectures(list).unwrap(), [real.as_slice(), &ptx].concat());
    }
    assert_eq!(select::architectures("90,100"), select::architectures("90a,100a"));
}

#[test]
fn an_unknown_architecture_is_refused() {
    for (list, entry) in [("80,75", "75"), ("80,", ""), ("sm_80", "sm_80"), ("native", "native")] {
        assert_eq!(
            select::architectures(list).unwrap_err(),
            format!(
                "CUDA_COMPUTE_CAP={list}: `{entry}` is not known; the kernels are built for 80, 86, 89, 90a, 100a, 120"
            )
        );
    }
}

#[test]
fn hoppers_kernels_are_built_for_hopper_only() {
    let built_for = |file| Arch::ALL.into_iter().filter(|&arch| select::suits(file, arch)).collect::<Vec<_>>();
    assert_eq!(built_for("decode_sm80"), Arch::ALL);
    assert_eq!(built_for("combine"), Arch::ALL);
    assert_eq!(built_for("decode_sm90"), [Arch::Sm90a, Arch::Compute90a]);
}
