//! From times to choices: the Rust table by which `ops::decode` chooses.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::harness::report::{Kind, Report, Row};
use super::trial::Point;
use super::variant::{LayerSizes, Tiles, Variant};

/// By so much of the time another variant has to be faster than the chosen one to take its place: about what two runs of one
/// kernel differ by.
const NOISE: f64 = 0.01;

/// What is above all rows.
const TITLE: &str = "// Made by `cargo xtask choices` of benches/results/*/tune.json: do not edit.";

/// A layer's fastest variant.
pub struct Best<'a> {
    pub variant: &'a Variant,
    /// Its times over those of the chosen variant: the geometric mean of all points.
    pub ratio: f64,
    /// Its times in microseconds.
    pub times: Vec<(Point, f64)>,
}

/// The fastest variant in the rows of one layer, of those that were timed wherever the chosen one was; the chosen one unless
/// another is faster by more than noise.
pub fn fastest<'a>(rows: &[&'a Row]) -> Option<Best<'a>> {
    let timed: Vec<(&Variant, Point, f64)> = rows
        .iter()
        .filter_map(|row| {
            let point = Point { batch: row.batch, context: row.context };
            Some((row.variant.as_ref()?, point, row.median_us()?))
        })
        .collect();
    let of = |wanted: &Variant| -> Vec<(Point, f64)> {
        let is_it = |other: &Variant| {
            (&other.tiles, other.tile_ns, other.block_ns) == (&wanted.tiles, wanted.tile_ns, wanted.block_ns)
        };
        timed.iter().filter(|(variant, ..)| is_it(variant)).map(|(_, point, us)| (*point, *us)).collect()
    };
    let chosen = timed.iter().find(|(variant, ..)| variant.chosen)?.0;
    let chosen_times = of(chosen);
    let mut best = Best { variant: chosen, ratio: 1.0, times: chosen_times.clone() };
    for (variant, ..) in &timed {
        let times = of(variant);
        let at = |point: Point| times.iter().find(|(other, _)| *other == point).map(|(_, us)| *us);
        let ratios: Option<Vec<f64>> = chosen_times.iter().map(|(point, us)| Some(at(*point)? / us)).collect();
        let Some(ratios) = ratios else { continue };
        let ratio = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
        if ratio < best.ratio && ratio < 1.0 - NOISE {
            best = Best { variant, ratio, times };
        }
    }
    Some(best)
}

/// The reports of these files, or, without any, of those from which the repository's table is made.
///
/// # Errors
/// As [`read`], or if the repository is not where it was built.
pub fn read_all(files: &[PathBuf]) -> Result<Vec<Report>> {
    let committed = || committed(&Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results"));
    let files = if files.is_empty() { committed()? } else { files.to_vec() };
    files.iter().map(|file| read(file)).collect()
}

/// `tune.json` of each machine.
fn committed(results: &Path) -> Result<Vec<PathBuf>> {
    let folders = results.read_dir().with_context(|| format!("cannot list {}", results.display()))?;
    let mut files = Vec::new();
    for folder in folders {
        files.push(folder?.path().join("tune.json"));
    }
    files.retain(|file| file.is_file());
    files.sort();
    Ok(files)
}

/// A report of variants: by itself, or in what `gpu-check tune` wrote.
///
/// # Errors
/// If the file is not there, or holds no times of variants that a GPU took.
pub fn read(path: &Path) -> Result<Report> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let is_none = || format!("{} holds no report of variants", path.display());
    let mut file: Value = serde_json::from_slice(&text).with_context(is_none)?;
    let report = if file.get("tuning").is_some() { file["tuning"].take() } else { file };
    let report: Report = serde_json::from_value(report).with_context(is_none)?;
    ensure!(report.kind == Kind::Timed, "{}: the simulator counted, and nothing was timed", path.display());
    let (device, is_gpu) = (report.device.trim(), report.compute_capability.is_some());
    ensure!(is_gpu && !device.is_empty(), "{}: {device:?} is no GPU: only times of one make a table", path.display());
    let has_variants = report.rows.iter().any(|row| row.variant.is_some());
    ensure!(has_variants, "{}: the rows are of no variants: benchmarks --variants times them", path.display());
    Ok(report)
}

/// The table, as Rust.
///
/// # Errors
/// If a report does not say what machine code it timed, or a layer has latents that the table has no word for.
pub fn source(reports: &[Report]) -> Result<String> {
    let (mut about, mut table, mut count) = (String::new(), String::new(), 0);
    for report in reports {
        let capability = report.compute_capability.as_deref().and_then(|text| text.split_once('.'));
        let capability = capability.context("a report without compute capability was not made by a GPU")?;
        let driver = report.driver.as_deref().unwrap_or("unknown");
        writeln!(about, "// {}, driver {driver}, commit {}, {}.", report.device, report.commit, report.date)?;
        for rows in layers(report) {
            let Some(best) = fastest(&rows) else { continue };
            choice(&mut table, rows[0], &best, capability)?;
            count += 1;
        }
    }
    if count == 0 {
        about = "// Nothing has been tuned yet.\n".into();
    }
    let words = if count > 0 { "{Choice, Latents, Layer}" } else { "Choice" };
    Ok(format!(
        "{TITLE}\n{about}//! What was fastest on the layers that were timed.\n\nuse super::tuned::{words};\n\n\
         #[rustfmt::skip]\npub(super) const CHOICES: [Choice; {count}] = [\n{table}];\n"
    ))
}

/// The rows of each layer, in the order of the report.
fn layers(report: &Report) -> Vec<Vec<&Row>> {
    let mut layers: Vec<Vec<&Row>> = Vec::new();
    for row in report.rows.iter().filter(|row| row.variant.is_some()) {
        match layers.iter_mut().find(|rows| (&rows[0].model, &rows[0].format) == (&row.model, &row.format)) {
            Some(rows) => rows.push(row),
            None => layers.push(vec![row]),
        }
    }
    layers
}

fn choice(table: &mut String, row: &Row, best: &Best, (major, minor): (&str, &str)) -> Result<()> {
    let Variant { tiles, tile_ns, block_ns, chosen, layer, .. } = best.variant;
    let latents = match row.format.as_str() {
        "bf16" => "Bf16",
        "int4" => "Whole",
        format if format.starts_with("int4-g") => "Groups",
        other => anyhow::bail!("{}: the table has no latents of the format {other}", row.model),
    };
    let Tiles { kernel, tile_tokens, stages, blocks_per_multiprocessor: blocks } = tiles;
    let LayerSizes { query_heads, latent_rank, rope_bytes } = layer;
    let times: Vec<String> =
        best.times.iter().map(|(point, us)| format!("{}x{} {us:.1} us", point.batch, point.context)).collect();
    let beside = if *chosen { "as it was".into() } else { format!("{:.2} of the time before", best.ratio) };
    writeln!(table, "    // {}, {}: {beside}; {}", row.model, row.format, times.join(", "))?;
    writeln!(
        table,
        "    Choice {{\n        capability: ({major}, {minor}),\n        \
         layer: Layer {{ latents: Latents::{latents}, query_heads: {query_heads}, latent_rank: {latent_rank}, \
         rope_bytes: {rope_bytes} }},\n        \
         kernel: {kernel:?},\n        tile_tokens: {tile_tokens},\n        stages: {stages},\n        blocks: {blocks},\n        \
         tile_ns: {tile_ns},\n        block_ns: {block_ns},\n    }},"
    )?;
    Ok(())
}
