//! What only a GPU answers: the suite's program asks it, and prints a line for each answer.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::programs::{Outcome, run};

/// One answer.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked.
    pub name: String,
    /// The answer.
    pub value: f64,
    /// Its unit.
    pub unit: String,
}

/// Asks a GPU. The kernels are Hopper's own: others have no answers, and a Hopper GPU without any has failed.
pub fn ask(folder: &Path, suite: &Path, device: &str, is_hopper: bool, limit: Duration) -> (Outcome, Vec<Answer>) {
    let mut command = Command::new(folder.join("suite"));
    command.args(["--exact", "questions::hopper", "--show-output"]);
    command.env("PTX_SIM_DEVICE", device).env("PTX_SIM_SUITE", suite);
    let (mut outcome, text) = run("questions", &mut command, limit);
    let answers = answers(&text);
    outcome.success &= !(is_hopper && answers.is_empty());
    answers.iter().for_each(|Answer { name, value, unit }| println!("{name:<60} {value:>12.4} {unit}"));
    (outcome, answers)
}

/// The lines that are answers.
fn answers(text: &str) -> Vec<Answer> {
    let answer = |line: &str| {
        let mut parts = line.strip_prefix("question\t")?.split('\t');
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
        let text = "test questions::hopper ... ok\n\n---- questions::hopper stdout ----\nquestion\ta b\t1.5\tcycles\n\
                    question\tc\tx\tGHz\n\nsuccesses:\n";
        assert_eq!(answers(text), [Answer { name: "a b".into(), value: 1.5, unit: "cycles".into() }]);
    }
}
