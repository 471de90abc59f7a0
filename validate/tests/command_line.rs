//! The validation as a command: what it prints and how it exits.

use std::path::Path;
use std::process::{Command, Output};

/// A small layer and batch on the simulator.
const SMALL: [&str; 14] = [
    "--device",
    "simulated",
    "--query-heads",
    "4",
    "--kv-heads",
    "2",
    "--rope-heads",
    "2",
    "--latent-rank",
    "24",
    "--seq-lens",
    "9,0,30",
    "--page-size",
    "8",
];

fn validate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_validate")).args(arguments).output().expect("the program starts")
}

#[track_caller]
fn exits(output: &Output, status: i32) -> String {
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{text}{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    format!("{text}{errors}")
}

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().expect("a path in UTF-8").into()
}

#[test]
fn a_run_its_dump_and_a_damaged_dump() {
    let folder = tempfile::tempdir().unwrap();
    let (dump, json) = (path(&folder, "dump"), path(&folder, "report.json"));
    let text = exits(&validate(&[&SMALL[..], &["--dump", &dump, "--json", &json]].concat()), 0);
    assert!(text.contains("latent 24") && text.contains("on ptx-sim") && text.contains("\nPASSED: "), "{text}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let outputs = report["comparisons"].as_array().unwrap();
    assert!(outputs.iter().all(|output| output["passed"] == true));
    assert!(text.contains(&format!("PASSED: {} outputs", outputs.len())));

    let text = exits(&validate(&["--against", &dump]), 0);
    assert!(text.contains("PASSED"), "{text}");

    // The last byte of the file is of the last tensor: they are sorted by the size of their numbers, then by name.
    let file = Path::new(&dump).join("rope-append.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 0x11;
    std::fs::write(&file, bytes).unwrap();
    let text = exits(&validate(&["--against", &dump, "--json", &json]), 1);
    assert!(text.contains("\nFAILED: 1 of "), "{text}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let failed = report["comparisons"].as_array().unwrap().iter().find(|output| output["passed"] == false).unwrap();
    assert_eq!((&failed["case"], &failed["output"]), (&"rope-append".into(), &"cache".into()));

    std::fs::write(&file, b"not a tensor").unwrap();
    let text = exits(&validate(&["--against", &dump]), 2);
    assert!(text.contains("error: ") && text.contains("rope-append.safetensors"), "{text}");
    let text = exits(&validate(&[&SMALL[..], &["--dump", &dump]].concat()), 2);
    assert!(text.contains("there is something in it already"), "{text}");
}

#[test]
fn what_cannot_be_is_refused() {
    for (arguments, expected) in [
        (&["--geometry", "gpt-2"][..], "llama2-7b-d64"),
        (&["--format", "int5"], "int4-g32"),
        (&["--device", "tpu"], "expected simulated, cpu, cuda or cuda:N"),
        (&["--against", "dump", "--seed", "1"], "cannot be used with"),
        (&["--against", "dump", "--latent-rank", "8"], "cannot be used with"),
        (&["--against", "no/such/dump"], "error: no/such/dump: holds none of the files of a dump"),
        (&["--kv-heads", "2"], "error: geometry: kv_heads must be a divisor of query_heads = 9, got 2"),
        (&["--page-size", "5"], "error: page size 5"),
        (&["--seq-lens", "1,two"], "invalid digit"),
        (&["--query-tokens", "0"], "error: batch: needs a sequence with a query token"),
    ] {
        let text = exits(&validate(arguments), 2);
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
}
