//! The demo as a command: a short run over the real model, saved, and evaluated again from what it saved.

use std::path::Path;
use std::process::{Command, Output};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/models/SmolLM2-135M-Instruct.Q4_1.gguf");

fn demo(model: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latent-attention-demo"));
    command.arg("--model").arg(model).args(arguments).output().expect("the demo starts")
}

/// The cells of the table's row of `attention` with `sizes` and `cache`.
fn row<'a>(output: &'a str, attention: &str, sizes: &str, cache: &str) -> Vec<&'a str> {
    let rows = output.lines().map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let found = rows.into_iter().find(|cells| cells.len() > 3 && cells[..3] == [attention, sizes, cache]);
    found.unwrap_or_else(|| panic!("no row {attention}, {sizes}, {cache} in:\n{output}"))
}

#[test]
fn saved_conversions_are_evaluated_as_they_were() {
    let model = std::env::var_os("LATENT_ATTENTION_MODEL").unwrap_or(MODEL.into());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (ours, theirs, plot) = (path("shared-key"), path("mha2mla"), path("plot.svg"));
    let short = ["--tokens", "48", "--generate", "4"];
    let paths = ["--save", ours.to_str().unwrap(), "--save-mha2mla", theirs.to_str().unwrap()];
    let more = ["--plot", plot.to_str().unwrap(), "--calibration-tokens", "320", "--recover", "1"];
    let first = demo(Path::new(&model), &[&short[..], &paths, &more].concat());
    let first_text = String::from_utf8(first.stdout).unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(std::fs::read_to_string(plot).unwrap().contains("</svg>"));

    for (saved, name) in [(ours, "shared key, recovered"), (theirs, "MHA2MLA's recipe")] {
        let again = demo(&saved, &short);
        let again_text = String::from_utf8(again.stdout).unwrap();
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        // Codes, saved, all-in, saved; then the perplexity, behind the error that a converted model alone does not know.
        for cache in ["bf16", "int4"] {
            let (before, after) =
                (row(&first_text, name, "24 + 96", cache), row(&again_text, "latent", "24 + 96", cache));
            assert_eq!(before[3..7], after[3..7]);
            assert_eq!(before[8], after[8], "perplexity of {name}, {cache}");
        }
    }
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let output = demo(Path::new("no/such/model.gguf"), &[]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains("no/such/model.gguf"), "{message}");
    assert!(!message.contains("panicked"), "{message}");
}

#[test]
fn what_cannot_be_compared_is_refused_before_anything_is_converted() {
    let model = std::env::var_os("LATENT_ATTENTION_MODEL").unwrap_or(MODEL.into());
    let empty = tempfile::tempdir().unwrap();
    let folder = empty.path().to_str().unwrap();
    let message = |arguments: &[&str]| {
        let output = demo(Path::new(&model), arguments);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let no_library = message(&["--llama", folder]);
    assert!(no_library.contains(&format!("--llama {folder}: there is no libllama.so in this folder")), "{no_library}");
    let no_folder = message(&["--llama", "no/such/folder"]);
    assert!(no_folder.contains("--llama no/such/folder"), "{no_folder}");
    let no_threads = message(&["--threads", "0"]);
    assert!(no_threads.contains("--threads") && no_threads.contains("must be at least 1"), "{no_threads}");
}
