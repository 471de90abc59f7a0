//! The CUDA toolkit's programs: PTX to machine code with line information, machine code to text.

use std::env::consts::EXE_SUFFIX;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::sass::parse::{Function, parse};

/// The programs that are needed.
const ASSEMBLER: &str = "ptxas";
const DISASSEMBLER: &str = "nvdisasm";

/// The assembler's version that the committed calibration was made with: that of `cargo xtask setup`.
pub const PINNED: &str = "13.0.88";

/// A folder that has them.
#[derive(Clone, Debug)]
pub struct Tools {
    folder: PathBuf,
    version: String,
}

impl Tools {
    /// Those that `cargo xtask setup` has installed in a target folder, or else of the toolkit that `CUDA_HOME` or
    /// `CUDA_PATH` names. Counts depend on the assembler: of another version than the committed ones it says so on the
    /// standard error output.
    ///
    /// # Errors
    /// Says where they were looked for, if they are nowhere; or what the assembler says instead of its version.
    pub fn find(target: &Path) -> Result<Self> {
        let variables = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
        let toolkits = std::iter::once(target.join("cuda/nvidia/cu13")).chain(variables);
        let folders: Vec<PathBuf> = toolkits.map(|toolkit| toolkit.join("bin")).collect();
        let whole = |folder: &&PathBuf| {
            [ASSEMBLER, DISASSEMBLER].iter().all(|name| folder.join(format!("{name}{EXE_SUFFIX}")).is_file())
        };
        match folders.iter().find(whole) {
            Some(folder) => {
                let assembler = folder.join(format!("{ASSEMBLER}{EXE_SUFFIX}"));
                let version = version(&output(Command::new(&assembler).arg("--version"))?)?.to_owned();
                if version != PINNED {
                    let path = assembler.display();
                    eprintln!("{path} is version {version}: the committed counts and constants are those of {PINNED}");
                }
                Ok(Self { folder: folder.clone(), version })
            }
            None => bail!(
                "{ASSEMBLER} and {DISASSEMBLER} are in none of {folders:?}: `cargo xtask setup` installs them, and \
                 CUDA_HOME names another toolkit"
            ),
        }
    }

    /// The assembler's version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The machine code of a kernel of a module, each instruction with the line of PTX that it was made of.
    ///
    /// # Errors
    /// What the programs say, or what of their output is not understood.
    pub fn machine_code(&self, ptx: &str, arch: &str, kernel: &str) -> Result<Function> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let [source, cubin] = ["module.ptx", "module.cubin"].map(|name| folder.path().join(name));
        std::fs::write(&source, alone(ptx, kernel)).with_context(|| format!("cannot write {}", source.display()))?;
        let mut assemble = self.command(ASSEMBLER);
        assemble.arg(format!("--gpu-name={arch}")).arg(format!("--entry={kernel}"));
        assemble.args(["-O3", "--generate-line-info", "--output-file"]);
        output(assemble.arg(&cubin).arg(&source))?;
        let found = self.listing(&cubin)?.into_iter().find(|function| function.name == kernel);
        let function = found.with_context(|| format!("the module has no kernel {kernel}"))?;
        let lined = function.instructions.iter().any(|instruction| instruction.ptx_line.is_some());
        ensure!(lined, "the machine code of {kernel} has no line information");
        Ok(function)
    }

    /// The machine code of every kernel of a cubin.
    ///
    /// # Errors
    /// As [`machine_code`](Self::machine_code).
    pub fn disassemble(&self, cubin: &[u8]) -> Result<Vec<Function>> {
        let file = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
        std::fs::write(file.path(), cubin).with_context(|| format!("cannot write {}", file.path().display()))?;
        self.listing(file.path())
    }

    fn listing(&self, cubin: &Path) -> Result<Vec<Function>> {
        parse(&output(self.command(DISASSEMBLER).args(["-c", "-gp", "-hex"]).arg(cubin))?)
    }

    fn command(&self, name: &str) -> Command {
        Command::new(self.folder.join(format!("{name}{EXE_SUFFIX}")))
    }
}

/// A module with one of its kernels and the functions that it calls. What else there is are empty lines, so that lines have
/// the numbers that they had: reading a module of all kernels takes longer than assembling one.
fn alone(ptx: &str, kernel: &str) -> String {
    let mut lines: Vec<&str> = ptx.lines().collect();
    let mut needed: Vec<&str> = Vec::new();
    // A function is called behind its definition.
    for part in parts(&lines).into_iter().rev() {
        let (name, is_kernel) = (name(lines[part.start]), lines[part.start].contains(".entry "));
        let is_needed = if is_kernel { name == kernel } else { needed.iter().any(|line| line.contains(name)) };
        if is_needed {
            needed.extend(&lines[part]);
        } else {
            lines[part].fill("");
        }
    }
    lines.join("\n") + "\n"
}

/// The lines of each kernel and function of a module. The closing brace of its body alone is a line.
fn parts(lines: &[&str]) -> Vec<Range<usize>> {
    let (mut parts, mut start) = (Vec::new(), None);
    for (number, line) in lines.iter().enumerate() {
        if [".entry ", ".func "].iter().any(|word| line.contains(word)) {
            start = Some(number);
        } else if *line == "}" {
            parts.extend(start.take().map(|start| start..number + 1));
        }
    }
    parts
}

/// The name in the first line of a kernel or function: it stands before the parameters, behind what is returned.
fn name(line: &str) -> &str {
    let (front, _) = line.rsplit_once('(').unwrap_or((line, ""));
    front.split_whitespace().last().unwrap_or_default()
}

/// What a program prints; what it complains of if it fails.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{complaints}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} does not print UTF-8"))
}

/// The version in what `ptxas --version` prints: `Cuda compilation tools, release 13.0, V13.0.88`.
fn version(text: &str) -> Result<&str> {
    let found = text.split_whitespace().find_map(|word| word.strip_prefix('V').filter(|rest| rest.contains('.')));
    found.with_context(|| format!("{ASSEMBLER} --version has no version: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)] // They are shell scripts.
    #[test]
    fn the_programs_of_setup_come_first_and_their_version_is_known() {
        use std::os::unix::fs::PermissionsExt as _;

        let target = tempfile::tempdir().unwrap();
        let bin = target.path().join("cuda/nvidia/cu13/bin");
        std::fs::create_dir_all(&bin).unwrap();
        for name in [ASSEMBLER, DISASSEMBLER] {
            let program = bin.join(name);
            std::fs::write(&program, "#!/bin/sh\necho Cuda compilation tools, release 12.9, V12.9.86\n").unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        // Whatever CUDA_HOME says.
        let tools = Tools::find(target.path()).unwrap();
        assert_eq!((tools.folder.as_path(), tools.version()), (bin.as_path(), "12.9.86"));
    }

    #[test]
    fn of_a_module_one_kernel_is_assembled_with_what_it_calls_and_its_lines_stay_where_they_are() {
        let module = "\
.version 9.0
.func declared(
);
.func inner()
{
	ret;
}
.func (.param .b32 func_retval0) outer(
	.param .b32 outer_param_0
)
{
	call.uni inner, ();
	ret;
}
.func unused()
{
	ret;
}
.visible .entry first(
)
{
	call.uni unused, ();
	ret;
}
.visible .entry second(
)
{
	call.uni (retval0), outer, (param0);
	ret;
}
";
        let lines: Vec<&str> = module.lines().collect();
        let kept = alone(module, "second");
        for (number, (kept, line)) in kept.lines().zip(&lines).enumerate() {
            let is_left_out = (14..24).contains(&number);
            assert_eq!(kept, if is_left_out { "" } else { line }, "line {number}");
        }
        assert_eq!(kept.lines().count(), lines.len());
    }

    #[test]
    fn the_version_is_read_and_the_pinned_one_is_that_of_setup() {
        let text = "ptxas: NVIDIA (R) Ptx optimizing assembler\nCuda compilation tools, release 13.0, V13.0.88\n";
        assert_eq!(version(text).unwrap(), "13.0.88");
        assert!(version("Very new").is_err());
        let pins = include_str!("../../xtask/cuda-requirements.txt");
        assert!(pins.contains(&format!("nvidia-cuda-nvcc=={PINNED} ")), "{pins}");
    }
}
