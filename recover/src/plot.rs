//! The course of a run, as an SVG of two panels: loss and held-out perplexity.

use std::io::Write;
use std::ops::Range;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;

use crate::files::replace;
use crate::log::Record;

const SIZE: (u32, u32) = (1080, 440);
const BLUE: RGBColor = RGBColor(31, 95, 168);
const ORANGE: RGBColor = RGBColor(206, 84, 35);
const GREY: RGBColor = RGBColor(90, 90, 90);
const GRID: RGBColor = RGBColor(225, 225, 225);
const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Points = Vec<(f64, f64)>;

/// Curves over steps, on a logarithmic scale.
struct Panel {
    title: &'static str,
    unit: &'static str,
    curves: Vec<(&'static str, RGBColor, Points)>,
}

/// Draws what was logged; nothing if there is nothing to draw yet.
///
/// # Errors
/// If the file cannot be written.
pub fn draw(records: &[Record], path: &Path) -> Result<()> {
    let steps = |value: fn(&Record) -> Option<f64>| -> Points {
        records.iter().filter_map(|record| Some((record.step() as f64, value(record)?))).collect()
    };
    let training = Panel {
        title: "Training",
        unit: "loss of a step",
        curves: vec![
            (
                "divergence of predictions, nats",
                BLUE,
                steps(|record| match record {
                    Record::Step { divergence, .. } => Some(*divergence),
                    Record::Evaluation { .. } => None,
                }),
            ),
            (
                "relative square error of hidden states",
                ORANGE,
                steps(|record| match record {
                    Record::Step { hidden, .. } => Some(*hidden),
                    Record::Evaluation { .. } => None,
                }),
            ),
        ],
    };
    let held_out = Panel {
        title: "Held-out text",
        unit: "perplexity",
        curves: vec![
            (
                "student",
                BLUE,
                steps(|record| match record {
                    Record::Evaluation { measured, .. } => Some(measured.perplexity),
                    Record::Step { .. } => None,
                }),
            ),
            (
                "original",
                GREY,
                steps(|record| match record {
                    Record::Evaluation { measured, .. } => Some(measured.original_perplexity),
                    Record::Step { .. } => None,
                }),
            ),
        ],
    };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let (left, right) = root.split_horizontally(SIZE.0 / 2);
        training.draw(&left)?;
        held_out.draw(&right)?;
        root.present().map_err(failed)?;
    }
    replace(path, |file| Ok(file.write_all(svg.as_bytes())?))
}

impl Panel {
    fn draw(&self, area: &Area) -> Result<()> {
        let all = || self.curves.iter().flat_map(|(_, _, points)| points.iter().copied());
        let Some(values) = padded(all().map(|(_, value)| value)) else { return Ok(()) };
        let last = all().map(|(step, _)| step).fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, (FONT, 19).into_font().color(&BLACK))
            .margin(12)
            .margin_right(24)
            .x_label_area_size(48)
            .y_label_area_size(66)
            .build_cartesian_2d(0.0..last, values.log_scale())
            .map_err(failed)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GREY)
            .x_desc("steps")
            .y_desc(self.unit)
            .axis_desc_style((FONT, 14).into_font().color(&BLACK))
            .label_style((FONT, 13).into_font().color(&GREY))
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.3}").trim_end_matches('0').trim_end_matches('.').to_owned())
            .draw()
            .map_err(failed)?;
        for (name, colour, points) in &self.curves {
            // A logarithm has no place for anything else.
            let shown = points.iter().copied().filter(|(_, value)| value.is_finite() && *value > 0.0);
            let line = chart.draw_series(LineSeries::new(shown, colour.stroke_width(2))).map_err(failed)?;
            let colour = *colour;
            line.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .border_style(GRID)
            .background_style(WHITE)
            .label_font((FONT, 14))
            .draw()
            .map_err(failed)
    }
}

/// The range of the positive values, widened on both sides; `None` without any.
fn padded(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    let positive = values.filter(|value| value.is_finite() && *value > 0.0);
    let (low, high) = positive.fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    (high > 0.0).then_some(low / 1.3..high * 1.3)
}

/// Plotters' errors borrow from what is drawn.
fn failed(why: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::held_out::Measured;

    #[test]
    fn a_drawing_names_its_axes_and_curves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.svg");
        draw(&[], &path).unwrap();
        let measured = |p| Measured { perplexity: p, original_perplexity: 38.0, divergence: 0.3, tokens: 767 };
        let step = |step| Record::Step {
            step,
            divergence: 2.0 / step as f64,
            hidden: 0.5 / step as f64,
            gradient_norm: 1.0,
            rate: 1e-3,
            tokens: 1024 * step,
            seconds: 5.0,
        };
        let before = Record::Evaluation { step: 0, measured: measured(400.0) };
        let after = Record::Evaluation { step: 3, measured: measured(60.0) };
        draw(&[before, step(1), step(2), step(3), after], &path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        for text in ["perplexity", "divergence of predictions", "hidden states", "student", "original", "steps"] {
            assert!(svg.contains(text), "{text} is missing");
        }
    }
}
