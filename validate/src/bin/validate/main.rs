//! Every operation on a device against the f64 reference, or a dump of inputs and outputs against it.

mod args;

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use validate::{Dump, Kind, Report, Validation, read_dump};

use args::Arguments;

/// What the arguments or the machine do not allow, as clap's own refusals.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(report) if report.passed() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(UNUSABLE)
        }
    }
}

fn run(arguments: &Arguments) -> Result<Report> {
    let report = match &arguments.against {
        Some(dir) => against(dir)?,
        None => on_device(arguments)?,
    };
    println!("{report}");
    if let Some(path) = &arguments.json {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        serde_json::to_writer_pretty(file, &report)?;
    }
    Ok(report)
}

/// Runs each case, checks it, and writes it down if asked to.
fn on_device(arguments: &Arguments) -> Result<Report> {
    let validation: Validation = arguments.validation()?;
    validation.check()?;
    let device = arguments.device.open()?;
    let mut dump = arguments.dump.as_deref().map(Dump::create).transpose()?;
    let mut report = Report::new(format!("{validation} on {}", device.name()));
    for kind in Kind::ALL {
        eprintln!("{} ...", kind.name());
        let case = validation.case(kind)?.run(&device)?;
        report.comparisons.extend(case.check()?);
        if let Some(dump) = &mut dump {
            dump.add(&case)?;
        }
    }
    // Wrong outputs are written too: they are what one wants to look at.
    dump.map_or(Ok(()), Dump::publish)?;
    Ok(report)
}

fn against(dir: &Path) -> Result<Report> {
    let (cases, absent) = read_dump(dir)?;
    let mut report = Report::new(format!("the outputs in {}", dir.display()));
    report.absent = absent;
    for case in cases {
        report.comparisons.extend(case?.check()?);
    }
    Ok(report)
}
