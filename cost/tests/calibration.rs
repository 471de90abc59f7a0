//! The committed calibration, made anew from the committed rows: fast, as it needs neither compiler nor simulator.

use std::path::Path;

use latent_attention_cost::calibrate::{Calibration, Errors, calibrate};
use latent_attention_cost::law::{CONSTANTS, Constants, floor_us, terms};
use latent_attention_cost::layer::Layer;
use latent_attention_cost::{machine, models, rows};

fn measured() -> rows::Measured {
    rows::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/results/h200/benchmarks.json"))).unwrap()
}

fn anew(committed: &Calibration) -> Calibration {
    let measured = measured();
    let survey = committed.survey.clone();
    calibrate(&machine::H200, survey, &measured.device, &measured.commit, &measured.rows).unwrap()
}

#[test]
fn constants_and_errors_are_what_the_committed_rows_give() {
    let committed = Calibration::committed().unwrap();
    let anew = anew(&committed);
    assert_eq!((&committed.device, &committed.commit), (&anew.device, &anew.commit));
    assert_eq!(committed.machine, anew.machine);
    for (committed, anew) in committed.constants.to_array().into_iter().zip(anew.constants.to_array()) {
        assert!((committed - anew).abs() <= 1e-6 * anew.abs(), "{committed} {anew}");
    }
    let same = |a: &Errors, b: &Errors| {
        assert_eq!(a.rows, b.rows);
        for (a, b) in [(a.median, b.median), (a.p95, b.p95), (a.worst, b.worst)] {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    };
    same(&committed.fitted, &anew.fitted);
    same(&committed.held_out, &anew.held_out);
    same(&committed.formats_held_out, &anew.formats_held_out);
    let groups = |made: &Calibration| [made.held_out_kernels.clone(), made.held_out_formats.clone()].concat();
    assert_eq!(groups(&committed).len(), groups(&anew).len());
    for ((name, committed), (anew_name, anew)) in groups(&committed).iter().zip(&groups(&anew)) {
        assert_eq!(name, anew_name);
        same(committed, anew);
    }
}

#[test]
fn the_law_holds_on_every_row_also_of_kernels_that_it_has_not_seen() {
    let committed = Calibration::committed().unwrap();
    for errors in [committed.fitted, committed.held_out] {
        assert_eq!(errors.rows, 459);
        assert!(errors.median <= 0.05 && errors.worst <= 0.15, "{errors:?}");
    }
}

#[test]
fn no_row_was_faster_than_a_copy_of_its_cache_so_that_the_law_is_fitted_alone() {
    let committed = Calibration::committed().unwrap();
    for row in measured().rows {
        let (layer, _) = committed.survey.find(&row.model, &row.format).unwrap();
        let floor = floor_us(&machine::H200, layer, row.batch, row.context);
        assert!(floor < 0.8 * row.median_us, "{row:?}: {floor}");
    }
}

#[test]
fn every_layer_that_was_measured_was_surveyed() {
    let committed = Calibration::committed().unwrap();
    for row in measured().rows {
        assert!(committed.survey.find(&row.model, &row.format).is_some(), "{row:?}");
        assert!(models::layer(&row.model, &row.format).is_ok(), "{row:?}");
    }
}

#[test]
fn terms_are_the_laws() {
    let committed = Calibration::committed().unwrap();
    let (layer, merge) = committed.survey.find("llama3-8b-d64", "int4").unwrap();
    // 16 splits of 16 tiles of each sequence: 256 blocks, two on a multiprocessor, at once; 512 rows to merge, on each
    // multiprocessor four blocks of 128 threads (of the 16 that there is room for).
    let [one, lone, issue, lsu, exposed, rest_lone, rest_issue, merge_lone, merge_issue, merge_bytes] =
        terms(&machine::H200, layer, merge, 16, 16384);
    let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-9 * b.abs(), "{a} {b}");
    close(one, 1.0);
    close(lone, 16.0 * layer.tile.lone / 1980.0);
    close(issue, 16.0 * 2.0 * layer.tile.issue / 1980.0);
    close(lsu, 16.0 * 2.0 * layer.tile.lsu / 1980.0);
    close(exposed, 0.0);
    close(rest_lone, layer.rest.lone / 1980.0);
    close(rest_issue, 2.0 * layer.rest.issue / 1980.0);
    close(merge_lone, (merge.rest.lone + 16.0 * merge.split.lone) / 1980.0);
    close(merge_issue, 4.0 * (merge.rest.issue + 16.0 * merge.split.issue) / 1980.0);
    close(merge_bytes, 512.0 * 16.0 * merge.split.bytes / 3.892e6);
    // With one stage, copies are seen. 128 sequences are not split: nothing is merged.
    let (layer, merge) = committed.survey.find("llama2-7b-d64", "bf16").unwrap();
    let terms = terms(&machine::H200, layer, merge, 128, 16384);
    // Four tiles of 8 heads for each, one block on a multiprocessor: 512 blocks in four waves of 512 tiles of 32 tokens.
    close(terms[4], 4.0 * 512.0 * layer.tile.bytes / (3.892e6 / 132.0));
    assert_eq!(terms[7..], [0.0; 3]);
}

#[test]
fn error_bars_of_what_was_never_measured_are_those_of_held_out_formats() {
    let committed = Calibration::committed().unwrap();
    let (known, _) = committed.survey.find("llama3-8b-d64", "int4").unwrap();
    assert_eq!(committed.expected(known), committed.held_out);
    // The same kernel for a layer that was not measured.
    assert_eq!(committed.expected(&Layer { model: "another".into(), ..known.clone() }), committed.held_out);
    // Another format, another kernel, and a kernel of the same name that does more.
    let other_format = Layer { format: "fp8".into(), ..known.clone() };
    let other_kernel = Layer { kernel: "decode_hopper".into(), ..known.clone() };
    let changed = Layer { tile: known.tile * 1.05, ..known.clone() };
    for layer in [other_format, other_kernel, changed] {
        assert_eq!(committed.expected(&layer), committed.formats_held_out, "{layer:?}");
    }
    assert!(committed.formats_held_out.p95 > committed.held_out.p95);
}

#[test]
fn rows_of_another_device_are_refused() {
    let mut measured = measured();
    assert!(measured.clone().of_h200().is_ok());
    measured.device = "NVIDIA H100 80GB HBM3".into();
    assert!(measured.of_h200().unwrap_err().to_string().contains("H100"));
}

#[test]
fn constants_keep_their_places() {
    let numbers: [f64; CONSTANTS] = std::array::from_fn(|i| i as f64);
    assert_eq!(Constants::from_array(numbers).to_array(), numbers);
}
