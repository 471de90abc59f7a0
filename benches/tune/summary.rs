//! What was measured of variants, for a terminal.

use std::fmt::Write as _;

use super::super::harness::report::{Kind, Outcome, Report, Row};
use super::choices::fastest;
use super::variant::{Tiles, Variant};

/// Titles of [`row`].
pub fn header() -> String {
    format!(
        "{:<17} {:<8} {:>11}  {:<24} {:>9} {:>11} {:>10} {:>12} {:>9} {:>8}",
        "model", "format", "batch", "kernel", "tile", "block ns", "us", "predicted us", "fraction", "differs"
    )
}

/// A row of a variant: predicted beside measured, or what the simulator counted.
pub fn row(row: &Row) -> String {
    let Some(Variant { tiles, block_ns, difference, predicted_us, .. }) = &row.variant else { return String::new() };
    let Tiles { kernel, tile_tokens, stages, blocks_per_multiprocessor } = tiles;
    let [us, fraction] = match &row.outcome {
        Outcome::Timed(timed) => [format!("{:.2}", timed.times.median_us), format!("{:.1} %", 100.0 * timed.fraction)],
        Outcome::Counted(counts) => [format!("{:.0} instr.", counts.warp_instructions), "-".into()],
    };
    let predicted = predicted_us.map_or("-".to_owned(), |us| format!("{us:.1}"));
    format!(
        "{:<17} {:<8} {:>11}  {kernel:<24} {:>9} {block_ns:>11} {us:>10} {predicted:>12} {fraction:>9} {difference:>8.1e}",
        row.model,
        row.format,
        format!("{}x{}", row.batch, row.context),
        format!("{tile_tokens}x{stages}x{blocks_per_multiprocessor}"),
    )
}

/// Each layer's fastest variant beside the chosen one, and what was left out.
pub fn of(report: &Report) -> String {
    let mut text = String::new();
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for first in report.rows.iter().filter(|row| row.variant.is_some()) {
        let layer = (first.model.as_str(), first.format.as_str());
        if seen.contains(&layer) || report.kind != Kind::Timed {
            continue;
        }
        seen.push(layer);
        let rows: Vec<&Row> =
            report.rows.iter().filter(|row| (row.model.as_str(), row.format.as_str()) == layer).collect();
        let Some(best) = fastest(&rows) else { continue };
        let Variant { tiles, block_ns, chosen, .. } = best.variant;
        let Tiles { kernel, tile_tokens, stages, blocks_per_multiprocessor } = tiles;
        let is_it = |row: &&&Row| row.variant.as_ref().is_some_and(|variant| variant == best.variant);
        let times: Vec<String> = best
            .times
            .iter()
            .map(|(point, us)| {
                let at = |row: &&&Row| (row.batch, row.context) == (point.batch, point.context);
                let predicted = rows.iter().filter(at).find(is_it).and_then(|row| row.variant.as_ref()?.predicted_us);
                let predicted = predicted.map_or("-".into(), |us| format!("{us:.1}"));
                format!("{}x{}: {us:.1} us (predicted {predicted})", point.batch, point.context)
            })
            .collect();
        let beside = if *chosen { "as chosen".into() } else { format!("{:.2} of the chosen one's time", best.ratio) };
        let name = format!("{kernel} {tile_tokens}x{stages}x{blocks_per_multiprocessor} {block_ns} ns");
        let _ = writeln!(text, "{:<17} {:<8} {name:<45} {beside}; {}", layer.0, layer.1, times.join(", "));
    }
    let _ = write!(text, "{} rows; {} left out", report.rows.len(), report.left_out.len());
    text
}
