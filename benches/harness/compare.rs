//! What changed between two reports.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Result, ensure};

use super::report::{Outcome, Report, Row};

/// One number of a row in both reports, and how far repetitions of it spread.
struct Change {
    what: &'static str,
    before: f64,
    after: f64,
    /// Whether the spreads of both leave a gap.
    is_beyond_spread: bool,
}

/// A table of the changes of all rows that are in both, rows of one report alone below it.
///
/// # Errors
/// If one report holds times and the other counts.
pub fn compare(before: &Report, after: &Report) -> Result<String> {
    ensure!(before.kind == after.kind, "one report is timed, the other counted: there is nothing to compare");
    let mut text = String::new();
    for (name, report) in [("before", before), ("after", after)] {
        writeln!(text, "{name}: {}, {}, commit {}", report.device, report.date, report.commit)?;
    }
    if before.device != after.device {
        writeln!(text, "These are different devices.")?;
    }
    let rows = |report: &Report| report.rows.iter().map(|row| (row.id(), row.clone())).collect::<BTreeMap<_, _>>();
    let [old, new] = [rows(before), rows(after)];
    let both = before.rows.iter().filter_map(|row| Some((row, new.get(&row.id())?)));
    let lines: Vec<_> = both.map(|(old, new)| (old.id(), changes(old, new))).collect();
    text.push_str(&table(&lines)?);
    for (name, these, others) in [("before", &old, &new), ("after", &new, &old)] {
        let alone: Vec<_> = these.keys().filter(|id| !others.contains_key(*id)).collect();
        if !alone.is_empty() {
            writeln!(text, "\nOnly {name} ({}):", alone.len())?;
            alone.iter().try_for_each(|id| writeln!(text, "  {id}"))?;
        }
    }
    let beyond = |verdict: &str| lines.iter().flat_map(|(_, c)| c).filter(|change| change.verdict() == verdict).count();
    writeln!(text, "\n{} rows in both; {} lower, {} higher", lines.len(), beyond("lower"), beyond("higher"))?;
    Ok(text)
}

/// The changes as a table; nothing if there are none.
fn table(lines: &[(String, Vec<Change>)]) -> Result<String> {
    let mut text = String::new();
    if lines.iter().all(|(_, changes)| changes.is_empty()) {
        return Ok(text);
    }
    let width = lines.iter().map(|(id, _)| id.len()).max().unwrap_or(0).max(3);
    writeln!(text, "\n| {:<width$} | {:<11} |     before |      after |   change |        |", "row", "what")?;
    writeln!(text, "|{}|{}|-----------:|-----------:|---------:|--------|", "-".repeat(width + 2), "-".repeat(13))?;
    for (id, changes) in lines {
        for change in changes {
            let Change { what, before, after, .. } = change;
            writeln!(
                text,
                "| {id:<width$} | {what:<11} | {before:>10.2} | {after:>10.2} | {:>8} | {:<6} |",
                change.percent(),
                change.verdict()
            )?;
        }
    }
    Ok(text)
}

/// The numbers of a row that are worth comparing. Of counts, which are exact, those that differ.
fn changes(before: &Row, after: &Row) -> Vec<Change> {
    match (&before.outcome, &after.outcome) {
        (Outcome::Timed(old), Outcome::Timed(new)) => {
            let (old, new) = (&old.times, &new.times);
            let is_beyond_spread = old.p90_us < new.p10_us || new.p90_us < old.p10_us;
            vec![Change { what: "us", before: old.median_us, after: new.median_us, is_beyond_spread }]
        }
        (Outcome::Counted(old), Outcome::Counted(new)) => [
            ("B read", old.read_bytes, new.read_bytes),
            ("B written", old.written_bytes, new.written_bytes),
            ("warp instr.", old.warp_instructions, new.warp_instructions),
            ("mma", old.mma_instructions, new.mma_instructions),
            ("conflicts", old.bank_conflicts, new.bank_conflicts),
        ]
        .into_iter()
        .filter(|(_, before, after)| before != after)
        .map(|(what, before, after)| Change { what, before, after, is_beyond_spread: true })
        .collect(),
        _ => Vec::new(),
    }
}

impl Change {
    fn percent(&self) -> String {
        match self.before {
            0.0 => "-".into(),
            before => format!("{:+.1} %", 100.0 * (self.after / before - 1.0)),
        }
    }

    fn verdict(&self) -> &'static str {
        match (self.is_beyond_spread, self.after < self.before) {
            (false, _) => "",
            (true, true) => "lower",
            (true, false) => "higher",
        }
    }
}
