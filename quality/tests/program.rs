//! The program from its command line: every table of a tiny random model.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

#[path = "../../recover/tests/tiny_model/mod.rs"]
mod tiny_model;

use tiny_model::{TOKENS, noise, write_model};

/// Tokens are single letters, so that the essays of the repository are more than one token over and over.
fn vocabulary() -> Vec<String> {
    let letters = ('a'..='z').chain('A'..='Z').chain(" .,;'\n".chars()).map(String::from);
    ["<begin>", "<other>"].into_iter().map(String::from).chain(letters).take(TOKENS).collect()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let letters = json!({"type": "Split", "pattern": {"Regex": "(?s)."}, "behavior": "Isolated", "invert": false});
    write_model(&folder.path().join("model"), &vocabulary(), &letters);
    let mut next = noise(7);
    let text: String = (0..3000).map(|_| char::from(b'a' + ((next() + 1.0) * 12.9) as u8)).collect();
    fs::write(folder.path().join("letters.txt"), text).unwrap();
    folder
}

fn quality(folder: &Path, table: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latent-attention-quality"));
    command.arg(table).arg("--model").arg(folder.join("model")).args(more);
    let letters = format!("letters={}", folder.join("letters.txt").display());
    if !more.contains(&"--evaluate") {
        command.args(["--evaluate", &letters]);
    }
    for (option, value) in [("--tokens", "100"), ("--calibration-tokens", "400")] {
        if !more.contains(&option) {
            command.args([option, value]);
        }
    }
    command.output().unwrap()
}

#[test]
fn every_table_has_its_rows() {
    let folder = folder();
    for (table, rows) in [("sizes", 1 + 2 + 5 * 3), ("ablations", 1 + 8 * 2), ("layers", 1 + 5 * 2), ("texts", 1 + 6)] {
        let output = quality(folder.path(), table, &[]);
        let (told, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{table}: {wrong}");
        assert_eq!(told.lines().count(), 2 + rows, "{table}: {told}");
        let columns = |line: &str| line.matches('|').count();
        assert!(told.lines().all(|line| columns(line) == 9), "{table}: {told}");
        assert!(!told.contains("NaN") && told.contains(" essay | KL | letters | KL |"), "{table}: {told}");
    }
    let output = quality(folder.path(), "recovery", &["--steps", "1,2"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(told.lines().count(), 2 + 1 + 3 * 2, "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("| 2 steps, "), "{told}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let folder = folder();
    let refused = |table: &str, more: &[&str], part: &str| {
        let output = quality(folder.path(), table, more);
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && wrong.contains(part) && !wrong.contains("panicked"), "{more:?}: {wrong}");
    };
    let letters = folder.path().join("letters.txt");
    refused("sizes", &["--tokens", "1000"], "made for 128 positions");
    refused("sizes", &["--more-text", letters.to_str().unwrap()], "the text letters");
    refused("sizes", &["--evaluate", "nothing=/dev/null"], "the text nothing is too short");
    refused("sizes", &["--evaluate", "nothing"], "NAME=PATH");
    refused("others", &[], "heads have 8 dimensions");
    refused("context", &[], "more than 512 tokens");
    refused("recovery", &["--steps", "0"], "no steps");
}
