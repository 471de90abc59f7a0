//! Running a test again where candle appends backtraces to its errors.

use std::process::Command;

/// Runs one test of this program, by its full name, in a process of its own with `RUST_BACKTRACE` set: Rust asks for the
/// variable once per process.
#[track_caller]
pub fn assert_passes_with_backtraces(test: &str) {
    let mut again = Command::new(std::env::current_exe().expect("a path"));
    let output = again.args(["--exact", test]).env("RUST_BACKTRACE", "1").output().expect("a program that runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
