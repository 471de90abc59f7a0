//! The law's constants from measured rows, and how wrong the law is: on the rows that it was fitted to, and on the rows of
//! kernels that it had not seen.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::law::{CONSTANTS, Constants, terms};
use crate::layer::{Layer, Survey};
use crate::machine::Machine;
use crate::rows::Row;

/// Relative errors of predictions, as fractions of the measured times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// Rows.
    pub rows: usize,
    /// The median of their absolute values.
    pub median: f64,
    /// What 95 % of them do not exceed.
    pub p95: f64,
    /// The largest.
    pub worst: f64,
}

impl Errors {
    /// Of pairs of predicted and measured times.
    #[must_use]
    pub fn of(times: &[(f64, f64)]) -> Self {
        let mut errors: Vec<f64> =
            times.iter().map(|(predicted, measured)| (predicted / measured - 1.0).abs()).collect();
        errors.sort_by(f64::total_cmp);
        let at = |fraction: f64| errors.get((fraction * (errors.len() as f64 - 1.0)).round() as usize).copied();
        let [median, p95, worst] = [0.5, 0.95, 1.0].map(|fraction| at(fraction).unwrap_or(0.0));
        Self { rows: errors.len(), median, p95, worst }
    }
}

/// The constants, where they come from, and how far they can be trusted: the file `cost/calibration/h200.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The command that made the file.
    pub command: String,
    /// The device that was measured, and the commit.
    pub device: String,
    /// The commit that was measured.
    pub commit: String,
    /// What of the device is taken for known.
    pub machine: Machine,
    /// The constants.
    pub constants: Constants,
    /// Errors on the rows that they were fitted to.
    pub fitted: Errors,
    /// Errors on the rows of each kernel, predicted with constants that were fitted to the others' rows.
    pub held_out: Errors,
    /// The same, kernel by kernel.
    pub held_out_kernels: Vec<(String, Errors)>,
    /// Errors on the rows of each format, predicted with constants that were fitted to the other formats' rows.
    pub formats_held_out: Errors,
    /// The same, format by format.
    pub held_out_formats: Vec<(String, Errors)>,
    /// What the machine code of the measured kernels costs.
    pub survey: Survey,
}

impl Calibration {
    /// The committed one, for an H200.
    ///
    /// # Errors
    /// If the file is not what `cargo xtask cost --calibrate` writes.
    pub fn committed() -> Result<Self> {
        serde_json::from_str(include_str!("../calibration/h200.json")).context("cost/calibration/h200.json")
    }

    /// The errors to expect of a layer: those of held-out kernels if rows of its kernel with its format are among those that
    /// the law was fitted to, those of held-out formats if nothing like it was measured. A kernel of another cost is
    /// another kernel, whatever its name.
    #[must_use]
    pub fn expected(&self, layer: &Layer) -> Errors {
        let is_it = |known: &&Layer| (&known.model, &known.format) == (&layer.model, &layer.format);
        let of_kernel = |known: &&Layer| (&known.kernel, &known.format) == (&layer.kernel, &layer.format);
        let layers = &self.survey.layers;
        let is_known = match layers.iter().find(is_it) {
            Some(known) => known.kernel == layer.kernel && known.tile.is_close(&layer.tile, SAME),
            None => layers.iter().any(|known| of_kernel(&known)),
        };
        if is_known { self.held_out } else { self.formats_held_out }
    }
}

/// By how much counts of the same kernel may differ, as a fraction: the compiler may give a build a few instructions more or
/// less.
pub const SAME: f64 = 0.03;

/// One row ready to be fitted.
struct Sample<'a> {
    kernel: &'a str,
    format: &'a str,
    terms: [f64; CONSTANTS],
    measured: f64,
}

/// Fits the law to measured rows, and again without each kernel.
///
/// # Errors
/// Names the row whose layer was not surveyed.
pub fn calibrate(machine: &Machine, survey: Survey, device: &str, commit: &str, rows: &[Row]) -> Result<Calibration> {
    let sample = |row: &Row| {
        let (layer, merge) = survey
            .find(&row.model, &row.format)
            .with_context(|| format!("{} with {} was not surveyed", row.model, row.format))?;
        let terms = terms(machine, layer, merge, row.batch, row.context);
        anyhow::Ok(Sample { kernel: &layer.kernel, format: &layer.format, terms, measured: row.median_us })
    };
    let samples = rows.iter().map(sample).collect::<Result<Vec<_>>>()?;
    ensure!(samples.len() > CONSTANTS, "{} rows are too few for {CONSTANTS} constants", samples.len());
    let all: Vec<&Sample> = samples.iter().collect();
    let constants = fit(&all);
    let (held, held_out_kernels) = hold_out(&all, |sample| sample.kernel);
    let (formats_held, held_out_formats) = hold_out(&all, |sample| sample.format);
    Ok(Calibration {
        command: "cargo xtask cost --calibrate".into(),
        device: device.into(),
        commit: commit.into(),
        machine: *machine,
        constants: Constants::from_array(constants),
        fitted: Errors::of(&times(&all, &constants)),
        held_out: Errors::of(&held),
        held_out_kernels,
        formats_held_out: Errors::of(&formats_held),
        held_out_formats,
        survey: survey.clone(),
    })
}

/// Predicted and measured times, row by row.
type Times = Vec<(f64, f64)>;

/// Predicted and measured times of all rows, each group of them predicted with constants that were fitted to the others;
/// and the errors of each group.
fn hold_out<'a>(samples: &[&Sample<'a>], group: impl Fn(&Sample<'a>) -> &'a str) -> (Times, Vec<(String, Errors)>) {
    let groups: BTreeSet<&str> = samples.iter().map(|sample| group(sample)).collect();
    let (mut all, mut by_group) = (Vec::new(), Vec::new());
    for name in groups {
        let (held, others): (Vec<&Sample>, Vec<&Sample>) = samples.iter().partition(|sample| group(sample) == name);
        let times = times(&held, &fit(&others));
        by_group.push((name.to_owned(), Errors::of(&times)));
        all.extend(times);
    }
    (all, by_group)
}

/// Predicted and measured times.
fn times(samples: &[&Sample], constants: &[f64; CONSTANTS]) -> Times {
    let predict = |sample: &Sample| sample.terms.iter().zip(constants).map(|(term, factor)| term * factor).sum();
    samples.iter().map(|sample| (predict(sample), sample.measured)).collect()
}

/// The constants, none of them negative, with the least sum of squared relative errors.
fn fit(samples: &[&Sample]) -> [f64; CONSTANTS] {
    let (mut products, mut target) = ([[0.0; CONSTANTS]; CONSTANTS], [0.0; CONSTANTS]);
    for sample in samples {
        let relative = sample.terms.map(|term| term / sample.measured);
        for i in 0..CONSTANTS {
            target[i] += relative[i];
            (0..CONSTANTS).for_each(|j| products[i][j] += relative[i] * relative[j]);
        }
    }
    least_squares(&products, &target)
}

/// Passes over the unknowns that are allowed, and the relative change that ends them earlier.
const PASSES: usize = 1_000_000;
const SETTLED: f64 = 1e-13;

/// The numbers, none of them negative, that minimise a quadratic form: `products` times them is `target` without that
/// bound. One unknown after the other is set to its best value, until none changes; the form is convex, so that nothing
/// else is better.
fn least_squares<const N: usize>(products: &[[f64; N]; N], target: &[f64; N]) -> [f64; N] {
    let mut x = [0.0; N];
    for _ in 0..PASSES {
        let mut change = 0.0f64;
        for i in 0..N {
            if products[i][i] == 0.0 {
                continue;
            }
            let rest: f64 = (0..N).filter(|&j| j != i).map(|j| products[i][j] * x[j]).sum();
            let best = ((target[i] - rest) / products[i][i]).max(0.0);
            change = change.max((best - x[i]).abs() / best.abs().max(1e-3));
            x[i] = best;
        }
        if change < SETTLED {
            break;
        }
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_to_what_was_measured() {
        let errors = Errors::of(&[(1.1, 1.0), (0.8, 1.0), (5.0, 5.0)]);
        let expected = Errors { rows: 3, median: 0.1, p95: 0.2, worst: 0.2 };
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(close(errors.median, expected.median) && close(errors.p95, expected.p95), "{errors:?}");
        assert!(close(errors.worst, expected.worst) && errors.rows == 3, "{errors:?}");
    }

    #[test]
    fn least_squares_find_what_the_numbers_were_made_of() {
        // x = (2, 3): products of the columns (1, 1, 0) and (0, 1, 1), and of these with (2, 5, 3).
        let found = least_squares(&[[2.0, 1.0], [1.0, 2.0]], &[7.0, 8.0]);
        assert!((found[0] - 2.0).abs() < 1e-9 && (found[1] - 3.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn a_factor_that_would_be_negative_is_zero_and_the_others_fit_without_it() {
        // Without the bound x = (1, -1).
        let found = least_squares(&[[2.0, 1.0], [1.0, 2.0]], &[1.0, -1.0]);
        assert!((found[0] - 0.5).abs() < 1e-9 && found[1] == 0.0, "{found:?}");
    }
}
