//! The command, as a shell runs it.

use std::process::{Command, Output};

const SAXPY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/saxpy.ptx");

fn ptx_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ptx-sim")).args(arguments).output().unwrap()
}

/// Runs it; returns its output if it ends with this status.
fn ends(status: i32, arguments: &[&str]) -> (String, String) {
    let output = ptx_sim(arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, error) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(status), "{arguments:?}\n{out}\n{error}");
    assert!(!error.contains("panicked"), "{error}");
    (out, error)
}

/// A file in the directory for temporary files, removed at the end.
struct File(std::path::PathBuf);

impl File {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("ptx-sim-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn saxpy<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["run", SAXPY, "saxpy", "--grid", "2", "--block", "128"];
    all.extend(["s32:200", "f32:2", "in:f32x200=1,2,3,4,5,6,7,8,9,10", "out:f32x200=0.5,0.5"]);
    all.extend(more);
    all
}

#[test]
fn a_kernel_runs_and_its_outputs_and_meter_are_printed() {
    let (out, _) = ends(0, &saxpy(&[]));
    assert!(out.starts_with("out:f32x200 = 2.5, 4.5, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, and 192 more\n"), "{out}");
    for line in ["global read", "global write", "float"] {
        assert!(out.contains(line), "{out}");
    }
    assert!(out.ends_with("nothing found\n"), "{out}");
}

#[test]
fn findings_are_printed_with_their_place_and_fail() {
    let broken = ["run", SAXPY, "broken", "--grid", "1", "--block", "128", "s32:128", "in:f32x128=random(1)"];
    let (out, _) = ends(1, &[&broken[..], &["out:f32x1"]].concat());
    assert!(out.contains("races with thread") && out.contains("from saxpy.cu:13"), "{out}");
    let two = ["run", SAXPY, "broken", "--grid", "2", "--block", "128", "s32:256", "in:f32x256=random(1)"];
    let (out, _) = ends(1, &[&two[..], &["out:f32x2"]].concat());
    assert!(out.contains("write of 4 bytes at global address") && out.contains("the fault ended the launch"), "{out}");
}

#[test]
fn json_is_one_object_on_one_line() {
    let (out, _) = ends(0, &saxpy(&["--json"]));
    assert_eq!(out.lines().count(), 1);
    assert!(
        out.starts_with("{\"kernel\":\"saxpy\",\"outputs\":[{\"argument\":\"out:f32x200\",\"values\":[2.5,4.5,6.0,")
    );
    assert!(out.contains("\"meter\":{\"instructions\":{\"integer\":{\"warp\":") && out.ends_with("\"fault\":null}\n"));
    let fault = ["run", SAXPY, "saxpy", "--grid", "1", "--block", "32", "s32:32", "f32:1", "in:f32x8", "out:f32x32"];
    let (out, _) = ends(1, &[&fault[..], &["--json"]].concat());
    assert!(out.contains("\"meter\":null,\"findings\":[],\"fault\":{\"message\":\"read of 4 bytes"), "{out}");
    let nan = ["run", SAXPY, "saxpy", "--grid", "1", "--block", "32", "s32:1", "f32:nan", "in:f32x1", "out:f32x1=1"];
    assert!(ends(0, &[&nan[..], &["--json"]].concat()).0.contains("\"values\":[\"NaN\"]"));
}

#[test]
fn outputs_can_be_dumped() {
    let file = File::new("dump", &[]);
    ends(0, &saxpy(&["--dump", file.path()]));
    let bytes = std::fs::read(file.path()).unwrap();
    assert_eq!(bytes.len(), 800);
    assert_eq!(bytes[..8], [2.5f32.to_le_bytes(), 4.5f32.to_le_bytes()].concat());
    ends(2, &saxpy(&["--dump", "/no/such/directory/dump"]));
}

#[test]
fn kernels_are_listed_with_parameters_and_shared_memory() {
    let (out, _) = ends(0, &["list", SAXPY]);
    assert_eq!(
        out,
        "saxpy(u32, f32, u64, u64)\n  0 bytes of static shared memory\n\
         broken(u32, u64, u64)\n  512 bytes of static shared memory\n"
    );
    let matmul = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ptx/matmul.ptx");
    assert!(ends(0, &["list", matmul]).0.contains("padded(u64, u64, u64)"));
}

#[test]
fn unknown_instructions_are_named_with_their_lines() {
    assert!(ends(0, &["check", SAXPY]).0.ends_with("all instructions are known\n"));
    let file = File::new(
        "unknown.ptx",
        b".version 9.0\n.target sm_90a\n.address_size 64\n.entry k() {\nfoo;\nbar.baz;\nret;\n}",
    );
    let (out, error) = ends(1, &["check", file.path()]);
    assert!(out.is_empty());
    assert!(
        error.contains(": line 5: `foo`: unknown instruction\n") && error.contains(": line 6: `bar.baz`"),
        "{error}"
    );
    let (out, error) = ends(1, &["list", file.path()]);
    assert!(out == "k()\n" && error.contains("line 5"), "{out}{error}");
    assert!(ends(1, &["run", file.path(), "k", "--grid", "1", "--block", "1"]).1.contains("line 5"));
}

#[test]
fn files_that_are_no_ptx_are_errors() {
    let text = File::new("text", b"int main() {}");
    for command in ["list", "check"] {
        assert!(ends(1, &[command, text.path()]).1.contains("line 1, column 1: expected `.version`"));
    }
    let binary = File::new("binary", &[0x7F, b'E', b'L', b'F', 0xFF, 0xFE]);
    assert!(ends(2, &["check", binary.path()]).1.contains("UTF-8"));
    assert!(ends(2, &["check", "/no/such/file"]).1.contains("/no/such/file: "));
    ends(2, &["check", "/"]);
    ends(1, &["check", File::new("empty", b"").path()]);
}

#[test]
fn wrong_commands_say_what_is_wrong() {
    let run = |more: &[&str], wanted: &str| {
        let (_, error) = ends(2, &[&["run", SAXPY][..], more].concat());
        assert!(error.contains(wanted), "{more:?}: {error}");
    };
    let one = ["--grid", "1", "--block", "1"];
    run(&["nothing", "--grid", "1", "--block", "1"], "no kernel `nothing`; the module has [\"saxpy\", \"broken\"]");
    run(&[&["saxpy"][..], &one].concat(), "`saxpy` takes 4 arguments, got 0");
    run(&[&["saxpy"][..], &one, &["s64:1", "f32:1", "in:f32x1", "out:f32x1"]].concat(), "argument 1 has 8 bytes");
    run(&[&["saxpy"][..], &one, &["s32:x"]].concat(), "`x` is no s32");
    run(&[&["saxpy"][..], &one, &["-5"]].concat(), "-5");
    run(&["saxpy", "--grid", "1,2,3,4", "--block", "1"], "expected one to three numbers");
    run(&["saxpy", "--grid", "0", "--block", "1", "s32:1", "f32:1", "in:f32x1", "out:f32x1"], "cannot launch");
    run(&["saxpy", "--block", "1"], "--grid");
    let cluster = ["--cluster", "3", "s32:1", "f32:1", "in:f32x1", "out:f32x1"];
    run(&[&["saxpy", "--grid", "4", "--block", "1"][..], &cluster].concat(), "clusters of [3, 1, 1]");
    let blocks = ["saxpy", "--grid", "16", "--block", "1", "--cluster", "16"];
    let arguments = ["s32:16", "f32:1", "in:f32x16=1", "out:f32x16=1"];
    run(&[&blocks[..], &arguments].concat(), "16 blocks: there are at most 8");
    ends(0, &[&["run", SAXPY][..], &blocks, &["--cluster-blocks", "16"], &arguments].concat());
    ends(2, &[]);
    ends(2, &["walk"]);
}

#[test]
fn limits_and_help() {
    let (out, _) = ends(1, &saxpy(&["--steps", "3"]));
    assert!(out.contains("has executed 3 instructions"), "{out}");
    ends(0, &saxpy(&["--cores", "1", "--unchecked", "--shared", "1024"]));
    ends(2, &saxpy(&["--shared", "18446744073709551615"]));
    assert!(ends(0, &["run", "--help"]).0.contains("random(7)"));
    assert!(ends(0, &["--version"]).0.starts_with("ptx-sim "));
}
