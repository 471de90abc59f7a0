//! What each kernel takes of a multiprocessor, `docs/kernels.md`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{self, output};
use crate::setup;
use crate::unbounded::{self, Bounded};

/// The columns, as nvcc names them.
const ARCHITECTURES: [&str; 6] = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"];

/// Of one kernel: registers per thread by architecture, as built and without bounds, and bytes of static shared memory.
#[derive(Default)]
struct Usage {
    registers: BTreeMap<&'static str, u32>,
    unbounded: BTreeMap<&'static str, u32>,
    shared: u32,
}

/// By file and name.
type Kernels = BTreeMap<(String, String), Usage>;

/// Writes the table.
pub fn write() -> Result<()> {
    let Some(table) = table()? else { bail!("there are no disassemblers to download for this system") };
    fs::write(target(), table).with_context(|| format!("cannot write {}", target().display()))?;
    println!("wrote {}", target().display());
    Ok(())
}

/// Fails if the table is not what would be written, or if a kernel uses local memory.
pub fn check() -> Result<()> {
    match table()? {
        Some(table) if fs::read_to_string(target())? != table => {
            bail!("docs/kernels.md does not match the kernels: run `cargo xtask kernels` and look at what changed")
        }
        Some(_) => Ok(()),
        None => {
            println!("skipped: there are no disassemblers to download for this system");
            Ok(())
        }
    }
}

fn target() -> PathBuf {
    crate::root().join("docs/kernels.md")
}

/// The table, where there are disassemblers.
fn table() -> Result<Option<String>> {
    let Some(toolkit) = setup::cuda()? else { return Ok(None) };
    let toolkit = toolkit.join("nvidia/cu13");
    let tool = toolkit.join("bin/cuobjdump");
    let images = images()?;
    let (mut kernels, mut bounded) = (Kernels::new(), Vec::new());
    for file in kernel_files()? {
        let has_bounds = has_bounds(&images, &file)?;
        for architecture in ARCHITECTURES {
            let image = images.join(format!("{file}.{architecture}.cubin"));
            if !image.exists() {
                ensure!(file.ends_with("_sm90"), "{} is missing: is CUDA_COMPUTE_CAP set?", image.display());
                continue;
            }
            for Taken { kernel, registers, shared, local } in taken(&tool, &image)? {
                ensure!(local == 0, "{kernel} in {}: {local} bytes of local memory", image.display());
                let usage = kernels.entry((file.clone(), kernel)).or_default();
                // The oldest architecture's: newer ones add 1 KiB that the system keeps for itself.
                if usage.registers.is_empty() {
                    usage.shared = shared;
                }
                usage.registers.insert(architecture, registers);
            }
            if has_bounds {
                bounded.push(Bounded { file: file.clone(), architecture, image });
            }
        }
    }
    for (bounded, image) in bounded.iter().zip(unbounded::images(&toolkit, &bounded)?) {
        for Taken { kernel, registers, .. } in taken(&tool, &image)? {
            let usage = kernels.get_mut(&(bounded.file.clone(), kernel)).context("a kernel only without bounds")?;
            usage.unbounded.insert(bounded.architecture, registers);
        }
    }
    Ok(Some(markdown(&kernels)?))
}

/// Whether a kernel of a file bounds its registers, by the blocks that are to share a multiprocessor.
fn has_bounds(images: &Path, file: &str) -> Result<bool> {
    let virtual_architecture = if file.ends_with("_sm90") { "compute_90a" } else { "compute_80" };
    let path = images.join(format!("{file}.{virtual_architecture}.ptx"));
    let ptx = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok([".minnctapersm", ".maxnreg"].iter().any(|bound| ptx.contains(bound)))
}

/// Where the build script put the images.
fn images() -> Result<PathBuf> {
    // After the lints there is nothing left to build.
    let mut build = process::lints(["--message-format", "json"]);
    let folder = process::messages(&mut build)?.iter().find_map(|message| {
        let ours = message["package_id"].as_str().is_some_and(|id| id.contains("#latent-attention@"));
        let is_ours = ours && message["reason"] == "build-script-executed";
        is_ours.then(|| message["out_dir"].as_str().map(PathBuf::from)).flatten()
    });
    folder.context("cargo named no folder of the build script")
}

/// The names of `csrc/*.cu` without their ending, in order.
fn kernel_files() -> Result<Vec<String>> {
    let mut files: Vec<String> = fs::read_dir(crate::root().join("csrc"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    files.sort();
    Ok(files)
}

/// What a kernel takes in an image: registers, bytes of static shared memory, and of local memory, where spilled registers
/// and arrays with variable indices go.
struct Taken {
    kernel: String,
    registers: u32,
    shared: u32,
    local: u32,
}

/// The kernels of an image.
fn taken(tool: &Path, image: &Path) -> Result<Vec<Taken>> {
    let text = output(Command::new(tool).arg("-res-usage").arg(image))?;
    let mut kernels = Vec::new();
    let mut name = "";
    for line in text.lines().map(str::trim) {
        if let Some(function) = line.strip_prefix("Function ") {
            name = function.trim_end_matches(':');
        } else if line.starts_with("REG:") {
            let number = |key: &str| {
                let field = line.split(' ').find_map(|field| field.strip_prefix(key)?.strip_prefix(':'));
                field.and_then(|n| n.parse::<u32>().ok()).with_context(|| format!("no {key} in `{line}`"))
            };
            let local = number("STACK")? + number("LOCAL")?;
            kernels.push(Taken { kernel: name.into(), registers: number("REG")?, shared: number("SHARED")?, local });
        }
    }
    ensure!(!kernels.is_empty(), "{} has no kernels", image.display());
    Ok(kernels)
}

fn markdown(kernels: &Kernels) -> Result<String> {
    let mut text = String::from(
        "# What the kernels take\n\n\
         Registers per thread by architecture, and bytes of static shared memory per block. None uses local memory: no \
         register is spilled.\nIn brackets, where `__launch_bounds__` ask for blocks on a multiprocessor: what the kernel \
         would take if they named its threads alone,\nwhere that is another number.\n\
         Made by `cargo xtask kernels` of what the pinned nvcc compiled; `cargo xtask test` compares.\n\n",
    );
    writeln!(text, "| file | kernel | {} | shared |", ARCHITECTURES.join(" | "))?;
    writeln!(text, "|---|---|{}---:|", "---:|".repeat(ARCHITECTURES.len()))?;
    for ((file, kernel), usage) in kernels {
        let cell = |arch| match (usage.registers.get(arch), usage.unbounded.get(arch)) {
            (None, _) => "-".into(),
            (Some(bounded), Some(unbounded)) if unbounded != bounded => format!("{bounded} ({unbounded})"),
            (Some(bounded), _) => bounded.to_string(),
        };
        writeln!(text, "| `{file}` | `{kernel}` | {} | {} |", ARCHITECTURES.map(cell).join(" | "), usage.shared)?;
    }
    Ok(text)
}
