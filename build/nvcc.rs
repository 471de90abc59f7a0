//! The compiler that is used: the first of those found that can do the work.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::arch::Arch;
use crate::compile::OPTIONS;
use crate::find;
use crate::host::{FLAGS, Host};
use crate::select::gencode;

/// What a compiler is tried with. The header comes with the toolkit and includes most of it.
const TRIAL: &str = "#include <cuda_bf16.h>\n__global__ void trial() {}\n";

/// nvcc with its host compiler.
pub struct Nvcc {
    program: PathBuf,
    host: Host,
}

impl Nvcc {
    /// The first of the programs that compiles a trial for all architectures in the folder `out`, and a line for each
    /// one before it. If none does, the error says why, of each, and the way to one that does.
    pub fn first_able(
        found: &[PathBuf],
        host: Host,
        architectures: &[Arch],
        out: &Path,
    ) -> Result<(Self, Vec<String>), String> {
        let trial = out.join("trial.cu");
        fs::write(&trial, TRIAL).map_err(|error| format!("cannot write {}: {error}", trial.display()))?;
        let mut nvcc = Self { program: PathBuf::new(), host };
        let (mut tried, mut passed_over) = (Vec::new(), Vec::new());
        for program in found.iter().map(|path| find::program(path)) {
            if tried.contains(&program) {
                continue;
            }
            tried.push(program.clone());
            nvcc.program = program;
            let why = match nvcc.version() {
                Ok(version) => match nvcc.try_out(&trial, architectures) {
                    Ok(()) => return Ok((nvcc, passed_over)),
                    Err(why) => format!("({version}): {why}"),
                },
                Err(error) => format!("cannot be started: {error}"),
            };
            passed_over.push(format!("{} {why}", nvcc.program.display()));
        }
        if !found.iter().any(|path| find::is_installed(path)) {
            passed_over.push(find::ADVICE.into());
        }
        let names: Vec<_> = architectures.iter().map(|arch| arch.name()).collect();
        Err(format!("no nvcc compiles for {}; found were:\n{}", names.join(", "), passed_over.join("\n")))
    }

    /// A run of it, still without arguments but that of the host compiler.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        self.host.hand_to(&mut command);
        command
    }

    /// What tells it from others, an update in the same place included: version, host compiler, the user's options.
    pub fn identity(&self) -> String {
        let changed = fs::metadata(&self.program).and_then(|file| file.modified()).ok();
        let flags = FLAGS.map(|name| env::var_os(name).unwrap_or_default());
        format!("{:?}, changed {changed:?}, {}, {flags:?}", self.version().ok(), self.host.name)
    }

    /// Compiles the trial for all architectures. What can go wrong is told apart, since the ways out differ.
    fn try_out(&self, trial: &Path, architectures: &[Arch]) -> Result<(), String> {
        let made = trial.with_extension("fatbin");
        // One of an earlier trial would hide that nothing is made now.
        let _ = fs::remove_file(&made);
        let options = architectures.iter().map(|&arch| gencode(arch));
        let Err(complaint) = self.run(trial, |nvcc| nvcc.arg("-fatbin").args(options).arg("-o").arg(&made)) else {
            return if made.is_file() { Ok(()) } else { Err("it compiles nothing".into()) };
        };
        if complaint.contains("gpu architecture") {
            return Err(format!("{complaint} (CUDA_COMPUTE_CAP can ask for fewer, as in `80,90a`)"));
        }
        // Preprocessing is the host compiler's work, and the toolkit's headers refuse the versions they do not know.
        match self.run(trial, |nvcc| nvcc.arg("-E")) {
            Ok(()) => Err(complaint),
            Err(refusal) => Err(format!(
                "it does not work with the host compiler {}: {refusal} (NVCC_CCBIN can name another one)",
                self.host.name
            )),
        }
    }

    /// Runs it on the trial; the error is what it complains of first.
    fn run(&self, trial: &Path, arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<(), String> {
        let mut command = self.command();
        let output = arguments(command.args(OPTIONS)).arg(trial).output();
        let output = output.map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8_lossy(&said);
        let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
        let is_complaint = |line: &&str| ["error", "fatal"].iter().any(|word| line.contains(word));
        let first = lines.clone().find(is_complaint).or_else(|| lines.next());
        Err(first.map_or_else(|| output.status.to_string(), str::to_owned))
    }

    /// What it says its version is, for messages; whether it can do the work is tried.
    fn version(&self) -> std::io::Result<String> {
        let said = Command::new(&self.program).arg("--version").output()?.stdout;
        let said = String::from_utf8_lossy(&said);
        let number = said.split("release ").nth(1).and_then(|rest| rest.split([',', '\n']).next());
        Ok(number.map_or_else(|| "version unknown".into(), |number| format!("CUDA {}", number.trim())))
    }
}
