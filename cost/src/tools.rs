//! The CUDA toolkit's programs: PTX to machine code with line information, machine code to text.

use std::env::consts::EXE_SUFFIX;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::sass::parse::{Function, parse};

/// The programs that are needed.
const ASSEMBLER: &str = "ptxas";
const DISASSEMBLER: &str = "nvdisasm";

/// A folder that has them.
#[derive(Clone, Debug)]
pub struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// Those of the toolkit that `CUDA_HOME` or `CUDA_PATH` names, or that `cargo xtask setup` has installed in a target
    /// folder.
    ///
    /// # Errors
    /// Says where they were looked for, if they are nowhere.
    pub fn find(target: &Path) -> Result<Self> {
        let variables = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
        let folders: Vec<PathBuf> =
            variables.chain([target.join("cuda/nvidia/cu13")]).map(|toolkit| toolkit.join("bin")).collect();
        let whole = |folder: &&PathBuf| {
            [ASSEMBLER, DISASSEMBLER].iter().all(|name| folder.join(format!("{name}{EXE_SUFFIX}")).is_file())
        };
        match folders.iter().find(whole) {
            Some(folder) => Ok(Self { folder: folder.clone() }),
            None => bail!(
                "{ASSEMBLER} and {DISASSEMBLER} are in none of {folders:?}: `cargo xtask setup` installs them, and \
                 CUDA_HOME names another toolkit"
            ),
        }
    }

    /// The machine code of a kernel of a module, each instruction with the line of PTX that it was made of.
    ///
    /// # Errors
    /// What the programs say, or what of their output is not understood.
    pub fn machine_code(&self, ptx: &str, arch: &str, kernel: &str) -> Result<Function> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let [source, cubin] = ["module.ptx", "module.cubin"].map(|name| folder.path().join(name));
        std::fs::write(&source, ptx).with_context(|| format!("cannot write {}", source.display()))?;
        let mut assemble = self.command(ASSEMBLER);
        // Of one kernel alone: assembling takes longer than everything else.
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

/// What a program prints; what it complains of if it fails.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{complaints}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} does not print UTF-8"))
}
