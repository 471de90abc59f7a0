//! The comparison, as a Markdown table that also reads well in a terminal.

use std::fmt::{Display, Formatter, Result};

use crate::variants::Recipe;

/// What was measured of one variant of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which attention.
    pub recipe: Recipe,
    /// Rotated and latent numbers cached per token, where it is latent.
    pub sizes: Option<(usize, usize)>,
    /// Number format of the cache, `bf16` or `int4`.
    pub cache: &'static str,
    /// Bytes of the cached values alone, per token and layer.
    pub code_bytes: f64,
    /// Bytes that the cache really takes per token and layer, with scales and padding.
    pub all_in_bytes: f64,
    /// Relative error of the attention's output against the original, averaged over layers; the original has none.
    pub error: Option<f64>,
    /// Perplexity on the evaluation text.
    pub perplexity: f64,
    /// Mean divergence of its predictions from the original's, nats per token; of the original, and where there is none,
    /// `None`.
    pub divergence: Option<f64>,
    /// By how much the kernels differ from the reference, where both computed.
    pub difference: Option<f64>,
}

/// Rows that are compared; bytes are compared with `original_bytes`.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Bytes per token and layer of the unconverted model's bf16 K and V.
    pub original_bytes: f64,
    /// From top to bottom.
    pub rows: Vec<Row>,
}

/// Column titles, and whether the column holds numbers (which stand to the right).
const COLUMNS: [(&str, bool); 11] = [
    ("attention", false),
    ("rotated + latent", true),
    ("cache", false),
    ("codes, B", true),
    ("saved", true),
    ("all-in, B", true),
    ("saved", true),
    ("output error", true),
    ("perplexity", true),
    ("KL", true),
    ("kernels differ", true),
];

impl Table {
    fn cells(&self, row: &Row) -> [String; 11] {
        let saved = |bytes: f64| match 100.0 * (1.0 - bytes / self.original_bytes) {
            percent if percent < 0.005 => "-".to_owned(),
            percent => format!("{percent:.2} %"),
        };
        [
            row.recipe.name().to_owned(),
            row.sizes.map_or("-".to_owned(), |(rotated, latent)| format!("{rotated} + {latent}")),
            row.cache.to_owned(),
            number(row.code_bytes),
            saved(row.code_bytes),
            number(row.all_in_bytes),
            saved(row.all_in_bytes),
            row.error.map_or("-".to_owned(), |error| format!("{error:.4}")),
            significant(row.perplexity),
            row.divergence.map_or("-".to_owned(), |divergence| format!("{divergence:.3}")),
            row.difference.map_or("-".to_owned(), |difference| format!("{difference:.4}")),
        ]
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let titles = COLUMNS.map(|(title, _)| title.to_owned());
        let lines: Vec<_> = std::iter::once(titles).chain(self.rows.iter().map(|row| self.cells(row))).collect();
        let widths: Vec<usize> =
            (0..COLUMNS.len()).map(|i| lines.iter().map(|line| line[i].len()).max().unwrap_or(0)).collect();
        for (index, line) in lines.iter().enumerate() {
            for (cell, (&width, (_, right))) in line.iter().zip(widths.iter().zip(COLUMNS)) {
                if right { write!(f, "| {cell:>width$} ")? } else { write!(f, "| {cell:<width$} ")? }
            }
            writeln!(f, "|")?;
            if index == 0 {
                for (&width, (_, right)) in widths.iter().zip(COLUMNS) {
                    let dashes = "-".repeat(width + usize::from(!right));
                    if right { write!(f, "| {dashes}:")? } else { write!(f, "| {dashes}")? }
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// A number of bytes, with a decimal only if it has one.
fn number(bytes: f64) -> String {
    if bytes.fract() == 0.0 { format!("{bytes:.0}") } else { format!("{bytes:.1}") }
}

/// Two decimals for everyday perplexities, fewer digits for those that only say "far off".
fn significant(value: f64) -> String {
    match value {
        v if v < 100.0 => format!("{v:.2}"),
        v if v < 1e6 => format!("{v:.0}"),
        v => format!("{v:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(recipe: Recipe, bytes: f64, error: Option<f64>, perplexity: f64) -> Row {
        Row {
            recipe,
            sizes: error.map(|_| (24, 96)),
            cache: "bf16",
            code_bytes: bytes,
            all_in_bytes: bytes + 4.0,
            error,
            perplexity,
            divergence: error.map(|error| 10.0 * error),
            difference: None,
        }
    }

    #[test]
    fn columns_line_up_and_hold_both_savings() {
        let rows =
            vec![row(Recipe::Original, 768.0, None, 10.618), row(Recipe::SharedKey, 60.0, Some(0.03456), 123_456.7)];
        let table = Table { original_bytes: 768.0, rows };
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{text}");
        let bars = |line: &str| line.match_indices('|').map(|(i, _)| i).collect::<Vec<_>>();
        assert!(lines.iter().all(|line| bars(line) == bars(lines[0])), "{text}");
        assert!(lines[2].contains(" 768 |") && lines[2].contains(" 10.62 "), "{text}");
        assert!(lines[3].contains(" 92.19 % |") && lines[3].contains(" 91.67 % |"), "{text}");
        assert!(lines[3].contains(" 0.0346 |") && lines[3].contains(" 123457 |"), "{text}");
        assert!(lines[3].contains(" 24 + 96 |") && lines[3].contains(" 0.346 |"), "{text}");
    }

    #[test]
    fn half_bytes_and_hopeless_perplexities_stay_readable() {
        assert_eq!(number(67.5), "67.5");
        assert_eq!(number(96.0), "96");
        assert_eq!(significant(3.2e8), "3.2e8");
    }
}
