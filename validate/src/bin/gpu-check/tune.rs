//! A short lease: what is worth most first, and whatever does not end is ended in time.
//!
//! The tests, the questions to the hardware, then every way to serve each layer, others' kernels, and those of a build of
//! before: what of it lies beside this program is run, and what does not is named in the file. The file is written after
//! each part.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::process::{self, Ended};
use crate::programs::Outcome;
use crate::questions::{self, Answer};
use crate::report::{Absent, Machine};
use crate::{beside, programs};

/// The parts of the whole time after which no test, and no question, goes on.
const TESTS: f64 = 0.45;
const QUESTIONS: f64 = 0.55;

/// The parts of the time that is left after the tests which others' kernels and those of before may take, and their most.
const PEERS: (f64, Duration) = (0.3, Duration::from_secs(100));
const BEFORE: (f64, Duration) = (0.15, Duration::from_secs(40));

/// Time to measure the rates once more and to end, of a part's time at most a fifth.
const END: Duration = Duration::from_secs(10);

/// A row takes less than a second, and preparing the first of a layer a few; on the simulator, minutes.
const ROW: Duration = Duration::from_secs(20);
const SIMULATED_ROW: Duration = Duration::from_secs(300);

/// The part of which rows are kept when a run goes on where another ended.
const VARIANTS: &str = "variants";

const ZERO: Duration = Duration::ZERO;

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
    /// Go on where the file of --out ends: what it has is not measured again
    #[arg(long)]
    resume: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes <= 60.0 => Ok(minutes),
        _ => Err("expected a number of minutes, above 0 and up to 60".into()),
    }
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Report {
    #[serde(flatten)]
    machine: Machine,
    /// What was asked for.
    minutes: f64,
    /// The parts that came to their end, and what each took.
    seconds: Vec<(String, f64)>,
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
    /// Whether a part could not be done, or a row failed.
    failed: bool,
}

/// Does all of it. Returns whether every program ended well and every row was measured.
///
/// # Errors
/// If the file cannot be written, or is none to go on with. Whatever else goes wrong is named in it.
pub fn run(
    tune: &Tune,
    folder: &Path,
    suite: &Path,
    ordinal: usize,
    machine: Machine,
    is_hopper: bool,
) -> Result<bool> {
    let mut lease = Lease::begin(tune, folder, ordinal, machine)?;
    lease.part("tests", |lease| {
        let programs = if tune.rehearse { programs::rehearsal(folder) } else { programs::all(folder, suite, ordinal) };
        for program in programs? {
            // On the simulator a program takes what the machine's cores let it, and none hangs.
            let most = if tune.rehearse { Duration::MAX } else { programs::LIMIT };
            let outcome = program.run(lease.left_until(TESTS).min(most));
            lease.report.programs.push(outcome);
            lease.write()?;
        }
        Ok(())
    })?;
    lease.part("questions", |lease| {
        let device = if tune.rehearse { "simulated".into() } else { format!("cuda:{ordinal}") };
        let limit = lease.left_until(QUESTIONS).min(programs::LIMIT);
        let (outcome, answers) = questions::ask(folder, suite, &device, is_hopper, limit);
        lease.report.programs.push(outcome);
        lease.report.questions = answers;
        Ok(())
    })?;
    let left = lease.left();
    let part = |is_there, (share, most): (f64, Duration)| if is_there { left.mul_f64(share).min(most) } else { ZERO };
    let before = part(lease.has_before(), BEFORE);
    let others = part(lease.has_peers(), PEERS) + before;
    lease.part("variants", |lease| lease.variants(lease.left().saturating_sub(others)))?;
    lease.part("peers", |lease| lease.peers(lease.left().saturating_sub(before).min(PEERS.1)))?;
    lease.part("before", |lease| lease.before(lease.left().min(BEFORE.1)))?;
    print!("{}", compared(lease.report.before.as_ref(), lease.report.tuning.as_ref()));
    println!("wrote {} after {:.0} s", tune.out.display(), lease.start.elapsed().as_secs_f64());
    Ok(!lease.failed && lease.report.programs.iter().all(|outcome| outcome.success))
}

impl<'a> Lease<'a> {
    /// Writes a first file, so that it is known before the long work that this is possible.
    fn begin(tune: &'a Tune, folder: &'a Path, ordinal: usize, machine: Machine) -> Result<Self> {
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
        let mut lease = Self { tune, folder, ordinal, start: Instant::now(), row, report, failed: false };
        if tune.resume {
            lease.resume()?;
        } else {
            // Those of an earlier run would pass for this one's.
            for json in [VARIANTS, "peers", "before"].map(|part| lease.json(part)).iter().filter(|json| json.exists()) {
                fs::remove_file(json).with_context(|| format!("cannot delete {}", json.display()))?;
            }
        }
        lease.write()?;
        Ok(lease)
    }

    /// Takes over what the file of an earlier run has.
    fn resume(&mut self) -> Result<()> {
        let out = &self.tune.out;
        let text = fs::read(out).with_context(|| format!("cannot read {}", out.display()))?;
        let mut earlier: Report =
            serde_json::from_slice(&text).with_context(|| format!("{} is no file of gpu-check tune", out.display()))?;
        ensure!(
            earlier.machine == self.report.machine,
            "{} is of {:?}, and this is {:?}",
            out.display(),
            earlier.machine,
            self.report.machine
        );
        // What was cut short may pass this time.
        if !earlier.programs.iter().all(|program| program.success) {
            earlier.seconds.retain(|(part, _)| !["tests", "questions"].contains(&part.as_str()));
            (earlier.programs, earlier.questions) = (Vec::new(), Vec::new());
        }
        // Ways to serve are gone through again: those that are in the file are not timed.
        earlier.seconds.retain(|(part, _)| part != VARIANTS);
        let json = self.json(VARIANTS);
        if let Some(mut tuning) = read(&json).or(earlier.tuning.take()) {
            // The row at which the whole run was ended has done nothing wrong.
            tuning.as_object_mut().context("what was tuned is no report")?.remove("doing");
            crate::report::write(&json, &tuning)?;
            earlier.tuning = Some(tuning);
        }
        self.report = Report { minutes: self.tune.minutes, absent: Vec::new(), ..earlier };
        Ok(())
    }

    /// The time until all has to be over; none if this program was told to end.
    fn left(&self) -> Duration {
        self.left_until(1.0)
    }

    /// The same of a part of the whole time.
    fn left_until(&self, part: f64) -> Duration {
        if process::is_stopped() {
            return ZERO;
        }
        Duration::from_secs_f64(60.0 * self.tune.minutes * part).saturating_sub(self.start.elapsed())
    }

    fn is_done(&self, name: &str) -> bool {
        self.report.seconds.iter().any(|(part, _)| part == name)
    }

    /// Does a part that is not done, notes how long it took, and writes the file. What keeps it from being done is noted too;
    /// of a part that lacks something no time is noted, so that a run that goes on does it, or names it again.
    fn part(&mut self, name: &'static str, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.is_done(name) {
            println!("{name}: done before");
            return Ok(());
        }
        let (start, named) = (Instant::now(), self.report.absent.len());
        let reason = if process::is_stopped() { "told to end before it" } else { "no time was left" };
        let done = if self.left().is_zero() { Err(anyhow!(reason)) } else { work(self) };
        if let Err(why) = done {
            self.absent(name, format!("{why:#}"));
            self.failed = true;
        } else if !process::is_stopped() && self.report.absent.len() == named {
            self.report.seconds.push((name.into(), start.elapsed().as_secs_f64()));
        }
        self.write()
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
    fn json(&self, part: &str) -> PathBuf {
        self.tune.out.with_extension(format!("{part}.json"))
    }

    /// Every way to serve each layer. A kernel that hangs, or with which the program ends, is left behind, and the program
    /// started again without it.
    fn variants(&mut self, time: Duration) -> Result<()> {
        let program = beside(self.folder, "benchmarks")?;
        let (json, start, mut last) = (self.json(VARIANTS), Instant::now(), None);
        loop {
            let left = time.saturating_sub(start.elapsed());
            let mut command = Command::new(&program);
            let device = if self.tune.rehearse { "simulated".into() } else { format!("cuda:{}", self.ordinal) };
            command.args([&format!("--{VARIANTS}"), "--device", &device]).arg("--json").arg(&json);
            command.arg("--time-limit").arg(before_end(left).as_secs().to_string());
            command.args(self.tune.filter.iter().flat_map(|filter| ["--filter", filter]));
            if let Some(file) = self.tune.predicted.clone().or_else(|| beside(self.folder, "predicted.json").ok()) {
                command.arg("--predicted").arg(file);
            }
            if json.is_file() {
                command.arg("--resume");
            }
            let Ended { status, text } = watch(&mut command, &json, left, self.row)?;
            println!("{text}");
            self.failed |= !status.is_some_and(|status| status.success());
            self.report.tuning = read(&json);
            let tuning = self.report.tuning.as_ref().context("benchmarks wrote no file")?;
            let Some(row) = tuning["doing"].as_str().map(str::to_owned) else { return Ok(()) };
            if process::is_stopped() || start.elapsed() >= time || last.as_ref() == Some(&row) {
                self.absent(&row, "it had not ended, and there was nothing to go on with");
                return Ok(());
            }
            println!("{row} did not end; going on without its kernel");
            last = Some(row);
        }
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
        let json = self.json("peers");
        let mut command = Command::new("python3");
        command.env("PYTHONUNBUFFERED", "1").arg(&self.tune.peers).arg("--json").arg(&json);
        command.arg("--time-limit").arg(before_end(time).as_secs().to_string());
        if let Ok(library) = beside(self.folder, "liblatent_attention.so") {
            command.arg("--library").arg(library);
        }
        if self.vllm().is_dir() {
            command.arg("--vllm").arg(self.vllm());
        }
        if self.tune.rehearse {
            command.args(["--simulate", "--batch", "1", "--cached", "64", "--shapes", "deepseek-v2-lite"]);
        }
        let Ended { status, text } = process::run_for(&mut command, time)?;
        println!("{text}");
        if status.is_none() {
            self.absent("others' kernels that are not in the file", format!("not within {} s", time.as_secs()));
        }
        self.report.peers = read(&json);
        ensure!(self.report.peers.is_some(), "{} wrote no file: {}", self.tune.peers.display(), text.trim_end());
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
        let json = self.json("before");
        let mut command = Command::new(self.old());
        command.args(["--sweep", "quick", "--filter", "decode/", "--filter", "/16x16384"]);
        command.arg("--device").arg(format!("cuda:{}", self.ordinal)).arg("--json").arg(&json);
        command.arg("--time-limit").arg(before_end(time).as_secs().to_string());
        let Ended { status, text } = process::run_for(&mut command, time)?;
        println!("{text}");
        if !status.is_some_and(|status| status.success()) {
            self.absent("kernels of before that are not in the file", "the program failed, or did not end in time");
        }
        self.report.before = read(&json);
        Ok(())
    }
}

/// When the last row of a program may begin that has so much time.
fn before_end(time: Duration) -> Duration {
    time - END.min(time / 5)
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
    let first: Option<SystemTime> = written();
    let (start, mut last, mut seen) = (Instant::now(), first, Instant::now());
    process::run(command, move || {
        let now = written();
        if now != last {
            (last, seen) = (now, Instant::now());
        }
        // The first row comes after the rates, and what a program prepares, also where it goes on with a file.
        let patience = if last == first { 3 * row } else { row };
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
