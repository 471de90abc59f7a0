//! Benchmarks of every operation and of a layer's whole decode step: timed on a GPU, counted on the simulator.
//!
//! One program: `cargo bench` builds and runs it, and `cargo xtask gpu-check` puts it into target/gpu for machines
//! without cargo. docs/benchmarks.md says how to use it and how to read what it prints.

mod absorb;
mod combine;
mod copy_pages;
pub(crate) mod decode;
mod gather;
pub(crate) mod harness; // as `tune` and `OPERATIONS`: tests/benchmarks includes this file
mod head_norm;
mod layer;
mod rope_append;
mod schedule;
pub(crate) mod tune;
mod up_project;

use std::process::ExitCode;

use harness::shape::Operation;

/// In the order in which they are measured: what matters most first, in case time runs out.
pub(crate) const OPERATIONS: [&Operation; 13] = [
    &decode::DECODE,
    &layer::LAYER,
    &absorb::ABSORB_QUERY,
    &absorb::EXPAND_OUTPUT,
    &absorb::ABSORB_QUERY_INVARIANT,
    &absorb::EXPAND_OUTPUT_INVARIANT,
    &up_project::UP_PROJECT,
    &gather::GATHER,
    &rope_append::ROPE_APPEND,
    &head_norm::HEAD_NORM,
    &copy_pages::COPY_PAGES,
    &combine::COMBINE,
    &schedule::SCHEDULE,
];

fn main() -> anyhow::Result<ExitCode> {
    harness::command::main(&OPERATIONS)
}
