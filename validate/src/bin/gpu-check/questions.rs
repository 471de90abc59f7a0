//! What only a GPU answers: the suite's program asks it, and prints a line for each answer.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

/// One answer.
#[derive(Debug, PartialEq, Serialize)]
pub struct Answer {
    /// What was asked.
    pub name: String,
    /// The answer.
    pub value: f64,
    /// Its unit.
    pub unit: String,
}

/// Asks the first GPU. The kernels are Hopper's own; on others there are no answers.
pub fn ask(folder: &Path, suite: &Path) -> Result<Vec<Answer>> {
    println!("== questions");
    let mut command = Command::new(folder.join("suite"));
    command.args(["--exact", "questions::hopper", "--nocapture"]);
    command.env("PTX_SIM_DEVICE", "cuda").env("PTX_SIM_SUITE", suite);
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let answers = answers(&text);
    answers.iter().for_each(|Answer { name, value, unit }| println!("{name:<60} {value:>12.4} {unit}"));
    if !output.status.success() {
        println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(answers)
}

/// The lines that are answers.
fn answers(text: &str) -> Vec<Answer> {
    let answer = |line: &str| {
        // The test harness may have begun the line.
        let (_, line) = line.split_once("question\t")?;
        let mut parts = line.split('\t');
        let (name, value, unit) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Answer { name: name.into(), value: value.parse().ok()?, unit: unit.into() })
    };
    text.lines().filter_map(answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_between_what_the_test_harness_prints() {
        let text = "running 1 test\ntest questions::hopper ... question\ta b\t1.5\tcycles\nquestion\tc\tx\tGHz\nok\n";
        assert_eq!(answers(text), [Answer { name: "a b".into(), value: 1.5, unit: "cycles".into() }]);
    }
}
