//! Running nvcc.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::arch::Arch;
use crate::nvcc::Nvcc;
use crate::select::{gencode, suits};

/// What nvcc is told in every case.
pub const OPTIONS: [&str; 4] = ["-std=c++17", "-O3", "-Werror", "all-warnings"];

/// Line numbers: what the simulator points with. In machine code they take several times the space of the code itself;
/// `NVCC_APPEND_FLAGS=-lineinfo` puts them there for a profiler.
const LINES: &str = "-lineinfo";

/// One file to compile for one architecture.
pub struct Job {
    pub source: PathBuf,
    pub arch: Arch,
}

impl Job {
    /// The file's name without its ending.
    pub fn kernel_file(&self) -> Cow<'_, str> {
        self.source.file_stem().unwrap_or_default().to_string_lossy()
    }

    /// The name of the image.
    pub fn image(&self) -> String {
        let ending = if self.arch.is_virtual() { "ptx" } else { "cubin" };
        format!("{}.{}.{ending}", self.kernel_file(), self.arch.name())
    }

    fn command(&self, nvcc: &Nvcc, out: &Path) -> Command {
        let mut command = nvcc.command();
        command
            .args(OPTIONS)
            .args(self.arch.is_virtual().then_some(LINES))
            .arg(if self.arch.is_virtual() { "-ptx" } else { "-cubin" })
            .arg(gencode(self.arch))
            .arg("-o")
            .arg(out.join(self.image()))
            .arg(&self.source);
        command
    }

    fn run(&self, nvcc: &Nvcc, out: &Path) -> Result<(), String> {
        let mut command = self.command(nvcc, out);
        let output = command.output().map_err(|error| format!("cannot start {command:?}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let [printed, complaints] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        Err(format!(
            "{command:?}: {}\n{printed}{complaints}\n\
             `cargo xtask setup` installs the nvcc that the kernels are tested with; NVCC can name it.",
            output.status
        ))
    }
}

/// All jobs of the kernel files in a folder, by file and then by architecture.
pub fn jobs(sources: &Path, architectures: &[Arch]) -> Result<Vec<Job>, String> {
    let entries = sources.read_dir().map_err(|error| format!("cannot list {}: {error}", sources.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "cu"));
    // Folders list in any order, but equal sources should make equal builds.
    files.sort();
    let jobs = files.iter().flat_map(|source| architectures.iter().map(|&arch| Job { source: source.clone(), arch }));
    Ok(jobs.filter(|job| suits(&job.kernel_file(), job.arch)).collect())
}

/// Does all jobs, some at a time. The first failure is the result, and no further job starts after one.
pub fn run(jobs: &[Job], nvcc: &Nvcc, out: &Path, at_a_time: usize) -> Result<(), String> {
    let waiting = Mutex::new(jobs.iter());
    let next = || waiting.lock().ok()?.next();
    let work = || {
        while let Some(job) = next() {
            if let Err(failure) = job.run(nvcc, out) {
                while next().is_some() {}
                return Err(failure);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_a_time.clamp(1, jobs.len().max(1))).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("a worker panicked".into())))
    })
}
