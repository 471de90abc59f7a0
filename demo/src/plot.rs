//! Error and perplexity against the bytes of the cache, as an SVG of two panels.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::table::{Row, Table};
use crate::variants::Recipe;

const SIZE: (u32, u32) = (1080, 440);
const RECIPES: [(Recipe, RGBColor); 5] = [
    (Recipe::Mha2mla, RGBColor(206, 84, 35)),
    (Recipe::SharedKey, RGBColor(31, 95, 168)),
    (Recipe::Recovered, RGBColor(38, 130, 70)),
    (Recipe::Whole, RGBColor(90, 90, 90)),
    (Recipe::Latent, RGBColor(31, 95, 168)),
];
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

/// A row in a panel.
struct Point<'t> {
    at: (f64, f64),
    row: &'t Row,
}

/// Draws the table's rows into `path`.
///
/// # Errors
/// If there is nothing to draw, or the file cannot be written.
pub fn draw(table: &Table, path: &Path) -> Result<()> {
    let error = Panel {
        title: "Error of the attention's output",
        unit: "relative error, mean over layers",
        value: |row| row.error,
        original: None,
        legend: true,
    };
    let original = table.rows.iter().find(|row| row.all_in_bytes == table.original_bytes && row.error.is_none());
    let perplexity = Panel {
        title: "Perplexity of the model",
        unit: "perplexity",
        // The original is a line, not a mark.
        value: |row| row.error.map(|_| row.perplexity),
        original: original.map(|row| row.perplexity),
        legend: false,
    };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let (left, right) = root.split_horizontally(SIZE.0 / 2);
        error.draw(table, &left)?;
        perplexity.draw(table, &right)?;
        root.present().map_err(failed)?;
    }
    std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))
}

impl Panel<'_> {
    fn points<'t>(&self, table: &'t Table, recipe: Recipe, cache: &str) -> Vec<Point<'t>> {
        let rows = table.rows.iter().filter(|row| row.recipe == recipe && row.cache == cache);
        rows.filter_map(|row| Some(Point { at: (row.all_in_bytes, (self.value)(row)?), row })).collect()
    }

    fn draw(&self, table: &Table, area: &Area) -> Result<()> {
        let mut series = Vec::new();
        for (recipe, colour) in RECIPES {
            for cache in ["bf16", "int4"] {
                let points = self.points(table, recipe, cache);
                if !points.is_empty() {
                    series.push((recipe, cache, colour, points));
                }
            }
        }
        let all = || series.iter().flat_map(|(.., points)| points.iter().map(|point| point.at));
        let bytes = padded(all().map(|at| at.0), 1.4).context("no converted rows to draw")?;
        let values = padded(all().map(|at| at.1).chain(self.original), 1.5).context("no converted rows to draw")?;
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, (FONT, 19).into_font().color(&BLACK))
            .margin(12)
            .margin_right(24)
            .x_label_area_size(48)
            .y_label_area_size(66)
            .build_cartesian_2d(bytes.clone().log_scale().base(2.0), values.log_scale())
            .map_err(failed)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GREY)
            .x_desc("cache, bytes per token and layer, scales and padding counted (labels: cached numbers)")
            .y_desc(self.unit)
            .axis_desc_style((FONT, 14).into_font().color(&BLACK))
            .label_style((FONT, 13).into_font().color(&GREY))
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y}"))
            .draw()
            .map_err(failed)?;
        if let Some(original) = self.original {
            let ends = [(bytes.start, original), (bytes.end, original)];
            chart.draw_series(DashedLineSeries::new(ends, 5, 4, GREY.into())).map_err(failed)?;
            let label = Text::new("original", (6, 5), (FONT, 13).into_font().color(&GREY));
            chart.draw_series([EmptyElement::at(ends[0]) + label]).map_err(failed)?;
        }
        for (recipe, cache, colour, points) in &series {
            let colour = *colour;
            let line = LineSeries::new(points.iter().map(|point| point.at), colour.stroke_width(2));
            let drawn = chart.draw_series(line).map_err(failed)?;
            let filled = *cache == "int4";
            drawn
                .label(format!("{}, {cache}", recipe.name()))
                .legend(move |(x, y)| Circle::new((x + 10, y), 5, style(colour, filled)));
            let marks = points.iter().map(|point| Circle::new(point.at, 5, style(colour, filled)));
            chart.draw_series(marks).map_err(failed)?;
            let labels = points.iter().filter(|_| recipe.is_series()).filter_map(|point| {
                let (rotated, latent) = point.row.sizes?;
                let style = (FONT, 12).into_font().color(&colour).pos(Pos::new(HPos::Center, VPos::Bottom));
                Some(EmptyElement::at(point.at) + Text::new((rotated + latent).to_string(), (0, -9), style))
            });
            chart.draw_series(labels).map_err(failed)?;
        }
        if self.legend {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::LowerLeft)
                .border_style(GRID)
                .background_style(WHITE)
                .label_font((FONT, 14))
                .draw()
                .map_err(failed)?;
        }
        Ok(())
    }
}

/// Marks of int4 are filled, the others are rings.
fn style(colour: RGBColor, filled: bool) -> ShapeStyle {
    if filled { colour.filled() } else { colour.stroke_width(2) }
}

/// The range of the positive `values`, widened by `factor` on both sides; `None` without any.
fn padded(values: impl Iterator<Item = f64>, factor: f64) -> Option<Range<f64>> {
    let positive = values.filter(|value| value.is_finite() && *value > 0.0);
    let (low, high) = positive.fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    (high > 0.0).then_some(low / factor..high * factor)
}

/// Plotters' errors borrow from what is drawn.
fn failed(why: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(recipe: Recipe, numbers: usize, cache: &'static str, bytes: f64, error: Option<f64>) -> Row {
        Row {
            recipe,
            sizes: error.map(|_| (24, numbers - 24)),
            cache,
            code_bytes: bytes,
            all_in_bytes: bytes,
            error,
            perplexity: 35.0 + 1e4 / bytes,
            divergence: error,
            difference: None,
        }
    }

    #[test]
    fn a_drawing_names_its_axes_and_rows() {
        let rows = vec![
            row(Recipe::Original, 384, "bf16", 768.0, None),
            row(Recipe::Whole, 384, "bf16", 768.0, Some(0.002)),
            row(Recipe::Mha2mla, 120, "bf16", 240.0, Some(0.5)),
            row(Recipe::Mha2mla, 120, "int4", 72.0, Some(0.6)),
            row(Recipe::SharedKey, 72, "int4", 56.0, Some(0.7)),
        ];
        let path = std::env::temp_dir().join(format!("latent-attention-plot-{}.svg", std::process::id()));
        draw(&Table { original_bytes: 768.0, rows }, &path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        for text in ["perplexity", "relative error", "bytes per token", "shared key, int4", "original", "full rank"] {
            assert!(svg.contains(text), "{text} is missing");
        }
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        let rows = vec![row(Recipe::Latent, 120, "int4", 72.0, None)];
        let path = std::env::temp_dir().join("latent-attention-never-written.svg");
        assert!(draw(&Table { original_bytes: 768.0, rows }, &path).is_err());
        assert!(!path.exists());
    }
}
