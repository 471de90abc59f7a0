//! The program from its command line: a tiny random model is converted, trained, interrupted, resumed and saved.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use latent_attention::load::{Attention, open};
use serde_json::json;
use tempfile::TempDir;

mod tiny_model;

use tiny_model::{TOKENS, noise, write_model};

/// A folder with a tiny Llama model whose tokens are the words w0, w1, ..., a text to learn from and one to judge by.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let words: Vec<String> = (0..TOKENS).map(|word| format!("w{word}")).collect();
        write_model(&dir.path().join("model"), &words, &json!({"type": "Whitespace"}));
        fs::write(dir.path().join("training.txt"), text(2000, 1)).unwrap();
        fs::write(dir.path().join("judged.txt"), text(200, 2)).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program with the folder's model and texts; `out` is where its files go.
    fn command(&self, out: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latent-attention-recover"));
        let named = [("--model", "model"), ("--text", "training.txt"), ("--evaluation", "judged.txt"), ("--out", out)];
        for (option, name) in named {
            command.arg(option).arg(self.path(name));
        }
        let defaults = [("--sequence", "16"), ("--positions", "4"), ("--batch", "2"), ("--evaluation-tokens", "60")];
        for (option, value) in defaults.into_iter().filter(|(option, _)| !more.contains(option)) {
            command.args([option, value]);
        }
        command.args(more);
        command
    }
}

fn text(words: usize, seed: u32) -> String {
    let mut next = noise(seed);
    (0..words).fold(String::new(), |mut text, _| {
        let word = 2 + ((next() + 1.0) * 0.5 * (TOKENS - 2) as f32) as usize;
        write!(text, "w{word} ").unwrap();
        text
    })
}

fn text_of(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The names of files that are not the same in both.
fn differing(first: &[(String, Vec<u8>)], second: &[(String, Vec<u8>)]) -> Vec<String> {
    let missing = |from: &[(String, Vec<u8>)], file: &&(String, Vec<u8>)| !from.contains(file);
    let differ =
        first.iter().filter(|file| missing(second, file)).chain(second.iter().filter(|file| missing(first, file)));
    differ.map(|(name, _)| name.clone()).collect()
}

/// All files of a folder.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_model_is_converted_trained_and_saved() {
    let folder = Folder::new();
    let saved = folder.path("saved");
    let save = ["--save", saved.to_str().unwrap(), "--rope-dim", "4", "--latent-rank", "10"];
    let output = folder.command("out", &[&["--steps", "3", "--evaluate-every", "1"], &save[..]].concat()).output();
    let output = output.unwrap();
    let (told, wrong) = text_of(&output);
    assert!(output.status.success(), "{wrong}");
    assert!(told.contains("Training ") && told.contains("step 3/3") && told.contains("after step 2:"), "{told}");
    for name in ["checkpoint.safetensors", "log.jsonl", "loss.svg"] {
        assert!(folder.path("out").join(name).exists(), "{name}");
    }
    let model = open(&saved).unwrap();
    assert_eq!(model.config().calibrated_positions, Some(128));
    let Attention::Latent(layer) = model.attention(1).unwrap() else { panic!("not latent") };
    assert_eq!((layer.geometry.rope_width(), layer.geometry.latent_rank), (4, 10));

    // What was saved can be trained further, and is not overwritten.
    let further = ["--layers", saved.to_str().unwrap(), "--steps", "1", "--sequence", "16"];
    let (_, warned) = text_of(&folder.command("further", &further).output().unwrap());
    assert!(!warned.contains("warning"), "{warned}");
    let short = ["--calibration-length", "40", "--own-text", "0", "--steps", "1"];
    let (_, warned) = text_of(&folder.command("short", &short).output().unwrap());
    assert!(warned.contains("texts of 40 tokens") && warned.contains("reads 60"), "{warned}");
    let again = folder.command("again", &["--save", saved.to_str().unwrap()]).output().unwrap();
    assert!(text_of(&again).1.contains("already holds a model"));
}

/// Ctrl-C after the first step, and the rest later: the result has the bits of a run that nobody interrupted.
#[cfg(unix)]
#[test]
fn an_interrupted_run_resumes_to_the_same_bits() {
    let folder = Folder::new();
    let run = |out: &str, save: &str, more: &[&str]| {
        let path = folder.path(save);
        let all = [&["--steps", "300", "--evaluate-every", "0", "--save", path.to_str().unwrap()], more].concat();
        folder.command(out, &all)
    };
    assert!(run("whole", "saved", &[]).output().unwrap().status.success());

    let mut child = run("parts", "resumed", &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    assert!(lines.any(|line| line.starts_with("step 1/")));
    let interrupt = format!("kill -INT {}", child.id());
    assert!(Command::new("sh").arg("-c").arg(interrupt).status().unwrap().success());
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("--resume goes on")), "{rest:?}");
    assert!(!folder.path("resumed").exists());
    // Not begun anew by mistake.
    assert!(text_of(&run("parts", "resumed", &[]).output().unwrap()).1.contains("resume it, or choose another folder"));

    let output = run("parts", "resumed", &["--resume"]).output().unwrap();
    let (told, wrong) = text_of(&output);
    assert!(output.status.success() && told.contains("Going on after step"), "{told}{wrong}");
    assert_eq!(differing(&files(&folder.path("saved")), &files(&folder.path("resumed"))), Vec::<String>::new());
}

/// Writing fails behind the first few kilobytes of a file, as on a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_is_told_and_the_last_checkpoint_stays() {
    let folder = Folder::new();
    assert!(folder.command("out", &["--steps", "2"]).output().unwrap().status.success());
    let before = files(&folder.path("out"));
    let command = folder.command("out", &["--steps", "2", "--resume"]);
    let limited = |blocks: &str, command: &Command| {
        // Without the signal, writing more than the limit is an error.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        Command::new("sh").arg("-c").arg(script).arg(command.get_program()).args(command.get_args()).output().unwrap()
    };
    // Saving the model of a finished run.
    let saved = folder.path("saved");
    let mut saving = command;
    saving.arg("--save").arg(&saved);
    let (_, wrong) = text_of(&limited("4", &saving));
    assert!(wrong.contains("saved") && !wrong.contains("panicked"), "{wrong}");
    assert!(!saved.exists());
    assert_eq!(differing(&files(&folder.path("out")), &before), Vec::<String>::new());
    // A run's own files.
    let output = limited("4", &folder.command("new", &["--steps", "2"]));
    let (_, wrong) = text_of(&output);
    assert!(!output.status.success() && wrong.contains("cannot write"), "{wrong}");
    let left: Vec<_> = files(&folder.path("new")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["log.jsonl"]);
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_written() {
    let folder = Folder::new();
    let refused = |more: &[&str], part: &str| {
        let output = folder.command("out", more).output().unwrap();
        let (_, wrong) = text_of(&output);
        assert!(!output.status.success() && wrong.contains(part) && !wrong.contains("panicked"), "{more:?}: {wrong}");
        assert!(!folder.path("out").exists(), "{more:?}");
    };
    refused(&["--sequence", "400"], "--sequence 400: the model was made for 128 positions");
    refused(&["--calibration-length", "400"], "--calibration-length 400: the model was made for 128 positions");
    refused(&["--rate", "NaN"], "learning rate");
    refused(&["--steps", "0"], "at least one step");
    refused(&["--rope-dim", "3"], "rope_dim");
    refused(&["--latent-rank", "4000"], "latent rank 4000");
    refused(&["--calibration-tokens", "5", "--own-text", "0"], "fewer than");
    refused(&["--own-text", "1.5"], "0 to 1");
    refused(&["--layers", "no/such/folder"], "no/such/folder");
    let own = folder.path("model");
    refused(&["--layers", own.to_str().unwrap()], "not latent");
    for (name, contents, part) in [
        ("judged.txt", text(2000, 1), "overlaps"),
        ("judged.txt", String::new(), "judged.txt is empty"),
        ("training.txt", String::new(), "training.txt is empty"),
        ("training.txt", text(14, 3), "too few"),
    ] {
        let path = folder.path(name);
        let good = fs::read(&path).unwrap();
        fs::write(&path, contents).unwrap();
        refused(&[], part);
        fs::write(&path, good).unwrap();
    }
}
