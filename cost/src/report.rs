//! Rows of a prediction, as JSON and as text.

use serde::Serialize;

use crate::calibrate::Errors;
use crate::counts::Evidence;
use crate::law::Constants;
use crate::layer::{Layer, Merge};
use crate::machine::Machine;
use crate::rows::Row;
use crate::survey::in_words;

/// What one shape costs. Cycles are those of a block of threads for 64 cached tokens: of one scheduler, but for `lsu`, which
/// is the multiprocessor's, and `lone`, a single warp's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The kernel that serves the layer.
    pub kernel: String,
    /// What its machine code is for.
    pub arch: String,
    /// The model's name.
    pub model: String,
    /// The cache format's name.
    pub format: String,
    /// Sequences.
    pub batch: usize,
    /// Cached tokens of each.
    pub context: usize,
    /// Issue slots.
    pub issue: f64,
    /// The integer and logic pipe.
    pub alu: f64,
    /// The multiply-add pipe.
    pub fma: f64,
    /// The special function unit.
    pub mufu: f64,
    /// Wavefronts of shared memory.
    pub lsu: f64,
    /// Tensor cores, if the machine's rate is known.
    pub tensor: Option<f64>,
    /// Bytes of the cache, at a multiprocessor's share of the rate of a copy, if the machine's is known.
    pub dram: Option<f64>,
    /// A lone warp's way.
    pub lone: f64,
    /// Of the issue slots, the share whose basic blocks could not be matched to the simulator's counts.
    pub unmatched: f64,
    /// Blocks that a multiprocessor holds.
    pub blocks_per_multiprocessor: usize,
    /// Splits of a sequence, tiles of a split, and how often the machine is filled.
    pub splits: usize,
    /// Tiles of a split.
    pub tiles: usize,
    /// How often the machine is filled with blocks.
    pub waves: usize,
    /// The time, if the law is calibrated for the architecture.
    pub predicted_us: Option<f64>,
    /// The error bar: 95 % of the rows of kernels that the law had not seen lay within it.
    pub low_us: Option<f64>,
    /// Its upper end.
    pub high_us: Option<f64>,
    /// What was measured, if there is such a row.
    pub measured_us: Option<f64>,
}

/// What predictions need beside a layer.
pub struct Context<'a> {
    /// What the machine code is for.
    pub arch: &'a str,
    /// The machine.
    pub machine: &'a Machine,
    /// Constants and held-out errors, if the law is calibrated for the architecture.
    pub calibrated: Option<(Constants, Errors)>,
    /// Measured rows of the architecture.
    pub measured: &'a [Row],
}

impl Context<'_> {
    /// Predicts one shape.
    #[must_use]
    pub fn predict(&self, layer: &Layer, merge: &Merge, batch: usize, context: usize) -> Prediction {
        let (work, plan) = (layer.per_64_tokens(), layer.plan(self.machine, batch, context));
        let time = self.calibrated.map(|(constants, errors)| {
            let us = constants.predict(self.machine, layer, merge, batch, context);
            // Measured times are within that much of predictions, relative to themselves.
            (us, us / (1.0 + errors.p95), us / (1.0 - errors.p95))
        });
        let is_it = |row: &&Row| {
            (&row.model, &row.format, row.batch, row.context) == (&layer.model, &layer.format, batch, context)
        };
        Prediction {
            kernel: layer.kernel.clone(),
            arch: self.arch.into(),
            model: layer.model.clone(),
            format: layer.format.clone(),
            batch,
            context,
            issue: work.issue,
            alu: work.alu,
            fma: work.fma,
            mufu: work.special,
            lsu: work.shared,
            tensor: time.map(|_| work.products / self.machine.products_per_cycle),
            dram: time.map(|_| work.bytes / self.machine.bytes_per_cycle()),
            lone: work.lone,
            unmatched: layer.evidence.get(&Evidence::Unmatched).copied().unwrap_or(0.0),
            blocks_per_multiprocessor: layer.blocks,
            splits: plan.splits,
            tiles: plan.tiles,
            waves: plan.waves,
            predicted_us: time.map(|(us, ..)| us),
            low_us: time.map(|(_, low, _)| low),
            high_us: time.map(|(.., high)| high),
            measured_us: self.measured.iter().find(is_it).map(|row| row.median_us),
        }
    }
}

/// The table of layers: what 64 cached tokens cost a block.
#[must_use]
pub fn layers<'a>(context: &Context, layers: impl Iterator<Item = (&'a Layer, &'a Merge)>) -> String {
    let mut text = String::from(
        "| model             | format   | kernel            | blocks | issue |  alu |  fma | mufu |  lsu | tensor |  dram |  lone |\n\
         |-------------------|----------|-------------------|-------:|------:|-----:|-----:|-----:|-----:|-------:|------:|------:|\n",
    );
    let mut notes = String::new();
    for (layer, merge) in layers {
        let p = context.predict(layer, merge, 1, layer.tile_tokens);
        let cycles = |known: Option<f64>| known.map_or("-".to_owned(), |cycles| format!("{cycles:.0}"));
        text += &format!(
            "| {:<17} | {:<8} | {:<17} | {:>6} | {:>5.0} | {:>4.0} | {:>4.0} | {:>4.0} | {:>4.0} | {:>6} | {:>5} | {:>5.0} |\n",
            p.model,
            p.format,
            p.kernel,
            layer.blocks,
            p.issue,
            p.alu,
            p.fma,
            p.mufu,
            p.lsu,
            cycles(p.tensor),
            cycles(p.dram),
            p.lone
        );
        notes += &format!("{} {}: issue slots {}\n", p.model, p.format, in_words(&layer.evidence));
    }
    text + "\nWhere trip counts come from:\n" + &notes
}

/// The table of times.
#[must_use]
pub fn times(predictions: &[Prediction]) -> String {
    let mut text = String::from(
        "| model             | format   | batch | context | splits | tiles | waves | predicted us |        error bar | measured us |  error |\n\
         |-------------------|----------|------:|--------:|-------:|------:|------:|-------------:|-----------------:|------------:|-------:|\n",
    );
    for p in predictions {
        let number = |us: Option<f64>| us.map_or("-".to_owned(), |us| format!("{us:.1}"));
        let bar = p.low_us.zip(p.high_us).map_or("-".to_owned(), |(low, high)| format!("{low:.1} .. {high:.1}"));
        let error = p.predicted_us.zip(p.measured_us).map(|(predicted, measured)| 100.0 * (predicted / measured - 1.0));
        text += &format!(
            "| {:<17} | {:<8} | {:>5} | {:>7} | {:>6} | {:>5} | {:>5} | {:>12} | {:>16} | {:>11} | {:>6} |\n",
            p.model,
            p.format,
            p.batch,
            p.context,
            p.splits,
            p.tiles,
            p.waves,
            number(p.predicted_us),
            bar,
            number(p.measured_us),
            error.map_or("-".to_owned(), |error| format!("{error:+.1}%")),
        );
    }
    text
}

/// How wrong the law is, in one line.
#[must_use]
pub fn errors(what: &str, errors: &Errors) -> String {
    let percent = |fraction: f64| 100.0 * fraction;
    format!(
        "{what}: {} rows, median error {:.1} %, 95 % within {:.1} %, worst {:.1} %",
        errors.rows,
        percent(errors.median),
        percent(errors.p95),
        percent(errors.worst)
    )
}
