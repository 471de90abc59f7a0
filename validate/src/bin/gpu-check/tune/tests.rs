//! With scripts in the place of programs.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn script(folder: &Path, name: &str, text: &str) {
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A script's beginning that sets `json` to the file which the program is to write.
const JSON: &str = r#"while [ $# -gt 0 ]; do
  case "$1" in --json) json="$2" ;; --resume) resumed=1 ;; esac
  shift
done"#;

/// A folder with all programs, of which `benchmarks` goes on with this.
fn programs(benchmarks: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    script(folder.path(), "kernels", "echo 'test a::b ... ok'");
    script(folder.path(), "suite", "printf 'test questions::hopper ... ok\\nquestion\\ta rate\\t1.5\\tcycles\\n'");
    script(folder.path(), "benchmarks", &format!("{JSON}\n{benchmarks}"));
    fs::create_dir(folder.path().join("suite-files")).unwrap();
    folder
}

fn machine() -> Machine {
    let [gpu, compute_capability, driver] = ["a GPU", "9.0", "580"].map(String::from);
    Machine { gpu, compute_capability, driver, commit: "c0ffee" }
}

fn tune(folder: &Path) -> Tune {
    Tune {
        out: folder.join("tune.json"),
        minutes: 1.0,
        filter: vec!["llama".into()],
        predicted: None,
        peers: folder.join("peers.py"),
        vllm: None,
        before: None,
        rehearse: true,
    }
}

fn run_in(folder: &Path, tune: &Tune) -> (bool, Value) {
    let passed = run(tune, folder, &folder.join("suite-files"), 0, machine(), true).unwrap();
    (passed, read(&tune.out).unwrap())
}

#[test]
fn every_part_is_in_the_file_and_what_is_not_there_is_named() {
    let folder = programs(r#"echo "{\"rows\": [1, 2]}" > "$json""#);
    let (passed, file) = run_in(folder.path(), &tune(folder.path()));
    assert!(passed);
    assert_eq!(
        (&file["gpu"], &file["commit"], &file["compute_capability"]),
        (&"a GPU".into(), &"c0ffee".into(), &"9.0".into())
    );
    assert_eq!(file["programs"][0]["passed"], 1);
    assert_eq!((&file["questions"][0]["name"], &file["questions"][0]["value"]), (&"a rate".into(), &1.5.into()));
    assert_eq!(file["tuning"]["rows"].as_array().unwrap().len(), 2);
    let absent: Vec<&str> = file["absent"].as_array().unwrap().iter().filter_map(|a| a["what"].as_str()).collect();
    assert_eq!(absent, ["others' kernels", "kernels of before"]);
    let parts: Vec<&str> = file["seconds"].as_array().unwrap().iter().filter_map(|part| part[0].as_str()).collect();
    assert_eq!(parts, ["tests", "questions", "variants", "peers", "before"]);
}

#[test]
fn peers_are_run_with_what_lies_beside_the_program() {
    let folder = programs(r#"echo "{\"rows\": []}" > "$json""#);
    let python = "import json, sys\nat = sys.argv.index\n\
                  json.dump({'argv': sys.argv[1:]}, open(sys.argv[at('--json') + 1], 'w'))\n";
    fs::write(folder.path().join("peers.py"), python).unwrap();
    fs::write(folder.path().join("liblatent_attention.so"), "").unwrap();
    fs::create_dir(folder.path().join("wheel")).unwrap();
    let (_, file) = run_in(folder.path(), &tune(folder.path()));
    let argv: Vec<&str> = file["peers"]["argv"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for option in ["--library", "--vllm", "--time-limit", "--simulate"] {
        assert!(argv.contains(&option), "{argv:?} lacks {option}");
    }
}

/// What has been measured is in the file, and the program is started once more, to go on without what hangs.
#[test]
fn a_row_that_does_not_end_costs_no_more_than_itself() {
    let folder = programs(
        r#"if [ -n "$resumed" ]; then echo "{\"rows\": [1, 2, 3]}" > "$json"; exit 0; fi
        echo "{\"rows\": [1], \"doing\": \"x\"}" > "$json"
        sleep 600"#,
    );
    let tune = tune(folder.path());
    let report = Report {
        machine: machine(),
        minutes: 1.0,
        seconds: Vec::new(),
        programs: Vec::new(),
        questions: Vec::new(),
        tuning: None,
        peers: None,
        before: None,
        absent: Vec::new(),
    };
    let (folder, row) = (folder.path(), Duration::from_millis(400));
    let mut lease = Lease { tune: &tune, folder, ordinal: 0, start: Instant::now(), row, report };
    let passed = lease.variants(Duration::from_secs(60)).unwrap();
    // It is no success either.
    assert!(!passed && lease.start.elapsed() < Duration::from_secs(60));
    assert_eq!(lease.report.tuning.unwrap()["rows"].as_array().unwrap().len(), 3);
}

#[test]
fn a_program_that_fails_makes_the_whole_fail_and_the_rest_is_run() {
    let folder = programs(r#"echo "{\"rows\": []}" > "$json""#);
    script(folder.path(), "kernels", "echo 'test a::b ... FAILED'; exit 101");
    let (passed, file) = run_in(folder.path(), &tune(folder.path()));
    assert!(!passed);
    assert_eq!(file["programs"][0]["failed"][0], "a::b");
    assert!(file["tuning"].is_object() && file["questions"][0].is_object());
}

#[test]
fn times_of_before_stand_beside_the_fastest_of_the_same_shape() {
    let report = |rows: &[(&str, f64)]| {
        let row = |(model, us): &(&str, f64)| {
            let shape = serde_json::json!({"operation": "decode", "model": model, "format": "int4", "batch": 16, "context": 16384});
            let mut row = shape;
            row["timed"]["median_us"] = (*us).into();
            row
        };
        serde_json::json!({"rows": rows.iter().map(row).collect::<Vec<_>>()})
    };
    let (before, now) = (report(&[("a", 100.0), ("b", 10.0)]), report(&[("a", 80.0), ("a", 50.0), ("c", 1.0)]));
    let text = compared(Some(&before), Some(&now));
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>().join(" "),
        "a int4 16x16384 before 100.0 us, now 50.0 us: 0.50 of it"
    );
    assert_eq!(compared(None, Some(&now)), "");
}

#[test]
fn missing_programs_and_minutes_that_mean_nothing_are_named() {
    let message = check(Path::new("/nowhere"), Path::new("/")).unwrap_err().to_string();
    assert!(message.starts_with("/nowhere/kernels is missing"), "{message}");
    for text in ["0", "-1", "61", "soon", "NaN"] {
        assert_eq!(minutes(text), Err("expected a number of minutes, above 0 and up to 60".into()));
    }
}
