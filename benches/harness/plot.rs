//! What is drawn of a report: rooflines, time against context, speed-up against bf16.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::ceilings::Ceilings;
use super::chart::{self, Panel, Series, Style};
use super::report::{Kind, Outcome, Report, Row};
use super::shape::Format;

/// The operation whose contexts are drawn.
const OPERATION: &str = "decode";

/// Contexts that counts per token are extended to: 1k to 128k.
const CONTEXTS: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// Draws what there is into a folder and returns the files. Contexts and speed-ups need rows of `decode`, speed-ups
/// also in bf16.
///
/// # Errors
/// If there are no rows, or a file cannot be written.
pub fn draw(report: &Report, folder: &Path) -> Result<Vec<PathBuf>> {
    ensure!(!report.rows.is_empty(), "there are no rows to draw");
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut drawn = Vec::new();
    let batch = usual_batch(report);
    for (name, title, panels) in [
        ("roofline.svg", "Rooflines", vec![roofline(report)]),
        ("context.svg", "Time of decode against context", contexts(report, batch)),
        ("speedup.svg", "Speed-up of decode from an int4 cache against bf16", speed_ups(report, batch)),
    ] {
        if panels.iter().any(|panel| !panel.series.is_empty()) {
            let path = folder.join(name);
            let columns = match panels.len() {
                n @ 1..=2 => n,
                _ => 3,
            };
            chart::draw([title, &how(report)], &panels, columns, &path)?;
            drawn.push(path);
        }
    }
    Ok(drawn)
}

/// How the numbers came about.
fn how(report: &Report) -> String {
    match report.kind {
        Kind::Timed => format!("timed on {}", report.device),
        Kind::Counted => {
            let machine = report.ceilings.first().map_or("", |machine| &machine.name);
            format!("counted, not timed: what the roofline of an assumed {machine} allows")
        }
    }
}

/// Each operation's arithmetic per byte against its arithmetic per second, below the machine's roof.
fn roofline(report: &Report) -> Panel {
    let operations = distinct(report.rows.iter().map(|row| row.operation.as_str()));
    let point = |row: &Row| {
        let us = match &row.outcome {
            Outcome::Timed(timed) => timed.times.median_us,
            Outcome::Counted(_) => report.ceilings.first()?.least_us(&row.work()),
        };
        (row.flops > 0).then(|| (row.flops as f64 / row.bytes as f64, row.flops as f64 / us / 1e6))
    };
    let series = operations.into_iter().map(|operation| {
        let rows = report.rows.iter().filter(|row| row.operation == operation);
        Series { label: operation.into(), style: Style::Marks, points: rows.filter_map(point).collect() }
    });
    let mut series: Vec<_> = series.filter(|series| !series.points.is_empty()).collect();
    let intensities = || series.iter().flat_map(|series| &series.points).map(|point| point.0);
    // Roofs reach beyond the first and the last mark.
    let ends = (intensities().fold(f64::INFINITY, f64::min) / 2.0, 2.0 * intensities().fold(0.0, f64::max));
    if ends.0 <= ends.1 {
        let roof = |machine: &Ceilings| {
            let ridge = machine.tflop_per_s / machine.tb_per_s;
            let at = |x: f64| (x, (x * machine.tb_per_s).min(machine.tflop_per_s));
            let points = [ends.0, ridge.clamp(ends.0, ends.1), ends.1].map(at).to_vec();
            Series { label: format!("roof: {}", machine.name), style: Style::Bound, points }
        };
        series.extend(report.ceilings.iter().map(roof));
    }
    Panel {
        title: "each mark a row".into(),
        x: "FLOPs per byte that must be moved",
        y: "TFLOP/s",
        y_base: 10.0,
        room: 1.0,
        series,
    }
}

/// A panel for each model, a line for each format.
fn contexts(report: &Report, batch: usize) -> Vec<Panel> {
    let models = distinct(decodes(report).map(|row| row.model.as_str()));
    let panel = |model: &str| {
        let series = Format::READ.iter().map(|format| Series {
            label: format.name().into(),
            style: Style::Line,
            points: times(report, model, format.name(), batch),
        });
        Panel {
            title: format!("{model}, batch {batch}"),
            x: "tokens of context per sequence",
            y: "us per layer",
            y_base: 10.0,
            room: 1.0,
            series: series.filter(|series| !series.points.is_empty()).collect(),
        }
    };
    models.into_iter().map(panel).filter(|panel| !panel.series.is_empty()).collect()
}

/// A panel for each int4 format, a line for each model.
fn speed_ups(report: &Report, batch: usize) -> Vec<Panel> {
    let models = distinct(decodes(report).map(|row| row.model.as_str()));
    let panel = |format: Format| {
        let series = models.iter().map(|model| {
            let bf16 = times(report, model, Format::Bf16.name(), batch);
            let int4 = times(report, model, format.name(), batch);
            let ratio = |(context, us): (f64, f64)| {
                let (_, slow) = bf16.iter().find(|(other, _)| *other == context)?;
                Some((context, slow / us))
            };
            let points = int4.into_iter().filter_map(ratio).collect();
            Series { label: (*model).into(), style: Style::Line, points }
        });
        Panel {
            title: format!("{}, batch {batch}", format.name()),
            x: "tokens of context per sequence",
            y: "times as fast as bf16",
            y_base: 2.0,
            room: 48.0,
            series: series.filter(|series| !series.points.is_empty()).collect(),
        }
    };
    [Format::Int4, Format::Int4Group64].map(panel).into_iter().filter(|panel| !panel.series.is_empty()).collect()
}

fn decodes(report: &Report) -> impl Iterator<Item = &Row> {
    report.rows.iter().filter(|row| row.operation == OPERATION)
}

/// Microseconds by context, ascending. Counts per token hold for every context.
fn times(report: &Report, model: &str, format: &str, batch: usize) -> Vec<(f64, f64)> {
    let rows = decodes(report).filter(|row| row.model == model && row.format == format && row.batch == batch);
    let mut points: Vec<_> = rows
        .flat_map(|row| match &row.outcome {
            Outcome::Timed(timed) => vec![(row.context as f64, timed.times.median_us)],
            Outcome::Counted(counts) => {
                let ns = counts.least_ns.first().map_or(0.0, |(_, ns)| *ns);
                CONTEXTS.iter().map(|k| (1024.0 * *k as f64, ns * 1.024 * *k as f64 * row.batch as f64)).collect()
            }
        })
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

/// The batch that the most rows of `decode` are of.
fn usual_batch(report: &Report) -> usize {
    let count = |batch: usize| decodes(report).filter(|row| row.batch == batch).count();
    distinct(decodes(report).map(|row| row.batch)).into_iter().max_by_key(|&batch| count(batch)).unwrap_or(1)
}

/// Each value once, in the order in which they come.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.fold(Vec::new(), |mut seen, value| {
        if !seen.contains(&value) {
            seen.push(value);
        }
        seen
    })
}
