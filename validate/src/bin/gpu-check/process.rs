//! Running a program for a limited time: a kernel that hangs must not cost the whole lease.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How often it is seen whether a program has ended.
const POLL: Duration = Duration::from_millis(20);

/// How long a program that was killed may take to be gone: one whose GPU does not answer may be kept by the driver for ever.
const GONE: Duration = Duration::from_secs(5);

/// Whether this program was told to end.
static STOPPED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on signals that ask this program to end only end what it runs, so that it writes down what there is.
///
/// # Errors
/// If the system does not let it.
#[cfg(unix)]
pub fn end_on_signals() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, STOPPED.clone()).context("cannot catch signals")?;
    }
    Ok(())
}

/// Whether this program was told to end.
pub fn is_stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// What became of a program.
pub struct Ended {
    /// None if it was ended because it did not end.
    pub status: Option<ExitStatus>,
    /// What it printed.
    pub text: String,
}

/// Runs a program to its end, or to the moment in which `give_up` says so or this program is told to end; then it is ended,
/// with all that it started.
///
/// # Errors
/// If it cannot be started.
pub fn run(command: &mut Command, mut give_up: impl FnMut() -> bool) -> Result<Ended> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    // Not a pipe: nobody would read it meanwhile.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let log = Log(std::env::temp_dir().join(format!("gpu-check-{}-{number}.log", std::process::id())));
    let file = File::create(&log.0).with_context(|| format!("cannot write {}", log.0.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if is_stopped() || give_up() {
            end(&mut child);
            break None;
        }
        thread::sleep(POLL);
    };
    let text = fs::read(&log.0).with_context(|| format!("cannot read {}", log.0.display()))?;
    Ok(Ended { status, text: String::from_utf8_lossy(&text).into_owned() })
}

/// The same for so long at most.
///
/// # Errors
/// As [`run`].
pub fn run_for(command: &mut Command, limit: Duration) -> Result<Ended> {
    let start = Instant::now();
    run(command, || start.elapsed() >= limit)
}

fn end(child: &mut Child) {
    // It leads a group of its own, which what it started belongs to.
    #[cfg(unix)]
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let start = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && start.elapsed() < GONE {
        thread::sleep(POLL);
    }
}

/// A file that is gone with its owner.
struct Log(PathBuf);

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_ends_in_time_has_a_status_and_its_output() {
        let ended = run_for(&mut shell("echo out; echo err >&2; exit 3"), Duration::from_secs(60)).unwrap();
        assert_eq!((ended.status.unwrap().code(), ended.text.as_str()), (Some(3), "out\nerr\n"));
    }

    #[test]
    fn what_does_not_end_is_ended_with_all_that_it_started() {
        let start = Instant::now();
        // The inner shell would go on without its parent.
        let ended =
            run_for(&mut shell("echo begun; sh -c 'sleep 600; true'; true"), Duration::from_millis(300)).unwrap();
        assert!(ended.status.is_none() && start.elapsed() < Duration::from_secs(60));
        assert_eq!(ended.text, "begun\n");
    }
}
