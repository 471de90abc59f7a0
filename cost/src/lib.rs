//! What a kernel's machine code costs on each pipe of a multiprocessor, and the time that follows.
//!
//! docs/cost.md says what is modelled, how well, and what is not.

pub mod calibrate;
pub mod counts;
pub mod law;
pub mod layer;
pub mod lone;
pub mod machine;
pub mod measured;
pub mod models;
pub mod plan;
pub mod report;
pub mod rows;
pub mod sass;
pub mod simulate;
pub mod step;
pub mod survey;
pub mod tools;
pub mod work;
