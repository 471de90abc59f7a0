//! Running a launch: clusters of blocks on cores, warps in turn, 32 lanes at a time.
//!
//! From bottom to top:
//!
//! - What an instruction is told of its operands: `source`, `lanes`. `vectors`: loops over lanes.
//! - The state of a launch. `grid`: what all blocks share. `block`: shared memory and barriers, `mbarrier`s,
//!   `registers`, and the `cluster` of blocks with its asynchronous operations in `flight` and the `engines` in whose
//!   name they write, `held` within limits, its `cluster_barrier`, and what the `exit` of a block must not come before;
//!   four warps are a `warpgroup`. `warp`: a `register_file` in `frame`s, one per level of calls, and the work that a
//!   warp has begun and not ended: lanes in a `meeting` at a barrier, what they `wait` for, `groups` of copies, those
//!   of bulk copies as a `bulk_group`, and `products` in flight. What an instruction family has to remember from one
//!   instruction to the next gets a file here and a field of the block or the warp. `ledger`: what the meter and the
//!   checker have written down. `pool`: room that ended clusters have left.
//! - What an instruction sees of it all, the `context`, and its accesses to memory, a `target` for each lane.
//! - The `program`: functions whose instructions are closures over a context.
//! - What runs it. `job`: a kernel and its grid. `turn`: a warp. `rounds`: the warps of a cluster, until they `stall` in a
//!   `deadlock`, as a `watch` over the `flow` of their registers shows. `launch`: all clusters, which are `peers`.

mod block;
mod bulk_group;
mod cluster;
mod cluster_barrier;
mod context;
mod copies;
mod deadlock;
mod engines;
mod exit;
mod flight;
mod flow;
mod frame;
mod grid;
mod groups;
mod held;
mod job;
mod lanes;
mod launch;
mod ledger;
mod mbarrier;
mod meeting;
mod peers;
mod pool;
mod products;
mod program;
mod register_file;
mod registers;
mod rounds;
mod source;
mod stall;
mod target;
mod turn;
mod vectors;
mod wait;
mod warp;
mod warpgroup;
mod watch;

pub(crate) use cluster::Cluster;
pub(crate) use context::{Context, Outcome};
pub(crate) use copies::{Transfer, WIDEST_COPY};
pub(crate) use flight::{Delivery, Flight, Merge, Place, Signal};
pub(crate) use flow::{Flow, PREDICATE};
pub(crate) use frame::{FRAME_LOCAL, FRAME_PARAMS, FrameSize, Slot};
pub(crate) use grid::Grid;
pub(crate) use job::Job;
pub(crate) use lanes::{LANES, Lanes, Words, lanes_of};
pub(crate) use launch::run;
pub(crate) use mbarrier::{GREATEST_COUNT, MBARRIER_BYTES, Mbarrier, State};
pub(crate) use meeting::{Meeting, Site};
pub(crate) use pool::Pool;
pub(crate) use products::Shape;
pub(crate) use program::{Action, Builtin, Call, Callee, Code, Effect, Guard, Program, Run, Step};
pub(crate) use register_file::{Word, register_number};
pub(crate) use registers::Request;
pub(crate) use source::{Source, Special, function_address};
pub(crate) use target::{SHARED_SPAN, Target, address_in, named_rank};
pub(crate) use vectors::{Kernel, Vectors, has_wide_vectors, run as run_vectors};
pub(crate) use wait::{Goal, Wait};
pub(crate) use warpgroup::{WARPS, Warpgroup};
