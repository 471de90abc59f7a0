// Made by `cargo xtask choices` of benches/results/*/tune.json: do not edit.
// Nothing has been tuned yet.
//! What was fastest on the layers that were timed.

use super::tuned::Choice;

#[rustfmt::skip]
pub(super) const CHOICES: [Choice; 0] = [
];
