//! Running nvcc.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::arch::Arch;
use crate::notices::{notices, place};
use crate::nvcc::Nvcc;
use crate::reuse::{self, Shared};
use crate::select::{gencode, suits};

/// What nvcc is told in every case. Registers that are spilled, and other local memory, are warnings, and so errors.
pub const OPTIONS: [&str; 6] =
    ["-std=c++17", "-O3", "-Werror", "all-warnings", "-Xptxas", "-warn-spills,-warn-lmem-usage"];

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

    /// Makes the image, unless it is there or another build shares it. What ptxas notices is an error too.
    fn run(&self, nvcc: &Nvcc, compiler: &str, out: &Path, shared: &Shared) -> Result<(), String> {
        let (lines, kind) = if self.arch.is_virtual() { (Some(LINES), "-ptx") } else { (None, "-cubin") };
        let image = out.join(self.image());
        // Lines are told by the path of the file; without them an image says nothing of where it was made.
        let file = self.source.file_name().map_or(self.source.as_path(), Path::new);
        let told = if self.arch.is_virtual() { &self.source } else { file };
        let command = self.command(nvcc, told, lines, kind, Path::new(&self.image()));
        let in_file = |error| format!("{}: {error}", self.source.display());
        let recipe = reuse::recipe(compiler, &format!("{command:?}"), &self.source).map_err(in_file)?;
        if reuse::is_made(&image, &recipe) || shared.take(&image, &recipe) {
            return Ok(());
        }
        let command = self.command(nvcc, &self.source, lines, kind, &image);
        let in_note = |error| format!("cannot note how {} is made: {error}", image.display());
        reuse::begin(&image).map_err(in_note)?;
        let printed = Self::printed(command)?;
        if !notices(&printed).is_empty() {
            return Err(self.complaint(nvcc, out, &printed));
        }
        reuse::finish(&image, &recipe).map_err(in_note)?;
        if let Err(error) = shared.put(&image, &recipe) {
            println!("{} is not shared: {error}", image.display());
        }
        Ok(())
    }

    /// A run of the compiler.
    fn command(&self, nvcc: &Nvcc, source: &Path, lines: Option<&str>, kind: &str, image: &Path) -> Command {
        let mut command = nvcc.command();
        command.args(OPTIONS).args(lines).arg(kind).arg(gencode(self.arch)).arg("-o").arg(image).arg(source);
        command
    }

    /// Runs the compiler, and returns what it prints.
    fn printed(mut command: Command) -> Result<String, String> {
        let output = command.output().map_err(|error| format!("cannot start {command:?}: {error}"))?;
        let [printed, complaints] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        if output.status.success() {
            return Ok(format!("{printed}\n{complaints}"));
        }
        Err(format!(
            "{command:?}: {}\n{printed}{complaints}\n\
             `cargo xtask setup` installs the nvcc that the kernels are tested with; NVCC can name it.",
            output.status
        ))
    }

    /// An error of the notices in what was printed, with their places in the sources. ptxas numbers the lines of PTX,
    /// so this is made once more, with the lines of the sources.
    fn complaint(&self, nvcc: &Nvcc, out: &Path, printed: &str) -> String {
        let [ptx, image] = ["ptx", "again"].map(|ending| out.join(self.image()).with_extension(ending));
        let with_lines = |source, kind, to| Self::printed(self.command(nvcc, source, Some(LINES), kind, to));
        let again = with_lines(&self.source, "-ptx", &ptx).and_then(|_| {
            let text = fs::read_to_string(&ptx).map_err(|error| error.to_string())?;
            Ok((with_lines(&ptx, "-cubin", &image)?, text))
        });
        let (printed, text) = again.unwrap_or_else(|_| (printed.into(), String::new()));
        let source = self.source.display().to_string();
        let told = notices(&printed).into_iter().map(|notice| {
            let place = place(notice, &text).unwrap_or_else(|| source.clone());
            format!("\n{place}: {notice}")
        });
        format!(
            "{source} for {}: the machine code is not what the kernel asks for{}",
            self.arch.name(),
            told.collect::<String>()
        )
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
pub fn run(jobs: &[Job], nvcc: &Nvcc, out: &Path, shared: &Shared, at_a_time: usize) -> Result<(), String> {
    let compiler = nvcc.identity();
    let waiting = Mutex::new(jobs.iter());
    let next = || waiting.lock().ok()?.next();
    let work = || {
        while let Some(job) = next() {
            if let Err(failure) = job.run(nvcc, &compiler, out, shared) {
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
