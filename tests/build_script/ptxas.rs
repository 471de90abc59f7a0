//! What ptxas tells of machine code that it makes all the same ends the build. With a compiler, where there is one;
//! `LATENT_ATTENTION_STRICT=1` (`cargo xtask test`) lets no other case pass.

use std::path::Path;

use super::arch::Arch;
use super::compile::{self, Job};
use super::notices::{notices, place};
use super::{alone, find, host::Host, nvcc::Nvcc, reuse::Shared};

const KERNELS: &str = include_str!("notices.cu");

/// What the build says of the kernels of `notices.cu` that a macro lets through; nothing if it builds them. `None`
/// without a compiler.
fn build(which: &str) -> Option<Result<(), String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let targets = find::targets(root, Path::new(env!("CARGO_TARGET_TMPDIR")), Path::is_file);
    let found = find::nvccs(|name| std::env::var_os(name), &targets, Path::is_file).unwrap();
    if found.is_empty() {
        let strict = std::env::var_os("LATENT_ATTENTION_STRICT").is_some_and(|value| value == "1");
        assert!(!strict, "there is no nvcc");
        return None;
    }
    let out = tempfile::tempdir().unwrap();
    let host = Host::find(|name| std::env::var_os(name), &format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
    let (nvcc, _) = Nvcc::first_able(&found, host.unwrap(), &[Arch::Sm90a], out.path()).unwrap();
    let source = out.path().join("kernels.cu");
    let kernels = root.join("tests/build_script/notices.cu");
    std::fs::write(&source, format!("#define {which}\n#include \"{}\"\n", kernels.display())).unwrap();
    Some(compile::run(&[Job { source, arch: Arch::Sm90a }], &nvcc, out.path(), &Shared::new(Path::new("")), 1))
}

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))] // The machine's name above.
fn what_ptxas_notices_ends_the_build_with_file_architecture_and_line() {
    let _alone = alone();
    let Some(built) = build("NOTICES") else { return };
    let error = built.unwrap_err();
    let head = "kernels.cu for sm_90a: the machine code is not what the kernel asks for\n";
    assert!(error.contains(head), "{error}");
    let mut numbers = 0;
    for (i, line) in KERNELS.lines().enumerate() {
        let Some((_, number)) = line.split_once("// C7") else { continue };
        let said = format!("notices.cu:{}: ptxas info    : (C7{number})", i + 1);
        assert!(error.contains(&said), "no {said} in\n{error}");
        numbers += 1;
    }
    assert_eq!(numbers, error.lines().count() - 1, "{error}");
}

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn spilled_registers_and_other_local_memory_end_the_build() {
    let _alone = alone();
    for (which, why) in [("SPILLS", "spilled to local memory in function 'spills'"), ("LOCAL_MEMORY", "'indexes'")] {
        let Some(built) = build(which) else { return };
        let error = built.unwrap_err();
        assert!(error.contains("kernels.cu") && error.contains("sm_90a") && error.contains(why), "{error}");
    }
    assert_eq!(build("NOTHING"), Some(Ok(())));
}

#[test]
fn a_notice_is_a_line_of_ptxas_with_a_number() {
    let told = "ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored; unable to determine register";
    let verbose = "ptxas info    : 0 bytes gmem\nptxas info    : Used 32 registers, used 1 barriers (C)\n";
    assert_eq!(notices(&format!("{verbose}{told}\r\nnvcc info : (C1) other\n  {told}\n")), [told, told]);
    assert_eq!(notices(verbose), [""; 0]);
}

#[test]
fn a_notice_is_placed_by_its_line_of_ptx_or_its_kernel() {
    let ptx = "\
.visible .entry first(
)
.loc 1 7 0
.loc 2 31 5, function_name $L__info, inlined_at 1 9 5
setmaxnreg.dec.sync.aligned.u32 40;
.loc 1 12 1
ret;
.visible .entry second(
.loc 1 20 0
ret;
.file 1 \"/k/a.cu\"
.file 2 \"/k/ptx/b.cuh\", 5, 6
";
    for (notice, expected) in [
        ("ptxas info : (C1) around line 5 by compiler in function 'first'", Some("/k/ptx/b.cuh:31")),
        ("ptxas info : (C1) around line 99 by compiler", Some("/k/a.cu:20")),
        ("ptxas info : (C1) in the function 'second' in line 0", Some("/k/a.cu:20")),
        ("ptxas info : (C1) in function 'first'", Some("/k/a.cu:7")),
        ("ptxas info : (C1) 'setmaxnreg' ignored", Some("/k/ptx/b.cuh:31")),
        ("ptxas info : (C1) in function 'third'", None),
        ("ptxas info : (C1) something", None),
    ] {
        assert_eq!(place(notice, ptx).as_deref(), expected, "{notice}");
    }
    assert_eq!(place("ptxas info : (C1) around line 2", ""), None);
}

/// A stand-in for nvcc that makes what it is asked for, notices something, and cannot do it twice.
#[test]
#[cfg(unix)]
fn a_notice_without_a_place_names_the_file() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "[ \"$1\" = --version ] && exit\nfor a; do [ \"$a\" = -ptx ] && exit 1; done\n{}\n\
         echo 'ptxas info    : (C7510) something' >&2",
        super::COMPILE
    );
    let program = super::stand_in(folder.path(), "nvcc", &script);
    let host = Host::find(|name| (name == "NVCC_CCBIN").then(|| "g++".into()), "").unwrap();
    let (nvcc, _) = Nvcc::first_able(&[program], host, &[Arch::Sm80], folder.path()).unwrap();
    let source = folder.path().join("some.cu");
    std::fs::write(&source, "").unwrap();
    let named = source.display().to_string();
    let job = Job { source, arch: Arch::Sm80 };
    assert_eq!(
        compile::run(&[job], &nvcc, folder.path(), &Shared::new(Path::new("")), 1).unwrap_err(),
        format!(
            "{named} for sm_80: the machine code is not what the kernel asks for\n\
             {named}: ptxas info    : (C7510) something"
        )
    );
}
