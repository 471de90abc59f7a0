//! Recovery of converted models: the student, whose attention is latent and reads from a 4-bit cache, learns to say what
//! the original says.
//!
//! - [`ops`] are the differentiable operations, on the CPU each with its backward pass written by hand;
//! - [`frame`] is a model without its attention, [`original`] the model that is learnt from, [`student`] the one that
//!   learns, [`weight`] one of its weights, frozen, trained or with a low-rank addition;
//! - [`step`] computes one step's loss and gradients, [`adamw`] moves the weights, [`train`] is the whole run;
//! - [`data`] cuts and shuffles text, [`held_out`] evaluates, [`checkpoint`], [`log`] and [`plot`] write files;
//! - [`lesson`] puts a run together; [`start`] and [`balance`] make the layers that it begins with; [`args`] and [`run`] are
//!   the program.
#![deny(missing_docs)]

pub mod adamw;
pub mod args;
pub mod balance;
pub mod checkpoint;
pub mod data;
pub mod files;
pub mod frame;
pub mod held_out;
pub mod lesson;
pub mod log;
pub mod ops;
pub mod original;
pub mod plot;
pub mod run;
pub mod start;
pub mod step;
pub mod student;
#[cfg(test)]
mod tiny;
pub mod train;
pub mod weight;
