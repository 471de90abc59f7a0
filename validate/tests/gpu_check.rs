//! The check of a GPU as a command: told to end, it writes down what there is. (What it runs, its own tests say.)

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

fn script(folder: &Path, name: &str, text: &str) {
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Waits for a file that a program is to write.
#[track_caller]
fn wait_for(file: &Path) {
    let start = Instant::now();
    while !file.exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "{} is not written", file.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// In the middle of the variants: the tests and the first row are in the file, nothing that was started goes on, and a second
/// run takes over.
#[test]
fn a_lease_that_is_taken_back_leaves_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    // It looks for the other programs beside itself.
    let program = here.join("gpu-check");
    fs::copy(env!("CARGO_BIN_EXE_gpu-check"), &program).unwrap();
    script(here, "kernels", "echo 'test a::b ... ok'");
    script(here, "suite", "echo 'test questions::hopper ... ok'");
    let json = r#"while [ $# -gt 0 ]; do
          case "$1" in --json) json="$2" ;; --resume) resumed=1 ;; esac
          shift
        done
        if [ -n "$resumed" ]; then echo '{"rows": [1, 2]}' > "$json"; exit 0; fi
        echo '{"rows": [1], "doing": "x"}' > "$json.partial" && mv "$json.partial" "$json"
        (sleep 2; touch survived) &
        sleep 600"#;
    script(here, "benchmarks", json);
    fs::create_dir_all(here.join("ptx-sim/suite")).unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::new(&program);
        command.current_dir(here).args(["tune", "--rehearse", "--out", "out/tune.json"]).args(more);
        command.spawn().unwrap()
    };
    let read =
        || -> serde_json::Value { serde_json::from_slice(&fs::read(here.join("out/tune.json")).unwrap()).unwrap() };

    let mut child = run(&[]);
    wait_for(&here.join("out/tune.variants.json"));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let file = read();
    assert_eq!((&file["gpu"], &file["programs"][0]["passed"]), (&"ptx-sim".into(), &1.into()));
    assert_eq!(file["tuning"]["rows"].as_array().unwrap().len(), 1);
    let absent: Vec<&str> = file["absent"].as_array().unwrap().iter().filter_map(|a| a["what"].as_str()).collect();
    assert_eq!(absent, ["x", "peers", "before"], "{file}");
    std::thread::sleep(Duration::from_secs(3));
    assert!(!here.join("survived").exists(), "what the program had started went on");

    assert_eq!(run(&["--resume"]).wait().unwrap().code(), Some(0));
    assert_eq!(read()["tuning"]["rows"].as_array().unwrap().len(), 2);
}
