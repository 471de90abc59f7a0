//! The C library: `target/capi` and what is checked of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::header::HEADER;
use crate::process::{self, output, run};
use crate::setup;

/// The crate that the library is made of, as rustc and its files call it.
const CRATE: &str = "latent_attention_c";

/// What the library is called instead, as by the compiler's option `-llatent_attention`.
const LIBRARY: &str = "latent_attention";

/// The shared library's name to the programs that are linked to it. Without one, a program that was linked to the
/// library by its path would look for it in that path when it starts. It has no version: there is one file of one name
/// to copy, and programs learn from la_abi_version() whether it is theirs.
const SONAME: &str = "liblatent_attention.so";

/// What the shared library may need at run time: glibc and the unwinder. Not CUDA, nor a C++ runtime.
const NEEDED: [&str; 5] = ["libc.so", "libm.so", "libgcc_s.so", "libdl.so", "ld-linux"];

/// Builds the shared and the static library into target/capi, beside the header. Returns the folder.
pub fn build() -> Result<PathBuf> {
    setup::cuda()?;
    let mut command = process::cargo(["rustc", "--quiet", "--package", "latent-attention-c", "--lib", "--release"]);
    command.args(["--crate-type", "cdylib", "--crate-type", "staticlib"]);
    command.args(["--message-format", "json", "--", "-C", "strip=debuginfo"]).env("LATENT_ATTENTION_STRICT", "1");
    if cfg!(target_os = "linux") {
        command.arg("-C").arg(format!("link-arg=-Wl,-soname,{SONAME}"));
    } else if cfg!(target_os = "macos") {
        command.args(["-C", "link-arg=-Wl,-install_name,@rpath/liblatent_attention.dylib"]);
    }
    let messages = process::messages(&mut command)?;
    let is_ours =
        |message: &&serde_json::Value| message["reason"] == "compiler-artifact" && message["target"]["name"] == CRATE;
    let artifact = messages.iter().rfind(is_ours).context("cargo named no library")?;
    let files = artifact["filenames"].as_array().map(Vec::as_slice).unwrap_or_default();
    let folder = setup::target()?.join("capi");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let built = files.iter().filter_map(|file| file.as_str().map(PathBuf::from));
    for from in built.chain([HEADER.path()]) {
        let to = folder.join(installed_name(&from));
        fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        println!("{} ({:.1} MB)", to.display(), fs::metadata(&to)?.len() as f64 / 1e6);
    }
    Ok(folder)
}

/// What a file that cargo has built is called in target/capi: as the library is, and not as the crate, whose name has to
/// differ from the core's.
fn installed_name(built: &Path) -> String {
    let name = built.file_name().unwrap_or_default().to_string_lossy();
    if cfg!(windows) {
        // There the import library says which file the linker made, under which programs look for it.
        name.into_owned()
    } else {
        name.replacen(CRATE, LIBRARY, 1)
    }
}

/// Compiles the header and the example in C, and runs the example with either library; checks the package for
/// Python.
pub fn check() -> Result<()> {
    let folder = build()?;
    for (language, standard) in [("c", "c99"), ("c++", "c++11")] {
        let mut compiler = compiler(language == "c++", standard)?;
        run(compiler.args(["-x", language, "-fsyntax-only"]).arg(HEADER.path()))?;
    }
    let rpath = format!("-Wl,-rpath,{}", folder.display());
    example(&folder, "decode-shared", &["-L.", "-llatent_attention", "-lm", &rpath])?;
    example(&folder, "decode-static", &["liblatent_attention.a", "-lpthread", "-ldl", "-lm"])?;
    if cfg!(target_os = "linux") {
        let library = folder.join(SONAME);
        let by_path = example(&folder, "decode-by-path", &[&library.to_string_lossy(), "-lm", &rpath])?;
        let ours = |name: &String| name.contains("latent_attention");
        ensure!(dynamic(&library, "SONAME")? == [SONAME], "{} is not named {SONAME}", library.display());
        let names: Vec<_> = dynamic(&by_path, "NEEDED")?.into_iter().filter(ours).collect();
        ensure!(names == [SONAME], "{}, linked by path, needs {names:?}, not {SONAME}", by_path.display());
        let is_foreign = |name: &String| !NEEDED.iter().any(|known| name.starts_with(known));
        let foreign: Vec<_> = dynamic(&library, "NEEDED")?.into_iter().filter(is_foreign).collect();
        ensure!(foreign.is_empty(), "{} needs {foreign:?}", library.display());
    }
    python()
}

/// Runs the tests of the package for Python and its example as it lies here, and the test that installs it.
fn python() -> Result<()> {
    let package = crate::root().join("bindings/python").canonicalize()?;
    let numpy = setup::numpy()?;
    let example = "examples/decode.py";
    let on_simulator = ["tests/mirror.py", "tests/arguments.py", "tests/peers.py", "tests/cpu_peers.py", example]
        .map(|script| (script, None));
    for (script, device) in on_simulator.into_iter().chain([(example, Some("cpu"))]) {
        let folders = numpy.iter().chain([&package]).cloned();
        run(setup::python_with(folders)?.arg(package.join(script)).args(device))?;
    }
    run(setup::python_with([setup::flit_core()?])?.arg(package.join("tests/install.py")))
}

/// Compiles the example in C with these arguments of the linker, and runs it on the simulator and on the CPU. Returns the
/// program.
fn example(folder: &Path, name: &str, link: &[&str]) -> Result<PathBuf> {
    let source = crate::root().join("bindings/c/examples/decode.c").canonicalize()?;
    let program = folder.join(name);
    let mut compiler = compiler(false, "c99")?;
    run(compiler.current_dir(folder).arg("-I.").arg(source).args(link).arg("-o").arg(&program))?;
    run(&mut Command::new(&program))?;
    run(Command::new(&program).arg("cpu"))?;
    Ok(program)
}

/// The compiler for programs of this machine that build scripts would get, told that neither the header nor the example
/// may cause a warning.
fn compiler(is_cpp: bool, standard: &str) -> Result<Command> {
    let rustc = output(Command::new("rustc").arg("-vV"))?;
    let machine = rustc.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let mut build = cc::Build::new();
    build.host(machine).target(machine).opt_level(1).cpp(is_cpp).std(standard).cargo_metadata(false);
    build.warnings(true).extra_warnings(true).flag("-pedantic").warnings_into_errors(true);
    let tool = build.try_get_compiler().context("there is no C compiler")?;
    // Not the crate's own command, which holds the whole environment and would print it when it fails.
    let mut command = Command::new(tool.path());
    command.args(tool.args()).envs(tool.get_envs());
    Ok(command)
}

/// The entries of one kind, such as NEEDED, in the dynamic section of a library or a program.
fn dynamic(file: &Path, kind: &str) -> Result<Vec<String>> {
    let section = output(Command::new("readelf").arg("--dynamic").arg("--wide").arg(file))?;
    let lines = section.lines().filter(|line| line.contains(&format!("({kind})")));
    let name = |line: &str| Some(line.split_once('[')?.1.strip_suffix(']')?.to_owned());
    lines.map(|line| name(line).with_context(|| format!("readelf printed `{line}`"))).collect()
}
