//! Ways to serve a layer: measured against each other, and the table of choices that follows.

use std::path::{Path, PathBuf};

use latent_attention::device::{Device, Simulation};
use latent_attention::image::Arch;
use latent_attention::ops::{Decode, DecodeVariant};

use crate::program::decode;
use crate::program::harness::report::{Kind, LeftOut, Outcome, Report, Row};
use crate::program::harness::shape::{Format, Shape, models};
use crate::program::tune::choices::{self, fastest};
use crate::program::tune::order::by_kernels;
use crate::program::tune::predicted::Predicted;
use crate::program::tune::trial::{Layer, Point, SMALL};
use crate::program::tune::variant::{Tiles, Variant};
use crate::run;

/// Times that nobody measured, in the form of `gpu-check tune`.
fn fixture() -> PathBuf {
    in_repository("tests/benchmarks/data/tune.json")
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn variant(row: &Row) -> &Variant {
    row.variant.as_ref().unwrap_or_else(|| panic!("{} is of no variant", row.id()))
}

/// What a run on the simulator writes, of small layers with one or several formats.
fn rehearsed(folder: &Path, format: &str, more: &[&str]) -> Report {
    let (json, filter) = (folder.join("variants.json"), format!("smollm-135m-d32/{format}"));
    let arguments = ["--variants", "--device", "simulated", "--filter", &filter, "--json"];
    run(&[&arguments[..], &[json.to_str().unwrap()], more].concat()).unwrap();
    Report::read(&json).unwrap()
}

/// On the simulator as on a GPU: every way that the library offers, each held against the chosen one, and of the chosen one
/// more and fewer splits.
#[test]
fn every_variant_is_run_and_has_the_results_of_the_chosen_one() {
    let folder = tempfile::tempdir().unwrap();
    let report = rehearsed(folder.path(), "int4", &[]);
    assert_eq!((report.kind, report.left_out.len(), &report.doing), (Kind::Counted, 0, &None));
    let model = models().unwrap().into_iter().find(|model| model.0 == "smollm-135m-d32").unwrap();
    let hopper = Simulation::default().with_arch(Arch::Compute90a).with_shared_bytes(227 * 1024);
    let device = Device::simulate(hopper.with_multiprocessors(1));
    let mut has_hopper = false;
    for format in [Format::Int4, Format::Int4Group64] {
        let shape = Shape { model, format, batch: 1, context: 1 };
        let offered = Decode::variants(&device, &decode::config(&shape).unwrap()).unwrap();
        let chosen = offered[0];
        let splits = [chosen.with_block_ns(chosen.block_ns / 2), chosen.with_block_ns(2 * chosen.block_ns)];
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.format == format.name()).collect();
        assert_eq!(rows.len(), offered.len() + splits.len());
        for wanted in offered.iter().chain(&splits) {
            let is_it = |row: &&&Row| {
                let found = variant(row);
                (&found.tiles, found.tile_ns, found.block_ns) == (&Tiles::of(wanted), wanted.tile_ns, wanted.block_ns)
            };
            let row = rows.iter().find(is_it).unwrap_or_else(|| panic!("{wanted:?} was not run"));
            assert_eq!(variant(row).chosen, *wanted == chosen, "{}", row.id());
            assert!(variant(row).difference <= 0.01, "{}: {}", row.id(), variant(row).difference);
            let Outcome::Counted(counts) = &row.outcome else { panic!("{}: timed on the simulator", row.id()) };
            assert!(counts.warp_instructions > 0.0);
            has_hopper |= wanted.kernel.starts_with("decode_sm90");
        }
    }
    assert!(has_hopper, "no kernel with Hopper's own instructions was among them");
    // Counts are no times.
    let refused = choices::read(&folder.path().join("variants.json")).unwrap_err().to_string();
    assert!(refused.contains("the simulator counted, and nothing was timed"), "{refused}");
}

/// The model counts the splits that the library chooses. Of others it says nothing.
#[test]
fn times_are_predicted_of_the_splits_that_were_counted() {
    let folder = tempfile::tempdir().unwrap();
    let whole = rehearsed(folder.path(), "bf16", &[]);
    let Tiles { kernel, tile_tokens, stages, blocks_per_multiprocessor } = &variant(&whole.rows[0]).tiles;
    let file = folder.path().join("predicted.json");
    let row = format!(
        r#"[{{"kernel": "{kernel}", "model": "smollm-135m-d32", "format": "bf16", "batch": {}, "context": {},
            "tile_tokens": {tile_tokens}, "stages": {stages}, "blocks_per_multiprocessor": {blocks_per_multiprocessor},
            "predicted_us": 1.0}}]"#,
        SMALL.batch, SMALL.context
    );
    std::fs::write(&file, row).unwrap();
    let report = rehearsed(folder.path(), "bf16", &["--predicted", file.to_str().unwrap()]);
    let predicted: Vec<&Variant> = report.rows.iter().map(variant).filter(|v| v.predicted_us.is_some()).collect();
    assert!(predicted.len() == 1 && predicted[0].chosen, "{predicted:?}");
}

/// A run that was ended goes on where its file ends; the kernel at which it did is not tried again.
#[test]
fn a_run_goes_on_without_the_kernel_that_did_not_end() {
    let folder = tempfile::tempdir().unwrap();
    let whole = rehearsed(folder.path(), "bf16", &[]);
    let (first, hanging) = (whole.rows[0].clone(), whole.rows[1].clone());
    let cut = Report { rows: vec![first.clone()], doing: Some(hanging.id()), ..whole.clone() };
    cut.write(&folder.path().join("variants.json")).unwrap();
    let report = rehearsed(folder.path(), "bf16", &["--resume"]);
    assert_eq!((&report.rows[0], &report.doing), (&first, &None));
    let (of_it, others): (Vec<&Row>, Vec<&Row>) =
        whole.rows[1..].iter().partition(|row| variant(row).tiles.kernel == variant(&hanging).tiles.kernel);
    let left_out =
        |row: &&Row| report.left_out.iter().any(|left| left.row == row.id() && left.why.contains("did not end"));
    let is_there = |row: &&Row| report.rows.iter().any(|other| other.id() == row.id());
    assert!(of_it.iter().all(left_out) && !of_it.iter().any(is_there), "{:?}", report.left_out);
    assert!(!others.is_empty() && others.iter().all(is_there));
}

/// A layer whose chosen kernel ended the program has nothing to hold the others against.
#[test]
fn a_run_goes_on_without_a_kernel_that_lost_the_device() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("variants.json");
    let whole = rehearsed(folder.path(), "bf16", &[]);
    let row = whole.rows[0].id();
    let why = "the device was lost: an illegal address".to_owned();
    let lost = LeftOut { row: row.clone(), why: why.clone() };
    let cut = Report { rows: Vec::new(), left_out: vec![lost], doing: Some(row.clone()), ..whole.clone() };
    cut.write(&file).unwrap();
    let report = rehearsed(folder.path(), "bf16", &["--resume"]);
    assert!(report.rows.is_empty(), "{:?}", report.rows);
    assert_eq!(report.left_out[0], LeftOut { row: row.clone(), why: why.clone() });
    let named = format!("{row}: {why}");
    assert!(report.left_out.len() == whole.rows.len() && report.left_out[1..].iter().all(|left| left.why == named));
    // Of another kernel, one more row was measured before.
    let (rows, left_out) = (vec![whole.rows[0].clone()], vec![LeftOut { row: whole.rows[1].id(), why }]);
    Report { rows, left_out, doing: None, ..whole.clone() }.write(&file).unwrap();
    let report = rehearsed(folder.path(), "bf16", &["--resume"]);
    assert!(report.rows.len() > 1 && report.rows.len() + report.left_out.len() == whole.rows.len());
}

/// What there was no time for is measured when a run goes on.
#[test]
fn no_row_begins_after_the_time_limit() {
    let folder = tempfile::tempdir().unwrap();
    let report = rehearsed(folder.path(), "bf16", &["--time-limit", "0"]);
    assert!(report.rows.is_empty() && !report.left_out.is_empty());
    assert!(report.left_out.iter().all(|left| left.why == "the time limit was reached"));
    let resumed = rehearsed(folder.path(), "bf16", &["--resume"]);
    assert_eq!((resumed.rows.len(), resumed.left_out.len()), (report.left_out.len(), 0));
}

#[test]
fn a_run_of_another_build_or_device_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("variants.json");
    let report = rehearsed(folder.path(), "bf16", &["--time-limit", "0"]);
    for other in [
        Report { commit: "c0ffee".into(), ..report.clone() },
        Report { device: "a GPU".into(), kind: Kind::Timed, ..report.clone() },
    ] {
        other.write(&file).unwrap();
        let arguments =
            ["--variants", "--device", "simulated", "--filter", "smollm-135m-d32/bf16", "--resume", "--json"];
        let message = run(&[&arguments[..], &[file.to_str().unwrap()]].concat()).unwrap_err().to_string();
        let of = |report: &Report| format!("{} on commit {}", report.device, report.commit);
        assert_eq!(message, format!("{} is of {}, and this is {}", file.display(), of(&other), of(&report)));
    }
}

/// A layer of Llama3-8B, and every way to serve it on Hopper.
fn offered_on_hopper() -> (Shape, Vec<DecodeVariant>) {
    let model = models().unwrap().into_iter().find(|model| model.0 == "llama3-8b-d64").unwrap();
    let shape = Shape { model, format: Format::Int4, batch: 1, context: 1 };
    let hopper = Simulation::default().with_arch(Arch::Compute90a).with_shared_bytes(227 * 1024);
    let offered = Decode::variants(&Device::simulate(hopper), &decode::config(&shape).unwrap()).unwrap();
    (shape, offered)
}

/// One of each kernel before any kernel's second, and the chosen one first.
#[test]
fn kernels_come_before_their_tiles() {
    let (_, offered) = offered_on_hopper();
    let ordered = by_kernels(offered.clone());
    assert_eq!((ordered[0], ordered.len()), (offered[0], offered.len()));
    let mut names: Vec<&str> = offered.iter().map(|variant| variant.kernel).collect();
    names.sort_unstable();
    names.dedup();
    let mut first: Vec<&str> = ordered[..names.len()].iter().map(|variant| variant.kernel).collect();
    first.sort_unstable();
    assert_eq!(first, names);
}

/// Of the fixture's layers: Hopper's kernel with fewer splits; the chosen one, as another is faster by noise alone; and what
/// is faster at one point and was not timed at the other is not chosen.
#[test]
fn the_fastest_at_all_points_is_chosen_unless_it_is_noise() {
    let report = choices::read(&fixture()).unwrap();
    let best = |model: &str, format: &str| {
        let rows: Vec<&Row> =
            report.rows.iter().filter(|row| (row.model.as_str(), row.format.as_str()) == (model, format)).collect();
        let best = fastest(&rows).unwrap();
        (best.variant.tiles.kernel.clone(), best.variant.block_ns, best.ratio)
    };
    let (kernel, block_ns, ratio) = best("llama3-8b-d64", "int4");
    assert_eq!((kernel.as_str(), block_ns), ("decode_sm90_whole_8x4", 16000));
    assert!((ratio - (0.59f64 * 0.6).sqrt()).abs() < 1e-9, "{ratio}");
    assert_eq!(best("deepseek-v2-lite", "int4"), ("decode_whole_1x2_64".into(), 8000, 1.0));
    assert_eq!(best("llama3-8b-d64", "bf16").0, "decode_bf16_1x2_64");
}

/// A run that goes on has rows of more and of fewer splits: these are not what more and fewer splits are tried of.
#[test]
fn splits_are_tried_of_the_fastest_that_the_library_offers() {
    let (shape, offered) = offered_on_hopper();
    let (chosen, other) = (offered[0], offered[1]);
    let mut report = choices::read(&fixture()).unwrap();
    let pattern = report.rows[0].clone();
    let row = |way: DecodeVariant, us: f64| {
        let mut row = Row { variant: Some(Variant::new(&way, &shape, way == chosen, 0.0).unwrap()), ..pattern.clone() };
        let Outcome::Timed(timed) = &mut row.outcome else { panic!("{} was not timed", row.id()) };
        timed.times.median_us = us;
        row
    };
    let fewer = other.with_block_ns(2 * other.block_ns);
    report.rows = vec![row(chosen, 100.0), row(other, 50.0), row(fewer, 40.0)];
    assert_eq!(Layer::new(shape.model, Format::Int4, offered).fastest(&report), other);
}

/// The library's own tests choose by what is made of the fixture: `src/ops/decode/tuned/fixture.rs`.
#[test]
fn the_fixtures_table_is_what_its_times_make() {
    let made = choices::source(&[choices::read(&fixture()).unwrap()]).unwrap();
    let kept = std::fs::read_to_string(in_repository("src/ops/decode/tuned/fixture.rs")).unwrap();
    assert_eq!(made, kept, "benchmarks --choices tests/benchmarks/data/tune.json makes another table");
}

/// The table by which the library chooses.
#[test]
fn the_table_is_what_the_committed_times_make() {
    let made = choices::source(&choices::read_all(&[]).unwrap()).unwrap();
    let kept = std::fs::read_to_string(in_repository("src/ops/decode/choices.rs")).unwrap();
    assert_eq!(made, kept, "`cargo xtask choices` makes another table");
}

#[test]
fn what_holds_no_times_of_variants_makes_no_table() {
    let measured = in_repository("benches/results/h200/benchmarks.json");
    let message = choices::read(&measured).unwrap_err().to_string();
    assert!(message.contains("the rows are of no variants"), "{message}");
    let message = format!("{:#}", run(&["--choices", "/nowhere/tune.json"]).unwrap_err());
    assert!(message.starts_with("cannot read /nowhere/tune.json: "), "{message}");
    // Of a lease in which no variant was timed.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tune.json");
    std::fs::write(&file, r#"{"gpu": "a GPU", "tuning": null}"#).unwrap();
    let message = format!("{:#}", run(&["--choices", file.to_str().unwrap()]).unwrap_err());
    assert!(message.starts_with(&format!("{} holds no report of variants: ", file.display())), "{message}");
}

/// Times that no GPU took make no table, whatever they are called.
#[test]
fn times_without_a_gpu_make_no_table() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let timed = choices::read(&fixture()).unwrap();
    for (device, compute_capability) in [("ptx-sim", None), ("", Some("9.0".into())), (" ", Some("9.0".into()))] {
        Report { device: device.into(), compute_capability, ..timed.clone() }.write(&file).unwrap();
        let message = run(&["--choices", file.to_str().unwrap()]).unwrap_err().to_string();
        let named = format!("{}: {:?} is no GPU: only times of one make a table", file.display(), device.trim());
        assert_eq!(message, named);
    }
}

#[test]
fn predictions_are_of_the_same_kernel_tiles_and_shape() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("predicted.json");
    let row = |kernel: &str, context: usize, us: f64| {
        format!(
            r#"{{"kernel": "{kernel}", "model": "llama3-8b-d64", "format": "int4", "batch": 16, "context": {context},
                "tile_tokens": 64, "stages": 6, "blocks_per_multiprocessor": 1, "predicted_us": {us}}}"#
        )
    };
    let rows = [row("decode_whole_1x4_64", 16384, 1.0), row("decode_sm90_whole_8x4", 16384, 2.0)];
    std::fs::write(&file, format!("[{}]", rows.join(","))).unwrap();
    let predicted = Predicted::read(&file).unwrap();
    let report = choices::read(&fixture()).unwrap();
    let hopper = report.rows.iter().find(|row| variant(row).tiles.kernel == "decode_sm90_whole_8x4").unwrap();
    let at = |context| predicted.find(variant(hopper), "llama3-8b-d64", "int4", Point { batch: 16, context });
    assert_eq!((at(16384), at(8192)), (Some(2.0), None));
    assert_eq!(predicted.find(variant(hopper), "llama3-8b-d64", "bf16", Point { batch: 16, context: 16384 }), None);
}

/// The form of the file is part of what machines without cargo and later commits count on.
#[test]
fn what_is_written_of_variants_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let (report, path) = (choices::read(&fixture()).unwrap(), folder.path().join("report.json"));
    let report = Report { doing: Some("decode/x".into()), ..report };
    report.write(&path).unwrap();
    assert_eq!(Report::read(&path).unwrap(), report);
    // And beside it what other programs wrote: all of it is passed over.
    let whole: serde_json::Value = serde_json::from_slice(&std::fs::read(fixture()).unwrap()).unwrap();
    assert!(whole["peers"].is_null() && whole["tuning"]["rows"].is_array());
    assert!(Point::TIMED.iter().all(|point| *point != SMALL));
}

#[test]
fn layers_without_a_name_like_the_filters_are_refused() {
    let message = run(&["--variants", "--device", "simulated", "--filter", "llama9"]).unwrap_err().to_string();
    assert!(message.contains("[\"llama9\"]") && message.contains("decode/llama3-8b-d64/int4"), "{message}");
}
