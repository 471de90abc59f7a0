//! What the command line does not take.

use crate::run;

/// The message of a refused call.
fn refused(arguments: &[&str]) -> String {
    format!("{:#}", run(arguments).unwrap_err())
}

#[test]
fn arguments_that_mean_nothing_are_refused() {
    for (arguments, expected) in [
        (&["--frequency"][..], "unexpected argument '--frequency'"),
        (&["--device", "gpu"], "expected cuda, cuda:N, cpu or simulated"),
        (&["--device", "simulated:1"], "expected cuda, cuda:N, cpu or simulated"),
        (&["--device", "cuda:x"], "expected cuda, cuda:N, cpu or simulated"),
        (&["--memory", "0"], "expected a number of GB above 0"),
        (&["--memory", "much"], "expected a number of GB above 0"),
        (&["--sweep", "all"], "possible values: smoke, quick, full, counted"),
        (&["--time-limit", "-1"], "'-1'"),
        (&["--compare", "one.json"], "2 values required"),
        (&["--compare", "a.json", "b.json", "--plot", "plots"], "cannot be used with"),
        (&["--show", "a.json", "--filter", "decode"], "cannot be used with"),
    ] {
        let message = refused(arguments);
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
}

#[test]
fn a_filter_without_rows_says_how_rows_are_named() {
    let message = refused(&["--device", "simulated", "--filter", "decode/", "--filter", "llama9"]);
    assert!(message.contains(r#"["decode/", "llama9"]"#) && message.contains("decode/llama2-7b-d64/bf16/1x1024"));
}

#[test]
fn files_that_are_not_there_or_no_reports_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (missing, other) = (folder.path().join("missing.json"), folder.path().join("other.json"));
    std::fs::write(&other, "{\"rows\": 3}").unwrap();
    let [missing, other] = [&missing, &other].map(|path| path.to_str().unwrap());
    assert!(refused(&["--show", missing]).starts_with(&format!("cannot read {missing}: ")));
    assert!(refused(&["--compare", other, missing]).starts_with(&format!("{other} is no report of the benchmarks: ")));
}

#[test]
fn a_report_that_cannot_be_written_is_an_error() {
    let arguments = ["--device", "simulated", "--filter", "schedule/smollm-135m-d32", "--json", "/nowhere/report.json"];
    assert!(refused(&arguments).starts_with("cannot write /nowhere/report.json: "));
}

/// Cargo calls every benchmark with `--bench`.
#[test]
fn what_cargo_adds_is_taken() {
    run(&["--bench", "--device", "simulated", "--list"]).unwrap();
}
