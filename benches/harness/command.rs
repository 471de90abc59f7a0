//! The command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use latent_attention::Error;
use latent_attention::device::{CpuConfig, Device};

use super::super::tune::{self, choices};
use super::cache::DoesNotFit;
use super::ceilings::Ceilings;
use super::counts::Counts;
use super::lab::{Gauge, Lab, Sample};
use super::report::{Kind, LeftOut, Outcome, Report, Row, Timed};
use super::shape::Operation;
use super::sweep::{Case, Sweep, cases};
use super::{compare, plot, table};

#[derive(Parser)]
#[command(
    name = "benchmarks",
    about = "Times every operation on a GPU, or the CPU, against its own roofline; without a GPU, counts on the simulator"
)]
struct Arguments {
    /// cuda, cuda:N, cpu or simulated [default: the first GPU, or else the simulator]
    #[arg(long, value_name = "DEVICE")]
    device: Option<Target>,
    /// How much to measure [default: quick on a GPU, counted on the simulator]
    #[arg(long, value_enum)]
    sweep: Option<Sweep>,
    /// Only rows whose name contains this, as in decode/llama3-8b-d64/int4/16x8192; given several times, all of them
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// Print the rows' names and measure nothing
    #[arg(long)]
    list: bool,
    /// Write everything into a file, anew after each row
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw roofline.svg, context.svg and speedup.svg into a folder
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// With --device cpu: threads [default: as many as the machine runs at once]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Most GB for a cache; rows that need more are left out [default: 70 % of what is free on the GPU, or 8.6]
    #[arg(long, value_name = "GB", value_parser = gigabytes)]
    memory: Option<usize>,
    /// Begin no row after so many seconds
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<u64>,
    /// Measure every way to serve each layer's decode instead of the chosen one of every operation: docs/gpu.md. --filter
    /// takes parts of the names of layers, as in decode/llama3-8b-d64/int4
    #[arg(long, conflicts_with_all = ["sweep", "list", "plot"])]
    variants: bool,
    /// With --variants: a file of `cargo xtask cost --variants --json`, to print beside what is measured
    #[arg(long, value_name = "FILE", requires = "variants")]
    predicted: Option<PathBuf>,
    /// With --variants and --json: go on where the file ends, without the kernel at which it does
    #[arg(long, requires = "variants", requires = "json")]
    resume: bool,
    /// Print the table of choices that follows from files of --variants, or of `gpu-check tune`, and measure nothing
    /// [default: benches/results/*/tune.json]
    #[arg(long, value_name = "FILE", num_args = 0.., conflicts_with_all = ["variants", "compare", "show"])]
    choices: Option<Vec<PathBuf>>,
    /// Print (and plot) a file that --json wrote, and measure nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["compare", "list", "json", "sweep", "filter", "device"])]
    show: Option<PathBuf>,
    /// Print what changed from one file to another, and measure nothing
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"], conflicts_with_all = ["list", "json", "plot"])]
    compare: Option<Vec<PathBuf>>,
    /// What cargo calls benchmarks with
    #[arg(long, hide = true)]
    bench: bool,
}

/// A device by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Cuda(usize),
    Cpu,
    Simulated,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let (kind, ordinal) = name.split_once(':').unwrap_or((name, "0"));
        match (kind, ordinal.parse()) {
            ("cuda", Ok(ordinal)) => Ok(Self::Cuda(ordinal)),
            _ if name == "cpu" => Ok(Self::Cpu),
            _ if name == "simulated" => Ok(Self::Simulated),
            _ => Err("expected cuda, cuda:N, cpu or simulated".into()),
        }
    }
}

fn gigabytes(text: &str) -> Result<usize, String> {
    match text.parse::<f64>() {
        Ok(gb) if gb > 0.0 && gb.is_finite() => Ok((gb * 1e9) as usize),
        _ => Err("expected a number of GB above 0".into()),
    }
}

/// Does what the program's arguments say.
///
/// # Errors
/// What went wrong before the first row; failures of single rows are part of the result.
pub fn main(operations: &[&'static Operation]) -> Result<ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match run(operations, &arguments) {
        // Help is an error to clap, and says itself where it belongs.
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(usage) => usage.exit(),
            Err(error) => Err(error),
        },
        outcome => outcome,
    }
}

/// The same with the program's name and arguments given. Fails if a row did.
///
/// # Errors
/// As [`main`]; clap's own for arguments that it refuses.
pub fn run(operations: &[&'static Operation], command: &[OsString]) -> Result<ExitCode> {
    let arguments = Arguments::try_parse_from(command)?;
    if let Some([before, after]) = arguments.compare.as_deref() {
        print!("{}", compare::compare(&Report::read(before)?, &Report::read(after)?)?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(file) = &arguments.show {
        let report = Report::read(file)?;
        println!("{}", table::header(report.kind, &report.ceilings));
        report.rows.iter().for_each(|row| println!("{}", table::row(row, &report.ceilings)));
        draw(&report, arguments.plot.as_deref())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(files) = &arguments.choices {
        print!("{}", choices::source(&choices::read_all(files)?)?);
        return Ok(ExitCode::SUCCESS);
    }
    let target = match arguments.device {
        Some(target) => target,
        None => first_device()?,
    };
    if arguments.variants {
        ensure!(target != Target::Cpu, "--variants: the CPU has one way to serve a layer");
        return tune::run(arguments.tuning(target, command));
    }
    let default = if target == Target::Simulated { Sweep::Counted } else { Sweep::Quick };
    let cases = cases(arguments.sweep.unwrap_or(default), operations, &arguments.filter)?;
    if arguments.list {
        cases.iter().for_each(|case| println!("{}", case.id()));
        return Ok(ExitCode::SUCCESS);
    }
    let (report, failed) = measure(target, &cases, &arguments, words(command))?;
    draw(&report, arguments.plot.as_deref())?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Arguments {
    fn tuning(self, target: Target, command: &[OsString]) -> tune::Options {
        let ordinal = match target {
            Target::Cuda(ordinal) => Some(ordinal),
            Target::Cpu | Target::Simulated => None,
        };
        let Self { filter: filters, json, memory, predicted, resume, .. } = self;
        let time_limit = self.time_limit.map(Duration::from_secs);
        tune::Options { ordinal, filters, json, memory, time_limit, predicted, resume, command: words(command) }
    }
}

fn words(command: &[OsString]) -> Vec<String> {
    command.iter().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

/// Measures all cases and says how many failed.
fn measure(target: Target, cases: &[Case], arguments: &Arguments, command: Vec<String>) -> Result<(Report, usize)> {
    let (mut lab, ordinal) = match target {
        Target::Cuda(ordinal) => (Lab::on_gpu(Device::cuda(ordinal)?, ordinal, arguments.memory)?, Some(ordinal)),
        Target::Cpu => (Lab::on_cpu(cpu(arguments.threads)?, arguments.memory)?, None),
        Target::Simulated => (Lab::simulated(arguments.memory)?, None),
    };
    let before = ceilings(&lab.device, &lab.gauge, ordinal, "at the beginning")?;
    let mut report = Report::new(&lab, ordinal, command, before);
    println!("{} on {}, commit {}", report.date, report.device, report.commit);
    println!("rows: {}\n\n{}", cases.len(), table::header(report.kind, &report.ceilings));
    let failed = measure_each(&mut lab, cases, arguments, &mut report)?;
    if !report.left_out.is_empty() {
        println!("{} rows were left out, {failed} of them because they failed", report.left_out.len());
    }
    // The copy needs memory too.
    drop((lab.cache, lab.numbers));
    if report.kind == Kind::Timed {
        report.ceilings.extend(ceilings(&lab.device, &lab.gauge, ordinal, "at the end")?);
        report.ceilings.iter().for_each(|ceilings| println!("ceilings {ceilings}"));
        for row in report.settle() {
            println!("above its roofline, so that its work is counted wrongly: {row}");
        }
    }
    if let Some(path) = &arguments.json {
        report.write(path)?;
        println!("wrote {}", path.display());
    }
    Ok((report, failed))
}

/// The first GPU, or the simulator if there is none.
fn first_device() -> Result<Target> {
    match Device::cuda(0) {
        Ok(_) => Ok(Target::Cuda(0)),
        Err(none @ (Error::NoDriver { .. } | Error::NoDevice { .. })) => {
            println!("No GPU ({none}): the simulator counts instead.");
            Ok(Target::Simulated)
        }
        Err(error) => Err(error.into()),
    }
}

/// The CPU with so many threads.
fn cpu(threads: Option<usize>) -> Result<Device> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or_default()).build()?;
    Ok(Device::cpu_with(CpuConfig::default().with_pool(Arc::new(pool)))?)
}

fn ceilings(device: &Device, gauge: &Gauge, ordinal: Option<usize>, when: &str) -> Result<Vec<Ceilings>> {
    match gauge {
        Gauge::Clock(clock) => Ok(vec![Ceilings::measure(device, clock, ordinal.unwrap_or_default(), when)?]),
        Gauge::Meter(_) => Ok(Ceilings::assumed()),
    }
}

/// Prints and keeps each row as it is made. Returns how many failed.
fn measure_each(lab: &mut Lab, cases: &[Case], arguments: &Arguments, report: &mut Report) -> Result<usize> {
    let (start, limit) = (Instant::now(), arguments.time_limit.map(Duration::from_secs));
    let bar = ProgressBar::new(cases.len() as u64)
        .with_style(ProgressStyle::with_template("{bar:32} {pos}/{len}, {eta} left  {msg}")?.progress_chars("=> "));
    let mut failed = 0;
    for case in cases {
        let mut leave_out = |why: String| {
            bar.suspend(|| eprintln!("left out: {}: {why}", case.id()));
            report.left_out.push(LeftOut { row: case.id(), why });
        };
        bar.set_message(case.id());
        if limit.is_some_and(|limit| start.elapsed() >= limit) {
            report.left_out.push(LeftOut { row: case.id(), why: "the time limit was reached".into() });
        } else {
            match measure_one(lab, case, &report.ceilings) {
                Ok(row) => {
                    bar.suspend(|| println!("{}", table::row(&row, &report.ceilings)));
                    report.rows.push(row);
                }
                Err(why) if why.is::<DoesNotFit>() => leave_out(why.to_string()),
                Err(why) => {
                    leave_out(format!("{why:#}"));
                    failed += 1;
                    if let Err(lost) = lab.device.synchronize() {
                        bar.abandon();
                        if let Some(path) = &arguments.json {
                            report.write(path)?;
                        }
                        bail!("the device is lost: {lost}");
                    }
                }
            }
            if let Some(path) = &arguments.json {
                report.write(path)?;
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(failed)
}

fn measure_one(lab: &mut Lab, case: &Case, ceilings: &[Ceilings]) -> Result<Row> {
    let Case { operation, shape } = case;
    let work = (operation.work)(shape)?;
    let outcome = match &lab.gauge {
        Gauge::Meter(_) => Outcome::Counted(Counts::count(lab, operation, shape, ceilings)?),
        Gauge::Clock(_) => match (operation.run)(lab, shape)? {
            Sample::Times(times) => Outcome::Timed(Timed::new(times, &work, &ceilings[0])),
            Sample::Counts(_) => bail!("a clock counted"),
        },
    };
    Ok(Row::new(operation.name, shape, &work, outcome))
}

fn draw(report: &Report, folder: Option<&Path>) -> Result<()> {
    let Some(folder) = folder else { return Ok(()) };
    plot::draw(report, folder)?.iter().for_each(|path| println!("drew {}", path.display()));
    Ok(())
}
