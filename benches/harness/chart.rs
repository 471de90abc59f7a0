//! Panels of lines and marks over two logarithmic axes, as SVG.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;

const GREY: RGBColor = RGBColor(90, 90, 90);
const GRID: RGBColor = RGBColor(225, 225, 225);
const FONT: &str = "sans-serif";

/// Colours that stay apart, for the series of a panel in order.
const COLOURS: [RGBColor; 10] = [
    RGBColor(31, 95, 168),
    RGBColor(206, 84, 35),
    RGBColor(44, 140, 78),
    RGBColor(140, 70, 160),
    RGBColor(190, 150, 20),
    RGBColor(20, 150, 170),
    RGBColor(200, 60, 120),
    RGBColor(110, 90, 70),
    RGBColor(90, 100, 210),
    RGBColor(120, 160, 40),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Marks joined by a line.
    Line,
    Marks,
    /// A dashed line without marks, in grey: a bound.
    Bound,
}

/// Points under one name.
#[derive(Clone, Debug)]
pub struct Series {
    pub label: String,
    pub style: Style,
    pub points: Vec<(f64, f64)>,
}

/// One coordinate system. Axes are logarithmic: x to base 2, y to a base of the panel's choice.
#[derive(Clone, Debug)]
pub struct Panel {
    pub title: String,
    pub x: &'static str,
    pub y: &'static str,
    pub y_base: f64,
    /// The x axis goes so many times beyond the last point; much beyond, the legend stands there.
    pub room: f64,
    pub series: Vec<Series>,
}

/// Draws panels in rows of `columns` into a file, under a title and a line below it.
///
/// # Errors
/// If there is nothing to draw, or the file cannot be written.
pub fn draw([title, subtitle]: [&str; 2], panels: &[Panel], columns: usize, path: &Path) -> Result<()> {
    let rows = panels.len().div_ceil(columns);
    let (width, height) = if columns == 1 { (900, 560) } else { (460 * columns as u32, 340 * rows as u32) };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (width, height + 60)).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let root = root.titled(title, (FONT, 20)).map_err(failed)?.titled(subtitle, (FONT, 14)).map_err(failed)?;
        for (panel, area) in panels.iter().zip(root.split_evenly((rows, columns))) {
            panel.draw(&area)?;
        }
        root.present().map_err(failed)?;
    }
    std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))
}

impl Panel {
    fn draw(&self, area: &Area) -> Result<()> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let nothing = || format!("nothing to draw for {}", self.title);
        let x = padded(points().map(|point| point.0), 1.3).with_context(nothing)?;
        let x = x.start..x.end * self.room;
        let y = padded(points().map(|point| point.1), 1.5).with_context(nothing)?;
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, 16).into_font().color(&BLACK))
            .margin(10)
            .margin_right(20)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(x.log_scale().base(2.0), y.log_scale().base(self.y_base))
            .map_err(failed)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GREY)
            .x_desc(self.x)
            .y_desc(self.y)
            .axis_desc_style((FONT, 13).into_font().color(&BLACK))
            .label_style((FONT, 12).into_font().color(&GREY))
            .x_label_formatter(&|x| number(*x))
            .y_label_formatter(&|y| number(*y))
            .draw()
            .map_err(failed)?;
        for (series, &colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let points = || series.points.iter().copied();
            if series.style == Style::Bound {
                let line = DashedLineSeries::new(points(), 6, 4, GREY.into());
                let drawn = chart.draw_series(line).map_err(failed)?;
                let legend = |(x, y)| PathElement::new([(x, y), (x + 16, y)], GREY);
                drawn.label(&series.label).legend(legend);
                continue;
            }
            if series.style == Style::Line {
                chart.draw_series(LineSeries::new(points(), colour.stroke_width(2))).map_err(failed)?;
            }
            let marks = points().map(|point| Circle::new(point, 3, colour.filled()));
            let legend = move |(x, y)| Circle::new((x + 8, y), 4, colour.filled());
            chart.draw_series(marks).map_err(failed)?.label(&series.label).legend(legend);
        }
        // Lines that rise leave the upper left corner free.
        let corner = if self.room > 1.0 { SeriesLabelPosition::MiddleRight } else { SeriesLabelPosition::UpperLeft };
        chart
            .configure_series_labels()
            .position(corner)
            .border_style(GRID)
            .background_style(WHITE.mix(0.8))
            .label_font((FONT, 12))
            .draw()
            .map_err(failed)
    }
}

/// The range of the positive `values`, widened by `factor` on both sides; `None` without any.
fn padded(values: impl Iterator<Item = f64>, factor: f64) -> Option<Range<f64>> {
    let positive = values.filter(|value| value.is_finite() && *value > 0.0);
    let (low, high) = positive.fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    (high > 0.0).then_some(low / factor..high * factor)
}

/// A number on an axis: contexts in units of 1024, few digits otherwise.
fn number(value: f64) -> String {
    let decimals = match value {
        v if v >= 1024.0 && v % 1024.0 == 0.0 => return format!("{}k", v / 1024.0),
        v if v >= 10.0 => return format!("{v:.0}"),
        v if v >= 1.0 => 1,
        _ => 3,
    };
    format!("{value:.decimals$}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Plotters' errors borrow from what is drawn.
fn failed(why: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw: {why}")
}
