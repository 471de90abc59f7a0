//! A layer's whole step: the launches in front of attention and behind it, and what becomes of all of them in a row.
//!
//! A step of few tokens is three launches: `prepare`, attention, `expand_output`. Those beside attention are counted as
//! attention is, and their blocks taken to cost what the law says of a block beside its tiles, as both load, multiply and
//! store once:
//!
//! ```text
//! time = launch / 2 + max(waves * (f lone + g b issue), bytes / rate)
//! ```
//!
//! The blocks of `prepare` are those of `absorb_query` and of `rope_append` side by side: the slower of both counts.
//!
//! Each launch is made to begin before the one in front has ended (`griddepcontrol`), and waits for it. What that saves
//! nobody has measured. There are two bounds: nothing, so that each launch costs what it does in a graph by itself; and all
//! of it but for the first, if the blocks of the next launch are there by the time that they may go on.

use serde::Serialize;

use crate::law::Constants;
use crate::machine::Machine;
use crate::work::Work;

/// A launch beside attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beside {
    /// Its blocks.
    pub blocks: usize,
    /// Blocks that a multiprocessor holds.
    pub resident: usize,
    /// What one of them costs, on average.
    pub work: Work,
}

impl Beside {
    /// Microseconds without the launch itself.
    #[must_use]
    pub fn us(&self, constants: &Constants, machine: &Machine) -> f64 {
        let waves = self.blocks.div_ceil(machine.multiprocessors * self.resident.max(1)) as f64;
        let together = self.resident.min(self.blocks.div_ceil(machine.multiprocessors)) as f64;
        let cycles = constants.rest_lone * self.work.lone + constants.rest_issue * together * self.work.issue;
        let bytes = self.blocks as f64 * self.work.bytes;
        (waves * cycles / machine.cycles_per_us).max(bytes / machine.bytes_per_us)
    }
}

/// The launches beside attention, of so many tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Query tokens, each of another sequence.
    pub tokens: usize,
    /// `absorb_query`, as it is in `prepare`.
    pub absorb: Beside,
    /// `rope_append`, as it is in `prepare`.
    pub append: Beside,
    /// `expand_output`.
    pub expand: Beside,
}

/// Predicted microseconds of a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepTime {
    /// `prepare`.
    pub prepare_us: f64,
    /// Attention with its merge.
    pub attend_us: f64,
    /// `expand_output`.
    pub expand_us: f64,
    /// All three, one after the other.
    pub step_us: f64,
    /// The same if of each launch but the first nothing is left.
    pub overlapped_us: f64,
}

/// Launches of a step.
const LAUNCHES: f64 = 3.0;

impl Step {
    /// The time, with that of attention.
    #[must_use]
    pub fn time(&self, constants: &Constants, machine: &Machine, attend_us: f64) -> StepTime {
        let launch = constants.launch_us / 2.0;
        let us = |beside: &Beside| beside.us(constants, machine);
        let prepare_us = launch + us(&self.absorb).max(us(&self.append));
        let expand_us = launch + us(&self.expand);
        let step_us = prepare_us + attend_us + expand_us;
        StepTime { prepare_us, attend_us, expand_us, step_us, overlapped_us: step_us - (LAUNCHES - 1.0) * launch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_add_up_and_of_two_that_run_side_by_side_the_slower_counts() {
        let machine = Machine { multiprocessors: 10, cycles_per_us: 1000.0, bytes_per_us: 1e6, ..crate::machine::H200 };
        let constants = Constants { launch_us: 4.0, rest_lone: 2.0, rest_issue: 1.0, ..Constants::default() };
        let beside = |blocks, lone, issue, bytes| Beside {
            blocks,
            resident: 2,
            work: Work { lone, issue, bytes, ..Work::default() },
        };
        // One block on each multiprocessor; two; three waves of two; and one that its bytes hold up.
        let cases = [
            (beside(10, 100.0, 50.0, 0.0), 0.25),
            (beside(11, 100.0, 50.0, 0.0), 0.3),
            (beside(41, 100.0, 50.0, 0.0), 0.9),
            (beside(10, 100.0, 50.0, 1e6), 10.0),
        ];
        for (beside, us) in cases {
            assert!((beside.us(&constants, &machine) - us).abs() < 1e-9, "{beside:?}");
        }
        let [(append, _), (expand, _), (absorb, _), _] = cases;
        let time = Step { tokens: 1, absorb, append, expand }.time(&constants, &machine, 7.0);
        let expected = StepTime { prepare_us: 2.9, attend_us: 7.0, expand_us: 2.3, step_us: 12.2, overlapped_us: 8.2 };
        for (us, expected) in [
            (time.prepare_us, expected.prepare_us),
            (time.attend_us, expected.attend_us),
            (time.expand_us, expected.expand_us),
            (time.step_us, expected.step_us),
            (time.overlapped_us, expected.overlapped_us),
        ] {
            assert!((us - expected).abs() < 1e-9, "{time:?}");
        }
    }
}
