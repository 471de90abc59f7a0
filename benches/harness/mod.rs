//! What the benchmarks share: shapes and sweeps, devices and their memory, clock and meter, and what becomes of the
//! results.

pub mod cache;
pub mod ceilings;
pub mod chart;
pub mod clock;
pub mod command;
pub mod compare;
pub mod counts;
pub mod lab;
pub mod memory;
pub mod plot;
pub mod predict;
pub mod report;
pub mod shape;
pub mod sweep;
pub mod table;
