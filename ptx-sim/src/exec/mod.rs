//! Running a launch: clusters of blocks on cores, warps in turn, 32 lanes at a time.

mod block;
mod context;
mod grid;
mod warp;

pub(crate) use context::{Context, LANES, Lanes, Outcome};
pub(crate) use grid::{Grid, lanes_of, run};
pub(crate) use warp::{FRAME_LOCAL, FRAME_PARAMS};
