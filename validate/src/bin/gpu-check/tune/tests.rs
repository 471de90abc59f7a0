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
    Machine { gpu, compute_capability, driver, commit: "c0ffee".into() }
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
        resume: false,
    }
}

fn run_in(folder: &Path, tune: &Tune) -> (bool, Value) {
    let passed = run(tune, folder, &folder.join("suite-files"), 0, machine(), true).unwrap();
    (passed, read(&tune.out).unwrap())
}

#[test]
fn every_part_is_in_the_file_and_what_is_not_there_is_named() {
    let folder = programs(r#"echo "{\"rows\": [1, 2]}" > "$json""#);
    // Neither is the file's folder.
    let tune = Tune { out: folder.path().join("results/h200/tune.json"), ..tune(folder.path()) };
    let (passed, file) = run_in(folder.path(), &tune);
    assert!(passed);
    assert_eq!(
        (&file["gpu"], &file["commit"], &file["compute_capability"]),
        (&"a GPU".into(), &"c0ffee".into(), &"9.0".into())
    );
    assert_eq!(file["programs"][0]["passed"], 1);
    assert_eq!((&file["questions"][0]["name"], &file["questions"][0]["value"]), (&"a rate".into(), &1.5.into()));
    assert_eq!(file["tuning"]["rows"].as_array().unwrap().len(), 2);
    assert_eq!(absent(&file), ["others' kernels", "kernels of before"]);
    assert_eq!(parts(&file), ["tests", "questions", "variants"]);
    // A run that goes on names it again, and does what is there by then.
    fs::write(&tune.peers, "import json, sys\njson.dump([1], open(sys.argv[sys.argv.index('--json') + 1], 'w'))\n")
        .unwrap();
    let (passed, file) = run_in(folder.path(), &Tune { resume: true, ..tune });
    assert!(passed && file["peers"][0] == 1, "{file}");
    assert_eq!(absent(&file), ["kernels of before"]);
}

fn parts(file: &Value) -> Vec<&str> {
    file["seconds"].as_array().unwrap().iter().filter_map(|part| part[0].as_str()).collect()
}

/// What is named as not measured.
fn absent(file: &Value) -> Vec<&str> {
    file["absent"].as_array().unwrap().iter().filter_map(|absent| absent["what"].as_str()).collect()
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

/// All variants of a lease whose rows take 400 ms at most, in 60 s, of which only what hangs is to take any.
fn variants(folder: &Path) -> (bool, Value) {
    let tune = tune(folder);
    let mut lease = Lease::begin(&tune, folder, 0, machine()).unwrap();
    lease.row = Duration::from_millis(400);
    lease.variants(Duration::from_secs(60)).unwrap();
    assert!(lease.start.elapsed() < Duration::from_secs(60));
    (lease.failed, serde_json::to_value(&lease.report).unwrap())
}

/// What has been measured is in the file, and the program is started once more, to go on without what hangs, or ends it.
#[test]
fn a_row_that_does_not_end_or_is_the_end_costs_no_more_than_itself() {
    for end in ["sleep 600", "exit 1"] {
        let folder = programs(&format!(
            r#"if [ -n "$resumed" ]; then echo "{{\"rows\": [1, 2, 3]}}" > "$json"; exit 0; fi
            echo "{{\"rows\": [1], \"doing\": \"x\"}}" > "$json"
            {end}"#
        ));
        let (failed, report) = variants(folder.path());
        // It is no success either.
        assert!(failed, "{end}");
        assert_eq!(report["tuning"]["rows"].as_array().unwrap().len(), 3, "{end}");
    }
}

/// A program that ends at once however often it is started is not started for ever, and the row is named.
#[test]
fn what_goes_on_with_nothing_is_not_started_again() {
    let folder = programs(
        r#"echo x >> "$json.starts"
        echo "{\"rows\": [1], \"doing\": \"x\"}" > "$json"
        exit 1"#,
    );
    let (failed, report) = variants(folder.path());
    assert!(failed);
    assert_eq!(absent(&report), ["x"]);
    let starts = fs::read_to_string(folder.path().join("tune.variants.json.starts")).unwrap();
    assert_eq!(starts.lines().count(), 2);
}

/// Seconds are too few for anything here: each part is ended in time, and the file says what there is and what is not.
#[test]
fn a_lease_of_seconds_ends_in_time_with_what_there_is() {
    let folder = programs(
        r#"echo "{\"rows\": [1], \"doing\": \"x\"}" > "$json"
        sleep 600"#,
    );
    for name in ["kernels", "suite"] {
        script(folder.path(), name, "echo 'test a::b ... ok'; sleep 600");
    }
    fs::write(folder.path().join("peers.py"), "import time\ntime.sleep(600)\n").unwrap();
    let (start, tune) = (Instant::now(), Tune { minutes: 4.0 / 60.0, ..tune(folder.path()) });
    let (passed, file) = run_in(folder.path(), &tune);
    // What is more than 4 s is the time that a machine without a free core takes to end programs.
    assert!(!passed && start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    for program in file["programs"].as_array().unwrap() {
        assert!(program["passed"] == 1 && program["success"] == false, "{program}");
        assert!(program["output"].as_str().unwrap().contains("as it had not ended by itself"), "{program}");
    }
    assert_eq!(file["tuning"]["rows"].as_array().unwrap().len(), 1);
    assert!(absent(&file).starts_with(&["x", "others' kernels that are not in the file"]), "{}", file["absent"]);
}

/// The first run is cut short before its end; the second does what is left, and what the first has is kept.
#[test]
fn a_second_run_goes_on_where_the_first_ended() {
    let folder = programs(
        r#"if [ -n "$resumed" ]; then grep -q doing "$json" || echo "{\"rows\": [1, 2]}" > "$json"; exit 0; fi
        echo "{\"rows\": [1]}" > "$json""#,
    );
    let first = tune(folder.path());
    assert!(run_in(folder.path(), &first).0);
    let mut file = read(&first.out).unwrap();
    file["tuning"]["doing"] = "x".into();
    file["seconds"].as_array_mut().unwrap().retain(|part| part[0] != "variants");
    crate::report::write(&first.out, &file).unwrap();
    // All that came back of the first.
    fs::remove_file(first.out.with_extension("variants.json")).unwrap();
    for name in ["kernels", "suite"] {
        script(folder.path(), name, "exit 1");
    }
    let second = Tune { resume: true, minutes: 2.0, ..tune(folder.path()) };
    let (passed, file) = run_in(folder.path(), &second);
    assert!(passed, "{file}");
    assert_eq!((&file["programs"][0]["passed"], &file["minutes"]), (&1.into(), &2.0.into()));
    assert_eq!(file["questions"][0]["name"], "a rate");
    assert_eq!(file["tuning"]["rows"].as_array().unwrap().len(), 2);
    // Without being asked to go on, it begins anew, and nothing of before passes for its own.
    script(folder.path(), "benchmarks", "exit 1");
    let (passed, file) = run_in(folder.path(), &first);
    assert!(!passed && file["tuning"].is_null() && file["programs"][0]["passed"] == 0);
}

#[test]
fn files_of_other_machines_or_builds_are_not_gone_on_with() {
    let folder = programs(r#"echo "{\"rows\": []}" > "$json""#);
    let tune = Tune { resume: true, ..tune(folder.path()) };
    let refused = || format!("{:#}", Lease::begin(&tune, folder.path(), 0, machine()).err().unwrap());
    assert!(refused().starts_with(&format!("cannot read {}: ", tune.out.display())));
    fs::write(&tune.out, "{}").unwrap();
    assert!(refused().starts_with(&format!("{} is no file of gpu-check tune: ", tune.out.display())));
    let mut report = serde_json::to_value(
        Lease::begin(&Tune { resume: false, ..tune }, folder.path(), 0, machine()).unwrap().report,
    )
    .unwrap();
    report["commit"] = "0ddba11".into();
    let tune = self::tune(folder.path());
    crate::report::write(&tune.out, &report).unwrap();
    let tune = Tune { resume: true, ..tune };
    let message = format!("{:#}", Lease::begin(&tune, folder.path(), 0, machine()).err().unwrap());
    assert!(message.contains("0ddba11") && message.contains("c0ffee"), "{message}");
}

/// A part that cannot be done is named with the reason, and the next one is.
#[test]
fn a_part_that_fails_is_named_and_the_rest_is_done() {
    let folder = programs("exit 1");
    fs::write(folder.path().join("peers.py"), "import sys\nsys.exit('no luck')\n").unwrap();
    let (passed, file) = run_in(folder.path(), &tune(folder.path()));
    assert!(!passed);
    assert_eq!(absent(&file), ["variants", "peers", "kernels of before"]);
    let why = |i: usize| file["absent"][i]["why"].as_str().unwrap();
    assert!(why(0) == "benchmarks wrote no file" && why(1).ends_with("peers.py wrote no file: no luck"), "{file}");
    assert_eq!(parts(&file), ["tests", "questions"]);
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
