//! Every way to serve a layer's `decode`, measured beside the one that is chosen; and the table of choices that follows.
//!
//! docs/gpu.md says how to use it.

pub mod choices;
pub mod order;
pub mod predicted;
pub mod summary;
pub mod trial;
pub mod variant;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use latent_attention::device::Device;
use latent_attention::ops::Decode;

use self::order::by_kernels;
use self::predicted::Predicted;
use self::trial::{Layer, Point, SMALL};
use super::decode;
use super::harness::ceilings::Ceilings;
use super::harness::lab::{Gauge, Lab};
use super::harness::report::{LeftOut, Report};
use super::harness::shape::{Format, Model, Shape, models};
use super::harness::sweep::id;

/// Variants of a layer that are measured before any layer's splits are: of each kernel one, of most layers.
const FIRST: usize = 4;

/// Why a row was left out: there was no time, the program had to be ended at it, or was of no use after it.
const TOO_LATE: &str = "the time limit was reached";
const ENDLESS: &str = "it did not end";
const FATAL: &str = "the device was lost";

/// What to measure, and what to do with it.
pub struct Options {
    /// A GPU's number, or none for the simulator.
    pub ordinal: Option<usize>,
    /// Parts of the names of layers, as in decode/llama3-8b-d64/int4.
    pub filters: Vec<String>,
    pub json: Option<PathBuf>,
    pub memory: Option<usize>,
    /// No row begins later.
    pub time_limit: Option<Duration>,
    /// What `cargo xtask cost --variants --json` wrote.
    pub predicted: Option<PathBuf>,
    /// Whether to go on where the file ends.
    pub resume: bool,
    pub command: Vec<String>,
}

/// Measures, most valuable first: the chosen variants and one of each other kernel, splits of what was fastest, and the rest.
/// Fails if a row did, or if a variant's results are not those of the chosen one.
///
/// # Errors
/// What went wrong before the first row, or the loss of the device.
pub fn run(options: Options) -> Result<ExitCode> {
    let start = Instant::now();
    let mut lab = match options.ordinal {
        Some(ordinal) => Lab::on_gpu(Device::cuda(ordinal)?, ordinal, options.memory)?,
        None => Lab::simulated_hopper(options.memory)?,
    };
    let mut layers = layers(&lab, &options.filters)?;
    let mut tuning = Tuning::begin(&lab, options, start)?;
    println!("{} on {}, commit {}", tuning.report.date, tuning.report.device, tuning.report.commit);
    tuning.report.ceilings.iter().for_each(|ceilings| println!("ceilings {ceilings}"));
    let variants = layers.iter().map(|layer| layer.variants.len());
    println!("{} layers, {} variants\n\n{}", layers.len(), variants.sum::<usize>(), summary::header());
    tuning.all(&mut lab, &mut layers)?;
    tuning.end(lab)
}

/// The layers whose names contain all of the filters, with the ways to serve them.
fn layers(lab: &Lab, filters: &[String]) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    for format in [Format::Int4, Format::Bf16, Format::Int4Group64] {
        for model in models()? {
            let name = format!("decode/{}/{}", model.0, format.name());
            if filters.iter().all(|filter| name.contains(filter)) {
                layers.push(layer(lab, model, format)?);
            }
        }
    }
    ensure!(!layers.is_empty(), "no layer's name contains all of {filters:?}; they are like decode/llama3-8b-d64/int4");
    Ok(layers)
}

fn layer(lab: &Lab, model: Model, format: Format) -> Result<Layer> {
    let shape = Shape { model, format, batch: 1, context: 1 };
    let variants = Decode::variants(&lab.device, &decode::config(&shape)?)?;
    Ok(Layer::new(model, format, by_kernels(variants)))
}

/// A run.
struct Tuning {
    options: Options,
    start: Instant,
    report: Report,
    predicted: Predicted,
    failed: usize,
}

impl Tuning {
    fn begin(lab: &Lab, mut options: Options, start: Instant) -> Result<Self> {
        let predicted = options.predicted.as_deref().map(Predicted::read).transpose()?.unwrap_or_default();
        let ceilings = match (&lab.gauge, options.ordinal) {
            (Gauge::Clock(clock), Some(ordinal)) => {
                vec![Ceilings::measure(&lab.device, clock, ordinal, "at the beginning")?]
            }
            _ => Ceilings::assumed(),
        };
        let mut report = Report::new(lab, options.ordinal, std::mem::take(&mut options.command), ceilings);
        if let (true, Some(path)) = (options.resume, &options.json) {
            take_over(&mut report, Report::read(path)?, path)?;
        }
        Ok(Self { options, start, report, predicted, failed: 0 })
    }

    fn all(&mut self, lab: &mut Lab, layers: &mut [Layer]) -> Result<()> {
        let points: &[Point] = if self.options.ordinal.is_some() { &Point::TIMED } else { &[SMALL] };
        let most = layers.iter().map(|layer| layer.variants.len()).max().unwrap_or(0);
        for round in 0..most {
            if round == FIRST.min(most) {
                self.splits(lab, layers, points)?;
            }
            for layer in layers.iter_mut().filter(|layer| round < layer.variants.len()) {
                self.variant(lab, layer, round, points)?;
            }
        }
        if most <= FIRST {
            self.splits(lab, layers, points)?;
        }
        Ok(())
    }

    /// What was fastest on each layer, with more and with fewer splits.
    fn splits(&mut self, lab: &mut Lab, layers: &mut [Layer], points: &[Point]) -> Result<()> {
        for layer in layers {
            let best = layer.fastest(&self.report);
            for block_ns in [best.block_ns / 2, best.block_ns * 2] {
                layer.variants.push(best.with_block_ns(block_ns));
                self.variant(lab, layer, layer.variants.len() - 1, points)?;
            }
        }
        Ok(())
    }

    /// One variant of a layer at all points.
    fn variant(&mut self, lab: &mut Lab, layer: &mut Layer, index: usize, points: &[Point]) -> Result<()> {
        for &point in points {
            let id = layer.id(index, point);
            if self.is_measured(&id) || self.report.left_out.iter().any(|left| left.row == id) {
                continue;
            }
            if let Some(why) = self.reason_against(layer, index, point) {
                self.report.left_out.push(LeftOut { row: id, why });
                continue;
            }
            self.report.doing = Some(id.clone());
            self.write()?;
            match layer.measure(lab, index, point, &self.report) {
                Ok(mut row) => {
                    if let Some(variant) = row.variant.as_mut().filter(|_| layer.is_offered(index)) {
                        variant.predicted_us = self.predicted.find(variant, &row.model, &row.format, point);
                    }
                    println!("{}", summary::row(&row));
                    self.report.rows.push(row);
                }
                Err(why) => {
                    println!("left out: {id}: {why:#}");
                    if let Err(lost) = lab.device.synchronize() {
                        // It remains the row that was being measured: whoever goes on does without its kernel.
                        self.report.left_out.push(LeftOut { row: id, why: format!("{FATAL}: {why:#}") });
                        self.write()?;
                        bail!("{FATAL}: {lost}");
                    }
                    self.failed += usize::from(!why.is::<super::harness::cache::DoesNotFit>());
                    self.report.left_out.push(LeftOut { row: id, why: format!("{why:#}") });
                }
            }
            self.report.doing = None;
        }
        self.write()
    }

    /// Why a row is not worth its time, if so.
    fn reason_against(&self, layer: &Layer, index: usize, point: Point) -> Option<String> {
        if self.options.time_limit.is_some_and(|limit| self.start.elapsed() >= limit) {
            return Some(TOO_LATE.into());
        }
        // Without results of the chosen one there is nothing to hold others against.
        let needed = [index, 0].into_iter().filter(|&index| !self.is_measured(&layer.id(index, point)));
        let reason = needed.map(|index| layer.variants[index].kernel).find_map(|kernel| stuck(&self.report, kernel));
        reason.or_else(|| layer.slowness(&self.report, index, point))
    }

    fn is_measured(&self, id: &str) -> bool {
        self.report.rows.iter().any(|row| row.id() == id)
    }

    fn end(mut self, lab: Lab) -> Result<ExitCode> {
        let Lab { device, gauge, cache, numbers, .. } = lab;
        // The copy needs memory too.
        drop((cache, numbers));
        if let (Gauge::Clock(clock), Some(ordinal)) = (&gauge, self.options.ordinal) {
            self.report.ceilings.push(Ceilings::measure(&device, clock, ordinal, "at the end")?);
        }
        for row in self.report.settle() {
            println!("above its roofline, so that its work is counted wrongly: {row}");
        }
        self.write()?;
        println!("\n{}", summary::of(&self.report));
        Ok(if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn write(&self) -> Result<()> {
        self.options.json.as_deref().map_or(Ok(()), |path| self.report.write(path))
    }
}

/// Goes on where a report ends that was read from `path`. The row that it was at did not end, or ended the program.
///
/// # Errors
/// If it is of another device or build.
fn take_over(report: &mut Report, before: Report, path: &Path) -> Result<()> {
    let of = |report: &Report| format!("{} on commit {}", report.device, report.commit);
    ensure!(of(&before) == of(report), "{} is of {}, and this is {}", path.display(), of(&before), of(report));
    (report.rows, report.left_out) = (before.rows, before.left_out);
    report.left_out.retain(|left| left.why != TOO_LATE);
    report.ceilings.splice(0..0, before.ceilings);
    let doing = before.doing.filter(|row| report.left_out.iter().all(|left| left.row != *row));
    report.left_out.extend(doing.map(|row| LeftOut { row, why: ENDLESS.into() }));
    Ok(())
}

/// Why a kernel is not tried again, if so.
fn stuck(report: &Report, kernel: &str) -> Option<String> {
    let has_kernel = |row: &str| row.split('/').any(|part| part == kernel);
    let is_it = |left: &&LeftOut| has_kernel(&left.row) && (left.why == ENDLESS || left.why.starts_with(FATAL));
    let LeftOut { row, why } = report.left_out.iter().find(is_it)?;
    Some(format!("{row}: {why}"))
}

/// The name of a row.
pub fn row_id(model: &str, format: Format, point: Point) -> String {
    id("decode", model, format.name(), point.batch, point.context)
}
