//! The reference against what it stands for: formulas written down naively, and tables of published sizes.

mod absorb;
mod cache;
mod combine;
#[path = "../common/mod.rs"]
mod common;
mod decode;
mod gather;
mod geometry;
mod layer;
mod range;
mod rope;
mod rope_append;
mod schedule;
mod up_project;
mod weights;
