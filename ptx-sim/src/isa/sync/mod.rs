//! Instructions by which lanes, warps and blocks wait for each other or exchange values, and those that steer a warp.
//!
//! `converge` says which lanes take part in a warp-wide instruction. A family that makes threads wait for each other
//! belongs here, for objects in shared memory and across a cluster too.

pub(crate) mod barrier;
pub(crate) mod cluster_barrier;
pub(crate) mod control;
pub(crate) mod converge;
pub(crate) mod fence;
pub(crate) mod mbarrier;
mod mbarrier_wait;
mod object;
pub(crate) mod redux;
pub(crate) mod registers;
pub(crate) mod warp;
