//! The kernels that the committed rows were measured with: of one layer, the PTX and what the simulator counted of it, in
//! `cost/calibration`. Kernels change; rows, constants and counts belong to these until others are measured.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::work::Launch;

/// The layer whose kernels are kept.
pub const KEPT: (&str, &str) = ("llama3-8b-d64", "int4");

/// A kernel, and two launches that tell what a unit of its work costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// The kernel's name.
    pub kernel: String,
    /// A module of it alone.
    pub ptx: String,
    /// Units of the two launches: tiles, or batches of splits.
    pub units: [usize; 2],
    /// What the simulator counted of the launches, by lines of that module.
    pub launches: [Launch; 2],
}

/// The file of the launches.
#[derive(Serialize, Deserialize)]
struct File {
    units: [usize; 2],
    launches: [Stored; 2],
}

/// A launch as it is stored: lines that follow each other and were issued equally often are one entry.
#[derive(Serialize, Deserialize)]
struct Stored {
    blocks: f64,
    wavefronts: u64,
    bytes: u64,
    mma: u64,
    /// First line, last line, and how often each warp issued them.
    issued: Vec<(u32, u32, Vec<u64>)>,
}

impl Kept {
    /// Of the module that has a kernel, what belongs to it.
    ///
    /// # Errors
    /// If the module has no such kernel, or a launch issued a line that is not the kernel's.
    pub fn new(kernel: &str, module: &str, units: [usize; 2], launches: [&Launch; 2]) -> Result<Self> {
        let (ptx, lines) = alone(kernel, module)?;
        let moved = |issued: &BTreeMap<u32, u64>| -> Result<BTreeMap<u32, u64>> {
            let place = |line: &u32| lines.get(line).copied().with_context(|| format!("{kernel}: line {line}"));
            issued.iter().map(|(line, &count)| Ok((place(line)?, count))).collect()
        };
        let launch = |launch: &Launch| {
            let issued = launch.issued.iter().map(moved).collect::<Result<_>>()?;
            anyhow::Ok(Launch { issued, ..launch.clone() })
        };
        let [few, many] = launches.map(launch);
        Ok(Self { kernel: kernel.into(), ptx, units, launches: [few?, many?] })
    }

    /// Writes `KERNEL.ptx` and `KERNEL.json` into a folder.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let file = File { units: self.units, launches: self.launches.each_ref().map(stored) };
        let write = |ending: &str, text: &str| {
            let file = folder.join(format!("{}.{ending}", self.kernel));
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        write("ptx", &self.ptx)?;
        write("json", &(serde_json::to_string(&file)? + "\n"))
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// If the files are not there, or are not such files.
    pub fn read(folder: &Path, kernel: &str) -> Result<Self> {
        let read = |ending: &str| {
            let file = folder.join(format!("{kernel}.{ending}"));
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
        };
        let File { units, launches } =
            serde_json::from_str(&read("json")?).with_context(|| format!("{kernel}.json"))?;
        Ok(Self { kernel: kernel.into(), ptx: read("ptx")?, units, launches: launches.map(launch) })
    }
}

/// A module of one kernel, without comments, places in CUDA and empty lines; and for each line that is left, where it is
/// now.
fn alone(kernel: &str, module: &str) -> Result<(String, BTreeMap<u32, u32>)> {
    let (mut text, mut lines) = (String::new(), BTreeMap::new());
    // Before the first kernel stands what all of them share. Only it, and the kernel, are kept.
    let (mut is_shared, mut is_own, mut found) = (true, false, false);
    for (number, line) in (1..).zip(module.lines()) {
        if let Some(rest) = line.strip_prefix(".visible .entry ") {
            is_shared = false;
            is_own = rest.strip_prefix(kernel).is_some_and(|rest| rest.starts_with('('));
            found |= is_own;
        }
        let trimmed = line.trim_start();
        let is_left_out = trimmed.is_empty() || ["//", ".loc", ".file"].iter().any(|word| trimmed.starts_with(word));
        if (is_shared || is_own) && !is_left_out {
            text += line;
            text.push('\n');
            lines.insert(number, lines.len() as u32 + 1);
        }
        if line == "}" {
            is_own = false;
        }
    }
    ensure!(found, "the module has no kernel {kernel}");
    Ok((text, lines))
}

fn stored(launch: &Launch) -> Stored {
    let mut lines: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for (warp, issued) in launch.issued.iter().enumerate() {
        for (&line, &count) in issued {
            lines.entry(line).or_insert_with(|| vec![0; launch.issued.len()])[warp] = count;
        }
    }
    let mut issued: Vec<(u32, u32, Vec<u64>)> = Vec::new();
    for (line, counts) in lines {
        match issued.last_mut() {
            Some((_, last, known)) if *last + 1 == line && *known == counts => *last = line,
            _ => issued.push((line, line, counts)),
        }
    }
    let Launch { blocks, wavefronts, bytes, mma, .. } = *launch;
    Stored { blocks, wavefronts, bytes, mma, issued }
}

fn launch(stored: Stored) -> Launch {
    let Stored { blocks, wavefronts, bytes, mma, issued: runs } = stored;
    let warps = runs.first().map_or(0, |(.., counts)| counts.len());
    let mut issued = vec![BTreeMap::new(); warps];
    for (first, last, counts) in runs {
        for (warp, count) in counts.into_iter().enumerate().filter(|&(_, count)| count > 0) {
            issued[warp].extend((first..=last).map(|line| (line, count)));
        }
    }
    Launch { blocks, issued, wavefronts, bytes, mma }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &str = "// made by hand\n.version 9.0\n\n.visible .entry first(\n)\n{\n\tret;\n}\n\
                          .visible .entry second(\n)\n{\n\t.loc 1 2 3\n\tmov.u32 %r1, 0;\n\t// a comment\n\tret;\n}\n";

    #[test]
    fn of_a_module_the_kernel_and_what_all_share_is_kept_and_counts_move_with_its_lines() {
        let issued = vec![BTreeMap::from([(13, 2), (15, 2)]), BTreeMap::from([(13, 5)])];
        let before = Launch { blocks: 1.0, issued, wavefronts: 3, bytes: 4, mma: 0 };
        let kept = Kept::new("second", MODULE, [1, 2], [&before, &before]).unwrap();
        assert_eq!(kept.ptx, ".version 9.0\n.visible .entry second(\n)\n{\n\tmov.u32 %r1, 0;\n\tret;\n}\n");
        assert_eq!(kept.launches[0].issued, [BTreeMap::from([(5, 2), (6, 2)]), BTreeMap::from([(5, 5)])]);
        let folder = tempfile::tempdir().unwrap();
        kept.write(folder.path()).unwrap();
        assert_eq!(Kept::read(folder.path(), "second").unwrap(), kept);
        // A line of another kernel.
        let strange = Launch { issued: vec![BTreeMap::from([(7, 1)])], ..before.clone() };
        assert!(Kept::new("second", MODULE, [1, 2], [&before, &strange]).unwrap_err().to_string().contains("line 7"));
        assert!(Kept::new("sec", MODULE, [1, 2], [&before, &before]).is_err());
    }
}
