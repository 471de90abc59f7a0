//! Error and perplexity against the bytes of the cache, as an SVG of two panels.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;

use crate::table::{Row, Table};

const SIZE: (u32, u32) = (1080, 440);
const BF16: RGBColor = RGBColor(31, 95, 168);
const INT4: RGBColor = RGBColor(206, 84, 35);
const GREY: RGBColor = RGBColor(90, 90, 90);
const GRID: RGBColor = RGBColor(225, 225, 225);
const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What a panel shows of a row, over its bytes.
struct Panel<'a> {
    title: &'a str,
    unit: &'a str,
    value: fn(&Row) -> Option<f64>,
    /// Value of the original, drawn as a line across.
    original: Option<f64>,
    /// Whether the panel explains the colours.
    legend: bool,
}

/// Draws the table's rows into `path`.
///
/// # Errors
/// If there is nothing to draw, or the file cannot be written.
pub fn draw(table: &Table, path: &Path) -> Result<()> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|why| anyhow!("{why}"))?;
        let (left, right) = root.split_horizontally(SIZE.0 / 2);
        let original = table.rows.iter().find(|row| row.error.is_none()).map(|row| row.perplexity);
        let error = Panel {
            title: "Error of the attention's output",
            unit: "relative error, mean over layers",
            value: |row| row.error,
            original: None,
            legend: true,
        };
        let perplexity = Panel {
            title: "Perplexity of the model",
            unit: "perplexity",
            value: |row| Some(row.perplexity),
            original,
            legend: false,
        };
        for (panel, area) in [(error, left), (perplexity, right)] {
            panel.draw(table, &area).with_context(|| format!("drawing `{}`", panel.title))?;
        }
        root.present().map_err(|why| anyhow!("{why}"))?;
    }
    std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))
}

impl Panel<'_> {
    fn points<'t>(&self, table: &'t Table, cache: &str) -> Vec<(f64, f64, &'t str)> {
        let rows = table.rows.iter().filter(|row| row.cache == cache);
        let mut points: Vec<_> =
            rows.filter_map(|row| Some((row.all_in_bytes, (self.value)(row)?, row.attention.as_str()))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    }

    fn draw(&self, table: &Table, area: &Area) -> Result<()> {
        let series = [("bf16", BF16), ("int4", INT4)].map(|(cache, colour)| (cache, colour, self.points(table, cache)));
        let all = || series.iter().flat_map(|(_, _, points)| points);
        let bytes = padded(all().map(|p| p.0), 1.25).context("no rows to draw")?;
        let values = padded(all().map(|p| p.1).chain(self.original), 1.5).context("no rows to draw")?;
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, (FONT, 19).into_font().color(&BLACK))
            .margin(12)
            .margin_right(24)
            .x_label_area_size(48)
            .y_label_area_size(66)
            .build_cartesian_2d(bytes.clone().log_scale().base(2.0), values.clone().log_scale())
            .map_err(|why| anyhow!("{why}"))?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GREY)
            .x_desc("cache, bytes per token and layer (scales and padding counted)")
            .y_desc(self.unit)
            .axis_desc_style((FONT, 14).into_font().color(&BLACK))
            .label_style((FONT, 13).into_font().color(&GREY))
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y}"))
            .draw()
            .map_err(|why| anyhow!("{why}"))?;
        if let Some(original) = self.original {
            let line = DashedLineSeries::new([(bytes.start, original), (bytes.end, original)], 5, 4, GREY.into());
            chart.draw_series(line).map_err(|why| anyhow!("{why}"))?;
            let shifted = EmptyElement::at((bytes.start, original))
                + Text::new("original", (6, 4), (FONT, 13).into_font().color(&GREY));
            chart.draw_series([shifted]).map_err(|why| anyhow!("{why}"))?;
        }
        for (cache, colour, points) in &series {
            let line = points.iter().map(|&(x, y, _)| (x, y));
            let drawn = chart
                .draw_series(LineSeries::new(line.clone(), colour.stroke_width(2)))
                .map_err(|why| anyhow!("{why}"))?;
            drawn.label(format!("{cache} cache")).legend(move |(x, y)| Circle::new((x + 10, y), 5, colour.filled()));
            let marks = line.map(|point| Circle::new(point, 5, colour.filled()));
            chart.draw_series(marks).map_err(|why| anyhow!("{why}"))?;
            let labels = points.iter().map(|&(x, y, name)| {
                EmptyElement::at((x, y)) + Text::new(name.to_owned(), (8, -14), (FONT, 12).into_font().color(colour))
            });
            chart.draw_series(labels).map_err(|why| anyhow!("{why}"))?;
        }
        if self.legend {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .border_style(GRID)
                .background_style(WHITE)
                .label_font((FONT, 14))
                .draw()
                .map_err(|why| anyhow!("{why}"))?;
        }
        Ok(())
    }
}

/// The range of the positive `values`, widened by `factor` on both sides; `None` without any.
fn padded(values: impl Iterator<Item = f64>, factor: f64) -> Option<Range<f64>> {
    let positive = values.filter(|value| value.is_finite() && *value > 0.0);
    let (low, high) = positive.fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    (high > 0.0).then_some(low / factor..high * factor)
}
