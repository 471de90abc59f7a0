//! A short lease: what is worth most first, and whatever does not end is ended in time.
//!
//! The tests, the questions to the hardware, then every way to serve each layer, others' kernels, and those of a build of
//! before: what of it lies beside this program is run, and what does not is named in the file. The file is written after
//! each part.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::process::{self, Ended};
use crate::programs::Outcome;
use crate::questions::{self, Answer};
use crate::report::{Absent, Machine};
use crate::{beside, programs};

/// The parts of the time that is left after the tests which others' kernels and those of before may take, and their most.
const PEERS: (f64, Duration) = (0.3, Duration::from_secs(100));
const BEFORE: (f64, Duration) = (0.15, Duration::from_secs(40));

/// Time to measure the rates once more and to end.
const END: Duration = Duration::from_secs(10);

/// A row takes less than a second, and preparing the first of a layer a few; on the simulator, minutes.
const ROW: Duration = Duration::from_secs(20);
const SIMULATED_ROW: Duration = Duration::from_secs(300);

/// What to tune with.
#[derive(Args)]
pub struct Tune {
    /// Where the JSON goes
    #[arg(long, value_name = "FILE", default_value = "tune.json")]
    out: PathBuf,
    /// How long everything may take
    #[arg(long, default_value_t = 6.5, value_parser = minutes)]
    minutes: f64,
    /// Only layers whose names contain this, as in decode/llama3-8b-d64/int4
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// What `cargo xtask cost --variants --json` wrote [default: predicted.json beside this program]
    #[arg(long, value_name = "FILE")]
    predicted: Option<PathBuf>,
    /// The program that measures others' kernels
    #[arg(long, value_name = "FILE", default_value = "benches/peers/peers.py")]
    peers: PathBuf,
    /// Files of vLLM's wheel [default: wheel beside this program]
    #[arg(long, value_name = "DIR")]
    vllm: Option<PathBuf>,
    /// `benchmarks` of a build of before [default: before/benchmarks beside this program]
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
    /// On the simulator, to see that everything is there: one test of each kernel, and counts instead of times
    #[arg(long)]
    pub rehearse: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes <= 60.0 => Ok(minutes),
        _ => Err("expected a number of minutes, above 0 and up to 60".into()),
    }
}

/// The file.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    machine: Machine,
    /// What was asked for.
    minutes: f64,
    /// What each part took.
    seconds: Vec<(&'static str, f64)>,
    programs: Vec<Outcome>,
    questions: Vec<Answer>,
    /// What `benchmarks --variants` wrote.
    tuning: Option<Value>,
    /// What peers.py wrote.
    peers: Option<Value>,
    /// What `benchmarks` of a build of before wrote.
    before: Option<Value>,
    /// What was not measured, and why.
    absent: Vec<Absent>,
}

/// A run.
struct Lease<'a> {
    tune: &'a Tune,
    folder: &'a Path,
    ordinal: usize,
    start: Instant,
    /// What a row takes at most.
    row: Duration,
    report: Report,
}

/// Does all of it. Returns whether every program ended well and every row was measured.
///
/// # Errors
/// If a program of ours is missing, or the file cannot be written.
pub fn run(
    tune: &Tune,
    folder: &Path,
    suite: &Path,
    ordinal: usize,
    machine: Machine,
    is_hopper: bool,
) -> Result<bool> {
    let report = Report {
        machine,
        minutes: tune.minutes,
        seconds: Vec::new(),
        programs: Vec::new(),
        questions: Vec::new(),
        tuning: None,
        peers: None,
        before: None,
        absent: Vec::new(),
    };
    let row = if tune.rehearse { SIMULATED_ROW } else { ROW };
    let mut lease = Lease { tune, folder, ordinal, start: Instant::now(), row, report };
    // That the file can be written is known before the long work.
    lease.write()?;
    lease.part("tests", |lease| {
        lease.report.programs =
            if tune.rehearse { programs::rehearse(folder)? } else { programs::run_all(folder, suite, ordinal)? };
        Ok(())
    })?;
    lease.part("questions", |lease| {
        let device = if tune.rehearse { "simulated".into() } else { format!("cuda:{ordinal}") };
        let (outcome, answers) = questions::ask(folder, suite, &device, is_hopper)?;
        lease.report.programs.push(outcome);
        lease.report.questions = answers;
        Ok(())
    })?;
    let left = lease.left();
    let part = |(share, most): (f64, Duration)| left.mul_f64(share).min(most);
    let (peers, before) = (part(PEERS), part(BEFORE));
    let others = [lease.has_peers(), lease.has_before()].into_iter().zip([peers, before]);
    let reserved: Duration = others.filter(|(there, _)| *there).map(|(_, time)| time).sum();
    let tuned = lease.part("variants", |lease| lease.variants(left.saturating_sub(reserved + END)))?;
    lease.part("peers", |lease| lease.peers(peers))?;
    lease.part("before", |lease| lease.before(before))?;
    print!("{}", compared(lease.report.before.as_ref(), lease.report.tuning.as_ref()));
    println!("wrote {} after {:.0} s", tune.out.display(), lease.start.elapsed().as_secs_f64());
    Ok(tuned && lease.report.programs.iter().all(|outcome| outcome.success))
}

impl Lease<'_> {
    fn left(&self) -> Duration {
        Duration::from_secs_f64(60.0 * self.tune.minutes).saturating_sub(self.start.elapsed())
    }

    /// Does a part, notes how long it took, and writes the file.
    fn part<T>(&mut self, name: &'static str, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let done = work(self)?;
        self.report.seconds.push((name, start.elapsed().as_secs_f64()));
        self.write()?;
        Ok(done)
    }

    fn write(&self) -> Result<()> {
        crate::report::write(&self.tune.out, &self.report)
    }

    fn absent(&mut self, what: &str, why: impl Into<String>) {
        let why = why.into();
        println!("not measured: {what}: {why}");
        self.report.absent.push(Absent { what: what.into(), why });
    }

    /// A file for a program's own JSON, beside ours: what there is of it remains if all is cut short.
    fn json(&self, part: &str) -> Result<PathBuf> {
        let path = self.tune.out.with_extension(format!("{part}.json"));
        // That of an earlier run would pass for this one's.
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?;
        }
        Ok(path)
    }

    /// Every way to serve each layer. A kernel that hangs is left behind, and the program started again without it.
    fn variants(&mut self, time: Duration) -> Result<bool> {
        let program = beside(self.folder, "benchmarks")?;
        let json = self.json("variants")?;
        let start = Instant::now();
        let (mut resume, mut success) = (false, false);
        while start.elapsed() < time {
            let mut command = Command::new(&program);
            let device = if self.tune.rehearse { "simulated".into() } else { format!("cuda:{}", self.ordinal) };
            command.args(["--variants", "--device", &device]).arg("--json").arg(&json);
            let left = time.saturating_sub(start.elapsed());
            command.arg("--time-limit").arg(left.as_secs().to_string());
            command.args(self.tune.filter.iter().flat_map(|filter| ["--filter", filter]));
            if let Some(file) = self.tune.predicted.clone().or_else(|| beside(self.folder, "predicted.json").ok()) {
                command.arg("--predicted").arg(file);
            }
            if resume {
                command.arg("--resume");
            }
            let Ended { status, text } = watch(&mut command, &json, left + END + self.row, self.row)?;
            println!("{text}");
            success = status.is_some_and(|status| status.success());
            if status.is_some() || !json.is_file() {
                break;
            }
            println!("a row did not end; going on without its kernel");
            resume = true;
        }
        self.report.tuning = read(&json);
        if self.report.tuning.is_none() {
            self.absent("variants", "benchmarks wrote no file");
        }
        Ok(success && !resume)
    }

    fn vllm(&self) -> PathBuf {
        self.tune.vllm.clone().unwrap_or_else(|| self.folder.join("wheel"))
    }

    fn has_peers(&self) -> bool {
        self.tune.peers.is_file()
    }

    fn peers(&mut self, time: Duration) -> Result<()> {
        if !self.has_peers() {
            self.absent("others' kernels", format!("{} is not there", self.tune.peers.display()));
            return Ok(());
        }
        let json = self.json("peers")?;
        let mut command = Command::new("python3");
        command.env("PYTHONUNBUFFERED", "1").arg(&self.tune.peers).arg("--json").arg(&json);
        command.arg("--time-limit").arg(time.saturating_sub(END).as_secs().to_string());
        if let Ok(library) = beside(self.folder, "liblatent_attention.so") {
            command.arg("--library").arg(library);
        }
        if self.vllm().is_dir() {
            command.arg("--vllm").arg(self.vllm());
        }
        if self.tune.rehearse {
            command.args(["--simulate", "--batch", "1", "--cached", "64", "--shapes", "deepseek-v2-lite"]);
        }
        match process::run_for(&mut command, time) {
            Ok(Ended { status, text }) => {
                println!("{text}");
                if status.is_none() {
                    self.absent("others' kernels that are not in the file", format!("not within {} s", time.as_secs()));
                }
            }
            Err(why) => self.absent("others' kernels", format!("{why:#}")),
        }
        self.report.peers = read(&json);
        Ok(())
    }

    fn old(&self) -> PathBuf {
        self.tune.before.clone().unwrap_or_else(|| self.folder.join("before/benchmarks"))
    }

    fn has_before(&self) -> bool {
        self.old().is_file() && !self.tune.rehearse
    }

    /// The chosen kernels of a build of before, at the first of the points that variants are timed at.
    fn before(&mut self, time: Duration) -> Result<()> {
        if !self.has_before() {
            let why = if self.tune.rehearse { "it is no program of the simulator's" } else { "it is not there" };
            self.absent("kernels of before", format!("{}: {why}", self.old().display()));
            return Ok(());
        }
        let json = self.json("before")?;
        let mut command = Command::new(self.old());
        command.args(["--sweep", "quick", "--filter", "decode/", "--filter", "/16x16384"]);
        command.arg("--device").arg(format!("cuda:{}", self.ordinal)).arg("--json").arg(&json);
        command.arg("--time-limit").arg(time.saturating_sub(END).as_secs().to_string());
        let Ended { status, text } = process::run_for(&mut command, time)?;
        println!("{text}");
        if !status.is_some_and(|status| status.success()) {
            self.absent("kernels of before that are not in the file", "the program failed, or did not end in time");
        }
        self.report.before = read(&json);
        Ok(())
    }
}

/// Each row of before beside the fastest variant of the same shape.
fn compared(before: Option<&Value>, tuning: Option<&Value>) -> String {
    let mut text = String::new();
    for row in rows(before) {
        let is_same = |other: &&Value| {
            ["operation", "model", "format", "batch", "context"].iter().all(|key| other[*key] == row[*key])
        };
        let times = rows(tuning).iter().filter(is_same).filter_map(median);
        let fastest = times.fold(f64::INFINITY, f64::min);
        if let Some(us) = median(row).filter(|_| fastest.is_finite()) {
            let [model, format] = ["model", "format"].map(|key| row[key].as_str().unwrap_or_default());
            let name = format!("{model} {format} {}x{}", row["batch"], row["context"]);
            text += &format!("{name:<40} before {us:.1} us, now {fastest:.1} us: {:.2} of it\n", fastest / us);
        }
    }
    text
}

/// Runs a program that writes `json` before and after each row, as long as it goes on to do so.
fn watch(command: &mut Command, json: &Path, limit: Duration, row: Duration) -> Result<Ended> {
    let written = || fs::metadata(json).and_then(|file| file.modified()).ok();
    let (start, mut last, mut seen): (_, Option<SystemTime>, _) = (Instant::now(), written(), Instant::now());
    process::run(command, move || {
        let now = written();
        if now != last {
            (last, seen) = (now, Instant::now());
        }
        // The first row comes after the rates, and what a program prepares.
        let patience = if now.is_some() { row } else { 3 * row };
        start.elapsed() >= limit || seen.elapsed() >= patience
    })
}

fn read(json: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(json).ok()?).ok()
}

fn rows(report: Option<&Value>) -> &[Value] {
    report.and_then(|report| report["rows"].as_array()).map(Vec::as_slice).unwrap_or_default()
}

fn median(row: &Value) -> Option<f64> {
    row["timed"]["median_us"].as_f64()
}

/// Checks that a lease can be made: nothing is started without the programs.
///
/// # Errors
/// Names the first that is missing.
pub fn check(folder: &Path, suite: &Path) -> Result<()> {
    for program in ["kernels", "suite", "benchmarks"] {
        beside(folder, program)?;
    }
    ensure!(suite.is_dir(), "{} is no folder: --suite names the repository's ptx-sim/suite", suite.display());
    Ok(())
}

#[cfg(all(test, unix))]
mod tests;
