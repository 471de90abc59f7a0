//! What happened, as lines of JSON: one object per line.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::files::replace;
use crate::held_out::Measured;

/// A line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// One step of training.
    Step {
        /// Its number, from 1.
        step: u64,
        /// Mean divergence on the compared positions, nats.
        divergence: f64,
        /// Relative square error of hidden states, mean over layers and tokens.
        hidden: f64,
        /// Norm of the gradients before they were clipped.
        gradient_norm: f64,
        /// Learning rate.
        rate: f64,
        /// Tokens read so far.
        tokens: u64,
        /// Duration of the step.
        seconds: f64,
    },
    /// A measurement on held-out text.
    Evaluation {
        /// After so many steps.
        step: u64,
        /// What was found.
        #[serde(flatten)]
        measured: Measured,
    },
}

impl Record {
    /// The number of steps after which it was made.
    #[must_use]
    pub fn step(&self) -> u64 {
        match self {
            Self::Step { step, .. } | Self::Evaluation { step, .. } => *step,
        }
    }
}

/// A log in a file and in memory.
pub struct Log {
    path: PathBuf,
    file: File,
    records: Vec<Record>,
}

impl Log {
    /// An empty log; a file that is there is replaced.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        Self::with(path, Vec::new())
    }

    /// Goes on with a log: what was written after `step` steps, and is about to happen again, is dropped.
    ///
    /// # Errors
    /// If the file cannot be read or written, or a line other than the last, which an interruption may have cut, is not
    /// one of the log's.
    pub fn resume(path: &Path, step: u64) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let lines: Vec<&str> = text.lines().collect();
        let mut records: Vec<Record> = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            match serde_json::from_str(line) {
                Ok(record) => records.push(record),
                Err(_) if index + 1 == lines.len() => {}
                Err(why) => return Err(why).with_context(|| format!("{}, line {}", path.display(), index + 1)),
            }
        }
        records.retain(|record| record.step() <= step);
        Self::with(path, records)
    }

    fn with(path: &Path, records: Vec<Record>) -> Result<Self> {
        let mut text = Vec::new();
        for record in &records {
            serde_json::to_writer(&mut text, record)?;
            text.push(b'\n');
        }
        replace(path, |file| Ok(file.write_all(&text)?))?;
        let file =
            File::options().append(true).open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file, records })
    }

    /// Writes a line.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn push(&mut self, record: Record) -> Result<()> {
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        self.file.write_all(&line).with_context(|| format!("cannot write {}", self.path.display()))?;
        self.records.push(record);
        Ok(())
    }

    /// All lines so far.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Record {
        Record::Step {
            step,
            divergence: 0.1,
            hidden: 0.3,
            gradient_norm: 1.5,
            rate: 1e-3,
            tokens: step * 8,
            seconds: 0.5,
        }
    }

    #[test]
    fn a_resumed_log_has_no_line_twice_and_forgives_a_cut_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let measured = Measured { perplexity: 40.5, original_perplexity: 38.0, divergence: 0.2, tokens: 767 };
        let mut log = Log::create(&path).unwrap();
        for record in [Record::Evaluation { step: 0, measured }, step(1), step(2), step(3)] {
            log.push(record).unwrap();
        }
        File::options().append(true).open(&path).unwrap().write_all(b"{\"kind\":\"st").unwrap();
        let mut log = Log::resume(&path, 2).unwrap();
        assert_eq!(log.records(), [Record::Evaluation { step: 0, measured }, step(1), step(2)]);
        log.push(step(3)).unwrap();
        assert_eq!(Log::resume(&path, 9).unwrap().records().len(), 4);
        fs::write(&path, "nonsense\n{}\n").unwrap();
        assert!(format!("{:#}", Log::resume(&path, 9).err().unwrap()).contains("line 1"));
    }
}
