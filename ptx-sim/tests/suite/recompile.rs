//! The kept PTX is what the pinned nvcc makes of the sources.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{folder, kept};

/// The release whose output is kept.
const RELEASE: &str = "V13.0.88";

/// The compiler that `NVCC` names, or the one that the workspace's set-up downloads.
fn nvcc() -> Option<PathBuf> {
    let downloaded = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/cuda/nvidia/cu13/bin/nvcc");
    let path = std::env::var_os("NVCC").map_or_else(|| PathBuf::from(downloaded), PathBuf::from);
    let version = Command::new(&path).arg("--version").output().ok()?;
    String::from_utf8_lossy(&version.stdout).contains(RELEASE).then_some(path)
}

/// PTX without the comment at its head, which names the compiler's build.
fn without_head(text: &str) -> &str {
    text.find(".version").map_or(text, |start| &text[start..])
}

#[test]
fn kept_ptx_is_what_nvcc_makes() {
    let Some(nvcc) = nvcc() else {
        println!("skipped: no nvcc {RELEASE}; set NVCC to its path");
        return;
    };
    let out = std::env::temp_dir().join(format!("ptx-sim-suite-{}", std::process::id()));
    std::fs::create_dir_all(&out).unwrap();
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| PathBuf::from(entry.unwrap().file_name()));
    let sources = entries.filter(|name| name.extension().is_some_and(|ending| ending == "cu"));
    for source in sources.chain([PathBuf::from("questions/hopper_90.cu")]) {
        let made = out.join("made.ptx");
        compile(&nvcc, &source, &made);
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let kept = read(&kept(&source.with_extension("").to_string_lossy()));
        let same = without_head(&kept) == without_head(&read(&made));
        assert!(same, "{}: the kept PTX is not what nvcc makes of it", source.display());
    }
    std::fs::remove_dir_all(out).unwrap();
}

/// In the folder and with relative paths, as the README says: then nothing of this machine gets into the file.
fn compile(nvcc: &Path, source: &Path, made: &Path) {
    let hopper = source.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("_90"));
    let target = if hopper { "-arch=compute_90a" } else { "-arch=compute_80" };
    let run = Command::new(nvcc).current_dir(folder()).args(["-ptx", target, "-o"]).arg(made).arg(source).output();
    let run = run.unwrap();
    assert!(run.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&run.stderr));
}
