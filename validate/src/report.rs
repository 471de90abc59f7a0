//! What came out, for people and for programs.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::case::Kind;
use crate::compare::{Comparison, Worst};
use crate::tolerance::Rule;

/// Every output against the reference. Printed, it is a table with an explanation of each rule in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// What was validated, and on what.
    pub subject: String,
    /// The outputs, in the order of [`Kind::ALL`].
    pub comparisons: Vec<Comparison>,
    /// Cases that a dump does not hold, so that nothing is said of them.
    pub absent: Vec<Kind>,
}

impl Report {
    /// An empty one.
    #[must_use]
    pub fn new(subject: String) -> Self {
        Self { subject, comparisons: Vec::new(), absent: Vec::new() }
    }

    /// Whether there are outputs and all of them pass.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.comparisons.is_empty() && self.comparisons.iter().all(|comparison| comparison.passed)
    }
}

const HEADER: [&str; 11] =
    ["case", "output", "shape", "max abs", "max rel", "cosine", "lse", "bits", "rule", "", "worst element"];

/// Columns of numbers, which stand to the right.
const NUMBERS: std::ops::Range<usize> = 3..7;

const COLUMNS: &str = "\
max abs, max rel: largest |got - want|, and |got - want| / |want|
cosine: sum (got - want)^2 / sum (got^2 + want^2)
lse: largest |got - want| / max(1, |want|)
worst element: the largest part of what the rule allows (of a step the largest error); [index] got, want +- allowed";

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<[String; 11]> = self.comparisons.iter().map(cells).collect();
        let widths: Vec<usize> = (0..HEADER.len())
            .map(|i| rows.iter().map(|row| row[i].len()).chain([HEADER[i].len()]).max().unwrap_or(0))
            .collect();
        let line = |cells: [&str; 11]| {
            let padded = cells.iter().zip(&widths).enumerate().map(|(i, (cell, &width))| {
                if NUMBERS.contains(&i) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        writeln!(f, "{}\n\n{}", self.subject, line(HEADER))?;
        for row in &rows {
            writeln!(f, "{}", line(row.each_ref().map(String::as_str)))?;
        }
        writeln!(f, "\n{COLUMNS}\n\nRules, as derived in the tests that hold the kernels to them:")?;
        let rules: BTreeSet<Rule> = self.comparisons.iter().map(|comparison| comparison.rule).collect();
        for rule in rules {
            writeln!(f, "{}: {}", rule.name(), rule.explanation())?;
        }
        if !self.absent.is_empty() {
            let names: Vec<_> = self.absent.iter().map(|kind| kind.name()).collect();
            writeln!(f, "\nNot in the dump, so not checked: {}", names.join(", "))?;
        }
        let failed = self.comparisons.iter().filter(|comparison| !comparison.passed).count();
        if self.passed() {
            write!(f, "\nPASSED: {} outputs", self.comparisons.len())
        } else {
            write!(f, "\nFAILED: {failed} of {} outputs", self.comparisons.len())
        }
    }
}

fn cells(comparison: &Comparison) -> [String; 11] {
    let c = comparison;
    [
        c.case.into(),
        c.output.into(),
        format!("{:?}", c.shape),
        short(c.max_abs),
        short(c.max_rel),
        short(c.cosine),
        c.lse_error.map_or("-".into(), short),
        c.bit_equal.map_or("-", |equal| if equal { "equal" } else { "differ" }).into(),
        c.rule.name().into(),
        if c.passed { "ok" } else { "FAILED" }.into(),
        c.worst.as_ref().map_or("-".into(), place),
    ]
}

fn short(x: f64) -> String {
    if x == 0.0 { "0".into() } else { format!("{x:.1e}") }
}

fn place(worst: &Worst) -> String {
    let allowed = match worst.allowed {
        Some(allowed) if allowed > 0.0 => format!(" +- {allowed:.1e}"),
        _ => String::new(),
    };
    let owner = worst.place.as_ref().map_or(String::new(), |place| format!(" ({place})"));
    format!("{:?} {}, {}{allowed}{owner}", worst.index, number(worst.got), number(worst.want))
}

/// Whole numbers as they are, others with six digits.
fn number(x: f64) -> String {
    match x.abs() {
        size if x == x.trunc() && size < 1e9 || !size.is_finite() => format!("{x}"),
        size if (1e-3..1e6).contains(&size) => format!("{x:.*}", (5 - size.log10().floor() as i32).max(0) as usize),
        _ => format!("{x:.5e}"),
    }
}
