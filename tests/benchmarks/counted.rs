//! Runs on the simulator.

use std::path::Path;

use crate::program::harness::counts::Counts;
use crate::program::harness::report::{Kind, Outcome, Report, Row};
use crate::run;

/// The report of a run on the simulator.
fn report(arguments: &[&str], file: &Path) -> Report {
    let json = file.to_str().unwrap();
    run(&[arguments, &["--device", "simulated", "--json", json]].concat()).unwrap();
    Report::read(file).unwrap()
}

fn counts(row: &Row) -> &Counts {
    match &row.outcome {
        Outcome::Counted(counts) => counts,
        Outcome::Timed(_) => panic!("{}: timed", row.id()),
    }
}

#[test]
fn every_operation_is_counted_and_moves_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let report = report(&["--filter", "smollm-135m-d32"], &folder.path().join("counts.json"));
    assert_eq!((report.kind, report.left_out.len()), (Kind::Counted, 0));
    for operation in crate::program::OPERATIONS {
        let rows: Vec<_> = report.rows.iter().filter(|row| row.operation == operation.name).collect();
        assert!(!rows.is_empty(), "{} has no row", operation.name);
        for row in rows {
            let counts = counts(row);
            // How often `schedule` tries lengths of splits depends on the lengths more than on their number.
            assert!(counts.warp_instructions > 0.0 || row.operation == "schedule", "{}", row.id());
            // Whatever its work grows with is read and written at least once. Up to 16 tokens, all of which a block of
            // `absorb` may serve, weights are not among it.
            let moved = counts.read_bytes + counts.written_bytes;
            let is_absorb = ["absorb_query", "expand_output"].iter().any(|name| row.operation.starts_with(name));
            assert!(is_absorb || moved >= counts.needed_bytes, "{}: {moved} bytes", row.id());
        }
    }
}

#[test]
fn decode_reads_each_cached_byte_once_and_a_page_id_per_warp_and_tile() {
    let folder = tempfile::tempdir().unwrap();
    let report = report(&["--filter", "decode/smollm-135m-d32"], &folder.path().join("counts.json"));
    let read: Vec<_> = report.rows.iter().map(|row| (row.format.as_str(), counts(row).read_bytes)).collect();
    // 8 warps share tiles of 64 tokens.
    let page_id = 4.0 / 8.0;
    assert_eq!(read, [("bf16", 240.0 + page_id), ("int4-g64", 76.0 + page_id), ("int4", 72.0 + page_id)]);
}

#[test]
fn times_of_decode_are_predicted_where_there_is_a_disassembler() {
    let folder = tempfile::tempdir().unwrap();
    let filter = ["--filter", "smollm-135m-d32/int4/1x1024"];
    let report = report(&filter, &folder.path().join("counts.json"));
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let has_tools = latent_attention_cost::tools::Tools::find(&target).is_ok();
    for row in &report.rows {
        let predicted = counts(row).predicted_us;
        assert_eq!(predicted.is_some(), has_tools && row.operation == "decode", "{}", row.id());
        // Two launches take more than a microsecond, and a thousand tokens less than a millisecond.
        assert!(predicted.is_none_or(|us| (1.0..1000.0).contains(&us)), "{}: {predicted:?}", row.id());
    }
    assert!(report.rows.iter().any(|row| row.operation == "decode"));
}

#[test]
fn plots_and_table_say_that_nothing_was_timed() {
    let folder = tempfile::tempdir().unwrap();
    let (json, plots) = (folder.path().join("counts.json"), folder.path().join("plots"));
    let report =
        report(&["--filter", "decode/", "--filter", "smollm-135m-d32", "--plot", plots.to_str().unwrap()], &json);
    assert_eq!(report.rows.len(), 3);
    for (name, what) in
        [("roofline.svg", "roof: H200"), ("context.svg", "tokens of context"), ("speedup.svg", "as fast as bf16")]
    {
        let svg = std::fs::read_to_string(plots.join(name)).unwrap();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{name}");
        assert!(svg.contains("counted, not timed") && svg.contains(what), "{name} lacks a label");
    }
    assert!(std::fs::read_to_string(&json).unwrap().contains("\"counted, not timed\""));
    // The kept file is drawn again without measuring.
    let again = folder.path().join("again");
    run(&["--show", json.to_str().unwrap(), "--plot", again.to_str().unwrap()]).unwrap();
    let read = |folder: &Path| std::fs::read_to_string(folder.join("context.svg")).unwrap();
    assert_eq!(read(&again), read(&plots));
}

#[test]
fn rows_that_do_not_fit_or_come_too_late_are_left_out_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counts.json");
    let filter = ["--filter", "decode/smollm-135m-d32/bf16"];
    let why = |extra: &[&str]| {
        let report = report(&[&filter, extra].concat(), &file);
        assert_eq!((report.rows.len(), report.left_out.len()), (0, 1));
        assert_eq!(report.left_out[0].row, "decode/smollm-135m-d32/bf16/1x1024");
        report.left_out[0].why.clone()
    };
    assert_eq!(why(&["--memory", "0.0001"]), "its cache takes 0.0002 GB, of 0.0001 GB (--memory)");
    assert_eq!(why(&["--time-limit", "0"]), "the time limit was reached");
}
