//! How long the parts of a run take, and how much memory each holds at most.

use std::fmt::{self, Display, Formatter};
use std::time::Instant;

/// The parts so far, in the order in which they began first.
#[derive(Debug, Default)]
pub struct Phases {
    done: Vec<Phase>,
    current: Option<(&'static str, Instant)>,
}

#[derive(Debug)]
struct Phase {
    name: &'static str,
    seconds: f64,
    /// Bytes; `None` where the system does not say.
    peak: Option<u64>,
}

impl Phases {
    /// Ends the current part, if there is one, and begins another. A name that was there before goes on.
    pub fn begin(&mut self, name: &'static str) {
        self.end();
        memory::forget_peak();
        self.current = Some((name, Instant::now()));
    }

    /// Ends the current part.
    pub fn end(&mut self) {
        let Some((name, since)) = self.current.take() else { return };
        let (seconds, peak) = (since.elapsed().as_secs_f64(), memory::peak());
        match self.done.iter_mut().find(|phase| phase.name == name) {
            Some(phase) => {
                phase.seconds += seconds;
                phase.peak = phase.peak.max(peak);
            }
            None => self.done.push(Phase { name, seconds, peak }),
        }
    }
}

impl Display for Phases {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "| part                          |        s | memory at most, MB |")?;
        writeln!(f, "| ------------------------------| --------:| ------------------:|")?;
        for Phase { name, seconds, peak } in &self.done {
            let peak = peak.map_or("-".to_owned(), |bytes| format!("{}", bytes.div_ceil(1_000_000)));
            writeln!(f, "| {name:<30}| {seconds:>8.1} | {peak:>18} |")?;
        }
        Ok(())
    }
}

/// Memory of this process that is resident: Linux counts it.
#[cfg(target_os = "linux")]
mod memory {
    use std::fs;

    /// Bytes at most since [`forget_peak`], or since the beginning where that is not allowed.
    pub fn peak() -> Option<u64> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        super::peak_of(&status)
    }

    pub fn forget_peak() {
        // 5 resets the peak; containers may forbid it, and then peaks are those since the beginning.
        let _ = fs::write("/proc/self/clear_refs", "5");
    }
}

#[cfg(not(target_os = "linux"))]
mod memory {
    pub fn peak() -> Option<u64> {
        None
    }

    pub fn forget_peak() {}
}

/// The peak in a process's status as Linux writes it.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_comes_again_goes_on() {
        let mut phases = Phases::default();
        for name in ["evaluation", "conversion", "evaluation"] {
            phases.begin(name);
        }
        phases.end();
        let names: Vec<_> = phases.done.iter().map(|phase| phase.name).collect();
        assert_eq!(names, ["evaluation", "conversion"]);
        let text = phases.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{text}");
    }

    #[test]
    fn peaks_are_in_kibibytes() {
        assert_eq!(peak_of("Name:\tdemo\nVmHWM:\t  2048 kB\nVmRSS:\t 1 kB\n"), Some(2 << 20));
        assert_eq!(peak_of("Name:\tdemo\n"), None);
    }
}
