//! Rows of a prediction, as JSON and as text.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::calibrate::{Calibration, Errors};
use crate::counts::{Evidence, Gap};
use crate::layer::{Layer, Merge};
use crate::machine::Machine;
use crate::rows::Row;
use crate::step::{Step, StepTime};
use crate::survey::{TILES, in_words};
use crate::work::Shares;

/// What 64 cached tokens cost a block of threads, in cycles of one scheduler, but for `lsu`, which is the multiprocessor's,
/// and `lone`, a single warp's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cycles {
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
    /// A lone warp's path.
    pub lone: f64,
}

/// A predicted time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Time {
    /// Of all launches.
    pub predicted_us: f64,
    /// The error bar: 95 % of the rows of kernels that the law had not seen lay within it; of a kernel or format that was
    /// never measured, 95 % of the rows of formats that it had not seen.
    pub low_us: f64,
    /// Its upper end.
    pub high_us: f64,
    /// Of the time, merging.
    pub merge_us: f64,
}

/// What the kernels cost that were measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Of 64 cached tokens, by the committed counts.
    pub cycles: Cycles,
    /// The time that follows.
    pub time: Time,
    /// What was measured, if there is such a row.
    pub measured_us: Option<f64>,
}

/// What one shape costs.
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
    /// Of 64 cached tokens.
    #[serde(flatten)]
    pub cycles: Cycles,
    /// Of the issue slots of a tile, the share whose basic blocks could not be matched to the simulator's counts, at most.
    pub unmatched: f64,
    /// Of what a block does beside its tiles.
    pub unmatched_rest: f64,
    /// Of merging.
    pub unmatched_merge: f64,
    /// Tokens of a tile.
    pub tile_tokens: usize,
    /// Tiles in shared memory.
    pub stages: usize,
    /// Blocks that a multiprocessor holds.
    pub blocks_per_multiprocessor: usize,
    /// Splits of a sequence, tiles of a split, and how often the machine is filled.
    pub splits: usize,
    /// Tiles of a split.
    pub tiles: usize,
    /// How often the machine is filled with blocks.
    pub waves: usize,
    /// The time, if the law is calibrated for the architecture.
    #[serde(flatten)]
    pub time: Option<Time>,
    /// The same of the kernels that the committed rows were measured with, if the layer was among them.
    pub measured_kernels: Option<Measured>,
    /// Of a layer's whole step, if it was asked for, and its tokens are few.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<StepTime>,
}

/// What predictions need beside a layer.
pub struct Context<'a> {
    /// What the machine code is for.
    pub arch: &'a str,
    /// The machine.
    pub machine: &'a Machine,
    /// Constants and held-out errors, if the law is calibrated for the architecture.
    pub calibrated: Option<&'a Calibration>,
    /// Measured rows of the architecture.
    pub measured: &'a [Row],
    /// Those of whole steps.
    pub measured_steps: &'a [Row],
}

impl Context<'_> {
    /// Predicts one shape.
    #[must_use]
    pub fn predict(&self, layer: &Layer, merge: &Merge, batch: usize, context: usize) -> Prediction {
        let plan = layer.plan(self.machine, batch, context);
        let measured = self.calibrated.and_then(|calibration| {
            let (layer, merge) = calibration.survey.find(&layer.model, &layer.format)?;
            let is_it = |row: &&Row| {
                (&row.model, &row.format, row.batch, row.context) == (&layer.model, &layer.format, batch, context)
            };
            Some(Measured {
                cycles: self.cycles(layer),
                time: self.time(layer, merge, batch, context)?,
                measured_us: self.measured.iter().find(is_it).map(|row| row.median_us),
            })
        });
        Prediction {
            kernel: layer.kernel.clone(),
            arch: self.arch.into(),
            model: layer.model.clone(),
            format: layer.format.clone(),
            batch,
            context,
            cycles: self.cycles(layer),
            unmatched: unmatched(&layer.tile_evidence),
            unmatched_rest: unmatched(&layer.rest_evidence),
            unmatched_merge: unmatched(&merge.evidence),
            tile_tokens: layer.tile_tokens,
            stages: layer.stages,
            blocks_per_multiprocessor: layer.blocks,
            splits: plan.splits,
            tiles: plan.tiles,
            waves: plan.waves,
            time: self.time(layer, merge, batch, context),
            measured_kernels: measured,
            step: None,
        }
    }

    /// The same with the whole step, of which the launches beside attention are given.
    #[must_use]
    pub fn predict_step(
        &self,
        layer: &Layer,
        merge: &Merge,
        step: Option<&Step>,
        batch: usize,
        context: usize,
    ) -> Prediction {
        let attention = self.predict(layer, merge, batch, context);
        let time = step.zip(self.calibrated).zip(attention.time);
        let step = time.map(|((step, known), time)| step.time(&known.constants, self.machine, time.predicted_us));
        Prediction { step, ..attention }
    }

    fn cycles(&self, layer: &Layer) -> Cycles {
        let work = layer.per_64_tokens();
        let rated = |cycles: f64| self.calibrated.map(|_| cycles);
        Cycles {
            issue: work.issue,
            alu: work.alu,
            fma: work.fma,
            mufu: work.mufu,
            lsu: work.lsu,
            tensor: rated(work.products / self.machine.products_per_cycle),
            dram: rated(work.bytes / self.machine.bytes_per_cycle()),
            lone: work.lone,
        }
    }

    fn time(&self, layer: &Layer, merge: &Merge, batch: usize, context: usize) -> Option<Time> {
        let calibration = self.calibrated?;
        let us = calibration.constants.predict(self.machine, layer, merge, batch, context);
        let p95 = calibration.expected(layer).p95;
        // Measured times are within that much of predictions, relative to themselves.
        let (low_us, high_us) = (us / (1.0 + p95), us / (1.0 - p95));
        let merge_us = calibration.constants.merge_us(self.machine, layer, merge, batch, context);
        Some(Time { predicted_us: us, low_us, high_us, merge_us })
    }
}

/// The table of layers: what 64 cached tokens cost a block, of this build's kernels and of the measured ones.
#[must_use]
pub fn layers<'a>(context: &Context, layers: impl Iterator<Item = (&'a Layer, &'a Merge)>) -> String {
    let mut text = String::from(
        "| model             | format   | kernel               |          | blocks | issue |  alu |  fma | mufu |  lsu | tensor |  dram |  lone |\n\
         |-------------------|----------|----------------------|----------|-------:|------:|-----:|-----:|-----:|-----:|-------:|------:|------:|\n",
    );
    let mut notes = String::new();
    for (layer, merge) in layers {
        let p = context.predict(layer, merge, 1, layer.tile_tokens);
        text += &row(layer, "build", &p.cycles);
        let known = context.calibrated.and_then(|calibration| calibration.survey.find(&layer.model, &layer.format));
        if let Some((known, measured)) = known.zip(p.measured_kernels) {
            text += &row(known.0, "measured", &measured.cycles);
        }
        let [tile, rest, merge] = [&layer.tile_evidence, &layer.rest_evidence, &merge.evidence].map(in_words);
        notes += &format!("{} {}: tile {tile}; rest {rest}; merge {merge}\n", p.model, p.format);
    }
    text + "\nWhere trip counts come from, as shares of issue slots:\n" + &notes
}

fn row(layer: &Layer, which: &str, cycles: &Cycles) -> String {
    let rated = |known: Option<f64>| known.map_or("-".to_owned(), |cycles| format!("{cycles:.0}"));
    format!(
        "| {:<17} | {:<8} | {:<20} | {which:<8} | {:>6} | {:>5.0} | {:>4.0} | {:>4.0} | {:>4.0} | {:>4.0} | {:>6} | {:>5} | {:>5.0} |\n",
        layer.model,
        layer.format,
        layer.kernel,
        layer.blocks,
        cycles.issue,
        cycles.alu,
        cycles.fma,
        cycles.mufu,
        cycles.lsu,
        rated(cycles.tensor),
        rated(cycles.dram),
        cycles.lone
    )
}

fn unmatched(shares: &Shares) -> f64 {
    shares.get(&Evidence::Unmatched).copied().unwrap_or(0.0)
}

/// Where machine code is that runs an unknown number of times, kernel by kernel.
#[must_use]
pub fn gaps<'a>(layers: impl Iterator<Item = (&'a Layer, &'a Merge)>) -> String {
    let mut text =
        format!("Unmatched machine code, and the issue slots that it has at most in a block of {} tiles:\n", TILES[0]);
    let mut seen = BTreeSet::new();
    for (layer, _) in layers.filter(|(layer, _)| seen.insert(layer.kernel.clone())) {
        text += &format!("{} ({} {})\n", layer.kernel, layer.model, layer.format);
        for Gap { address, instructions, lines, slots } in &layer.gaps {
            let lines = match lines {
                Some((first, last)) if first < last => format!("lines {first} to {last}"),
                Some((line, _)) => format!("line {line}"),
                None => "no line".into(),
            };
            text += &format!("  {address:#07x}: {instructions:>3} instructions, {lines} of PTX, {slots:.0} slots\n");
        }
    }
    text
}

/// The table of times: of this build's kernels, and behind the double line of those that were measured.
#[must_use]
pub fn times(predictions: &[Prediction]) -> String {
    let mut text = String::from(
        "| model             | format   | batch | context | splits | tiles | waves | predicted us |        error bar | merge || predicted us | merge | measured us |  error |\n\
         |-------------------|----------|------:|--------:|-------:|------:|------:|-------------:|-----------------:|------:||-------------:|------:|------------:|-------:|\n",
    );
    for p in predictions {
        let number = |us: Option<f64>| us.map_or("-".to_owned(), |us| format!("{us:.1}"));
        let bar = p.time.map_or("-".to_owned(), |time| format!("{:.1} .. {:.1}", time.low_us, time.high_us));
        let then = p.measured_kernels;
        let predicted = then.map(|then| then.time.predicted_us);
        let measured = then.and_then(|then| then.measured_us);
        let error = predicted.zip(measured).map(|(predicted, measured)| 100.0 * (predicted / measured - 1.0));
        text += &format!(
            "| {:<17} | {:<8} | {:>5} | {:>7} | {:>6} | {:>5} | {:>5} | {:>12} | {:>16} | {:>5} || {:>12} | {:>5} | {:>11} | {:>6} |\n",
            p.model,
            p.format,
            p.batch,
            p.context,
            p.splits,
            p.tiles,
            p.waves,
            number(p.time.map(|time| time.predicted_us)),
            bar,
            number(p.time.map(|time| time.merge_us)),
            number(predicted),
            number(then.map(|then| then.time.merge_us)),
            number(measured),
            error.map_or("-".to_owned(), |error| format!("{error:+.1}%")),
        );
    }
    text
}

/// The table of whole steps, and what was measured of them: by other kernels, in five launches where attention was cut.
#[must_use]
pub fn steps(context: &Context, predictions: &[Prediction]) -> String {
    let mut text = String::from(
        "| model             | format   | batch | context | prepare | attend | expand | step us | overlapped || measured us |\n\
         |-------------------|----------|------:|--------:|--------:|-------:|-------:|--------:|-----------:||------------:|\n",
    );
    for (p, time) in predictions.iter().filter_map(|p| Some((p, p.step?))) {
        let is_it =
            |row: &&Row| (&row.model, &row.format, row.batch, row.context) == (&p.model, &p.format, p.batch, p.context);
        let measured = context.measured_steps.iter().find(is_it);
        text += &format!(
            "| {:<17} | {:<8} | {:>5} | {:>7} | {:>7.1} | {:>6.1} | {:>6.1} | {:>7.1} | {:>10.1} || {:>11} |\n",
            p.model,
            p.format,
            p.batch,
            p.context,
            time.prepare_us,
            time.attend_us,
            time.expand_us,
            time.step_us,
            time.overlapped_us,
            measured.map_or("-".to_owned(), |row| format!("{:.1}", row.median_us)),
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
