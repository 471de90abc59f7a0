//! The build script's decisions.

#[path = "../src/image/arch.rs"]
#[allow(dead_code)] // The library's tests use the rest.
mod arch;
#[path = "../build/compile.rs"]
#[allow(dead_code)] // Which files are compiled is the build script's.
mod compile;
#[path = "../build/find.rs"]
mod find;
#[path = "../build/host.rs"]
mod host;
#[path = "../build/notices.rs"]
mod notices;
#[path = "../build/nvcc.rs"]
mod nvcc;
#[path = "build_script/ptxas.rs"]
mod ptxas;
#[path = "../build/reuse.rs"]
#[allow(dead_code)] // Which folder is shared is the build script's to say.
mod reuse;
#[path = "../build/select.rs"]
mod select;

use std::env::consts::EXE_SUFFIX;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arch::Arch;
use host::Host;
use reuse::Shared;

/// Held by tests that start programs: a script cannot start while a child of another thread has it open for writing.
fn alone() -> MutexGuard<'static, ()> {
    static STARTING: Mutex<()> = Mutex::new(());
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is found with the given environment if the given files exist.
fn nvccs(variables: &[(&str, &str)], files: &[&str]) -> Result<Vec<PathBuf>, String> {
    let exists = |path: &Path| files.iter().any(|file| path == Path::new(&format!("{file}{EXE_SUFFIX}")));
    find::nvccs(environment(variables), &[PathBuf::from("/repo/target"), PathBuf::from("/elsewhere")], exists)
}

fn environment(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
    |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value))
}

fn found(files: &[&str]) -> Result<Vec<PathBuf>, String> {
    Ok(files.iter().map(|file| PathBuf::from(format!("{file}{EXE_SUFFIX}"))).collect())
}

#[test]
#[cfg(unix)] // Folders in PATH are separated otherwise on Windows.
fn compilers_are_found_in_the_documented_order() {
    let variables = [("CUDA_HOME", "/home"), ("CUDA_PATH", "/path"), ("PATH", "/none:/usr/bin:/opt")];
    let installed = ["/repo/target/cuda/nvidia/cu13/bin/nvcc", "/elsewhere/cuda/nvidia/cu13/bin/nvcc"];
    let files = ["/home/bin/nvcc", "/path/bin/nvcc", "/usr/bin/nvcc", "/opt/nvcc", installed[0], installed[1]];
    let mut unordered = files;
    unordered.reverse();
    assert_eq!(nvccs(&variables, &unordered), found(&files));
    assert_eq!(nvccs(&[], &files), found(&installed));
    assert_eq!(nvccs(&variables, &[]), found(&[]));
}

#[test]
fn empty_variables_are_unset_ones_and_folders_without_compiler_are_passed_over() {
    let empty = [("NVCC", ""), ("CUDA_HOME", ""), ("CUDA_PATH", "/cuda")];
    assert_eq!(nvccs(&empty, &["/cuda/bin/nvcc"]), found(&["/cuda/bin/nvcc"]));
    let runtime_only = [("CUDA_HOME", "/runtime"), ("PATH", "/bin")];
    assert_eq!(nvccs(&runtime_only, &["/bin/nvcc"]), found(&["/bin/nvcc"]));
}

#[test]
fn a_compiler_that_is_named_is_the_only_one_and_must_exist() {
    let bare = format!("nvcc-12{EXE_SUFFIX}");
    let files = ["/bin/nvcc-12", "/bin/nvcc", "/home/bin/nvcc"];
    for (named, file) in [(bare.as_str(), "/bin/nvcc-12"), ("/bin/nvcc", "/bin/nvcc")] {
        let named = format!("{}{EXE_SUFFIX}", named.trim_end_matches(EXE_SUFFIX));
        assert_eq!(nvccs(&[("NVCC", &named), ("CUDA_HOME", "/home"), ("PATH", "/bin")], &files), found(&[file]));
    }
    let error = nvccs(&[("NVCC", "/gone/nvcc"), ("PATH", "/bin")], &files).unwrap_err();
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
        assert_eq!(select::architectures(all).unwrap(), (Arch::ALL.into(), None));
    }
    let ptx = [Arch::Compute80, Arch::Compute90a];
    for (list, real) in [("80", vec![Arch::Sm80]), ("90a, 80,80", vec![Arch::Sm80, Arch::Sm90a])] {
        assert_eq!(select::architectures(list).unwrap(), ([real.as_slice(), &ptx].concat(), None));
    }
    assert_eq!(select::architectures("90,100"), select::architectures("90a,100a").map(|(built, _)| (built, None)));
}

#[test]
fn every_gpu_that_can_be_listed_is_served_and_told_by_what_if_it_has_no_code_of_its_own() {
    let ptx = "PTX of compute_80, which the driver compiles";
    let [sm_100, sm_120] = ["machine code of sm_100", "machine code of sm_120"];
    for (list, real, served) in [
        ("87", None, ptx), // Jetson Orin
        ("88", None, ptx),
        ("103", Some(Arch::Sm100), sm_100), // GB300
        ("103a", Some(Arch::Sm100), sm_100),
        ("107f", Some(Arch::Sm100), sm_100),
        ("110", None, ptx),                 // Jetson Thor
        ("121", Some(Arch::Sm120), sm_120), // GB10
        ("121a", Some(Arch::Sm120), sm_120),
    ] {
        let expected: Vec<_> = real.into_iter().chain([Arch::Compute80, Arch::Compute90a]).collect();
        let note = format!("CUDA_COMPUTE_CAP={list}: {list} is served by the {served}");
        assert_eq!(select::architectures(list).unwrap(), (expected, Some(note)));
    }
    let (built, note) = select::architectures("80,110,121").unwrap();
    assert_eq!(built, [Arch::Sm80, Arch::Sm120, Arch::Compute80, Arch::Compute90a]);
    let note = note.unwrap();
    assert_eq!(note, format!("CUDA_COMPUTE_CAP=80,110,121: 110 is served by the {ptx}; 121 is served by the {sm_120}"));
}

#[test]
fn what_is_no_compute_capability_of_ampere_or_newer_is_refused() {
    for (list, entry) in [
        ("80,75", "75"),
        ("80,", ""),
        ("sm_80", "sm_80"),
        ("native", "native"),
        ("8.6", "8.6"),
        ("+86", "+86"),
        ("80aa", "80aa"),
        ("a", "a"),
        ("1000", "1000"),
        ("99999999999", "99999999999"),
    ] {
        assert_eq!(
            select::architectures(list).unwrap_err(),
            format!(
                "CUDA_COMPUTE_CAP={list}: `{entry}` is no compute capability of 8.0 (Ampere) or newer, written as in \
                 `80,90a`"
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

#[test]
fn an_image_is_made_again_if_and_only_if_its_recipe_is_another_or_it_was_not_finished() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("common")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
    write("a.cu", "#include \"common/b.cuh\"\n#include <cuda_bf16.h>\n");
    write("common/b.cuh", "#pragma once\n#include \"../c.h\" // Which includes this in turn.\n");
    write("c.h", "#include \"common/b.cuh\"\nint c;\n");
    write("other.cuh", "int other;\n");
    let image = root.join("a.sm_80.cubin");
    let recipe = |compiler, command| reuse::recipe(compiler, command, &root.join("a.cu"));
    let of_sources = || recipe("13.0", "nvcc -O3 a.cu").unwrap();
    let first = of_sources();
    assert!(!reuse::is_made(&image, &first));
    reuse::begin(&image).unwrap();
    write("a.sm_80.cubin", "the image");
    assert!(!reuse::is_made(&image, &first), "it may be half an image");
    reuse::finish(&image, &first).unwrap();
    write("other.cuh", "int changed;\n");
    assert!(reuse::is_made(&image, &of_sources()), "nothing that it is made from has changed");
    assert!(!reuse::is_made(&image, &recipe("13.5", "nvcc -O3 a.cu").unwrap()));
    assert!(!reuse::is_made(&image, &recipe("13.0", "nvcc -O0 a.cu").unwrap()));
    write("c.h", "#include \"common/b.cuh\"\nint d;\n");
    assert!(!reuse::is_made(&image, &of_sources()), "a file that it includes has changed");
    write("c.h", "#include \"common/b.cuh\"\nint c;\n");
    assert!(reuse::is_made(&image, &of_sources()));
    std::fs::remove_file(&image).unwrap();
    assert!(!reuse::is_made(&image, &first), "it is gone");
    write("common/b.cuh", "#include \"gone.cuh\"\n");
    assert!(recipe("13.0", "nvcc -O3 a.cu").is_err());
}

#[test]
fn builds_share_images_of_equal_recipes_and_compilers_keep_theirs_apart() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = |name: &str| {
        let folder = temporary.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder.join("a.sm_80.cubin")
    };
    let (one, other) = (folder("debug"), folder("release"));
    let shared = Shared::new(&temporary.path().join("shared/images"));
    let [first, edited, newer] = ["13.0\nnvcc\nint c;", "13.0\nnvcc\nint d;", "13.5\nnvcc\nint c;"];
    let make = |image: &Path, text: &str, recipe: &str| {
        reuse::begin(image).unwrap();
        std::fs::write(image, text).unwrap();
        reuse::finish(image, recipe).unwrap();
        shared.put(image, recipe).unwrap();
    };
    let taken = |recipe: &str| {
        let taken = shared.take(&other, recipe);
        assert!(!taken || reuse::is_made(&other, recipe));
        taken.then(|| std::fs::read_to_string(&other).unwrap())
    };
    assert_eq!(taken(first), None);
    make(&one, "the first", first);
    assert_eq!(taken(first).as_deref(), Some("the first"));
    assert_eq!([edited, newer].map(taken), [None, None]);
    make(&one, "by another compiler", newer);
    assert_eq!([first, newer].map(taken), [Some("the first".into()), Some("by another compiler".into())]);
    make(&one, "edited", edited);
    assert_eq!([first, edited].map(taken), [None, Some("edited".into())], "an edit takes its predecessor's place");
    // Half an image, of a build that was broken off.
    let kept = std::fs::read_dir(temporary.path().join("shared/images")).unwrap().map(|entry| entry.unwrap().path());
    for folder in kept {
        reuse::begin(&folder.join("a.sm_80.cubin")).unwrap();
    }
    assert_eq!([edited, newer].map(taken), [None, None]);
    // A folder that cannot be is no folder, and none is asked for.
    let nowhere = Shared::new(&one);
    assert!(nowhere.put(&other, first).is_err() && !nowhere.take(&other, first));
    let none = Shared::new(Path::new(""));
    assert!(none.put(&one, edited).is_ok() && !none.take(&other, edited));
}

/// A shell script in the place of a compiler, in a folder of its own.
#[cfg(unix)]
fn stand_in(folder: &Path, name: &str, script: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder.join(name);
    std::fs::create_dir(&folder).unwrap();
    let program = folder.join("nvcc");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    program
}

/// What stand-ins do when asked for their version, and what one does that compiles if it may use its host compiler.
#[cfg(unix)]
const SAY_VERSION: &str =
    r#"[ "$1" = --version ] && { printf 'nvcc\nCuda tools, release %s, V0\n' "$version"; exit; }"#;
#[cfg(unix)]
const COMPILE: &str = r#"while [ $# -gt 1 ]; do [ "$1" = -o ] && echo made > "$2"; shift; done"#;

#[test]
#[cfg(unix)]
fn the_first_compiler_that_can_do_the_work_is_used_and_the_others_are_told_with_reasons() {
    let _alone = alone();
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().canonicalize().unwrap();
    let make = |name: &str, script: &str| stand_in(&root, name, &format!("version={name}\n{SAY_VERSION}\n{script}"));
    let old = make("11.4", "echo \"nvcc fatal   : Unsupported gpu architecture 'compute_90a'\" >&2; exit 1");
    let strict =
        make("13.0", r#"case "$*" in *"-ccbin /gcc-16"*) echo 'h:1: error: #error -- gcc > 15' >&2; exit 1; esac"#);
    let broken = make("13.1", "for a; do [ \"$a\" = -E ] && exit 0; done; exit 7");
    let parrot = stand_in(&root, "parrot", "echo one line");
    let closed = make("closed", "");
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let able = make("14.0", COMPILE);
    let link = root.join("link/nvcc");
    std::fs::create_dir(root.join("link")).unwrap();
    std::os::unix::fs::symlink(&able, &link).unwrap();

    let first_able = |found: &[&PathBuf]| {
        let found: Vec<PathBuf> = found.iter().map(|&path| path.clone()).collect();
        let host = Host::find(environment(&[("NVCC_CCBIN", "/gcc-16")]), "").unwrap();
        let architectures = [Arch::Sm80, Arch::Compute90a];
        nvcc::Nvcc::first_able(&found, host, &architectures, &root).map(|(nvcc, passed_over)| {
            (nvcc.command().get_program().to_owned(), nvcc.command().get_args().collect::<Vec<_>>().len(), passed_over)
        })
    };
    let reason = |nvcc: &PathBuf, why: &str| format!("{} {why}", nvcc.display());
    let reasons = [
        reason(
            &old,
            "(CUDA 11.4): nvcc fatal   : Unsupported gpu architecture 'compute_90a' (CUDA_COMPUTE_CAP can ask for \
             fewer, as in `80,90a`)",
        ),
        reason(
            &strict,
            "(CUDA 13.0): it does not work with the host compiler /gcc-16 (NVCC_CCBIN): h:1: error: #error -- gcc > 15 \
             (NVCC_CCBIN can name another one)",
        ),
        reason(&broken, "(CUDA 13.1): exit status: 7"),
        reason(&parrot, "(version unknown): it compiles nothing"),
    ];
    let incapable = [&old, &strict, &broken, &parrot];
    let (program, arguments, passed_over) = first_able(&[incapable.as_slice(), &[&link]].concat()).unwrap();
    // A toolkit lies around the place that nvcc is started from.
    assert_eq!((program, arguments), (able.clone().into_os_string(), 2));
    assert_eq!(passed_over, reasons);
    assert_eq!(first_able(&[&able, &old]).unwrap().2, [""; 0]);
    // That one is met twice is not told twice.
    assert_eq!(
        first_able(&[incapable.as_slice(), &[&old]].concat()).unwrap_err(),
        format!("no nvcc compiles for sm_80, compute_90a; found were:\n{}\n{}", reasons.join("\n"), find::ADVICE)
    );
    // To install what is installed would not help.
    let folder = root.join("target/cuda/nvidia/cu13");
    std::fs::create_dir_all(&folder).unwrap();
    let installed = stand_in(&folder, "bin", "exit 7");
    assert_eq!(
        first_able(&[&installed]).unwrap_err(),
        format!(
            "no nvcc compiles for sm_80, compute_90a; found were:\n{}",
            reason(
                &installed,
                "(version unknown): it does not work with the host compiler /gcc-16 (NVCC_CCBIN): exit status: 7 \
                 (NVCC_CCBIN can name another one)"
            )
        )
    );
    let error = first_able(&[&closed]).unwrap_err();
    assert!(error.contains("closed/nvcc cannot be started: "), "{error}");
}

#[test]
#[cfg(unix)]
fn links_to_nvcc_are_followed_and_wrappers_keep_their_name() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().canonicalize().unwrap();
    let file = |name: &str| {
        std::fs::write(root.join(name), "").unwrap();
        root.join(name)
    };
    let (real, ccache) = (file("nvcc-13"), file("ccache"));
    for (target, link, started) in
        [(&real, root.join("nvcc"), &real), (&ccache, root.join("nvcc-0"), &root.join("nvcc-0"))]
    {
        std::os::unix::fs::symlink(target, &link).unwrap();
        assert_eq!(&find::program(&link), started);
    }
    assert_eq!(find::program(Path::new("/gone/nvcc")), Path::new("/gone/nvcc"));
}

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))] // The machine's name below.
fn the_host_compiler_is_that_of_nvccs_variables_or_the_one_that_cc_finds() {
    let _alone = alone();
    let arguments = |host: Host| {
        let mut command = std::process::Command::new("nvcc");
        host.hand_to(&mut command);
        command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let machine = &format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let named = Host::find(environment(&[("NVCC_CCBIN", "/opt/g++-15"), ("NVCC_APPEND_FLAGS", "-ccbin x")]), machine);
    assert_eq!(arguments(named.unwrap()), ["-ccbin", "/opt/g++-15"]);
    // nvcc warns of an option that it is given twice, and warnings are errors.
    for flags in ["-O1 -ccbin=clang++", "--compiler-bindir /opt"] {
        let host = Host::find(environment(&[("NVCC_PREPEND_FLAGS", flags)]), machine).unwrap();
        assert_eq!(host.name, "of NVCC_PREPEND_FLAGS");
        assert_eq!(arguments(host), [""; 0]);
    }
    let found = Host::find(environment(&[("NVCC_CCBIN", ""), ("NVCC_APPEND_FLAGS", "-O1")]), machine).unwrap();
    assert_eq!(arguments(found)[0], "-ccbin");
}

#[test]
fn a_missing_host_compiler_is_named_with_the_way_out() {
    let _alone = alone();
    let error = Host::of(Path::new("/no/such/c++"), Vec::new()).err().unwrap();
    assert!(error.starts_with("nvcc needs a C++ compiler, and there is none: /no/such/c++: "), "{error}");
    assert!(error.ends_with("or let NVCC_CCBIN name one that is not in PATH"), "{error}");
}
