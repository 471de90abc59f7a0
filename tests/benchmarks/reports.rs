//! Reports made by hand: files, tables and comparisons.

use crate::program::harness::ceilings::{Ceilings, Rates};
use crate::program::harness::clock::Times;
use crate::program::harness::compare::compare;
use crate::program::harness::counts::Counts;
use crate::program::harness::plot;
use crate::program::harness::report::{Kind, LeftOut, Outcome, Report, Row, Timed};
use crate::program::harness::shape::{Format, Shape, Work, models};
use crate::program::harness::sweep::{Sweep, cases};
use crate::program::harness::table;

/// 2 TB/s and 500 TFLOP/s.
fn ceilings() -> Ceilings {
    Ceilings { name: "at the beginning".into(), tb_per_s: 2.0, tflop_per_s: 500.0, rates: None }
}

/// The same rates and slower ones, as they are measured.
fn rates() -> Rates {
    Rates {
        copy_tb_per_s: 1.8,
        read_tb_per_s: 2.0,
        mma_tflop_per_s: 400.0,
        wgmma_tflop_per_s: Some(500.0),
        int8_tflop_per_s: None,
        launch_us: 2.0,
        clock_mhz: None,
        is_cpu: false,
    }
}

/// A row of `decode` that moves 1 GB and does 1 GFLOP, timed with a spread of 1 % to both sides.
fn timed(format: Format, context: usize, median_us: f64) -> Row {
    let shape = Shape { model: models().unwrap()[0], format, batch: 16, context };
    let work = Work { bytes: 1_000_000_000, flops: 1_000_000_000 };
    let (p10_us, p90_us) = (0.99 * median_us, 1.01 * median_us);
    let times = Times { median_us, p10_us, p90_us, repetitions: 9, launches: 4, copies: 2 };
    Row::new("decode", &shape, &work, Outcome::Timed(Timed::new(times, &work, &ceilings())))
}

fn counted(warp_instructions: f64) -> Row {
    let counts = Counts {
        tokens: 512,
        needed_bytes: 300.0,
        needed_flops: 1e5,
        read_bytes: 304.0,
        written_bytes: 0.0,
        warp_instructions,
        mma_instructions: 8.0,
        bank_conflicts: 0.0,
        least_ns: vec![("H200".into(), 0.07)],
        predicted_us: Some(12.5),
    };
    Row { outcome: Outcome::Counted(counts), ..timed(Format::Int4, 1024, 1.0) }
}

fn report(kind: Kind, rows: Vec<Row>) -> Report {
    Report {
        kind,
        device: "a GPU".into(),
        compute_capability: Some("9.0".into()),
        driver: Some("580.65.06".into()),
        commit: "c0ffee".into(),
        version: "0.1.0".into(),
        date: "2026-11-26T12:00:00Z".into(),
        command: vec!["benchmarks".into(), "--sweep".into(), "quick".into()],
        ceilings: vec![ceilings()],
        rows,
        left_out: vec![LeftOut { row: "decode/llama2-7b-d64/bf16/256x131072".into(), why: "too large".into() }],
        doing: None,
    }
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, rows) in [
        (Kind::Timed, vec![timed(Format::Bf16, 1024, 1000.0), timed(Format::Int4, 1024, 500.0)]),
        (Kind::Counted, vec![counted(225.0)]),
    ] {
        let (written, path) = (report(kind, rows), folder.path().join("report.json"));
        written.write(&path).unwrap();
        assert_eq!(Report::read(&path).unwrap(), written);
    }
    // Nothing of what made it whole is left.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_fraction_is_of_the_roofline_of_bytes_or_arithmetic_whichever_is_longer() {
    let times = Times::of(vec![1000.0], 1, 1);
    let fraction = |bytes, flops| Timed::new(times, &Work { bytes, flops }, &ceilings()).fraction;
    assert_eq!(fraction(2_000_000_000, 1), 1.0); // 2 TB/s for a millisecond
    assert_eq!(fraction(1, 250_000_000_000), 0.5); // half of 500 TFLOP/s
    assert_eq!(fraction(1_000_000_000, 500_000_000_000), 1.0);
}

/// The roofline is the fastest way to move bytes and the fastest products, whichever these are.
#[test]
fn ceilings_are_the_fastest_of_each() {
    let reads = Ceilings::of(rates(), "at the beginning");
    assert_eq!((reads.tb_per_s, reads.tflop_per_s), (2.0, 500.0));
    assert!(reads.is_by_reads() && reads.products() == "bf16 products by wgmma");
    let others = Rates { copy_tb_per_s: 2.5, wgmma_tflop_per_s: None, ..rates() };
    let copy = Ceilings::of(others, "on Ampere");
    assert_eq!((copy.tb_per_s, copy.tflop_per_s), (2.5, 400.0));
    assert!(!copy.is_by_reads() && copy.products() == "bf16 products by mma.sync");
    let header = table::header(Kind::Timed, &[reads]);
    assert!(
        header.contains("2.00 TB/s (reads)") && header.contains("500 TFLOP/s (bf16 products by wgmma)"),
        "{header}"
    );
}

/// Rates that were higher at another time of the run are what a row could have reached.
#[test]
fn no_row_is_above_a_roofline_that_was_reached_at_any_time() {
    // 1 GB in 400 us are 2.5 TB/s.
    let mut report = report(Kind::Timed, vec![timed(Format::Int4, 1024, 400.0), timed(Format::Bf16, 1024, 1000.0)]);
    let fractions = |report: &Report| {
        let of = |row: &Row| match &row.outcome {
            Outcome::Timed(timed) => timed.fraction,
            Outcome::Counted(_) => panic!("{}: counted", row.id()),
        };
        report.rows.iter().map(of).collect::<Vec<_>>()
    };
    assert!(fractions(&report)[0] > 1.0);
    // It is named as long as no rate accounts for it.
    assert_eq!(report.settle(), [report.rows[0].id()]);
    report.ceilings.push(Ceilings { name: "at the end".into(), tb_per_s: 2.5, ..ceilings() });
    assert_eq!(report.settle(), [""; 0]);
    assert_eq!(fractions(&report), [1.0, 0.4]);
}

/// Files of before have no rates by themselves, and say what was defined then.
#[test]
fn reports_of_before_are_read_as_they_were_measured() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results/h200/benchmarks.json");
    let report = Report::read(std::path::Path::new(file)).unwrap();
    assert!(report.rows.len() > 700 && report.ceilings.iter().all(|ceilings| ceilings.rates.is_none()));
    assert!(table::header(report.kind, &report.ceilings).contains("3.89 TB/s (copy)"));
}

#[test]
fn times_are_the_median_and_the_tenths_beside_it() {
    let times = Times::of((0..=20).rev().map(f64::from).collect(), 4, 2);
    assert_eq!((times.p10_us, times.median_us, times.p90_us), (2.0, 10.0, 18.0));
    assert_eq!((times.repetitions, times.launches, times.copies), (21, 4, 2));
}

#[test]
fn tables_line_up_and_say_what_bounds_a_row() {
    for (kind, row, expected) in [
        (Kind::Timed, timed(Format::Int4, 8192, 1000.0), "50.0 % (bytes)"),
        (Kind::Counted, counted(225.25), " 225.2 |"),
    ] {
        let machine = Ceilings { name: "H200".into(), ..ceilings() };
        let header = table::header(kind, std::slice::from_ref(&machine));
        let mut lines = header.lines().skip_while(|line| !line.starts_with('|'));
        let [titles, rule] = [lines.next().unwrap(), lines.next().unwrap()];
        let line = table::row(&row, &[machine]);
        let bars = |line: &str| line.match_indices('|').map(|(i, _)| i).collect::<Vec<_>>();
        assert_eq!(bars(titles), bars(rule));
        assert_eq!(bars(titles), bars(&line), "{titles}\n{line}");
        assert!(line.contains(expected), "{line}");
        assert_eq!(header.contains("not timed"), kind == Kind::Counted);
    }
}

#[test]
fn changes_beyond_both_spreads_are_flagged() {
    let before = [timed(Format::Bf16, 1024, 100.0), timed(Format::Int4, 1024, 50.0), timed(Format::Int4, 2048, 80.0)];
    let after = [timed(Format::Bf16, 1024, 101.0), timed(Format::Int4, 1024, 40.0), timed(Format::Int4, 4096, 90.0)];
    let text = compare(&report(Kind::Timed, before.to_vec()), &report(Kind::Timed, after.to_vec())).unwrap();
    let line = |id: &str| text.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("no {id} in {text}"));
    assert!(line("bf16/16x1024").ends_with("|   +1.0 % |        |"), "{text}");
    assert!(line("int4/16x1024").ends_with("|  -20.0 % | lower  |"), "{text}");
    assert!(text.contains("Only before (1):\n  decode/llama2-7b-d64/int4/16x2048\n"), "{text}");
    assert!(text.contains("Only after (1):\n  decode/llama2-7b-d64/int4/16x4096\n"), "{text}");
    assert!(text.ends_with("2 rows in both; 1 lower, 0 higher\n"), "{text}");
}

#[test]
fn counts_are_exact_so_every_change_is_flagged() {
    let of = |row| report(Kind::Counted, vec![row]);
    let text = compare(&of(counted(200.0)), &of(counted(250.0))).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("int4/16x1024")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(lines[0].contains("| warp instr. |") && lines[0].ends_with("|  +25.0 % | higher |"), "{text}");
    assert!(compare(&of(counted(1.0)), &of(counted(1.0))).unwrap().ends_with("1 rows in both; 0 lower, 0 higher\n"));
}

#[test]
fn times_are_not_compared_with_counts() {
    let (times, counts) = (report(Kind::Timed, Vec::new()), report(Kind::Counted, Vec::new()));
    let message = compare(&times, &counts).unwrap_err().to_string();
    assert_eq!(message, "one report is timed, the other counted: there is nothing to compare");
}

#[test]
fn times_are_drawn_as_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [1024, 2048].into_iter().flat_map(|context| {
        let us = context as f64 / 10.0;
        [timed(Format::Bf16, context, us), timed(Format::Int4, context, us / 3.0)]
    });
    let drawn = plot::draw(&report(Kind::Timed, rows.collect()), folder.path()).unwrap();
    assert_eq!(drawn.len(), 3);
    for path in drawn {
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.contains("timed on a GPU") && !svg.contains("not timed"), "{}", path.display());
    }
    let message = plot::draw(&report(Kind::Timed, Vec::new()), folder.path()).unwrap_err().to_string();
    assert_eq!(message, "there are no rows to draw");
}

#[test]
fn rows_have_names_of_their_own_in_every_sweep() {
    for sweep in [Sweep::Smoke, Sweep::Quick, Sweep::Full, Sweep::Counted] {
        let mut ids: Vec<_> =
            cases(sweep, &crate::program::OPERATIONS, &[]).unwrap().iter().map(|case| case.id()).collect();
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count, "{sweep:?}");
    }
}

#[test]
fn filters_are_parts_of_names_that_all_have_to_occur() {
    let filters = ["decode/", "/int4/", "16x"].map(String::from);
    let found = cases(Sweep::Full, &crate::program::OPERATIONS, &filters).unwrap();
    assert!(found.iter().all(|case| case.operation.name == "decode" && case.shape.format == Format::Int4));
    assert!(found.len() < cases(Sweep::Full, &crate::program::OPERATIONS, &filters[..2]).unwrap().len());
}
